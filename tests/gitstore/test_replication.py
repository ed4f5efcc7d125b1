"""A record's history taken over by another: the same versions, dates, authors and bytes, or nothing at all."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore import (
    ANONYMOUS,
    Author,
    Conflict,
    Create,
    Delete,
    Idempotency,
    Interaction,
    Invalid,
    Replica,
    ReplicaVersion,
    Settings,
    Store,
    Unprocessable,
    Update,
    commit_extensions,
    history_entry,
    init,
    is_held,
    replicas_of,
)
from gitstore.cluster.cluster import Cluster
from gitstore.errors import StoreError
from gitstore.fhir import json
from gitstore.fhir.dates import SECOND, format_instant
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.outbox import Outbox
from gitstore.git.writer import Writer
from tests.conftest import copy_record

START = 1_767_268_800_000_000
UNCHECKED = Settings(durability="off", validation="off")
A, B, C = ResourceId("Patient", "a"), ResourceId("Observation", "b"), ResourceId("Patient", "c")
ADA, EVE = Author("Ada Lovelace", "ada@clinic.example"), Author("Eve, of Ünïcode", "eve@clinic.example")
EMPTIED = START + 1_000_000 * SECOND
"""When the records that take over were made: long after all that the sources tell."""


def put(id: ResourceId, **content: Any) -> Update:
    return Update(id, {"resourceType": id.type, "id": id.id, **content})


def opened(path: object, settings: Settings = UNCHECKED, start: int = START) -> Store:
    """A store whose clock goes a second further at each look."""
    seconds, numbers = itertools.count(1), itertools.count(1)
    return Store.open(
        str(path),
        settings,
        clock=lambda: start + next(seconds) * SECOND,
        new_id=lambda: f"new-{next(numbers)}",
    )


@pytest.fixture(scope="session")
def new_empty(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes empty records, with their index, that are younger than every history here."""
    folder = tmp_path_factory.mktemp("empty")
    numbers = itertools.count(1)
    template = init(folder / "0.git", clock=lambda: EMPTIED)
    opened(template).close()
    return lambda: str(copy_record(template, folder / f"{next(numbers)}.git"))


@pytest.fixture
def empty(new_empty: Callable[[], str]) -> str:
    return new_empty()


def tell(store: Store) -> None:
    """A story of five commits: a created, a and b in one transaction, a deleted, revived, and c created by POST."""
    store.commit([put(A)], ADA, message="Admission.\n\nBy ambulance.", request_id="first")
    store.commit([put(B), put(A, active=True)], EVE, interaction="transaction")
    store.commit([Delete(A)], ADA)
    store.commit([put(A, gender="female")], ADA)
    key = Idempotency("key-1", "0" * 64)
    store.commit([Create({"resourceType": "Patient"})], EVE, idempotency=key)


def bundle_of(store: Store, *, since: int | None = None, details: bool = False) -> Any:
    """The history as a Bundle that has been on the wire, with all that a commit says if `details`."""
    snapshot = store.snapshot()
    entries = []
    for version in snapshot.history(since=since, count=100_000).versions:
        resource = None if version.deleted else json.Raw(snapshot.body(version))
        entry = history_entry("http://source.example/fhir", version, resource)
        if details:
            words = store.message(version.commit)
            entry["response"]["extension"] += commit_extensions(version.commit, words)
        entries.append(entry)
    return json.loads(json.dumps({"resourceType": "Bundle", "type": "history", "entry": entries}))


def replicas(store: Store, *, since: int | None = None, details: bool = False) -> list[Replica]:
    return replicas_of(bundle_of(store, since=since, details=details), ANONYMOUS)


def state(store: Store) -> list[object]:
    """All that a history shows of each version, with its bytes; commits by their place, as their ids differ."""
    snapshot = store.snapshot()
    return [
        (
            str(version),
            version.verb,
            version.created,
            version.position,
            version.last_updated,
            version.commit.author,
            version.commit.sequence,
            None if version.deleted else snapshot.body(version),
        )
        for version in snapshot.history(count=100_000).versions
    ]


