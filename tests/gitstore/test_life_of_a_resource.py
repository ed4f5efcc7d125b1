"""The life of a resource: create, update, delete, revival. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gitstore import (
    ANY_VERSION,
    AlreadyExists,
    Author,
    Create,
    Delete,
    Gone,
    Invalid,
    NotFound,
    Outcome,
    Settings,
    Store,
    StoreError,
    Update,
    VersionMismatch,
    path_of,
)
from gitstore.fhir.ids import ResourceId, VersionId

PATIENT = ResourceId("Patient", "example")


def patient(id: str | None = "example", **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient"} | ({"id": id} if id else {}) | elements


def put(store: Store, author: Author, **elements: Any) -> Outcome:
    [outcome] = store.commit([Update(PATIENT, patient(**elements))], author)
    return outcome


def delete(store: Store, author: Author, if_match: frozenset[str] | None = None) -> Outcome:
    [outcome] = store.commit([Delete(PATIENT, if_match)], author)
    return outcome


def test_versions_are_counted_through_every_interaction(store, ada):
    """One number for each, without gap, also over a deletion and the revival after it."""
    made = [
        put(store, ada),
        put(store, ada, active=True),
        delete(store, ada),
        put(store, ada),
        delete(store, ada),
    ]
    [transaction] = store.commit([Update(PATIENT, patient())], ada, interaction="transaction")

    assert [
        (outcome.version.version_id, outcome.version.verb, outcome.version.created, outcome.version.deleted)
        for outcome in [*made, transaction]
        if outcome.version
    ] == [
        (1, "PUT", True, False),
        (2, "PUT", False, False),
        (3, "DELETE", False, True),
        (4, "PUT", True, False),
        (5, "DELETE", False, True),
        (6, "PUT", True, False),
    ]
    assert all(outcome.changed for outcome in made)


def test_a_created_resource_gets_an_id_of_the_store(store, ada):
    """The client's id is ignored. https://hl7.org/fhir/R4/http.html#create"""
    [outcome] = store.commit([Create(patient("mine"))], ada)

    assert outcome.version is not None
    assert str(outcome.version) == "Patient/id-1/_history/1"
    assert (outcome.version.verb, outcome.version.created) == ("POST", True)
    assert json.loads(store.snapshot().body(outcome.version))["id"] == "id-1"
    with pytest.raises(NotFound):
        store.snapshot().read(ResourceId("Patient", "mine"))


def test_an_id_that_is_in_use_is_never_given_again(record, clock, ada):
    """Not even that of a deleted resource: its history would become another's."""
    with Store.open(
        record, Settings(durability="off", validation="off"), clock=clock, new_id=lambda: "same"
    ) as store:
        store.commit([Create(patient(None))], ada)
        store.commit([Delete(ResourceId("Patient", "same"))], ada)

        with pytest.raises(AlreadyExists, match="`Patient/same` is in use"):
            store.commit([Create(patient(None))], ada)


def test_without_a_clock_and_ids_of_the_caller_there_are_real_ones(record, ada):
    import time
    import uuid

    with Store.open(record, Settings(durability="off", validation="off")) as store:
        before = time.time_ns() // 1000
        [outcome] = store.commit([Create(patient(None))], ada)

        assert outcome.version is not None
        assert uuid.UUID(outcome.version.resource_id.id).version == 4
        assert before <= outcome.version.last_updated <= time.time_ns() // 1000


def test_what_is_read_is_what_was_written_with_the_stores_meta(store, ada, git):
    """meta.versionId and meta.lastUpdated are the store's; all else stays. https://hl7.org/fhir/R4/http.html#update"""
    put(
        store,
        ada,
        meta={"versionId": "99", "tag": [{"code": "x"}], "lastUpdated": "1999-01-01T00:00:00Z"},
        active=True,
    )

    snapshot = store.snapshot()
    expected = """{
  "resourceType": "Patient",
  "id": "example",
  "meta": {
    "versionId": "1",
    "lastUpdated": "2026-01-01T12:00:01.000000Z",
    "tag": [
      {
        "code": "x"
      }
    ]
  },
  "active": true
}
"""
    assert snapshot.body(snapshot.read(PATIENT)).decode() == expected
    assert git("cat-file", "-p", f"main:{path_of(PATIENT)}") + "\n" == expected


