"""Every write is validated as fhir.validation says, before anything is written. docs/validation.md"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gitstore import (
    Author,
    Create,
    Delete,
    Invalid,
    Settings,
    Store,
    Unit,
    Unprocessable,
    Update,
    path_of,
    read_settings,
)
from gitstore.fhir.ids import ResourceId

PATIENT = ResourceId("Patient", "example")
PROFILE = ResourceId("StructureDefinition", "named-patient")
URL = "http://clinic.example/named-patient"
URN = "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11"


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "example", **elements}


def profile(minimum: int = 1, version: str | None = None, id: str = PROFILE.id) -> dict[str, Any]:
    """A profile of Patient that asks for so many names."""
    return {
        "resourceType": "StructureDefinition",
        "id": id,
        "url": URL,
        **({"version": version} if version else {}),
        "name": "NamedPatient",
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
        "derivation": "constraint",
        "snapshot": {
            "element": [_element("Patient", 0, "*"), _element("Patient.name", minimum, "*")],
        },
    }


def _element(path: str, minimum: int, maximum: str) -> dict[str, Any]:
    base = {"path": path, "min": 0, "max": "*"}
    element = {"id": path, "path": path, "min": minimum, "max": maximum, "base": base, "definition": path}
    return element if "." not in path else element | {"type": [{"code": "HumanName"}]}


@pytest.fixture
def open_with(record: str, clock: Any, new_id: Callable[[], str]) -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def open_store(**settings: Any) -> Store:
        store = Store.open(record, Settings(durability="off", **settings), clock=clock, new_id=new_id)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def strict(open_with: Callable[..., Store]) -> Store:
    return open_with(validation="full")


def put(store: Store, author: Author, resource: dict[str, Any]) -> Any:
    [outcome] = store.commit([Update(ResourceId(resource["resourceType"], resource["id"]), resource)], author)
    return outcome


def test_all_problems_of_a_resource_are_told_at_once(strict: Store, ada: Author) -> None:
    """Issue codes and FHIRPath of each; the record stays as it is."""
    before = strict.snapshot().commit

    with pytest.raises(Invalid) as refused:
        put(strict, ada, patient(gurke=1, birthDate="1990-02-30", gender="unsure"))

    assert not isinstance(refused.value, Unprocessable)
    assert [(issue.code, issue.expression) for issue in refused.value.issues] == [
        ("structure", "Patient.gurke"),
        ("value", "Patient.birthDate"),
        ("code-invalid", "Patient.gender"),
    ]
    assert strict.snapshot().commit == before


@pytest.mark.parametrize(
    ("level", "structure", "rule"),
    [("off", False, False), ("structure", True, False), ("full", True, True)],
)
def test_the_setting_says_what_is_refused(
    open_with: Callable[..., Store], ada: Author, level: str, structure: bool, rule: bool
) -> None:
    """docs/operations.md, fhir.validation"""
    store = open_with(validation=level)

    refused = [
        _is_refused(store, ada, patient(**elements)) for elements in ({"gurke": 1}, {"gender": "unsure"})
    ]

    assert refused == [structure, rule]


def _is_refused(store: Store, author: Author, resource: dict[str, Any]) -> bool:
    try:
        put(store, author, resource)
    except Invalid:
        return True
    return False


def test_the_setting_is_git_configuration(record: str) -> None:
    """fhir.validation, with three values."""
    for level in ("off", "structure", "full"):
        subprocess.run(["git", "-C", record, "config", "fhir.validation", level], check=True)
        assert read_settings(record).validation == level

    subprocess.run(["git", "-C", record, "config", "fhir.validation", "banana"], check=True)
    with pytest.raises(Invalid, match=r"fhir.validation is `banana`; expected one of off, structure, full"):
        read_settings(record)


def test_what_the_server_replaces_is_not_judged(strict: Store, ada: Author) -> None:
    """The id of a create, meta.versionId and meta.lastUpdated: https://hl7.org/fhir/R4/http.html#create"""
    replaced = {"versionId": "not a version!", "lastUpdated": "yesterday"}

    [created] = strict.commit([Create({"resourceType": "Patient", "id": "no id!", "meta": replaced})], ada)
    updated = put(strict, ada, patient(meta=replaced))

    assert created.version.version_id == updated.version.version_id == 1
    with pytest.raises(Invalid, match="profile"):
        put(strict, ada, patient(meta=replaced | {"profile": "no list"}))
    with pytest.raises(Invalid, match="empty object"):
        put(strict, ada, patient(meta={}))


