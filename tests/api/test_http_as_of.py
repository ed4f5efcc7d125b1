"""`/at/{point}/fhir`: the record as it was, as a service base of its own. docs/audit.md, "As of" """

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import TestClient

from api.app import ROUTES, create_app
from api.credentials import Credentials
from gitstore import ANONYMOUS, Delete, Settings, Store, Tokens, Update
from gitstore.fhir.ids import ResourceId
from gitstore.search.states import States
from tests.api.conftest import START, Client, Clock

SERVER = "http://localhost:8080"
DAY = 24 * 60 * 60
WRITES = ("create", "update", "patch", "delete", "transaction", "batch")


def patient(id: str = "ada", **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, **elements}


def observation(id: str, of: str, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": id, "subject": {"reference": f"Patient/{of}"}, **elements}


def put(store: Store, *resources: dict[str, Any]) -> str:
    """Write them in one commit, whose id is returned."""
    updates = [Update(ResourceId(one["resourceType"], one["id"]), one) for one in resources]
    return store.commit(updates, ANONYMOUS)[0].version.commit.id


@pytest.fixture
def story(store: Store, clock: Clock) -> list[str]:
    """Three days, and the commit of each: a patient has two observations, is renamed, and an observation is deleted."""
    commits = [
        put(store, patient(name=[{"family": "Byron"}]), *(observation(f"o{n}", "ada") for n in (1, 2, 3)))
    ]
    clock.forward(DAY)
    commits.append(put(store, patient(name=[{"family": "King"}], birthDate="1815-12-10")))
    clock.forward(DAY)
    [gone] = store.commit([Delete(ResourceId("Observation", "o1"))], ANONYMOUS)
    return [*commits, gone.version.commit.id]


@pytest.fixture
def client(store: Store, settings: Settings, clock: Clock) -> Client:
    return Client(create_app(store, settings, clock=clock, patience=60.0))


def urls(value: Any) -> list[str]:
    """Every absolute URL of this server in a resource."""
    if isinstance(value, dict):
        return [url for each in value.values() for url in urls(each)]
    if isinstance(value, list):
        return [url for each in value for url in urls(each)]
    return [value] if isinstance(value, str) and value.startswith(SERVER) else []


def found(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["resource"]["id"] for each in answer.json.get("entry", [])]


# What is answered


def test_a_read_is_of_the_version_then(client: Client, story: list[str]) -> None:
    """Its headers name the base and the commit of the point."""
    answer = client.get(f"/at/{story[0]}/fhir/Patient/ada")

    assert answer.json["name"] == [{"family": "Byron"}]
    assert answer.headers["ETag"] == 'W/"1"'
    assert answer.headers["Content-Location"] == f"{SERVER}/at/{story[0]}/fhir/Patient/ada/_history/1"
    assert answer.headers["Git-Commit"] == story[0]


def test_what_was_done_later_is_not_there(client: Client, story: list[str]) -> None:
    """A later version and a later deletion; and what was there and is deleted since."""
    at = f"/at/{story[1]}/fhir"

    assert client.get(f"{at}/Patient/ada/_history/2").json["birthDate"] == "1815-12-10"
    assert client.get(f"/at/{story[0]}/fhir/Patient/ada/_history/2").status_code == 404
    assert client.get(f"{at}/Observation/o1").status_code == 200
    assert client.get(f"/at/{story[2]}/fhir/Observation/o1").status_code == 410
    assert client.get(f"{at}/Observation/o1/_history").json["total"] == 1
    assert client.get(f"{at}/_history").json["total"] == 5
    assert client.get(f"{at}/Patient/ada/$meta").json["parameter"][0]["valueMeta"]["versionId"] == "2"


def test_a_search_finds_what_it_found_then(client: Client, story: list[str]) -> None:
    first, second, third = (f"/at/{commit}/fhir" for commit in story)

    assert found(client.get(f"{first}/Patient?family=byron")) == ["ada"]
    assert found(client.get(f"{first}/Patient?birthdate=1815-12-10")) == []
    assert found(client.get(f"{second}/Patient?family=byron")) == []
    assert found(client.get(f"{second}/Observation?patient.family=king")) == ["o1", "o2", "o3"]
    assert found(client.get(f"{third}/Patient/ada/Observation")) == ["o2", "o3"]
    for base in (f"{SERVER}{first}", f"{SERVER}/fhir"):
        assert len(found(client.get(f"{first}/Observation?subject={base}/Patient/ada"))) == 3
    assert sorted(found(client.get(f"{second}/Patient/ada/$everything"))) == ["ada", "o1", "o2", "o3"]
    form = client.request(
        "POST", f"{first}/Patient/_search", "family=byron", Content_Type="application/x-www-form-urlencoded"
    )
    assert found(form) == ["ada"]
    assert form.headers["Git-Commit"] == story[0]


def test_every_link_stays_in_the_past(client: Client, story: list[str]) -> None:
    """Pages, entries and the CapabilityStatement: nothing leads to the record of now unasked."""
    base = f"{SERVER}/at/{story[1]}/fhir"
    seen = 0
    for query in (
        "Observation?_count=1&_include=*",
        "_history?_count=2",
        "Patient/ada/$everything?_count=2",
        "metadata",
    ):
        url = f"{base}/{query}"
        while url:
            answer = client.get(url.removeprefix(SERVER))
            assert answer.status_code == 200, answer.text
            assert answer.headers["Git-Commit"] == story[1]
            named = urls(answer.json)
            assert all(each.startswith(base) for each in named), named
            seen += len(named)
            url = next(
                (each["url"] for each in answer.json.get("link", []) if each["relation"] == "next"), ""
            )
    assert seen > 20


@pytest.mark.parametrize(
    "point", ["2023-11-14", "2023-11-15T00:00:00Z", "2023-11-15T01:00:00+01:00", "v1.0-first.clinic"]
)
def test_points_are_days_instants_commits_and_tags(
    client: Client, story: list[str], repository: Path, point: str
) -> None:
    """A day is its end, in UTC."""
    git = ["git", "-C", str(repository), "tag", "v1.0-first.clinic", story[0]]
    subprocess.run(git, check=True)

    answer = client.get(f"/at/{point}/fhir/Patient/ada")

    assert (answer.status_code, answer.headers["Git-Commit"]) == (200, story[0])
    assert answer.headers["Content-Location"].startswith(f"{SERVER}/at/{point}/fhir/")


def test_an_instant_to_come_is_now(client: Client, story: list[str]) -> None:
    assert client.get("/at/2999-01-01/fhir/Patient/ada").headers["Git-Commit"] == story[-1]


@pytest.mark.parametrize("point", ["2001-01-01", "2001-01-01T00:00:00Z"])
def test_before_its_beginning_the_record_was_empty(client: Client, story: list[str], point: str) -> None:
    """Searches find nothing, and reads neither."""
    assert found(client.get(f"/at/{point}/fhir/Patient")) == []
    assert client.get(f"/at/{point}/fhir/Patient/ada").status_code == 404
    assert client.get(f"/at/{point}/fhir/_history").json["total"] == 0


@pytest.mark.parametrize(
    ("point", "status"),
    [("0" * 40, 404), ("no-such-tag", 404), ("2026-02-30", 400), ("x_y", 400), ("2026-01-01T25:00:00Z", 400)],
)
def test_what_is_no_point_is_refused(client: Client, point: str, status: int, issue: Any) -> None:
    for path in ("Patient", "Patient/ada", "metadata"):
        answer = client.get(f"/at/{point}/fhir/{path}")
        assert answer.status_code == status
        assert issue(answer)[0] == "error"


def test_pages_of_one_state_are_of_no_use_in_another(client: Client, story: list[str]) -> None:
    """404 where the place in the order is that of another index, and for a state that was to come."""
    bases = [f"/at/{commit}/fhir" for commit in story] + ["/fhir"]
    tokens = []
    for base in bases:
        links = client.get(f"{base}/Observation?_count=1").json["link"]
        tokens.append(
            next(each["url"] for each in links if each["relation"] == "next").partition("_page=")[2]
        )

    for base, own in zip(bases, tokens, strict=True):
        answers = {
            token: client.get(f"{base}/Observation?_count=1&_page={token}").status_code for token in tokens
        }
        assert answers == {token: 200 if token == own else 404 for token in tokens}
    assert client.get(f"/at/{story[0]}/fhir/_history?_page=4").status_code == 404


def test_what_happened_is_told_up_to_the_point(client: Client, story: list[str]) -> None:
    """$changes, $diff and $blame: the same operations, as they would have answered then."""
    base = f"/at/{story[1]}/fhir"

    changes = client.get(f"{base}/$changes?from={story[0]}").json
    assert [each["fullUrl"] for each in changes["entry"]] == [f"{SERVER}{base}/Patient/ada"]
    assert client.get(f"{base}/$changes?from={story[0]}&to={story[2]}").status_code == 404
    assert client.get(f"{base}/Patient/ada/$diff").json == client.get("Patient/ada/$diff").json
    assert client.get(f"/at/{story[0]}/fhir/Patient/ada/$blame?version=2").status_code == 404


def test_the_access_journal_is_no_part_of_the_past(store: Store, story: list[str]) -> None:
    """fhir.auditEvents: it tells of now. docs/audit-journal.md"""
    client = Client(create_app(store, Settings(durability="off", audit_events="on"), patience=60.0))
    base = f"/at/{story[0]}/fhir"

    assert found(client.get(f"{base}/AuditEvent")) == []
    assert client.get(f"{base}/AuditEvent/access-1-1").status_code == 404


def test_a_page_for_a_person_leads_through_the_same_past(client: Client, story: list[str]) -> None:
    """HTML: what it links to is below the base; what belongs to the server is not."""
    page = client.get(f"/at/{story[0]}/fhir/Patient/ada", Accept="text/html")

    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert f'"/at/{story[0]}/fhir/Patient/ada/_history"' in page.text
    assert f"/at/{story[0]}/commits" not in page.text


# What is not done there


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_written_in_the_past(client: Client, store: Store, story: list[str], method: str) -> None:
    """405 on every route, with what is allowed; but a POST of a search is one."""
    before = store.snapshot().commit
    parts = {"{type}": "Patient", "{id}": "ada", "{vid}": "1", "{name}": "Observation"}
    for route, _ in ROUTES:
        if not route.startswith("/fhir") or (method == "POST" and route.endswith("_search")):
            continue
        path = f"/at/{story[0]}{route}"
        for name, value in parts.items():
            path = path.replace(name, value)
        answer = client.request(method, path, patient())
        assert answer.status_code == 405, path
        allowed = answer.headers["Allow"].split(", ")
        assert {*allowed} <= {"GET", "HEAD", "OPTIONS"} | ({"POST"} if route.endswith("_search") else set())
        options = client.request("OPTIONS", path)
        assert (options.status_code, options.headers["Allow"]) == (204, answer.headers["Allow"])
    assert store.snapshot().commit == before


def test_the_capability_statement_claims_no_writes(client: Client, story: list[str]) -> None:
    """https://hl7.org/fhir/R4/capabilitystatement.html: it is of this base."""
    statement = client.get(f"/at/{story[0]}/fhir/metadata").json
    [rest] = statement["rest"]
    codes = {each["code"] for one in rest["resource"] for each in one["interaction"]}
    codes |= {each["code"] for each in rest["interaction"]}

    assert statement["implementation"]["url"] == f"{SERVER}/at/{story[0]}/fhir"
    assert not codes & {*WRITES}
    assert codes >= {"read", "vread", "search-type", "history-instance", "search-system", "history-system"}
    assert "patchFormat" not in statement
    for one in rest["resource"]:
        assert (one["updateCreate"], one["conditionalCreate"], one["conditionalUpdate"]) == (
            False,
            False,
            False,
        )
        assert one["conditionalDelete"] == "not-supported"
        operations = {each["name"] for each in one["operation"]}
        assert operations <= {"meta", "everything", "diff", "blame"}


def test_other_paths_have_no_past(client: Client, story: list[str]) -> None:
    for path in ("metrics", "health", "login", "", "fhirs"):
        assert client.get(f"/at/{story[0]}/{path}").status_code == 404


# Searches that have to wait


def test_a_search_that_would_wait_long_is_told_to_come_again(
    store: Store, settings: Settings, story: list[str], issue: Any
) -> None:
    """202 with Retry-After while somebody else is making an index; all that needs none is answered."""
    client = Client(create_app(store, settings, patience=0.01))
    base = f"/at/{story[0]}/fhir"
    with store.rewinding.states.alone(threading.Event()):
        answer = client.get(f"{base}/Patient")
        assert answer.status_code == 202
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Git-Commit"] == story[0]
        severity, code, text = issue(answer)
        assert (severity, code) == ("information", "informational")
        assert "prepared" in text
        assert client.get(f"{base}/Patient/ada").status_code == 200
        assert client.get(f"{base}/_history").status_code == 200
        assert client.get(f"{base}/metadata").status_code == 200
        assert client.get("Patient").status_code == 200
    store.rewinding.finish()

    assert found(client.get(f"{base}/Patient?family=byron")) == ["ada"]


def test_how_far_it_is_is_told(
    store: Store, settings: Settings, story: list[str], issue: Any, monkeypatch: Any
) -> None:
    """In parts of the whole: a number of resources would tell of some that may not be seen."""
    reached, go_on = threading.Event(), threading.Event()
    drafting = States.drafting

    def slowly(states: States, commit: Any) -> Any:
        store.rewinding._task.part = 0.42  # type: ignore[union-attr]  # there is one: it makes this
        reached.set()
        assert go_on.wait(60)
        return drafting(states, commit)

    monkeypatch.setattr(States, "drafting", slowly)
    client = Client(create_app(store, settings, patience=0.0))
    assert client.get(f"/at/{story[0]}/fhir/Patient").status_code == 202
    assert reached.wait(60)

    text = issue(client.get(f"/at/{story[0]}/fhir/Patient"))[2]

    go_on.set()
    store.rewinding.finish()
    assert text == "This state is being prepared for searches: 42% is done."


# Who may see it


@pytest.fixture
def apps(repository: Path, settings: Settings, clock: Clock) -> Any:
    """Makes clients of a store with credentials: `of("patient/*.rs git-fhir/history", "ada")`."""
    with Store.open(repository, settings, clock=clock) as store:

        def of(scope: str | None, patient: str | None = None) -> TestClient:
            headers = {"Host": "localhost:8080"}
            if scope is not None:
                secret, _ = Tokens(str(repository)).create(
                    name="App", email="a@b.example", scope=scope, patient=patient, now=START, expires=None
                )
                headers["Authorization"] = f"Bearer {secret}"
            credentials = Credentials(str(repository), settings, lambda: START + 1)
            return TestClient(
                create_app(store, settings, credentials=credentials, patience=60.0), headers=headers
            )

        yield of, store


def test_the_past_needs_credentials_and_the_role_history(apps: Any) -> None:
    """Also its CapabilityStatement, which tells what there was; without the role each point is as unknown as another."""
    of, store = apps
    commit = put(store, patient())
    nobody, reader, historian = of(None), of("user/*.rs"), of("user/*.rs git-fhir/history")
    for path in ("Patient/ada", "Patient", "metadata", "_history"):
        assert nobody.simulate_get(f"/at/{commit}/fhir/{path}").status_code == 401
        refused = reader.simulate_get(f"/at/{commit}/fhir/{path}")
        unknown = reader.simulate_get(f"/at/{'0' * 40}/fhir/{path}")
        assert (refused.status_code, refused.json) == (404, unknown.json)
        assert "Git-Commit" not in refused.headers
        assert historian.simulate_get(f"/at/{commit}/fhir/{path}").status_code == 200
    assert nobody.simulate_options(f"/at/{commit}/fhir/Patient").status_code == 204


def names(client: TestClient, url: str) -> list[str]:
    answer = client.simulate_get(*url.split("?")[:1], query_string=url.partition("?")[2])
    assert answer.status_code == 200, answer.text
    return sorted(each["resource"]["id"] for each in answer.json.get("entry", []))


def test_what_was_taken_out_of_a_compartment_is_gone_from_its_past(apps: Any) -> None:
    """It never belonged there. What came into it since wasn't there then."""
    of, store = apps
    put(store, patient("ada"), patient("bob"))
    commit = put(
        store,
        observation("kept", "ada"),
        observation("moved", "ada"),
        observation("changed", "ada", valueString="x"),
        observation("removed", "ada"),
        observation("came", "bob"),
        observation("other", "bob", hasMember=[{"reference": "Observation/kept"}]),
    )
    put(store, observation("moved", "bob"), observation("came", "ada"), observation("changed", "ada"))
    store.commit([Delete(ResourceId("Observation", "removed"))], ANONYMOUS)
    app = of("patient/*.rs git-fhir/history", "ada")
    base = f"/at/{commit}/fhir"

    assert names(app, f"{base}/Observation") == ["changed", "kept", "removed"]
    assert names(app, f"{base}/Observation?value-string=x") == ["changed"]
    assert names(app, f"{base}/Patient?_has:Observation:patient:_id=moved") == []
    assert names(app, f"{base}/Patient?_has:Observation:patient:_id=changed") == ["ada"]
    assert names(app, f"{base}/Patient?_revinclude=Observation:patient") == [
        "ada",
        "changed",
        "kept",
        "removed",
    ]
    assert names(app, f"{base}/Patient/ada/$everything") == ["ada", "changed", "kept", "removed"]
    assert app.simulate_get(f"{base}/Observation", query_string="_summary=count").json["total"] == 3
    for id, status in {"kept": 200, "moved": 404, "came": 404, "removed": 200, "other": 404}.items():
        assert app.simulate_get(f"{base}/Observation/{id}").status_code == status, id
    # And what happens from now on counts as well.
    put(store, observation("kept", "bob"))
    assert names(app, f"{base}/Observation") == ["changed", "removed"]
    put(store, observation("kept", "ada"), observation("moved", "ada"))
    assert names(app, f"{base}/Observation") == ["changed", "kept", "moved", "removed"]
    assert names(of("user/*.rs git-fhir/history"), f"{base}/Observation") == sorted(
        ["kept", "moved", "changed", "removed", "came", "other"]
    )


def test_the_log_tells_the_whole_path_and_the_same_interactions(
    client: Client, story: list[str], caplog: Any
) -> None:
    with caplog.at_level("INFO"):
        client.get(f"/at/{story[0]}/fhir/Patient?family=x")

    [line] = [
        record.fields for record in caplog.records if hasattr(record, "fields") and "path" in record.fields
    ]
    assert (line["path"], line["interaction"]) == (f"/at/{story[0]}/fhir/Patient", "search-type")