def commits(store: Store) -> list[object]:
    """All that the commits after the first one say."""
    last = store.snapshot().commit.sequence
    found = [store.snapshot(sequence).commit for sequence in range(2, last + 1)]
    return [
        (each.interaction, each.author, each.request_id, each.idempotency, store.message(each))
        for each in found
    ]


@pytest.fixture
def told(record: str) -> Any:
    """The store of a record with a story."""
    with opened(record) as store:
        tell(store)
        yield store


# Moving


RESOURCES = st.sampled_from([A, B, C])
CONTENT = st.fixed_dictionaries(
    {},
    optional={
        "language": st.sampled_from(["de", "en", 'π𝄞"\\\x7f']),
        "extension": st.sampled_from(["1.00", "1.0e2", "-0.0", "12345678901234567890.10"]).map(
            lambda digits: [{"url": "urn:x", "valueDecimal": json.loads(digits.encode())}]
        ),
        "meta": st.just({"tag": [{"code": "x"}], "versionId": "77"}),
    },
)
WRITES: st.SearchStrategy[Interaction] = st.one_of(
    st.builds(lambda id, content: put(id, **content), RESOURCES, CONTENT),
    st.builds(Delete, RESOURCES),
    st.builds(lambda content: Create({"resourceType": "Patient", **content}), CONTENT),
)
UNITS = st.lists(WRITES, min_size=1, max_size=4, unique_by=lambda each: getattr(each, "target", id(each)))
STORIES = st.lists(st.tuples(UNITS, st.sampled_from([ADA, EVE])), min_size=1, max_size=8)


@settings(max_examples=8, deadline=None)
@given(STORIES, st.integers(0, 8), st.booleans())
def test_a_story_that_is_taken_over_is_the_same_story(
    new_record: Callable[[], str],
    new_empty: Callable[[], str],
    story: list[tuple[list[Interaction], Author]],
    cut: int,
    details: bool,
) -> None:
    """Every version with its number, date, author and bytes, in one piece or two; open, opened anew, and reindexed."""
    copy = new_empty()
    with opened(new_record()) as source, opened(copy) as target:
        for number, (unit, author) in enumerate(story):
            interaction = "transaction" if len(unit) > 1 else None
            source.commit(unit, author, interaction=interaction, message=f"Number {number}.")
        taken = replicas(source, details=details)
        for piece in (taken[:cut], taken[cut:]):
            outcomes = target.replicate(piece)
            assert [outcome.version and outcome.version.version_id for outcome in outcomes] == [
                version.version_id for replica in piece for version in replica.versions
            ]
        wanted, told = state(source), commits(source)
        assert state(target) == wanted
        assert all(is_held(target.snapshot(), replica) for replica in taken)
        assert not details or commits(target) == told
        assert list(target.verify()) == []
        for id in (A, B, C):
            assert target.indexed(id) == source.indexed(id)
    with opened(copy) as target:
        assert state(target) == wanted
        target.reindex()
        assert state(target) == wanted


def test_the_commits_say_what_those_of_the_source_say(told: Store, empty: str) -> None:
    """Interaction, words, request id and idempotency key, where the Bundle has them; the committer is this server."""
    with opened(empty) as target:
        target.replicate(replicas(told, details=True))

        assert commits(target) == commits(told)


def test_a_history_of_versions_alone_tells_the_interaction(told: Store, empty: str) -> None:
    """As our own `_history` has it: one version says it itself, several are a transaction."""
    with opened(empty) as target:
        target.replicate(replicas(told))

        found = [target.snapshot(sequence).commit.interaction for sequence in range(2, 7)]
        assert found == ["update", "transaction", "delete", "update", "create"]