def test_a_version_never_changes_again(store, ada):
    """https://hl7.org/fhir/R4/http.html#vread"""
    put(store, ada, active=True)
    first = store.snapshot().vread(PATIENT, VersionId(1))
    body = store.snapshot().body(first)
    delete(store, ada)
    put(store, ada, active=False)

    snapshot = store.snapshot()
    assert snapshot.vread(PATIENT, VersionId(1)) == first
    assert snapshot.body(first) == body
    assert snapshot.vread(PATIENT, VersionId(3)) == snapshot.read(PATIENT)


def test_a_deleted_resource_is_gone_and_its_history_stays(store, ada):
    """https://hl7.org/fhir/R4/http.html#read: 410, with the deletion's version."""
    put(store, ada)
    outcome = delete(store, ada)
    snapshot = store.snapshot()

    assert outcome.version is not None
    for refused in (lambda: snapshot.read(PATIENT), lambda: snapshot.vread(PATIENT, VersionId(2))):
        with pytest.raises(Gone) as gone:
            refused()
        assert (gone.value.version_id, gone.value.last_updated) == (2, outcome.version.last_updated)
        assert gone.value.issues[0].code == "deleted"
    assert snapshot.version(PATIENT, VersionId(2)) == outcome.version
    assert snapshot.vread(PATIENT, VersionId(1)).version_id == 1
    assert snapshot.history(PATIENT).total == 2
    with pytest.raises(Gone):
        snapshot.body(outcome.version)


@pytest.mark.parametrize("version_id", [0, -1, 2, 10**18])
def test_a_version_that_never_was_is_not_found(store, ada, version_id):
    put(store, ada)

    with pytest.raises(NotFound, match=f"`Patient/example` has no version {version_id}") as missing:
        store.snapshot().vread(PATIENT, VersionId(version_id))
    assert type(missing.value) is NotFound


@pytest.mark.parametrize(
    "reference", ["Patient/none", "Observation/example", "Patient/EXAMPLE", "Nothing/example"]
)
def test_a_resource_that_never_was_is_not_found(store, ada, reference):
    put(store, ada)
    resource_id = ResourceId(*reference.split("/"))

    for refused in (store.snapshot().read, store.snapshot().history):
        with pytest.raises(NotFound, match=f"`{reference}` is not known") as missing:
            refused(resource_id)
        assert type(missing.value) is NotFound


def test_deleting_twice_makes_no_second_version(store, ada, git):
    """https://hl7.org/fhir/R4/http.html#delete: "has no effect"."""
    put(store, ada)
    first = delete(store, ada)
    head = git("rev-parse", "main")

    second = delete(store, ada)

    assert second == Outcome(first.version, changed=False)
    assert git("rev-parse", "main") == head


def test_deleting_what_never_was_does_nothing(store, ada, git):
    head = git("rev-parse", "main")

    assert delete(store, ada) == Outcome(None, changed=False)
    assert git("rev-parse", "main") == head


# Conditions. https://hl7.org/fhir/R4/http.html#concurrency

STATES = {"never": 0, "current": 2, "deleted": 3}
"""How many of put, put, delete have happened."""


def bring_to(store: Store, author: Author, state: str) -> None:
    for step in ("put", "put", "delete")[: STATES[state]]:
        delete(store, author) if step == "delete" else put(store, author, active=True)


def tags(text: str) -> frozenset[str]:
    return frozenset(text.split())


@pytest.mark.parametrize(
    ("state", "if_match", "holds"),
    [
        ("never", "1", False),
        ("never", "*", False),
        ("current", "2", True),
        ("current", "1", False),
        ("current", "3", False),
        ("current", "1 2", True),
        ("current", "*", True),
        ("current", "x 02 +2", False),
        ("current", "", False),
        ("deleted", "3", True),
        ("deleted", "2", False),
        ("deleted", "*", False),
    ],
)
@pytest.mark.parametrize("interaction", ["update", "delete"])
def test_if_match_asks_for_the_newest_version(store, ada, git, state, if_match, holds, interaction):
    """A deletion counts with its own number; `*` asks for a resource that is there. Refused: nothing is written."""
    bring_to(store, ada, state)
    head = git("rev-parse", "main")
    asked = (
        Delete(PATIENT, tags(if_match))
        if interaction == "delete"
        else Update(PATIENT, patient(), if_match=tags(if_match))
    )

    if holds:
        [outcome] = store.commit([asked], ada)
        assert outcome.version is not None
        assert outcome.changed == (interaction == "update" or state == "current")
        assert outcome.version.version_id == STATES[state] + outcome.changed
    else:
        with pytest.raises(VersionMismatch) as refused:
            store.commit([asked], ada)
        assert refused.value.issues[0].code == "conflict"
        assert "If-Match asked for" in str(refused.value)
        assert ("does not exist" in str(refused.value)) == (state == "never")
        assert git("rev-parse", "main") == head


