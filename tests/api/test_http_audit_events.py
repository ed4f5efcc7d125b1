"""AuditEvents of what the access journal holds. docs/audit-journal.md, https://hl7.org/fhir/R4/auditevent.html"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon.testing import create_environ
from hypothesis import given
from hypothesis import strategies as st

from api import audit_events, audited
from api.principal import ANONYMOUS_PRINCIPAL, Principal
from api.request import Request
from gitstore import FULL_ACCESS, Author, Forbidden, Invalid, Issue, Journal, JournalEntry, NotFound, Recorded
from gitstore.fhir import json, validation

BASE = "https://fhir.example.org/fhir"
NOON = 1_795_348_800_000_000
"""2026-11-22T12:00:00Z"""
HOUR = 3_600_000_000


@pytest.fixture
def git_dir(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def noted(git_dir: str) -> Iterator[Callable[..., None]]:
    """`noted(hour, principal, interaction, status=…)`: put an access into the journal, at so many hours after noon."""
    now = [NOON]
    journal = Journal.open(git_dir, lambda: now[0], durable=False)

    def note(hour: float, principal: str, interaction: str, status: int = 200, **others: Any) -> None:
        now[0] = NOON + int(hour * HOUR)
        journal.record(JournalEntry(principal, interaction, status, f"r-{hour}", **others))

    yield note
    journal.close()


@pytest.fixture
def ward(noted: Callable[..., None]) -> None:
    """A day on the ward: line 1 begins the file, so the events are access-2 to access-7."""
    noted(
        0, "Ada Lovelace", "read", type="Patient", id="p1", version="3", patients=("p1",), remote="10.0.0.7"
    )
    noted(1, "Grace Hopper", "search-type", type="Observation", query="code=1234", patients=("p1", "p2"))
    noted(2, "Ada Lovelace", "update", type="Observation", id="o1", version="2", patients=("p2",))
    noted(3, "Grace Hopper", "read", 404, type="Patient", id="p9")
    noted(
        4,
        "Ada Lovelace",
        "$everything",
        500,
        type="Patient",
        id="p1",
        agent="https://idp.example.org ada app",
    )
    noted(5, "Ada Lovelace", "transaction", patients=("p3",), purpose="TREAT")


def errors(resource: Any) -> list[Issue]:
    return [issue for issue in validation.issues(resource) if issue.severity == "error"]


def search(git_dir: str, *pairs: tuple[str, str]) -> list[str]:
    """The ids of the events that are found, in order."""
    asked = audit_events.question(pairs, BASE)
    bundle = json.loads(audit_events.bundle(BASE, asked, audit_events.page(git_dir, asked)))
    assert errors(bundle) == []
    return [entry["resource"]["id"].removeprefix("access-") for entry in bundle.get("entry", [])]


FOUND = [
    ([], "765432"),
    ([("patient", "p1")], "32"),
    ([("patient", "Patient/p2")], "43"),
    ([("patient", f"{BASE}/Patient/p2")], "43"),
    ([("patient", "p1,p3")], "732"),
    ([("patient", "p1"), ("patient", "p2")], "3"),
    ([("patient", "nobody")], ""),
    ([("date", "2026-11-22")], "765432"),
    ([("date", "2026-11-23")], ""),
    ([("date", "ge2026-11-22T14:00:00Z")], "7654"),
    ([("date", "gt2026-11-22T14:00:00Z")], "765"),
    ([("date", "le2026-11-22T14:00:00Z")], "432"),
    ([("date", "lt2026-11-22T14:00:00Z")], "32"),
    ([("date", "ge2026-11-22T14:00:00 00:00")], "7654"),
    ([("date", "ge2026-11-22T13:00:00Z"), ("date", "lt2026-11-22T16:00:00Z")], "543"),
    ([("agent", "Grace Hopper")], "53"),
    ([("agent", "https://idp.example.org ada app")], "6"),
    ([("agent", "Grace")], ""),
    ([("agent-name", "hop")], "53"),
    ([("agent-name", "ovelace")], ""),
    ([("entity", "Observation/o1")], "4"),
    ([("entity", "Observation/o1/_history/2")], "4"),
    ([("entity", "Patient/p2")], "43"),
    ([("entity", "Patient/p9,Observation/o1")], "54"),
    ([("action", "R")], "52"),
    ([("action", "U,E")], "7643"),
    ([("type", "rest")], "765432"),
    ([("type", f"{audited.REST}|rest")], "765432"),
    ([("type", "http://dicom.nema.org/resources/ontology/DCM|110100")], ""),
    ([("subtype", "search-type")], "3"),
    ([("subtype", f"{audited.INTERACTIONS}|operation")], "6"),
    ([("subtype", "$everything")], "6"),
    ([("outcome", "4")], "5"),
    ([("outcome", "0")], "7432"),
    ([("address", "10.0.")], "2"),
    ([("_id", "access-4")], "4"),
    ([("patient", "p1"), ("agent-name", "ada"), ("date", "2026")], "2"),
    ([("_count", "2")], "76"),
    ([("_count", "0")], ""),
    ([("_sort", "-date"), ("_format", "json")], "765432"),
]  # fmt: skip


@pytest.mark.usefixtures("ward")
@pytest.mark.parametrize(("pairs", "expected"), FOUND, ids=lambda each: str(each)[:60])
def test_a_search_finds_what_it_asks_for_newest_first(git_dir, pairs, expected):
    """https://hl7.org/fhir/R4/auditevent.html#search"""
    assert search(git_dir, *pairs) == list(expected)