@pytest.mark.parametrize("interaction", ["adopt", "init", "anything"])
def test_an_interaction_that_can_not_be_repeated_is_what_the_version_says(
    empty: str, interaction: str
) -> None:
    """An adoption has a second parent, which is not here: it would make the commit foreign. docs/format.md"""
    taken = Replica((version(A, 1),), ADA, START, interaction, words="Two\x00 words.", request_id="not one!")
    with opened(empty) as target:
        target.replicate([taken])

        commit = target.snapshot().commit
        assert (commit.interaction, commit.request_id) == ("update", None)
        assert target.message(commit) == "Two  words."
    with opened(empty) as target:
        target.reindex()
        assert target.snapshot().commit == commit


def test_the_copy_goes_on_where_the_source_ended(told: Store, empty: str) -> None:
    """The next version of a resource, a later date; a request with a known key is not done again."""
    with opened(empty) as target:
        target.replicate(replicas(told, details=True))
        before = target.snapshot().commit

        [outcome] = target.commit([put(A)], ADA)
        again = target.commit(
            [Create({"resourceType": "Patient"})], EVE, idempotency=Idempotency("key-1", "0" * 64)
        )

        assert outcome.version is not None
        assert outcome.version.version_id == 5
        assert outcome.version.last_updated > before.last_updated
        assert str(again[0].version) == "Patient/new-1/_history/1"


def test_what_came_later_is_taken_over_later(told: Store, empty: str) -> None:
    """A history since an instant goes on where the record ends."""
    with opened(empty) as target:
        target.replicate(replicas(told))
        last = told.snapshot().commit.last_updated
        told.commit([put(B, language="de")], ADA)

        target.replicate(replicas(told, since=last + 1))

        assert state(target) == state(told)


def test_a_record_of_its_own_takes_over_what_is_later_and_other(told: Store, new_record: Any) -> None:
    with opened(new_record(), start=START - 100 * SECOND) as target:
        target.commit([put(ResourceId("Patient", "own"))], ADA)

        target.replicate(replicas(told))

        assert state(target)[: len(state(told))] != []
        assert len(state(target)) == len(state(told)) + 1
        assert list(target.verify()) == []


def test_nothing_to_take_over_is_nothing_done(empty: str) -> None:
    with opened(empty) as target:
        before = target.snapshot().commit
        assert target.replicate([]) == []
        assert target.snapshot().commit == before


# An empty record


def test_an_empty_record_is_made_as_if_it_were_older(told: Store, empty: str, git_in: Any) -> None:
    """Its one commit gets a date right before the history, author and files as they were. docs/format.md"""
    git = git_in(empty)
    files = git("rev-parse", "main^{tree}")
    with opened(empty) as target:
        target.replicate(replicas(told))

        first = target.snapshot(1).commit
        assert first.last_updated == START + SECOND - 1
        assert git("rev-list", "--max-parents=0", "main") == first.id
        assert git("rev-parse", f"{first.id}^{{tree}}") == files
        assert git("fsck", "--full", "--strict", "--no-dangling") == ""


def test_a_record_that_is_old_enough_keeps_its_first_commit(told: Store, new_record: Any) -> None:
    with opened(new_record()) as target:
        first = target.snapshot().commit

        target.replicate(replicas(told))

        assert target.snapshot(1).commit == first


def test_a_history_that_begins_before_the_record_is_not_put_aside_for_the_hub(
    told: Store, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main doesn't go on from where it was then, and only git looks whether it does. What follows is."""
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    hub = tmp_path / "hub.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", empty, str(hub)], check=True)
    with opened(empty, replace(UNCHECKED, hub=str(hub)), EMPTIED) as copy:
        mains = [copy.snapshot().commit.id]
        copy.replicate(replicas(told))
        mains.append(copy.snapshot().commit.id)
        copy.commit([put(A)], ADA)
        mains.append(copy.snapshot().commit.id)
        outbox = Outbox(empty)
        assert outbox.pack(mains[0], mains[1]) is None
        assert outbox.pack(mains[1], mains[2]) is not None


def test_who_has_the_empty_record_open_sees_what_it_took_over(told: Store, empty: str) -> None:
    with opened(empty) as target, opened(empty) as other:
        assert other.snapshot().commit.sequence == 1
        target.replicate(replicas(told))

        assert state(other) == state(told)
        other.commit([put(A)], ADA)
        assert len(state(target)) == len(state(told)) + 1


