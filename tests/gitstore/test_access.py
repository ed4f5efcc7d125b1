"""What an access doesn't let through is as if it weren't there: in reads, searches, histories and writes.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gitstore import (
    ANONYMOUS,
    Access,
    Create,
    Criteria,
    Delete,
    Everything,
    Forbidden,
    Gone,
    Grant,
    Interaction,
    NotFound,
    Patch,
    Settings,
    Snapshot,
    Store,
    TooCostly,
    Unit,
    Unprocessable,
    Update,
    View,
    everything_about,
    restricted,
)
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.queue import Pending

ALL = frozenset("cruds")
OF_ANN = Access((Grant(None, ALL, patient="ann"),))
RESTRICTED = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|R"


def patient(id: str, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"family": id}], **elements}


def observation(id: str, of: str, category: str = "laboratory", **elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"system": "urn:c", "code": category}]}],
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{of}"},
        "performer": [{"reference": "Practitioner/dr"}],
        **elements,
    }


def put(store: Store, *resources: dict[str, Any]) -> None:
    for resource in resources:
        store.commit([Update(ResourceId(resource["resourceType"], resource["id"]), resource)], ANONYMOUS)


@pytest.fixture
def clinic(store: Store) -> Store:
    put(
        store,
        {"resourceType": "Practitioner", "id": "dr", "active": True},
        patient("ann", generalPractitioner=[{"reference": "Practitioner/dr"}]),
        patient("ben", generalPractitioner=[{"reference": "Practitioner/dr"}]),
        observation("a1", "ann"),
        observation("a2", "ann", "vital-signs"),
        observation("b1", "ben"),
        observation("b2", "ben", hasMember=[{"reference": "Observation/a1"}]),
        {
            "resourceType": "List",
            "id": "of-ben",
            "status": "current",
            "mode": "working",
            "subject": {"reference": "Patient/ben"},
            "entry": [{"item": {"reference": "Observation/a1"}}],
        },
    )
    return store


def ids(snapshot: Snapshot, types: str, query: str = "") -> set[str]:
    pairs = [tuple(pair.split("=", 1)) for pair in query.split("&") if pair]
    found = snapshot.search(types.split(",") if types else (), pairs)  # type: ignore[arg-type]  # pairs of text
    assert found.total == len(found.matches)
    return {
        version.resource_id.id for version in [*(match.version for match in found.matches), *found.included]
    }


def search(view: View, types: str, query: str = "") -> set[str]:
    with view.reading() as snapshot:
        return ids(snapshot, types, query)


def test_what_is_not_seen_answers_as_what_never_was(clinic: Store) -> None:
    """4.5: https://hl7.org/fhir/R4/security.html#AccessDenied"""
    clinic.commit([Delete(ResourceId("Observation", "b2"))], ANONYMOUS)
    view = View(clinic, OF_ANN)
    for read in (
        lambda snapshot, id: snapshot.read(id),
        lambda snapshot, id: snapshot.vread(id, VersionId(1)),
        lambda snapshot, id: snapshot.history(id),
    ):
        answers = []
        for id in ("b1", "b2", "never"):
            for snapshot in (view.snapshot(), view.snapshot(3)):
                with pytest.raises(NotFound) as refusal:
                    read(snapshot, ResourceId("Observation", id))
                assert type(refusal.value) is NotFound
                answers.append(str(refusal.value).replace(id, "ID"))
        assert len(set(answers)) == 1
    assert view.snapshot().read(ResourceId("Observation", "a1")).version_id == 1


def test_a_type_without_a_grant_is_refused_whatever_there_is(clinic: Store) -> None:
    view = View(clinic, Access((Grant("Observation", frozenset("rs")),)))
    assert view.snapshot().read(ResourceId("Observation", "b1"))
    for id in ("ann", "never"):
        with pytest.raises(Forbidden):
            view.snapshot().read(ResourceId("Patient", id))
    with pytest.raises(Forbidden):
        search(view, "Patient")
    assert search(view, "") == {"a1", "a2", "b1", "b2"}