REFUSED = [
    ("patient", "Observation/o1"),
    ("patient", "?"),
    ("entity", "p1"),
    ("date", "yesterday"),
    ("date", "ne2026"),
    ("_count", "many"),
    ("_page", "x"),
    ("_sort", "date"),
    ("site", "here"),
    ("patient:Patient", "p1"),
    ("_include", "*"),
]


@pytest.mark.parametrize("pair", REFUSED, ids="=".join)
def test_what_is_not_understood_is_refused_and_never_ignored(pair):
    """Else an audit would show more than was asked for."""
    with pytest.raises(Invalid):
        audit_events.question([pair], BASE)


@pytest.mark.usefixtures("ward")
def test_pages_go_on_where_they_ended_also_while_others_look(git_dir, noted):
    """Nothing twice, nothing missed: newer accesses are on no page after the first."""
    pairs = [("_count", "2"), ("date", "2026-11-22")]
    seen = []
    while True:
        asked = audit_events.question(pairs, BASE)
        bundle = json.loads(audit_events.bundle(BASE, asked, audit_events.page(git_dir, asked)))
        seen += [entry["resource"]["id"] for entry in bundle["entry"]]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert links["first"] == f"{BASE}/AuditEvent?_count=2&date=2026-11-22"
        if "next" not in links:
            break
        noted(9, "Eve", "read")
        _, _, query = links["next"].partition("?")
        pairs = [tuple(pair.split("=")) for pair in query.split("&")]

    assert seen == [f"access-{n}" for n in (7, 6, 5, 4, 3, 2)]


# The resource

WORDS = st.text(max_size=12)
IDS = st.sampled_from(["p1", "", "not an id", "x" * 65])
ACCESSES = st.builds(
    Recorded,
    st.integers(1, 10**9),
    st.integers(0, 4_000_000_000_000_000),
    st.builds(
        JournalEntry,
        WORDS,
        st.sampled_from(
            ["read", "vread", "search-type", "history-instance", "patch", "$everything", "batch"]
        ),
        st.integers(100, 599),
        WORDS,
        agent=st.none() | WORDS,
        type=st.none() | st.sampled_from(["Patient", "Observation", "Nonsense"]),
        id=st.none() | IDS,
        version=st.none() | st.sampled_from(["3", "x y"]),
        query=st.none() | WORDS,
        patients=st.lists(IDS, max_size=3).map(tuple),
        remote=st.none() | WORDS,
        purpose=st.none() | WORDS,
    ),
)