def test_a_crash_before_the_index_knew_is_made_good(told: Store, empty: str, tmp_path: Path) -> None:
    """main has moved and the index still holds the old first commit: whoever comes next reads all of it anew."""
    before = tmp_path / "before"
    shutil.copytree(os.path.join(empty, "git-fhir"), before, symlinks=True)
    with opened(empty) as target:
        target.replicate(replicas(told))
    shutil.rmtree(os.path.join(empty, "git-fhir"))
    shutil.copytree(before, os.path.join(empty, "git-fhir"), symlinks=True)
    writer = Writer(empty, durable=False)
    with writer.locked():
        writer.mark_index(behind=True)
    writer.close()

    with opened(empty) as target:
        assert state(target) == state(told)
        assert list(target.verify()) == []
        target.commit([put(A)], ADA)


def test_main_that_was_forced_elsewhere_is_still_refused(
    told: Store, empty: str, git_in: Any, record: str
) -> None:
    """Only who took over a history may give an empty record another first commit: nobody pushes one."""
    git_in(empty)("fetch", "--quiet", record, "+main:main")
    with opened(empty) as target, pytest.raises(StoreError, match="no longer holds"):
        target.commit([put(A)], ADA)


# Refusals: nothing at all is written


def replica(*versions: ReplicaVersion, at: int = START, author: Author = ADA) -> Replica:
    return Replica(versions, author, at)


def version(
    id: ResourceId, number: int, *, verb: Any = "PUT", entry: int = 0, **content: Any
) -> ReplicaVersion:
    resource = None if verb == "DELETE" else {"resourceType": id.type, "id": id.id, **content}
    return ReplicaVersion(verb, id, VersionId(number), resource, entry)


def refused(store: Store, taken: Sequence[Replica], kind: type[StoreError], text: str, entry: int) -> None:
    """The whole is refused for this reason and entry; the record stays as it is, and nothing is burnt."""
    before, commit = state(store), store.snapshot().commit
    with pytest.raises(kind, match=text) as caught:
        store.replicate(taken)
    assert type(caught.value) is kind
    assert caught.value.entry == entry
    assert (state(store), store.snapshot().commit) == (before, commit)


def test_the_same_again_is_refused(told: Store, empty: str) -> None:
    with opened(empty) as target:
        target.replicate(replicas(told))
        refused(target, replicas(told), Conflict, "a history must go on later", 5)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (version(A, 3, entry=7), "`Patient/a` is at version 1; the next is 2, and not 3."),
        (version(A, 1, entry=7), "the next is 2, and not 1"),
        (version(B, 2, entry=7), "`Observation/b` has no version yet; the next is 1, and not 2."),
        (version(A, 2, verb="POST", entry=7), "`Patient/a` is in use"),
        (version(B, 1, verb="DELETE", entry=7), "`Observation/b` isn't there"),
    ],
)
def test_a_version_that_is_not_the_next_refuses_all(empty: str, bad: ReplicaVersion, text: str) -> None:
    """The commits before it in the same Bundle too; what is right is taken over afterwards as if nothing had been."""
    good = replica(version(A, 1, entry=9))
    with opened(empty) as target:
        refused(target, [good, replica(bad, at=START + 1)], Conflict, text, 7)

        target.replicate([good, replica(version(A, 2), at=START + 1)])

        assert [found[0] for found in state(target)] == [
            "Patient/a/_history/2",
            "Patient/a/_history/1",
        ]
        assert list(target.verify()) == []


def test_dates_increase_from_commit_to_commit(empty: str) -> None:
    with opened(empty) as target:
        for later in (START, START - 1):
            taken = [replica(version(A, 1)), replica(version(A, 2, entry=3), at=later)]
            refused(target, taken, Conflict, "newest entries first", 3)


