"""Random records and random questions: the answers are those of a search that looks at every resource.

GIT_FHIR_SEARCH_EXAMPLES says how many of each kind are tried, new ones in each run; without it they are always the same.
"""

from __future__ import annotations

import itertools
import os
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from search_oracle import Records
from search_strategies import IDS, REFERENCES, asked, one_resource, queries, records, sorts, types
from searches import ADA, id_of

from gitstore import Delete, Settings, Store, Update, init
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId
from tests.conftest import copy_record

EXAMPLES = os.environ.get("GIT_FHIR_SEARCH_EXAMPLES")
TRIED = settings(
    max_examples=int(EXAMPLES or 14),
    deadline=None,
    database=None,
    derandomize=EXAMPLES is None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.fixture
def worlds(tmp_path):
    """Makes a new store for each example, from a copy of an empty record, and closes the one before."""
    ticks = itertools.count(1_767_268_800_000_000, 10_000_000)
    unchecked = Settings(durability="off", validation="off", maintenance="off")
    numbers = itertools.count(1)
    empty = init(tmp_path / "empty", clock=lambda: next(ticks))
    Store.open(empty, unchecked, clock=lambda: next(ticks)).close()
    opened = []

    def make():
        while opened:
            opened.pop().close()
        copy = copy_record(empty, tmp_path / str(next(numbers)))
        # The time of a record is what its tests say of _lastUpdated: the same in each example.
        ticks = itertools.count(1_767_268_810_000_000, 10_000_000)
        store = Store.open(copy, unchecked, clock=lambda: next(ticks))
        opened.append(store)
        return store

    yield make
    while opened:
        opened.pop().close()


def write(store, resources):
    """Half of them in a transaction, the others one by one."""
    half = len(resources) // 2
    if half:
        store.commit([Update(id_of(one), one) for one in resources[:half]], ADA)
    for one in resources[half:]:
        store.commit([Update(id_of(one), one)], ADA)


def as_stored(snapshot):
    """Every current resource, and a search of all of them that uses no index."""
    resources = [json.loads_trusted(snapshot.body(version)) for version in snapshot.resources()]
    return Records(resources, now=snapshot.commit.last_updated)


def ids(page):
    return [match.version.resource_id.id for match in page.matches]


def compare(store, questions):
    with store.reading() as snapshot:
        oracle = as_stored(snapshot)
        for type, pairs in questions:
            page = snapshot.search((type,), pairs, strict=True)
            expected = oracle.matches(type, urlencode(pairs))
            note(f"{type}?{urlencode(pairs)} -> {sorted(expected)}")
            assert sorted(ids(page)) == sorted(expected), f"{type}? {pairs}"
            assert page.total == len(expected)


def test_the_same_answers_as_without_an_index(worlds):
    """Of a new record, and again after resources were changed, deleted, and brought back."""

    @TRIED
    @given(
        records,
        st.lists(asked(), min_size=6, max_size=10),
        st.lists(one_resource, max_size=5, unique_by=id_of),
        st.lists(st.builds(ResourceId, types, st.sampled_from(IDS)), max_size=5),
    )
    def run(resources, questions, changes, deletions):
        store = worlds()
        write(store, resources)
        compare(store, questions)
        for name in deletions:
            store.commit([Delete(name)], ADA)
        write(store, changes)
        compare(store, questions)

    run()


def test_a_rebuilt_index_gives_the_same_answers(worlds):
    @settings(TRIED, max_examples=max(1, TRIED.max_examples // 5))
    @given(
        records,
        st.lists(one_resource, max_size=5, unique_by=id_of),
        st.lists(asked(), min_size=5, max_size=10),
    )
    def run(resources, changes, questions):
        store = worlds()
        write(store, resources)
        write(store, changes)
        store.reindex()
        compare(store, questions)

    run()


wishes = types.filter(lambda type: type != "ValueSet").flatmap(
    lambda type: st.tuples(
        st.just(type),
        queries(type, depth=1),
        st.lists(include_of(type), min_size=1, max_size=3),
    )
)


def include_of(type):
    """_include of what a type refers to or revinclude of what refers to it, and further from there."""
    sources = [
        (source, code, target)
        for source, codes in REFERENCES.items()
        for code in codes
        for target in codes[code]
    ]
    out = [("_include", f"{source}:{code}") for source, code, _ in sources if source == type]
    into = [("_revinclude", f"{source}:{code}") for source, code, target in sources if target == type]
    narrow = [("_include", f"{source}:{code}:{target}") for source, code, target in sources if source == type]
    further = [
        (f"{kind}:iterate", f"{source}:{code}")
        for kind in ("_include", "_revinclude")
        for source, code, _ in sources
    ]
    return st.one_of([st.sampled_from(some) for some in (out, into, narrow, further) if some])


def test_the_same_resources_are_included(worlds):
    """Each once, none that is a match, with :iterate until nothing new comes."""

    @TRIED
    @given(records, st.lists(wishes, min_size=3, max_size=6))
    def run(resources, questions):
        store = worlds()
        write(store, resources)
        with store.reading() as snapshot:
            oracle = as_stored(snapshot)
            for type, pairs, includes in questions:
                text = urlencode([*pairs, *includes])
                expected = oracle.included(type, text, oracle.matches(type, urlencode(pairs)))
                page = snapshot.search((type,), [*pairs, *includes], strict=True)
                brought = sorted((one.resource_id.type, one.resource_id.id) for one in page.included)
                assert brought == sorted(expected), f"{type}?{text}"

    run()


ordered_questions = types.flatmap(
    lambda type: st.tuples(st.just(type), queries(type, depth=1).map(lambda pairs: pairs[:1]), sorts(type))
)


def test_sorted_and_paged(worlds):
    """In an order that the oracle agrees with; and pages of any size are that list, cut up, both ways."""

    @TRIED
    @given(records, st.lists(ordered_questions, min_size=2, max_size=4), st.integers(1, 3), st.booleans())
    def run(resources, questions, count, is_sorted):
        store = worlds()
        write(store, resources)
        with store.reading() as snapshot:
            oracle = as_stored(snapshot)
            for type, plain, sort in questions:
                pairs = [*plain, ("_sort", sort)] if is_sorted else plain
                whole = ids(snapshot.search((type,), pairs, strict=True))
                assert sorted(whole) == sorted(oracle.matches(type, urlencode(pairs))), (type, pairs)
                if is_sorted:
                    for one, other in itertools.pairwise(whole):
                        assert oracle.compare(type, sort, one, other) <= 0, (sort, whole)
                assert_pages(snapshot, type, [*pairs, ("_count", str(count))], whole, count)

    run()


def assert_pages(snapshot, type, pairs, whole, count):
    page = snapshot.search((type,), pairs)
    pages = [page]
    assert page.previous is None
    while page.next is not None:
        page = snapshot.search((type,), pairs, page=page.next)
        pages.append(page)
    assert [ids(one) for one in pages] == [whole[at : at + count] for at in range(0, len(whole), count)] or [
        ids(one) for one in pages
    ] == [[]]
    assert {one.total for one in pages} == {len(whole)}
    for before in reversed(pages[:-1]):
        assert page.previous is not None
        page = snapshot.search((type,), pairs, page=page.previous)
        assert ids(page) == ids(before)
    assert page.previous is None


changes = st.lists(st.one_of(one_resource, st.builds(ResourceId, types, st.sampled_from(IDS))), max_size=3)


def test_paging_while_others_write(worlds):
    """Nothing twice, nothing that stayed as it was missing, nothing that came later."""

    @TRIED
    @given(records, types, st.data(), st.integers(1, 2), st.lists(changes, min_size=2, max_size=6))
    def run(resources, type, data, count, turns):
        sort = data.draw(st.none() | sorts(type))
        pairs = [("_count", str(count))] + ([("_sort", sort)] if sort else [])
        store = worlds()
        write(store, resources)
        with store.reading() as snapshot:
            at_first = {str(version) for version in snapshot.resources(type)}
        seen, token = [], None
        for turn in itertools.chain(turns, itertools.repeat([])):
            with store.reading() as snapshot:
                page = snapshot.search((type,), pairs, page=token)
            seen += [str(match.version) for match in page.matches]
            token = page.next
            if token is None:
                break
            for change in turn:
                named = isinstance(change, ResourceId)
                store.commit([Delete(change) if named else Update(id_of(change), change)], ADA)
        with store.reading() as snapshot:
            unchanged = at_first & {str(version) for version in snapshot.resources(type)}
        assert len(set(seen)) == len(seen)
        assert set(seen) <= at_first
        assert unchanged <= set(seen)

    run()