def test_warnings_are_part_of_the_outcome(strict: Store, ada: Author) -> None:
    """dom-6, a resource should have narrative, refuses nothing."""
    outcome = put(strict, ada, patient())
    again = strict.commit([Update(PATIENT, patient(), skip_unchanged=True)], ada)[0]

    assert {issue.severity for issue in outcome.issues} == {"warning"}
    assert any("dom-6" in issue.text for issue in outcome.issues)
    assert not again.changed
    assert again.issues == outcome.issues


def test_a_transaction_names_the_entry_and_writes_nothing(strict: Store, ada: Author) -> None:
    """Expressions lead into the Bundle: https://hl7.org/fhir/R4/http.html#transaction"""
    before = strict.snapshot().commit
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": patient(gender="unsure")}],
    }

    with pytest.raises(Unprocessable) as refused:
        strict.commit([Create(patient()), Create(patient(gender="unsure"))], ada, interaction="transaction")
    with pytest.raises(Unprocessable) as nested:
        strict.commit([Create(patient()), Create(bundle)], ada, interaction="transaction")

    assert refused.value.entry == 1
    assert [issue.expression for issue in refused.value.issues] == ["Bundle.entry[1].resource.gender"]
    assert nested.value.entry == 1
    assert [issue.expression for issue in nested.value.issues] == [
        "Bundle.entry[1].resource.entry[0].resource.gender"
    ]
    assert strict.snapshot().commit == before


def test_references_are_judged_as_they_are_stored(strict: Store, ada: Author) -> None:
    """A `urn:uuid:` that becomes Patient/id is the right target of an Observation, and the wrong one of an encounter."""
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "weight"}}

    strict.commit(
        [Create(patient(), URN), Create(observation | {"subject": {"reference": URN}})],
        ada,
        interaction="transaction",
    )
    with pytest.raises(Unprocessable, match="leads to Patient"):
        strict.commit(
            [Create(patient(), URN), Create(observation | {"encounter": {"reference": URN}})],
            ada,
            interaction="transaction",
        )


def test_one_bad_unit_of_many_fails_alone(strict: Store, ada: Author) -> None:
    units = [Unit([Create(patient(gender=gender))], ada) for gender in ("male", "unsure", "female")]

    results = strict.commit_each(units)

    assert [isinstance(result, Unprocessable) for result in results] == [False, True, False]
    assert strict.snapshot().counts() == {"Patient": 2}


def test_a_profile_counts_from_when_it_is_stored_until_it_is_deleted(strict: Store, ada: Author) -> None:
    """Unknown profiles are warnings; a change of the profile is one of the rules."""
    claiming = patient(meta={"profile": [URL]})

    unknown = put(strict, ada, claiming)
    put(strict, ada, profile())
    with pytest.raises(Unprocessable, match=r"Patient.name` is not there"):
        put(strict, ada, claiming)
    named = put(strict, ada, claiming | {"name": [{"text": "Ada"}]})
    put(strict, ada, profile(minimum=0))
    relaxed = put(strict, ada, claiming)
    strict.commit([Delete(PROFILE)], ada)
    deleted = put(strict, ada, claiming)

    assert [_warns(outcome) for outcome in (unknown, named, relaxed, deleted)] == [True, False, False, True]


def _warns(outcome: Any) -> bool:
    return ("warning", "not-found", "Patient.meta.profile[0]") in [
        (issue.severity, issue.code, issue.expression) for issue in outcome.issues
    ]


def test_a_profile_that_another_process_stores_counts_too(
    strict: Store, open_with: Callable[..., Store], ada: Author
) -> None:
    claiming = patient(meta={"profile": [URL]})
    put(strict, ada, claiming)

    put(open_with(validation="off"), ada, profile())

    with pytest.raises(Unprocessable):
        put(strict, ada, claiming)


