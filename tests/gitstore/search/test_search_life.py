"""Searching while things change: what was written is found at once, what is past is not."""

from __future__ import annotations

import pytest
from searches import (
    ADA,
    concept,
    delete,
    found,
    id_of,
    included,
    listed,
    put,
    question,
    reference,
    refused,
    resource,
    search,
    warnings,
)

from gitstore import Ask, Create, Delete, Invalid, NotFound, Settings, Store, StoreError, Unit, Update
from gitstore.fhir.ids import ResourceId


def patient(id, family, **elements):
    return resource("Patient", id, name=[{"family": family}], **elements)


def test_nothing_is_found_in_an_empty_record(store):
    """200 and an empty page, not an error. https://hl7.org/fhir/R4/search.html#errors"""
    page = search(store, "Patient?name=x&_sort=name&_include=Patient:link")

    assert (page.matches, page.included, page.total, page.next, page.previous) == ([], [], 0, None, None)


def test_what_was_written_is_found_at_once(store):
    put(store, patient("a", "Lovelace"))
    assert found(store, "Patient?family=lovelace") == {"a"}

    [outcome] = store.commit([Create({"resourceType": "Patient", "name": [{"family": "Loveday"}]})], ADA)
    assert found(store, "Patient?family=love") == {"a", outcome.version.resource_id.id}


def test_old_values_are_gone_with_an_update(store):
    put(
        store,
        patient(
            "a", "Lovelace", gender="female", birthDate="1815", telecom=[{"system": "email", "value": "x@y"}]
        ),
    )
    put(store, patient("a", "King"))

    for query in ("family=lovelace", "gender=female", "birthdate=1815", "email=x@y", "gender:missing=false"):
        assert found(store, f"Patient?{query}") == set()
    assert found(store, "Patient?family=king&gender:missing=true&gender:not=female") == {"a"}


def test_deleted_resources_are_not_found_followed_included_or_counted(store):
    """10.6, 12c.16"""
    put(store, patient("a", "Lovelace"), patient("b", "Turing"))
    put(store, resource("Observation", "o", subject=reference("Patient/a"), code=concept("|x")))
    put(store, resource("List", "l", entry=[{"item": reference("Patient/a")}]))
    assert found(store, "Patient?_list=l") == {"a"}

    delete(store, "Patient", "a")

    assert found(store, "Patient?") == {"b"}
    assert search(store, "Patient?").total == 1
    for query in (
        "_id=a",
        "family=lovelace",
        "_list=l",
        "_has:Observation:patient:code=x",
        "_lastUpdated=ge2000&_id=a",
    ):
        assert found(store, f"Patient?{query}") == set()
    assert found(store, "Observation?patient.family=lovelace") == set()
    assert found(store, "Observation?patient.gender:missing=true") == set()
    assert found(store, "Observation?patient=Patient/a") == {"o"}
    assert included(store, "Observation?_include=Observation:subject") == set()

    delete(store, "Observation", "o")
    delete(store, "List", "l")
    assert found(store, "Patient?_list=l") == set()
    assert found(store, "?") == {"Patient/b"}


def test_a_revived_resource_is_found_by_its_new_values_alone(store):
    put(store, patient("a", "Lovelace"), resource("Observation", "o", subject=reference("Patient/a")))
    delete(store, "Patient", "a")
    put(store, patient("a", "King"))

    assert found(store, "Patient?family=lovelace") == set()
    assert found(store, "Patient?family=king") == {"a"}
    assert found(store, "Observation?patient.family=king") == {"o"}
    assert included(store, "Observation?_include=Observation:subject") == {"Patient/a"}


def test_a_reference_may_come_before_what_it_refers_to(store):
    put(store, resource("Observation", "o", subject=reference("Patient/late")))
    assert found(store, "Patient?") == set()

    put(store, patient("late", "Lovelace"))

    assert found(store, "Observation?patient.family=lovelace") == {"o"}
    assert found(store, "Patient?_has:Observation:patient:_id=o") == {"late"}


def test_within_a_transaction_the_writes_before_are_seen(store):
    """All of its writes, and what they take away. https://hl7.org/fhir/R4/http.html#trules"""
    put(store, patient("a", "Lovelace"), patient("b", "Turing"))
    seen = []

    def question_of(snapshot):
        page = snapshot.search(*question("Patient?_sort=_id"))
        seen.append([str(match.version) for match in page.matches])
        return page.total

    outcomes = store.commit(
        [
            Update(ResourceId("Patient", "a"), patient("a", "King")),
            Delete(ResourceId("Patient", "b")),
            Create(patient("new", "Hopper")),
            Ask(question_of),
        ],
        ADA,
        interaction="transaction",
    )

    assert seen == [["Patient/a/_history/2", "Patient/id-1/_history/1"]]
    assert outcomes[-1].answer == 2


def test_a_transaction_that_fails_leaves_no_trace_in_searches(store):
    put(store, patient("a", "Lovelace"))

    def refuse(snapshot):
        assert snapshot.search(*question("Patient?family=king")).total == 1
        raise Invalid("no")

    with pytest.raises(StoreError):
        store.commit(
            [Update(ResourceId("Patient", "a"), patient("a", "King")), Ask(refuse)],
            ADA,
            interaction="transaction",
        )

    assert found(store, "Patient?family=king") == set()
    assert found(store, "Patient?family=lovelace") == {"a"}