@pytest.mark.parametrize(
    ("state", "if_none_match", "holds"),
    [
        ("never", "*", True),
        ("never", "1", True),
        ("current", "*", False),
        ("current", "2", False),
        ("current", "1", True),
        ("current", "1 2", False),
        ("deleted", "*", True),
        ("deleted", "3", True),
    ],
)
def test_if_none_match_asks_that_it_is_not_there(store, ada, git, state, if_none_match, holds):
    """`*`: only create. https://hl7.org/fhir/R5/http.html#concurrency"""
    bring_to(store, ada, state)
    head = git("rev-parse", "main")
    asked = Update(PATIENT, patient(), if_none_match=tags(if_none_match))

    if holds:
        [outcome] = store.commit([asked], ada)
        assert outcome.version is not None
        assert outcome.version.version_id == STATES[state] + 1
    else:
        with pytest.raises(AlreadyExists, match="If-None-Match asked") as refused:
            store.commit([asked], ada)
        assert refused.value.issues[0].code == "duplicate"
        assert git("rev-parse", "main") == head


def test_any_version_is_the_star(store, ada):
    with pytest.raises(VersionMismatch):
        store.commit([Update(PATIENT, patient(), if_match=ANY_VERSION)], ada)


# Updates that change nothing


@pytest.mark.parametrize(
    ("setting", "asked", "skips"),
    [("version", False, False), ("version", True, True), ("skip", False, True), ("skip", True, True)],
)
def test_an_update_without_change_makes_a_version_unless_told_otherwise(
    record, clock, ada, git, setting, asked, skips
):
    """`fhir.unchangedUpdate`, or the interaction itself."""
    with Store.open(
        record, Settings(durability="off", validation="off", unchanged_update=setting), clock=clock
    ) as store:
        first = put(store, ada, active=True)
        head = git("rev-parse", "main")

        [again] = store.commit([Update(PATIENT, patient(active=True), skip_unchanged=asked)], ada)

        if skips:
            assert again == Outcome(first.version, changed=False)
            assert git("rev-parse", "main") == head
        else:
            assert again.version is not None
            assert again.version.version_id == 2


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"active": True}, True),
        ({"active": True, "meta": {"versionId": "7", "lastUpdated": "1999-01-01T00:00:00Z"}}, True),
        ({"active": True, "meta": {}}, True),
        ({"active": False}, False),
        ({}, False),
        ({"active": True, "meta": {"tag": [{"code": "x"}]}}, False),
    ],
)
def test_what_the_store_sets_is_no_change(store, ada, change, same):
    put(store, ada, active=True)

    [again] = store.commit([Update(PATIENT, patient(**change), skip_unchanged=True)], ada)

    assert again.changed != same


def test_a_revival_with_the_old_content_is_a_change(store, ada):
    put(store, ada, active=True)
    delete(store, ada)

    [again] = store.commit([Update(PATIENT, patient(active=True), skip_unchanged=True)], ada)

    assert again.changed
    assert again.version is not None
    assert again.version.version_id == 3


def test_conditions_are_checked_before_anything_is_skipped(store, ada):
    put(store, ada, active=True)

    with pytest.raises(VersionMismatch):
        store.commit([Update(PATIENT, patient(active=True), if_match=tags("9"), skip_unchanged=True)], ada)


# What is refused before the lock


