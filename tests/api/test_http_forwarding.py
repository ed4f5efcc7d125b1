"""A replica passes writes on to the primary, and answers what that one answers. docs/scaling.md"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.base import Base
from api.limits import Places
from gitstore import ANONYMOUS, Invalid, Journal, Settings, Store, Update
from gitstore.cluster.cluster import Cluster
from tests.api.conftest import Client, Clock
from tests.api.neighbours import (
    EXAMPLE,
    PATIENCE,
    Neighbours,
    cluster,
    lead_to,
    rude,
    serving,
    turn,
    unused,
)
from tests.api.test_http_journaled import lines

PATIENT = {"resourceType": "Patient", "id": "example", "active": True}
LABEL = {"name": "meta", "valueMeta": {"tag": [{"system": "urn:x", "code": "y"}]}}
LABELS = {"resourceType": "Parameters", "parameter": [LABEL]}
OURS = ("localhost", "127.0.0.1")


class World:
    """A primary that serves at `url`, and a replica that knows it, with a client of each."""

    def __init__(self, nodes: Neighbours, opened: ExitStack) -> None:
        self.primary = nodes.primary(trusted_proxy=("127.0.0.1",))
        self.primary.commit([Update(EXAMPLE, PATIENT)], ANONYMOUS)
        turn(self.primary)
        self.replica = nodes.replica()
        self.seen: list[dict[str, str]] = []
        app = create_app(self.primary, self.primary.settings, clock=nodes.clock)

        def spied(environ: dict[str, Any], respond: Callable[..., Any]) -> Any:
            self.seen.append({name: value for name, value in environ.items() if isinstance(value, str)})
            return app(environ, respond)

        self.url = opened.enter_context(serving(spied))
        lead_to(self.replica, self.url)
        self.client = Client(create_app(self.replica, self.replica.settings, clock=nodes.clock))

    def client_with(self, **options: Any) -> Client:
        return Client(create_app(self.replica, self.replica.settings, **options))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, empty_record: Path, settings: Settings
) -> Iterator[World]:
    nodes = Neighbours(tmp_path_factory.mktemp("forwarding"), empty_record, settings, Clock())
    with pytest.MonkeyPatch.context() as patched, ExitStack() as opened:
        patched.setattr(Cluster, "_begin", lambda self: None)
        opened.callback(nodes.close)
        yield World(nodes, opened)


@pytest.fixture(autouse=True)
def _the_replica_is_up_to_date(world: World) -> None:
    turn(world.primary)
    turn(world.replica)
    lead_to(world.replica, world.url)
    world.seen.clear()


def commits(store: Store) -> int:
    return store.snapshot().commit.sequence


TRANSACTION = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [{"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/example"}}],
}
PATCH = [{"op": "replace", "path": "/active", "value": False}]
WRITES = {
    "update": ("PUT", "Patient/example", PATIENT, {}, 200),
    "create": ("POST", "Patient", {"resourceType": "Patient"}, {}, 201),
    "update by criteria": ("PUT", "Patient?_id=example", PATIENT, {}, 200),
    "patch": ("PATCH", "Patient/example", PATCH, {"Content_Type": "application/json-patch+json"}, 200),
    "delete": ("DELETE", "Patient/other", None, {}, 204),
    "transaction": ("POST", "", TRANSACTION, {}, 200),
    "batch": ("POST", "", {**TRANSACTION, "type": "batch"}, {}, 200),
    "labels": ("POST", "Patient/example/$meta-add", LABELS, {}, 200),
    "fewer labels": ("POST", "Patient/example/$meta-delete", LABELS, {}, 200),
    "restore": ("POST", "Patient/example/$restore?version=1", None, {}, 200),
}


@pytest.mark.parametrize("kind", WRITES)
def test_what_writes_is_passed_on(world: World, kind: str) -> None:
    """It happens at the primary, with all that came along; the answer is that one's."""
    method, url, body, headers, status = WRITES[kind]
    sent = json.dumps(body).encode() if body is not None else None

    response = world.client.request(method, url, sent, X_Commit_Message="why", X_Request_Id="mine", **headers)

    assert response.status_code == status, response.text
    assert response.headers["X-Request-Id"] == "mine"
    assert len(world.seen) == 1
    commit = world.primary.snapshot().commit
    if kind != "delete":  # of what was never there
        assert response.headers["Git-Commit"] == commit.id
        assert world.primary.message(commit) == "why"
    assert commits(world.replica) <= commits(world.primary)


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "Patient/example", None),
        ("GET", "Patient?name=x", None),
        ("POST", "Patient/$validate", PATIENT),
        ("POST", "Patient/example/$diff", None),
        ("POST", "Patient/example/$meta", None),
        ("POST", "Patient/example/$everything", None),
        ("POST", "/at/2023-11-15/fhir/Patient", PATIENT),
        ("POST", "Patient/example", PATIENT),
        ("OPTIONS", "Patient/example", None),
    ],
)
def test_what_only_asks_is_answered_here(world: World, method: str, url: str, body: Any) -> None:
    assert world.client.request(method, url, body).status_code in (200, 204, 405)
    assert world.seen == []