def test_dates_that_no_commit_can_have_are_refused(empty: str) -> None:
    """The future beyond five minutes, as nothing else could be written until then; and the time before git's."""
    with opened(empty) as target:
        far = START + 310 * SECOND
        refused(target, [replica(version(A, 1, entry=2), at=far)], Unprocessable, "five minutes ahead", 2)
        refused(target, [replica(version(A, 1, entry=2), at=-1)], Unprocessable, "older than 1970", 2)
        target.replicate([replica(version(A, 1), at=SECOND)])
        assert target.snapshot(1).commit.last_updated == SECOND - 1
        assert list(target.verify()) == []


def test_what_a_write_would_be_refused_for_is_refused(empty: str) -> None:
    """Validation as set, references as set, and one version of a resource in a commit."""
    with opened(empty, Settings(durability="off")) as target:
        bad = version(A, 1, entry=4, gender="ship")
        refused(target, [replica(bad)], Unprocessable, "ship", 4)
    with opened(
        empty, Settings(durability="off", validation="off", referential_integrity="enforce")
    ) as target:
        bad = version(B, 1, entry=4, subject={"reference": "Patient/a"})
        refused(target, [replica(bad)], Unprocessable, "Patient/a", 4)
        target.replicate([replica(bad, version(A, 1))])
    with opened(empty) as target:
        refused(target, [replica(version(C, 1), version(C, 2, entry=1))], Invalid, "two versions", 1)


# Bundles


def entry(**changes: Any) -> dict[str, Any]:
    """A plain entry of another server; None leaves something out."""
    found: dict[str, Any] = {
        "fullUrl": "http://other.example/Patient/a",
        "resource": {"resourceType": "Patient", "id": "a"},
        "request": {"method": "PUT", "url": "Patient/a"},
        "response": {"status": "200", "etag": 'W/"1"', "lastModified": format_instant(START)},
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def history(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "history", "entry": list(entries), **more}


def test_entries_of_other_servers_are_a_commit_each() -> None:
    """Their author is the caller, date and version may stand in meta, and the url may name the version."""
    meta = {"versionId": "2", "lastUpdated": "2026-01-01T12:00:01Z"}
    second = entry(
        resource={"resourceType": "Patient", "id": "a", "meta": meta},
        request={"method": "PATCH", "url": "Patient/a/_history/2"},
        response=None,
    )
    third = entry(
        resource=None,
        request={"method": "DELETE", "url": "Patient/a"},
        response={"status": "204", "etag": '"3"', "lastModified": "2026-01-01T12:00:02Z"},
    )
    found = replicas_of(history(third, second, entry()), EVE)

    assert [(each.last_updated - START, each.author, each.interaction) for each in found] == [
        (0, EVE, None),
        (SECOND, EVE, "patch"),
        (2 * SECOND, EVE, None),
    ]
    assert [each.versions[0].version_id for each in found] == [1, 2, 3]
    assert [each.versions[0].verb for each in found] == ["PUT", "PUT", "DELETE"]


def saying(**values: str) -> list[dict[str, str]]:
    """Extensions of ours."""
    base = "https://git-fhir.dev/StructureDefinition/"
    return [{"url": base + name.replace("_", "-"), "valueString": value} for name, value in values.items()]


def response(etag: str = 'W/"1"', at: object = "2026-01-01T12:00:00Z", **said: str) -> dict[str, Any]:
    return {"status": "200", "etag": etag, "lastModified": at, "extension": saying(**said)}


MALFORMED = [
    ("no object", "must be a JSON object"),
    (entry(request=None), "`request` must be a JSON object"),
    (entry(request={"method": "GET", "url": "Patient/a"}), "`request.method` is `GET`"),
    (entry(resource=None), "only a deletion has none"),
    (entry(request={"method": "DELETE", "url": "Patient/a"}), "only a deletion has none"),
    (entry(request={"method": "PUT", "url": "Patient/b"}), "`request.url` is `Patient/b`"),
    (entry(request={"method": "PUT", "url": "Group/a"}), "`request.url` is `Group/a`"),
    (
        entry(resource={"resourceType": "Ship", "id": "a"}, request={"method": "POST", "url": "Ship"}),
        "no resource type",
    ),
    (
        entry(resource={"resourceType": "Patient"}, request={"method": "POST", "url": "Patient"}),
        "is not an id",
    ),
    (entry(response=None), "which version it is"),
    (entry(response=response(etag="1")), "`response.etag` is `1`"),
    (entry(response={"etag": '"1"'}), "has no date"),
    (entry(response=response(at="yesterday")), "no valid date"),
    (entry(response=response(at=7)), "no instants, or differ"),
    (entry(response=response(author="nobody")), "The author is `nobody`"),
    (entry(response=response(idempotency_key="x")), "idempotency key"),
    (
        entry(resource={"resourceType": "Patient", "id": "a", "meta": {"versionId": "2"}}),
        "`meta.versionId` `2`",
    ),
    (
        entry(
            resource={"resourceType": "Patient", "id": "a", "meta": {"lastUpdated": "2026-01-02T00:00:00Z"}}
        ),
        "differ",
    ),
]


@pytest.mark.parametrize(("bad", "text"), MALFORMED, ids=[text for _, text in MALFORMED])
def test_a_malformed_entry_is_named(bad: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text) as caught:
        replicas_of(history(bad, entry()), ADA)

    assert caught.value.entry == 0
    assert caught.value.issues[0].expression is not None
    assert caught.value.issues[0].expression.startswith("Bundle.entry[0]")


def test_a_version_id_of_another_kind_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="`v1` is no version id"):
        replicas_of(history(entry(response=response(etag='W/"v1"'))), ADA)