@pytest.mark.parametrize(
    ("types", "query", "found"),
    [
        ("Observation", "", {"a1", "a2"}),
        ("Patient", "", {"ann"}),
        ("", "", {"ann", "a1", "a2"}),
        ("Observation", "subject=Patient/ben", set()),
        ("Observation", "subject:Patient.name=ben", set()),
        ("Observation", "subject:Patient.name=ann", {"a1", "a2"}),
        ("Observation", "performer:Practitioner.active=true", set()),  # Dr. is in nobody's compartment
        ("Patient", "_has:Observation:patient:category=laboratory", {"ann"}),
        ("Observation", "_has:Observation:has-member:status=final", set()),  # b2 has a1 as its member
        ("Observation", "_list=of-ben", set()),
        ("Observation", "_include=Observation:subject&_include=Observation:performer", {"a1", "a2", "ann"}),
        ("Patient", "_revinclude=Observation:subject", {"ann", "a1", "a2"}),
        ("Observation", "_id=a1&_revinclude=Observation:has-member", {"a1"}),
        ("Observation", "_filter=subject re Patient/ben", set()),
        ("Observation", "_sort=-_lastUpdated&_count=2", {"a1", "a2"}),
    ],
)
def test_a_search_finds_no_more_than_may_be_seen(
    clinic: Store, types: str, query: str, found: set[str]
) -> None:
    """Neither as matches, nor along chains, nor as what is included."""
    assert search(View(clinic, OF_ANN), types, query) == found


def test_contained_resources_are_seen_with_their_container_alone(clinic: Store) -> None:
    inside = [{"resourceType": "Medication", "id": "m", "code": {"text": "aspirin"}}]
    for id, of in (("ra", "ann"), ("rb", "ben")):
        put(
            clinic,
            {
                "resourceType": "MedicationRequest",
                "id": id,
                "status": "active",
                "intent": "order",
                "subject": {"reference": f"Patient/{of}"},
                "medicationReference": {"reference": "#m"},
                "contained": inside,
            },
        )
    for kind in ("container", "contained"):
        query = f"_contained=true&_containedType={kind}&code:text=aspirin"
        assert search(View(clinic), "Medication", query) == {"ra", "rb"}
        assert search(View(clinic, OF_ANN), "Medication", query) == {"ra"}


def test_a_hierarchy_is_gone_along_only_where_all_of_it_is_visible(clinic: Store) -> None:
    with pytest.raises(Forbidden):
        search(View(clinic, OF_ANN), "Location", "partof:below=x")


def test_everything_about_another_patient_is_nothing_at_all(clinic: Store) -> None:
    with View(clinic, OF_ANN).reading() as snapshot:
        found = everything_about(snapshot, Everything(ResourceId("Patient", "ann")))
        assert [str(version.resource_id) for version in found] == [
            "Patient/ann",
            "Observation/a1",
            "Observation/a2",
        ]
        with pytest.raises(NotFound):
            everything_about(snapshot, Everything(ResourceId("Patient", "ben")))


def test_a_resource_that_was_moved_takes_its_past_along(clinic: Store) -> None:
    """It was filed under the wrong patient: the first one has no business with it, and the other not with what was."""
    put(clinic, observation("a1", "ben"))
    ann, ben = (View(clinic, Access((Grant(None, ALL, patient=id),))) for id in ("ann", "ben"))
    a1 = ResourceId("Observation", "a1")
    with pytest.raises(NotFound):
        ann.snapshot().vread(a1, VersionId(1))
    with pytest.raises(NotFound):
        ben.snapshot().vread(a1, VersionId(1))
    assert [version.version_id for version in ben.snapshot().history(a1).versions] == [2]
    assert ben.snapshot().history(a1).total == 1


def test_a_deletion_is_seen_by_those_who_saw_the_resource(clinic: Store) -> None:
    a1 = ResourceId("Observation", "a1")
    clinic.commit([Delete(a1)], ANONYMOUS)
    with pytest.raises(Gone):
        View(clinic, OF_ANN).snapshot().read(a1)
    page = View(clinic, OF_ANN).snapshot().history("Observation")
    assert [str(version) for version in page.versions if version.deleted] == ["Observation/a1/_history/2"]