def test_a_search_by_post_is_answered_here(world: World) -> None:
    form = "application/x-www-form-urlencoded"
    assert world.client.request("POST", "Patient/_search", b"", Content_Type=form).status_code == 200
    assert world.seen == []


def test_refusals_of_the_primary_come_back_as_they_are(world: World) -> None:
    for headers, status in (({"If_Match": 'W/"999"'}, 412), ({"X_Provenance": "no"}, 400)):
        response = world.client.put("Patient/example", PATIENT, **headers)
        assert response.status_code == status
        assert response.json["resourceType"] == "OperationOutcome"
    assert len(world.seen) == 2


def test_it_answers_what_the_primary_would_have(world: World) -> None:
    """Status, headers and body, but for what tells one answer from another."""
    direct = Client(create_app(world.primary, world.primary.settings))
    body = {"resourceType": "Patient", "id": "twice", "active": True}
    answers = [
        each.put("Patient/twice", body, Prefer="return=OperationOutcome") for each in (direct, world.client)
    ]
    assert [each.status_code for each in answers] == [201, 200]
    names = [{name.lower() for name in each.headers} - {"location"} for each in answers]
    assert names[0] == names[1]
    direct_read, passed = direct.get("Patient/twice"), world.client.put("Patient/twice", body)
    assert passed.headers["Content-Type"] == direct_read.headers["Content-Type"]
    assert passed.headers["Vary"] == direct_read.headers["Vary"], "once each"


def test_bodies_may_be_packed_both_ways(world: World) -> None:
    text = json.dumps({**PATIENT, "name": [{"text": "x" * 5000}]}).encode()
    response = world.client.put(
        "Patient/example", gzip.compress(text), Content_Encoding="gzip", Accept_Encoding="gzip"
    )
    assert response.status_code == 200
    assert response.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(response.content))["name"][0]["text"] == "x" * 5000


def test_links_are_the_clients(world: World) -> None:
    """Where the primary believes the replica: fhir.trustedProxy. What a client says of proxies is not passed on."""
    response = world.client.post(
        "Patient",
        {"resourceType": "Patient"},
        Host="localhost:1234",
        X_Forwarded_Host="evil.example",
        X_Forwarded_Prefix="/evil",
        X_Forwarded_For="127.0.0.1",
        Forwarded="host=evil.example",
    )
    assert response.headers["Location"].startswith("http://localhost:1234/fhir/Patient/")
    [seen] = world.seen
    assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert not [name for name, value in seen.items() if "evil" in value]