def test_in_a_group_each_unit_sees_those_before_it(store):
    """The others of the group are not seen where they failed."""

    def count(snapshot):
        return snapshot.search(*question("Patient?family=lovelace")).total

    def refuse(_):
        raise Invalid("no")

    one, other, third = (patient(id, "Lovelace") for id in "abc")
    results = store.commit_each(
        [
            Unit([Update(id_of(one), one), Ask(count)], ADA, interaction="transaction"),
            Unit([Update(id_of(other), other), Ask(refuse)], ADA, interaction="transaction"),
            Unit([Update(id_of(third), third), Ask(count)], ADA, interaction="transaction"),
        ]
    )

    assert results[0][-1].answer == 1
    assert isinstance(results[1], StoreError)
    assert results[2][-1].answer == 2


def test_a_reading_sees_one_state(store):
    """What others write meanwhile is seen by the next one."""
    put(store, patient("a", "Lovelace"))
    with store.reading() as snapshot:
        before = snapshot.search(*question("Patient?"))
        put(store, patient("b", "Lovelace"))
        put(store, patient("a", "King"))
        after = snapshot.search(*question("Patient?family=lovelace"))
        body = snapshot.body(after.matches[0].version)

    assert before.total == after.total == 1
    assert b"Lovelace" in body
    assert found(store, "Patient?family=lovelace") == {"b"}


def test_a_fresh_a_kept_and_a_rebuilt_index_answer_alike(store, record, clock):
    put(
        store,
        patient("a", "Lovelace"),
        patient("b", "Turing", generalPractitioner=[reference("Practitioner/p")]),
    )
    put(store, resource("Practitioner", "p", name=[{"family": "Doe"}]))
    delete(store, "Patient", "a")
    put(store, patient("a", "King"))
    queries = (
        "Patient?family=king",
        "Patient?general-practitioner.name=doe",
        "Patient?",
        "?_lastUpdated=2026",
        "Patient?family=lovelace",
    )

    kept = [found(store, query) for query in queries]
    store.reindex()
    rebuilt = [found(store, query) for query in queries]
    with Store.open(record, Settings(validation="off"), clock=clock) as other:
        opened = [found(other, query) for query in queries]

    assert kept == rebuilt == opened
    assert kept[:2] == [{"a"}, {"b"}]


def test_another_process_sees_what_was_written(store, record, clock):
    with Store.open(record, Settings(validation="off"), clock=clock) as other:
        assert found(other, "Patient?") == set()
        put(store, patient("a", "Lovelace"))
        assert found(other, "Patient?family=lovelace") == {"a"}


# SearchParameters of the record


def nickname(**elements):
    return resource(
        "SearchParameter",
        "nickname",
        url="http://acme.org/sp/nickname",
        name="nickname",
        code="nickname",
        base=["Patient"],
        type="string",
        expression="Patient.name.where(use = 'nickname').given",
        description="Nicknames",
        **({"status": "active"} | elements),
    )


JIMMY = resource(
    "Patient", "jim", name=[{"use": "nickname", "given": ["Jimmy"]}, {"use": "official", "given": ["James"]}]
)


def test_a_stored_search_parameter_counts_after_reindex(store):
    """Until then it is unknown: its rows aren't there, and an empty answer would be a lie."""
    put(store, JIMMY, nickname())
    assert warnings(store, "Patient?nickname=jim") == ["not-supported"]
    assert refused(store, "Patient?nickname=jim", strict=True)

    store.reindex()

    assert found(store, "Patient?nickname=jim", strict=True) == {"jim"}
    assert found(store, "Patient?nickname=james", strict=True) == set()
    assert found(store, "Patient?nickname:exact=Jimmy&nickname:missing=false", strict=True) == {"jim"}
    put(store, resource("Patient", "new", name=[{"use": "nickname", "given": ["Jimbo"]}]))
    assert found(store, "Patient?nickname=jim", strict=True) == {"jim", "new"}


def test_a_parameter_that_was_taken_away_is_unknown_after_reindex(store):
    put(store, JIMMY, nickname())
    store.reindex()
    delete(store, "SearchParameter", "nickname")
    store.reindex()

    assert refused(store, "Patient?nickname=jim", strict=True) == "not-supported"


def test_a_draft_is_no_parameter(store):
    put(store, JIMMY, nickname(status="draft"))
    store.reindex()

    assert refused(store, "Patient?nickname=jim", strict=True) == "not-supported"


@pytest.mark.parametrize(
    "elements",
    [
        {"expression": "Patient.name.where("},
        {"expression": None},
        {"base": ["Nonsense"]},
        {"type": "nonsense"},
        {"code": "name"},
        {"code": "_id"},
        {"code": "a.b:c"},
        {"expression": "Patient.nonsense.unheardOf()"},
    ],
)
def test_a_parameter_that_makes_no_sense_harms_nothing_else(store, elements):
    broken = {name: value for name, value in (nickname() | elements).items() if value is not None}
    put(store, JIMMY, patient("a", "Lovelace"), broken)

    store.reindex()

    assert found(store, "Patient?family=lovelace") == {"a"}
    assert found(store, "Patient?name=lovelace") == {"a"}
    put(store, patient("b", "Lovelace"))
    assert found(store, "Patient?_id=a,b") == {"a", "b"}