def test_a_version_of_a_profile_can_be_named(strict: Store, ada: Author) -> None:
    """https://hl7.org/fhir/R4/references.html#canonical: with |version that one, without it the one written last."""
    put(strict, ada, profile(version="1"))
    put(strict, ada, profile(minimum=0, version="2", id="named-patient-2"))

    assert not _warns(put(strict, ada, patient(meta={"profile": [URL]})))
    assert not _warns(put(strict, ada, patient(meta={"profile": [f"{URL}|2"]})))
    assert _warns(put(strict, ada, patient(meta={"profile": [f"{URL}|3"]})))
    with pytest.raises(Unprocessable):
        put(strict, ada, patient(meta={"profile": [f"{URL}|1"]}))


def test_value_sets_of_the_record_bind(strict: Store, ada: Author) -> None:
    """A required binding of a profile to a ValueSet that is stored beside it."""
    bound = profile(minimum=0)
    binding = {"strength": "required", "valueSet": "http://clinic.example/languages"}
    language = _element("Patient.language", 0, "1") | {"type": [{"code": "code"}], "binding": binding}
    bound["snapshot"]["element"].append(language)
    put(strict, ada, bound)
    include = {"system": "urn:ietf:bcp:47", "concept": [{"code": "de"}]}
    put(
        strict,
        ada,
        {
            "resourceType": "ValueSet",
            "id": "languages",
            "url": "http://clinic.example/languages",
            "status": "active",
            "compose": {"include": [include]},
        },
    )

    assert put(strict, ada, patient(meta={"profile": [URL]}, language="de")).changed
    with pytest.raises(Unprocessable, match="has no code of"):
        put(strict, ada, patient(meta={"profile": [URL]}, language="fr"))


def test_a_profile_that_was_stored_unseen_and_is_broken_is_not_known(
    open_with: Callable[..., Store], ada: Author
) -> None:
    """Under fhir.validation=off anything can be stored: later writes must not fail because of it."""
    careless, strict = open_with(validation="off"), open_with(validation="full")
    broken = profile()
    del broken["type"]
    put(careless, ada, broken)
    put(careless, ada, {"resourceType": "ValueSet", "id": "odd", "url": ["no text"], "version": 7})

    assert _warns(put(strict, ada, patient(meta={"profile": [URL]})))


def test_many_threads_may_validate_while_the_profile_changes(strict: Store, ada: Author) -> None:
    """Each write is judged by the profile before or after the change, and none fails in another way."""
    put(strict, ada, profile())

    def write(number: int) -> bool:
        if number % 10 == 0:
            put(strict, ada, profile(minimum=number // 10 % 2))
        return _is_refused(strict, ada, patient(id=f"p-{number}", meta={"profile": [URL]}))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, range(40)))

    assert set(results) <= {True, False}
    refused = sum(results)
    assert strict.snapshot().counts().get("Patient", 0) == 40 - refused


def test_adopting_holds_a_foreign_commit_to_the_same(
    open_with: Callable[..., Store], record: str, ada: Author, tmp_path: Path
) -> None:
    """What would be refused over REST is a problem of its path, with all that is wrong."""
    put(open_with(validation="off"), ada, patient())
    clone = tmp_path / "clone"
    _git("clone", "--quiet", record, str(clone))
    file = clone / path_of(PATIENT)
    file.write_text(file.read_text().replace('"id": "example",', '"id": "example",\n  "gender": "unsure",'))
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@clinic.example"]
    _git("-C", str(clone), *identity, "commit", "--quiet", "-am", "By hand")
    _git("-C", str(clone), "push", "--quiet")

    strict, careless = open_with(validation="full").foreign(), open_with(validation="structure").foreign()

    assert strict is not None
    [problem] = strict.problems
    assert problem.path == path_of(PATIENT)
    assert "`Patient.gender` is `unsure`" in problem.reason
    assert careless is not None
    assert careless.problems == ()


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)