@pytest.mark.parametrize(("prefix", "expected"), [("", "/one"), ("/one", None), ("/two", "/one")])
def test_a_prefix_is_named_unless_the_primary_has_it_itself(
    world: World, prefix: str, expected: str | None
) -> None:
    """Two servers of many repositories each: both put its name before the base."""
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    with rude(answer) as (url, heard):
        lead_to(world.replica, url + prefix)
        response = world.client._http.simulate_put(
            "/fhir/Patient/x y", headers={"Host": "localhost"}, root_path="/one", query_string="_id=%20a&b"
        )
    assert response.status_code == 204
    [line, *headers] = heard[0].decode().split("\r\n")
    assert line == f"PUT {prefix}/fhir/Patient/x%20y?_id=%20a&b HTTP/1.1"
    found = [each.partition(": ")[2] for each in headers if each.startswith("X-Forwarded-Prefix")]
    assert found == ([] if expected is None else [expected])


def test_only_what_goes_from_end_to_end_is_passed_on(world: World) -> None:
    """https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 Credentials go along: the primary checks them."""
    answer = (
        b'HTTP/1.1 201 Created\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nETag: W/"7"\r\n'
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nAccess-Control-Allow-Origin: *\r\nServer: other\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    with rude(answer) as (url, heard):
        lead_to(world.replica, url)
        response = world.client.put(
            "Patient/example",
            "{}",
            Authorization="Bearer secret",
            Cookie="git-fhir=1",
            Connection="X-Mine",
            X_Mine="1",
            TE="trailers",
            Proxy_Authorization="Basic x",
            Expect="100-continue",
        )
    sent = dict(line.split(": ", 1) for line in heard[0].decode().split("\r\n")[1:] if ": " in line)
    assert sent.keys() >= {"Authorization", "Cookie", "Content-Type", "Content-Length"}
    assert not {"X-Mine", "Te", "Proxy-Authorization", "Expect"} & sent.keys()
    assert sent["Host"] == url.removeprefix("http://")
    assert (sent["Connection"], sent["Git-Fhir-Passed-On"]) == ("close", "1")
    assert (response.status_code, response.text, response.headers["ETag"]) == (201, "abc", 'W/"7"')
    assert {each.name for each in response.cookies.values()} == {"a", "b"}
    assert not {"x-hop", "keep-alive", "server", "access-control-allow-origin"} & {*response.headers}


# When it can't be


def test_without_a_known_primary_it_is_503(world: World, issue: Callable[..., Any]) -> None:
    (Path(world.replica.git_dir) / "git-fhir" / "primary").unlink()
    response = world.client.put("Patient/example", PATIENT)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert issue(response)[1] == "suppressed"
    assert "nothing" not in world.client.get("metadata").text
    assert "knows no primary" in world.client.get("metadata").json["rest"][0]["documentation"]


def test_the_statement_says_nothing_where_writes_are_passed_on(world: World) -> None:
    assert "replica" not in world.client.get("metadata").json["rest"][0]["documentation"]


@pytest.mark.parametrize("url", ["gopher://x", "http://", "http://a b", "http://user@x:80", "http://x:y"])
def test_where_no_server_can_be_is_503(world: World, url: str) -> None:
    lead_to(world.replica, url)
    response = world.client.put("Patient/example", PATIENT)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    with pytest.raises(Invalid, match=r"fhir\.replica"):
        Base.parse("fhir.replica", url)


def test_a_primary_that_cannot_be_reached_is_503(
    world: World, issue: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was sent, so nothing has happened. Where the primary is stands in the log, not in the answer."""
    lead_to(world.replica, unused())
    with caplog.at_level(logging.WARNING):
        response = world.client.put("Patient/example", PATIENT)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert issue(response)[1] == "transient"
    assert "127.0.0.1" not in response.text
    assert "the primary at http://127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    "said", [None, b"HTTP/1.1 20", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_primary_that_breaks_off_is_504(
    world: World, issue: Callable[..., Any], said: bytes | None
) -> None:
    """It may have happened: nobody may say 503 to that, which invites to do it again."""
    with rude(said) as (url, heard):
        lead_to(world.replica, url)
        response = world.client.put("Patient/example", PATIENT)
    assert heard
    assert response.status_code == 504
    assert "Retry-After" not in response.headers
    assert issue(response)[1] == "timeout"


def test_what_was_refused_before_its_end_has_its_answer(world: World) -> None:
    """A primary that takes no more of a large body says so, and hangs up."""
    answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with rude(answer, whole=False) as (url, _):
        lead_to(world.replica, url)
        response = world.client.put("Patient/example", b" " * 190_000)
    assert response.status_code in (413, 503), "by when the connection was reset"


def test_a_body_above_the_limit_is_not_passed_on(world: World) -> None:
    response = world.client.post("", b" " * 200_001)
    assert response.status_code == 413
    assert world.seen == []


def test_a_body_that_ends_too_early_is_not_passed_on_as_if_it_were_whole(world: World) -> None:
    with rude(None) as (url, _):
        lead_to(world.replica, url)
        response = world.client.put("Patient/example", b"{}", Content_Length="10")
    assert response.status_code == 400


def test_what_was_passed_on_once_is_not_passed_on_again(world: World, issue: Callable[..., Any]) -> None:
    """A replica that is taken for the primary, itself included, doesn't send a request round in circles."""
    with serving(create_app(world.replica, world.replica.settings)) as url:
        lead_to(world.replica, url)
        response = world.client.put("Patient/example", PATIENT)
    assert response.status_code == 503
    assert issue(response)[1] == "suppressed"


def test_a_slow_primary_leaves_threads_to_read_with(world: World) -> None:
    places = Places.of(4)
    client = world.client_with(places=places)
    held = [places.passing.acquire(blocking=False) for _ in range(3)]
    assert held == [True, True, False]
    assert client.put("Patient/example", PATIENT).status_code == 503
    assert client.get("Patient/example").status_code == 200
    places.passing.release()
    assert [client.put("Patient/example", PATIENT).status_code for _ in range(3)] == [200] * 3


# The rest of the way


def test_who_writes_through_a_replica_reads_there_what_he_wrote(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git-Commit of the write is Min-Git-Commit of the read."""
    written = world.client.put("Patient/example", {**PATIENT, "language": "de"})
    turn(world.primary)
    monkeypatch.setattr(cluster(world.replica), "wake", lambda: turn(world.replica))
    read = world.client.get("Patient/example", Min_Git_Commit=written.headers["Git-Commit"])
    assert (read.status_code, read.headers["ETag"]) == (200, written.headers["ETag"])
    assert len(world.seen) == 1


def test_min_git_commit_of_a_write_is_the_primarys_to_wait_for(world: World) -> None:
    """Which has it, while the replica may not."""
    first = world.client.put("Patient/example", PATIENT).headers["Git-Commit"]
    again = world.client.put("Patient/example", PATIENT, Min_Git_Commit=first)
    assert again.status_code == 200
    assert world.seen[1]["HTTP_MIN_GIT_COMMIT"] == first


def test_the_journal_of_the_replica_has_a_line(world: World) -> None:
    journal = Journal.open(world.replica.git_dir, durable=False, timeout=PATIENCE)
    client = world.client_with(journal=journal)
    response = client.put("Patient/example", PATIENT, X_Request_Id="the-one")
    journal.close()
    line = lines(Path(world.replica.git_dir))[-1]
    assert (line.interaction, line.status, line.request_id) == ("update", response.status_code, "the-one")
    assert (line.type, line.id, f'W/"{line.version}"') == ("Patient", "example", response.headers["ETag"])


def test_forms_of_pages_work(world: World) -> None:
    """The button that restores a version: the primary sends the browser back to where it was."""
    response = world.client.request(
        "POST",
        "Patient/example/$restore?version=1",
        b"",
        Accept="text/html",
        Content_Type="application/x-www-form-urlencoded",
        Host="localhost:1234",
        Origin="http://localhost:1234",
    )
    assert response.status_code == 303, response.text
    assert response.headers["Location"].removeprefix("http://localhost:1234") == "/fhir/Patient/example"


def test_the_primary_itself_passes_nothing_on(world: World) -> None:
    lead_to(world.primary, unused())
    client = Client(create_app(world.primary, replace(world.primary.settings)))
    assert client.put("Patient/example", PATIENT).status_code == 200