@pytest.mark.parametrize("scope", [None, "Observation", ResourceId("Observation", "a1")])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_pages_of_a_history_hold_what_may_be_seen_and_count_nothing_else(
    clinic: Store, scope: Any, count: int
) -> None:
    for round in range(3):
        put(clinic, observation("a1", "ann", note=[{"text": str(round)}]), observation("b1", "ben"))
    whole = clinic.snapshot().history(scope, count=1000).versions
    wanted = [str(each) for each in whole if each.resource_id.id in ("ann", "a1", "a2")]
    snapshot, cursor, found, back = View(clinic, OF_ANN).snapshot(), None, [], []
    while True:
        page = snapshot.history(scope, cursor=cursor, count=count)
        assert page.total == len(wanted)
        found += [str(version) for version in page.versions]
        if page.older is None:
            break
        cursor = page.older
    assert found == wanted
    while page.newer is not None:
        page = snapshot.history(scope, cursor=page.newer, count=count)
        back = [str(version) for version in page.versions] + back
    assert back == wanted[: len(back)]
    assert len(back) >= len(wanted) - count


def test_without_the_history_role_there_is_no_past(clinic: Store) -> None:
    view = View(clinic, Access((Grant(None, ALL),), history=False))
    a1 = ResourceId("Observation", "a1")
    for ask in (lambda s: s.vread(a1, VersionId(1)), lambda s: s.history(a1), lambda s: s.history()):
        with pytest.raises(NotFound):
            ask(view.snapshot())
    assert view.snapshot().read(a1)
    put(
        clinic,
        {
            "resourceType": "Observation",
            "id": "of",
            "hasMember": [{"reference": "Observation/a1/_history/1"}],
        },
    )
    assert "a1" in search(view, "Observation", "_id=of&_include=Observation:has-member")
    put(clinic, observation("a1", "ann", "other"))
    assert "a1" not in search(view, "Observation", "_id=of&_include=Observation:has-member")


def test_a_scope_with_parameters_shows_what_they_select_and_no_version_else(clinic: Store) -> None:
    laboratory = Access((Grant("Observation", ALL, query=(("category", "urn:c|laboratory"),)),))
    view = View(clinic, laboratory)
    assert search(view, "Observation") == {"a1", "b1", "b2"}
    with pytest.raises(NotFound):
        view.snapshot().read(ResourceId("Observation", "a2"))
    put(clinic, observation("a2", "ann"))
    assert view.snapshot().read(ResourceId("Observation", "a2")).version_id == 2
    with pytest.raises(NotFound):
        view.snapshot().vread(ResourceId("Observation", "a2"), VersionId(1))
    page = view.snapshot().history("Observation")
    assert "Observation/a2/_history/1" not in map(str, page.versions)


@pytest.mark.parametrize(
    "query", [(("subject:Patient.name", "ann"),), (("_text", "x"),), (("nothing", "x"),), (("_count", "1"),)]
)
def test_a_scope_with_parameters_that_cannot_be_judged_by_the_resource_alone_shows_nothing(
    clinic: Store, query: tuple[tuple[str, str], ...]
) -> None:
    view = View(clinic, Access((Grant("Observation", ALL, query=query),)))
    assert search(view, "Observation") == set()


def test_a_label_withholds_a_resource_and_each_version_that_bears_it(clinic: Store) -> None:
    """https://hl7.org/fhir/R4/security-labels.html"""
    label = {"security": [{"system": RESTRICTED.partition("|")[0], "code": "R"}]}
    put(clinic, observation("a1", "ann", meta=label))
    view = View(clinic, Access((Grant(None, ALL),), withheld=(RESTRICTED,)))
    assert search(view, "Observation") == {"a2", "b1", "b2"}
    for ask in (
        lambda s: s.read(ResourceId("Observation", "a1")),
        lambda s: s.vread(ResourceId("Observation", "a1"), VersionId(1)),
    ):
        with pytest.raises(NotFound):
            ask(view.snapshot())
    put(clinic, observation("a1", "ann"))
    versions = view.snapshot().history(ResourceId("Observation", "a1")).versions
    assert [version.version_id for version in versions] == [3, 1]