# Pages


def many(store, count=7):
    put(
        store,
        *[patient(f"p{n}", f"Name {count - n}", gender="male" if n % 2 else "female") for n in range(count)],
    )


def walk(store, text, **options):
    """Ids of each page, from first to last."""
    pages, token = [], None
    while True:
        page = search(store, text, page=token, **options)
        assert (page.previous is None) == (token is None)
        pages.append([match.version.resource_id.id for match in page.matches])
        token = page.next
        if token is None:
            return pages


@pytest.mark.parametrize(
    "sort", ["", "&_sort=family", "&_sort=-family", "&_sort=gender,-_id", "&_sort=_lastUpdated"]
)
def test_pages_are_the_list_cut_up(store, sort):
    """`next` to the last page and no further, `previous` back to the first."""
    many(store)
    whole = listed(store, f"Patient?{sort}")
    assert len(whole) == 7

    for count in (1, 2, 3, 7, 8):
        pages = walk(store, f"Patient?_count={count}{sort}")
        assert [id for page in pages for id in page] == whole
        assert [len(page) for page in pages[:-1]] == [count] * (len(pages) - 1)

    page = search(store, f"Patient?_count=3{sort}")
    second = search(store, f"Patient?_count=3{sort}", page=page.next)
    third = search(store, f"Patient?_count=3{sort}", page=second.next)
    assert third.next is None
    back = search(store, f"Patient?_count=3{sort}", page=third.previous)
    assert [str(match.version) for match in back.matches] == [str(match.version) for match in second.matches]
    first = search(store, f"Patient?_count=3{sort}", page=back.previous)
    assert [str(match.version) for match in first.matches] == [str(match.version) for match in page.matches]
    assert first.previous is None
    assert {page.total, second.total, third.total, back.total, first.total} == {7}


def test_pages_do_not_move_while_others_write(store):
    """12a.7: what is new or changed since the first page stays out of later ones; nothing is seen twice."""
    many(store)
    page = search(store, "Patient?_count=2&_sort=_id")
    put(store, patient("p05", "New"), patient("p6", "Changed"), patient("p0", "Changed"))
    delete(store, "Patient", "p3")

    second = search(store, "Patient?_count=9&_sort=_id", page=page.next)

    assert [match.version.resource_id.id for match in page.matches] == ["p0", "p1"]
    assert [match.version.resource_id.id for match in second.matches] == ["p2", "p4", "p5"]
    assert second.next is None


def test_the_last_page_has_no_next_when_the_rest_is_gone(store):
    many(store, 3)
    page = search(store, "Patient?_count=2&_sort=_id")
    delete(store, "Patient", "p2")

    second = search(store, "Patient?_count=2&_sort=_id", page=page.next)

    assert (second.matches, second.next) == ([], None)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "1.1.1.1",
        "99999.1..x",
        "1",
        "....",
        "1.1.1." + "A" * 5000,
        "'; DROP TABLE",
        "\x00",
        "-1.0.0.0",
    ],
)
def test_a_page_that_never_was_is_refused(store, token):
    """A clear error, whatever is sent."""
    many(store, 3)
    with pytest.raises((Invalid, NotFound)):
        search(store, "Patient?_count=2", page=token)


def test_any_change_to_a_page_token_is_refused_or_a_page(store):
    many(store)
    token = search(store, "Patient?_count=2&_sort=-family,gender").next
    assert token is not None
    for place in range(len(token)):
        for change in (
            token[:place] + token[place + 1 :],
            token[:place] + "~" + token[place + 1 :],
            token[:place],
        ):
            try:
                search(store, "Patient?_count=2&_sort=-family,gender", page=change)
            except StoreError as error:
                assert error.issues  # noqa: PT017 - an error is as good as a page


def test_includes_go_with_each_page(store):
    """https://hl7.org/fhir/R4/search.html#Paging"""
    put(store, patient("a", "Lovelace"))
    put(store, *[resource("Observation", f"o{n}", subject=reference("Patient/a")) for n in range(4)])

    token = None
    for _ in range(4):
        page = search(store, "Observation?_count=1&_include=Observation:subject", page=token)
        assert [str(version.resource_id) for version in page.included] == ["Patient/a"]
        token = page.next
    assert token is None


def test_a_search_that_costs_too_much_is_stopped(record, clock):
    """too-costly, not a server that hangs."""
    with Store.open(record, Settings(validation="off", search_limit=1), clock=clock) as small:
        many(small, 400)
        with pytest.raises(StoreError) as caught:
            search(
                small,
                "Patient?name:contains=e&_has:Observation:patient:code=x&_sort=-name,birthdate&gender:not=male",
            )

    assert caught.value.issues[0].code == "too-costly"