@given(ACCESSES)
def test_whatever_was_asked_for_is_a_valid_audit_event(access):
    """By the same rules that a client's would have to pass."""
    assert errors(audited.event(access, BASE)) == []


@given(ACCESSES)
def test_the_id_of_an_event_names_its_line(access):
    assert audited.number_of(audited.id_of(access)) == access.number


@pytest.mark.parametrize(
    "id", ["access-", "access-0", "access-01", "access-x", "access-١", "7", f"access-{10**20}"]
)
def test_no_other_id_names_a_line(id):
    assert audited.number_of(id) is None


@pytest.mark.usefixtures("ward")
def test_an_event_says_who_what_whose_and_how_it_ended(git_dir):
    found = audited.event(audit_events.read(git_dir, "access-3"), BASE)

    assert found["recorded"] == "2026-11-22T13:00:00.000000Z"
    assert (found["type"]["code"], found["subtype"], found["action"], found["outcome"]) == (
        "rest",
        [{"system": "http://hl7.org/fhir/restful-interaction", "code": "search-type"}],
        "E",
        "0",
    )
    assert (found["agent"][0]["who"], found["agent"][0]["requestor"]) == ({"display": "Grace Hopper"}, True)
    what = [entity["what"] for entity in found["entity"] if "what" in entity]
    assert what == [
        {"reference": "Patient/p1"},
        {"reference": "Patient/p2"},
        {"identifier": {"value": "r-1"}},
    ]
    [query] = [entity["query"] for entity in found["entity"] if "query" in entity]
    assert b64decode(query) == b"Observation?code=1234"
    failed = audited.event(audit_events.read(git_dir, "access-6"), BASE)
    assert (failed["outcome"], failed["outcomeDesc"]) == ("8", "HTTP 500")
    assert [each["code"] for each in failed["subtype"]] == ["operation", "$everything"]


@pytest.mark.usefixtures("ward")
@pytest.mark.parametrize("id", ["access-1", "access-99", "access-x", "stored"])
def test_what_no_line_holds_is_not_found(git_dir, id):
    """Also the first line of a file, which is no access."""
    with pytest.raises(NotFound):
        audit_events.read(git_dir, id)


# Over HTTP


def ask(principal: Principal) -> tuple[Request, falcon.Response]:
    req = Request(create_environ("/fhir/AuditEvent"))
    req.principal, req.base = principal, BASE
    return req, falcon.Response()


AUDITOR = Principal(
    Author("Eve", "eve@example.org"), FULL_ACCESS, frozenset({"audit"}), None, "eve", "bearer"
)


@pytest.mark.usefixtures("ward")
def test_an_auditor_is_answered(git_dir):
    req, resp = ask(AUDITOR)
    audit_events.send_search(req, resp, git_dir, [("patient", "p2")])
    assert len(json.loads(resp.data)["entry"]) == 2

    req, resp = ask(AUDITOR)
    audit_events.send_read(req, resp, git_dir, "access-2")
    assert json.loads(resp.data)["id"] == "access-2"
    assert (resp.get_header("ETag"), resp.get_header("Last-Modified")) == (
        'W/"1"',
        "Sun, 22 Nov 2026 12:00:00 GMT",
    )


@pytest.mark.usefixtures("ward")
def test_who_is_no_auditor_is_told_nothing(git_dir):
    """403, also where there would be nothing to tell."""
    req, resp = ask(
        Principal(Author("Eve", "e@example.org"), FULL_ACCESS, frozenset(), None, "eve", "bearer")
    )

    with pytest.raises(Forbidden):
        audit_events.send_search(req, resp, git_dir, [])
    with pytest.raises(Forbidden):
        audit_events.send_read(req, resp, git_dir, "access-99")
    assert "audit" in ANONYMOUS_PRINCIPAL.roles