def test_a_history_that_is_too_long_to_look_through_says_so(
    clinic: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restricted, "MOST", 2)
    monkeypatch.setattr(restricted, "_PIECE", 1)
    view = View(clinic, Access((Grant("Patient", ALL),)))
    with pytest.raises(TooCostly):
        view.snapshot().history()


# Writes


def refused(view: View, *interactions: Interaction) -> str:
    with pytest.raises(Forbidden) as refusal:
        view.commit(interactions, ANONYMOUS)
    return str(refusal.value)


def set_status(resource: dict[str, Any]) -> tuple[dict[str, Any], tuple[()]]:
    return {**resource, "status": "amended"}, ()


@pytest.mark.parametrize(
    "write",
    [
        lambda id: Update(id, observation(id.id, "ann")),
        lambda id: Update(id, observation(id.id, "ann"), if_match=frozenset("7")),
        lambda id: Update(id, observation(id.id, "ann"), if_none_match=frozenset("*")),
        Delete,
        lambda id: Delete(id, if_match=frozenset("7")),
        lambda id: Patch(id, set_status),
    ],
)
def test_a_write_to_what_is_not_seen_is_refused_before_all_else_there_or_not(
    clinic: Store, write: Callable[[ResourceId], Interaction]
) -> None:
    clinic.commit([Delete(ResourceId("Observation", "b2"))], ANONYMOUS)
    before = clinic.snapshot().commit
    view = View(clinic, OF_ANN)
    answers = {
        refused(view, write(ResourceId("Observation", id))).replace(id, "ID") for id in ("b1", "b2", "never")
    }
    assert len(answers) == 1
    assert clinic.snapshot().commit == before


def test_what_is_written_must_be_in_the_compartment_too(clinic: Store) -> None:
    view = View(clinic, OF_ANN)
    a1 = ResourceId("Observation", "a1")
    new = {key: value for key, value in observation("x", "ben").items() if key != "id"}
    refused(view, Create(new))
    refused(view, Update(a1, observation("a1", "ben")))
    refused(view, Patch(a1, lambda resource: ({**resource, "subject": {"reference": "Patient/ben"}}, ())))
    refused(view, Create({"resourceType": "Organization", "name": "x"}))
    new["subject"] = {"reference": "Patient/ann"}
    (made,) = view.commit([Create(new)], ANONYMOUS)
    assert made.version is not None
    (outcome,) = view.commit([Patch(a1, set_status)], ANONYMOUS)
    assert outcome.version is not None
    assert outcome.version.version_id == 2
    view.commit([Delete(a1)], ANONYMOUS)
    (again,) = view.commit([Update(a1, observation("a1", "ann"))], ANONYMOUS)
    assert again.version is not None
    assert again.version.version_id == 4


def test_a_transaction_is_refused_as_a_whole_and_names_the_entry(clinic: Store) -> None:
    """14.20: https://hl7.org/fhir/R4/http.html#transaction"""
    view, before = View(clinic, OF_ANN), clinic.snapshot().commit
    allowed = Update(ResourceId("Observation", "a1"), observation("a1", "ann"))
    with pytest.raises(Forbidden) as refusal:
        view.commit([allowed, Delete(ResourceId("Observation", "b1"))], ANONYMOUS, interaction="transaction")
    assert refusal.value.entry == 1
    assert clinic.snapshot().commit == before