@pytest.mark.parametrize(
    ("resource", "code", "text"),
    [
        ({"resourceType": "Patient"}, "required", "it has none"),
        ({"resourceType": "Patient", "id": "other"}, "value", "the URL asks for `example`"),
        ({"resourceType": "Patient", "id": 1}, "value", "1 is not an id"),
        ({"resourceType": "Patient", "id": None}, "value", "None is not an id"),
        ({"resourceType": "Patient", "id": ""}, "value", "is not an id"),
        ({"resourceType": "Observation", "id": "example"}, "invalid", "asks for a `Patient`"),
        ({"resourceType": "Nothing", "id": "example"}, "invalid", "must name a resource type of R4"),
        ({"resourceType": ["Patient"], "id": "example"}, "invalid", "must name a resource type of R4"),
        ({"id": "example"}, "invalid", "found nothing"),
        ({"resourceType": "Patient", "id": "example", "meta": []}, "structure", "`meta` must be an object"),
        ({"resourceType": "Patient", "id": "example", "meta": None}, "structure", "`meta` must be an object"),
    ],
)
def test_an_update_that_is_not_of_its_target_is_refused(store, ada, git, resource, code, text):
    """https://hl7.org/fhir/R4/http.html#update"""
    head = git("rev-parse", "main")

    with pytest.raises(Invalid, match=text) as refused:
        store.commit([Update(PATIENT, resource)], ada)

    assert refused.value.issues[0].code == code
    assert refused.value.entry is None
    assert git("rev-parse", "main") == head


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "x" * 65, "é", "a b", "../../etc"])
def test_an_id_outside_the_grammar_gets_nowhere(store, ada, id):
    """It would be a path in the tree."""
    target = ResourceId("Patient", id)
    for interaction in (Update(target, patient(id)), Delete(target)):
        with pytest.raises(Invalid, match="is not an id"):
            store.commit([interaction], ada)


def test_a_closed_store_refuses(store, ada):
    store.close()

    with pytest.raises(StoreError):
        put(store, ada)


# What git holds


def test_the_commit_says_who_when_what_and_why(store, ada, git):
    """docs/format.md, "The commit"."""
    store.commit([Update(PATIENT, patient())], ada, request_id="5e0a4c6e", message="Seen twice.\n\nReally.")

    assert git("log", "-1", "--format=%an <%ae>|%cn <%ce>|%ad|%cd", "--date=iso-strict", "main").split(
        "|"
    ) == [
        "Ada Lovelace <ada@clinic.example>",
        "git-fhir <git-fhir@fhir.invalid>",
        "2026-01-01T12:00:01+00:00",
        "2026-01-01T12:00:01+00:00",
    ]
    assert git("log", "-1", "--format=%B", "main").rstrip("\n").split("\n") == [
        "update Patient/example",
        "",
        "Seen twice.",
        "",
        "Really.",
        "",
        "FHIR-Interaction: update",
        "FHIR-Version: PUT Patient/example/_history/1",
        "FHIR-Last-Updated: 2026-01-01T12:00:01.000000Z",
        "FHIR-Request-Id: 5e0a4c6e",
    ]
    commit = store.snapshot().commit
    assert (commit.id, commit.author, commit.request_id) == (git("rev-parse", "main"), ada, "5e0a4c6e")
    assert store.message(commit) == "Seen twice.\n\nReally."
    assert store.resolve("main") == store.resolve(commit.id[:8]) == commit


def test_the_store_commits_only_resources_and_keeps_the_first_files(store, ada, git):
    put(store, ada)
    delete(store, ada)

    assert git("ls-tree", "-r", "--name-only", "main").split("\n") == [
        ".gitattributes",
        "README.md",
        "git-fhir.json",
    ]
    assert git("diff", "--name-status", "main~1", "main") == f"D\t{path_of(PATIENT)}"


@pytest.mark.parametrize("revision", ["nothing", "main^{tree}", "", "HEAD~9"])
def test_a_revision_that_is_no_commit_of_the_record_is_not_found(store, revision):
    with pytest.raises(NotFound):
        store.resolve(revision)


def test_a_commit_beside_the_record_is_not_found(store, git):
    git("tag", "beside", git("commit-tree", "main^{tree}", "-m", "beside"))
    git(
        "tag",
        "copy",
        git("commit-tree", "main^{tree}", "-p", "main", "-m", git("log", "-1", "--format=%B", "main")),
    )

    for revision in ("beside", "copy"):
        with pytest.raises(NotFound, match=revision):
            store.resolve(revision)