def test_entries_of_one_commit_stand_together_and_agree() -> None:
    of_b = {
        "resource": {"resourceType": "Patient", "id": "b"},
        "request": {"method": "PUT", "url": "Patient/b"},
    }
    one = entry(response=response(commit="x"))
    [found] = replicas_of(history(entry(**of_b, response=response(commit="x")), one), ADA)
    assert [each.resource_id.id for each in found.versions] == ["a", "b"]
    with pytest.raises(Invalid, match="side by side"):
        replicas_of(history(one, entry(**of_b, response=response(commit="y")), one), ADA)
    for other in (
        response(commit="x", author="Eve <eve@x>"),
        response(commit="x", at="2026-01-01T12:00:01Z"),
    ):
        with pytest.raises(Invalid, match="differ in what they say"):
            replicas_of(history(entry(**of_b, response=other), one), ADA)


def test_a_page_of_ours_is_refused_as_it_may_cut_a_commit() -> None:
    """Of servers without our extension each entry is a commit, which no page can cut."""
    for relation in ("next", "previous"):
        link = [{"relation": relation, "url": "http://x"}]
        with pytest.raises(Unprocessable, match="one page of several"):
            replicas_of(history(entry(response=response(commit="x")), link=link), ADA)
        assert len(replicas_of(history(entry(), link=link), ADA)) == 1
    self_link = [{"relation": "self", "url": "http://x"}]
    assert len(replicas_of(history(entry(response=response(commit="x")), link=self_link), ADA)) == 1


def test_what_differs_in_anything_is_not_held(empty: str) -> None:
    """Number, date, verb, content, deletion: a record of other versions under the same ids is another record."""
    held = replica(version(A, 1, active=True))
    with opened(empty) as target:
        target.replicate([held, replica(version(A, 2, verb="DELETE"), at=START + 1)])
        snapshot = target.snapshot()

        assert is_held(snapshot, held)
        assert is_held(snapshot, replica(version(A, 2, verb="DELETE"), at=START + 1))
        for other in (
            replica(version(A, 3, active=True)),
            replica(version(B, 1)),
            replica(version(A, 1, active=True), at=START + 1),
            replica(version(A, 1, verb="POST", active=True)),
            replica(version(A, 1, active=False)),
            replica(version(A, 1, verb="DELETE")),
            replica(version(A, 2, active=True), at=START + 1),
            replica(version(A, 1, active=True), version(B, 1)),
        ):
            assert not is_held(snapshot, other)