def test_criteria_select_among_what_is_seen(clinic: Store) -> None:
    """Neither what there is nor how much of it can be told by a conditional write."""
    view = View(clinic, OF_ANN)
    labs = Criteria.parse("Observation", "category=laboratory")
    view.commit([Delete(labs)], ANONYMOUS)
    assert search(View(clinic), "Observation") == {"a2", "b1", "b2"}
    of_ben = Criteria.parse("Observation", "subject=Patient/ben")
    (nothing,) = view.commit([Delete(of_ben)], ANONYMOUS)
    assert not nothing.changed
    refused(view, Update(of_ben, observation("b1", "ann")))
    refused(view, Update(of_ben, observation("never", "ann")))
    create_only = View(clinic, Access((Grant("Observation", frozenset("c")),)))
    refused(create_only, Create({"resourceType": "Observation"}, unless=labs))


@pytest.mark.parametrize(
    ("letters", "allowed"),
    [("c", {"create"}), ("u", {"update", "patch", "new"}), ("d", {"delete"}), ("rs", set()), ("cruds", None)],
)
def test_each_letter_is_for_its_interactions(clinic: Store, letters: str, allowed: set[str] | None) -> None:
    """https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#scopes-for-requesting-fhir-resources"""
    writes: dict[str, Interaction] = {
        "create": Create({"resourceType": "Observation"}),
        "update": Update(ResourceId("Observation", "a1"), observation("a1", "ann")),
        "patch": Patch(ResourceId("Observation", "a1"), set_status),
        "new": Update(ResourceId("Observation", "new"), observation("new", "ann")),
        "delete": Delete(ResourceId("Observation", "a2")),
    }
    view = View(clinic, Access((Grant("Observation", frozenset(letters)),)))
    for name, write in writes.items():
        if allowed is None or name in allowed:
            view.commit([write], ANONYMOUS)
        else:
            refused(view, write)


def test_who_loses_a_resource_while_writing_it_does_not_write_it(clinic: Store) -> None:
    """What was allowed when the write was prepared is looked at again where it happens."""
    a1 = ResourceId("Observation", "a1")
    late = Pending(clinic.rehearse(Unit([Patch(a1, set_status)], ANONYMOUS, access=OF_ANN)))
    put(clinic, observation("a1", "ben"))
    clinic._queue.submit([late])
    clinic._queue.wait(late)
    assert isinstance(late.error, Forbidden)
    assert clinic.snapshot().read(a1).version_id == 2


def test_references_that_must_lead_somewhere_tell_nothing_of_what_is_not_seen(
    record: str, clock: Callable[[], int]
) -> None:
    settings = Settings(durability="off", validation="off", referential_integrity="enforce")
    with Store.open(record, settings, clock=clock) as store:
        put(store, patient("ann"), patient("ben"))
        view = View(store, OF_ANN)
        answers = set()
        for id in ("ben", "never"):
            resource = observation("x", "ann", performer=[{"reference": f"Patient/{id}"}])
            del resource["id"]
            with pytest.raises(Unprocessable) as refusal:
                view.commit([Create(resource)], ANONYMOUS)
            answers.add(str(refusal.value).partition(":")[2].replace(id, "ID"))
        assert len(answers) == 1


def test_the_commit_says_through_what_its_author_came(clinic: Store, git: Callable[..., str]) -> None:
    view = View(clinic, agent="https://id.example ann\nFHIR-Version: PUT Patient/x/_history/1")
    view.commit([Delete(ResourceId("Observation", "a1"))], ANONYMOUS)
    agent = git("log", "-1", "--format=%(trailers:key=FHIR-Agent,valueonly)", "main").strip()
    assert agent == "https://id.example ann FHIR-Version: PUT Patient/x/_history/1"
    assert not list(clinic.verify())


def test_where_search_is_off_a_limited_grant_comes_to_nothing(record: str, clock: Callable[[], int]) -> None:
    settings = Settings(durability="off", validation="off", search="off")
    with Store.open(record, settings, clock=clock) as store:
        put(store, patient("ann"))
        with pytest.raises(NotFound):
            View(store, OF_ANN).snapshot().read(ResourceId("Patient", "ann"))
        refused(View(store, OF_ANN), Update(ResourceId("Patient", "ann"), patient("ann")))
