"""What a node of several tells, and when: in sync only what the hub has, and with Min-Git-Commit not too early.

docs/scaling.md
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.journaling import TELLING
from api.limits import Places
from gitstore import ANONYMOUS, Delete, Journal, NotReplicated, Settings, Store, Update
from gitstore.cluster.cluster import Cluster
from gitstore.fhir.ids import ResourceId
from tests.api.conftest import Client, Clock
from tests.api.neighbours import EXAMPLE, PATIENCE, Neighbours, cluster, patience, turn
from tests.api.test_http_journaled import lines

NOWHERE = "0" * 40
JSON = "application/fhir+json"


@pytest.fixture
def nodes(
    tmp_path: Path, empty_record: Path, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Neighbours]:
    monkeypatch.setattr(Cluster, "_begin", lambda self: None)
    found = Neighbours(tmp_path, empty_record, settings, clock)
    yield found
    found.close()


@pytest.fixture
def client_of(nodes: Neighbours, clock: Clock) -> Callable[..., Any]:
    def make(store: Store, **options: Any) -> Any:
        return Client(create_app(store, store.settings, clock=clock, **options))

    return make


def write(store: Store, id: str = "example", mark: str = "x") -> None:
    """One more version, whatever the hub says to it."""
    with suppress(NotReplicated):
        body = {"resourceType": "Patient", "id": id, "language": mark}
        store.commit([Update(ResourceId("Patient", id), body)], ANONYMOUS)


def is_untold(response: Any, status: int = 504) -> bool:
    """Whether an answer is a refusal that tells nothing."""
    assert response.status_code == status, response.text
    assert not {name.lower() for name in TELLING} & {name.lower() for name in response.headers}
    assert "versionId" not in response.text
    assert not re.search("[0-9a-f]{40}", response.text)
    return True


def prepared(nodes: Neighbours) -> Store:
    """A primary that waits no time at all. The hub has two versions of the example, and one of `gone`, which is deleted."""
    store = nodes.primary(replication="sync")
    patience(store, 0)
    for id in ("example", "gone", "example"):
        write(store, id)
    with suppress(NotReplicated):
        store.commit([Delete(ResourceId("Patient", "gone"))], ANONYMOUS)
    turn(store)
    return store


@pytest.fixture
def sync(nodes: Neighbours) -> Store:
    return prepared(nodes)


# Sync


BATCH = {
    "resourceType": "Bundle",
    "type": "batch",
    "entry": [{"request": {"method": "GET", "url": "Patient"}}],
}
TELLS = {
    "read": ("GET", "Patient/example", None, {}, 200),
    "read, HEAD": ("HEAD", "Patient/example", None, {}, 200),
    "not modified": ("GET", "Patient/example", None, {"If_None_Match": 'W/"3"'}, 304),
    "vread": ("GET", "Patient/example/_history/3", None, {}, 200),
    "as XML": ("GET", "Patient/example?_format=xml", None, {}, 200),
    "deleted": ("GET", "Patient/fresh", None, {}, 410),
    "deleted version": ("GET", "Patient/fresh/_history/2", None, {}, 410),
    "never there": ("GET", "Patient/nobody", None, {}, 404),
    "search": ("GET", "Patient", None, {}, 200),
    "search by POST": ("POST", "Patient/_search", b"", {"Content_Type": "application/x-www-form-urlencoded"}, 200),
    "everything": ("GET", "Patient/example/$everything", None, {}, 200),
    "history": ("GET", "Patient/example/_history", None, {}, 200),
    "history of all": ("GET", "_history", None, {}, 200),
    "labels": ("GET", "Patient/example/$meta", None, {}, 200),
    "difference": ("GET", "Patient/example/$diff", None, {}, 200),
    "blame": ("GET", "Patient/example/$blame", None, {}, 200),
    "changes": ("GET", "$changes?from=2023-11-14", None, {}, 200),
    "as of": ("GET", "/at/2023-11-15/fhir/Patient/example", None, {}, 200),
    "batch of reads": ("POST", "", BATCH, {}, 200),
    "page": ("GET", "Patient/example", None, {"Accept": "text/html"}, 200),
    "page of the base": ("GET", "/fhir", None, {"Accept": "text/html"}, 200),
    "refused write": ("PUT", "Patient/example", {"resourceType": "Patient", "id": "example"}, {"If_Match": 'W/"1"'}, 412),
    "what git asks": ("GET", "/fhir.git/info/refs?service=git-upload-pack", None, {}, 200),
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, empty_record: Path, settings: Settings
) -> Iterator[dict[str, tuple[Any, Any]]]:
    """The answers to all of these, before the hub has the last writes, and after."""
    nodes = Neighbours(tmp_path_factory.mktemp("nodes"), empty_record, settings, Clock())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Cluster, "_begin", lambda self: None)
        store = prepared(nodes)
        write(store)
        write(store, "fresh")
        with suppress(NotReplicated):
            store.commit([Delete(ResourceId("Patient", "fresh"))], ANONYMOUS)
        client = Client(create_app(store, store.settings, clock=nodes.clock))

        def ask(kind: str) -> Any:
            method, url, body, headers, _ = TELLS[kind]
            return client.request(method, url, body, **headers)

        before = {kind: ask(kind) for kind in TELLS}
        turn(store)
        yield {kind: (before[kind], ask(kind)) for kind in TELLS}
        nodes.close()


@pytest.mark.parametrize("kind", TELLS)
def test_in_sync_nothing_is_told_that_the_hub_has_not(asked: dict[str, tuple[Any, Any]], kind: str) -> None:
    """504 after fhir.hubTimeout, without content and without headers that tell; once the hub has it, the answer."""
    before, after = asked[kind]
    _, _, _, headers, status = TELLS[kind]

    assert is_untold(before)
    if before.headers["Content-Type"] == JSON and before.content:
        assert before.json["issue"][0]["code"] == "timeout"
        assert "The hub has not confirmed in time" in before.text
    assert after.status_code == status
    assert ("text/html" in after.headers.get("Content-Type", "")) == (
        "text/html" in headers.get("Accept", "")
    )


def test_what_the_hub_has_is_told_while_something_else_waits(
    sync: Store, client_of: Callable[..., Any]
) -> None:
    """A read waits for the version that it shows: then the answer names the commit of that, which has it, too."""
    client = client_of(sync)
    state = sync.snapshot().commit.id
    assert client.get("Patient/example").headers["Git-Commit"] == state
    write(sync, "another")

    for url in ("Patient/example", "Patient/example/_history/2"):
        read = client.get(url)
        assert (read.status_code, read.headers["ETag"]) == (200, 'W/"2"')
        commit = sync.resolve(read.headers["Git-Commit"])
        assert commit == sync.snapshot().read(EXAMPLE).commit
    assert client.get("Patient/example", If_None_Match='W/"2"').status_code == 304
    for url in ("Patient/gone", "Patient/gone/_history/2"):
        gone = client.get(url)
        assert (gone.status_code, gone.headers["ETag"]) == (410, 'W/"2"')
        assert sync.resolve(gone.headers["Git-Commit"]).sequence < sync.snapshot().commit.sequence

    turn(sync)
    assert client.get("Patient/example").headers["Git-Commit"] == sync.snapshot().commit.id


def test_what_is_not_in_the_record_waits_for_nothing(sync: Store, client_of: Callable[..., Any]) -> None:
    client = client_of(sync)
    write(sync)
    for url in ("/health", "metadata"):
        assert client.get(url).status_code == 200
    assert client.request("OPTIONS", "Patient").status_code == 204
    assert client.post("Patient", "{").status_code == 400


def test_an_answer_waits_until_the_hub_has_it(
    sync: Store, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sync)
    patience(sync, PATIENCE)
    client, answers, waits = client_of(sync), [], threading.Event()
    monkeypatch.setattr(cluster(sync), "published", waits.set)
    thread = threading.Thread(target=lambda: answers.append(client.get("Patient/example")))
    thread.start()
    assert waits.wait(PATIENCE)
    assert not answers

    turn(sync)
    with cluster(sync)._changed:
        cluster(sync)._changed.notify_all()
    thread.join(PATIENCE)

    assert [(each.status_code, each.headers["ETag"]) for each in answers] == [(200, 'W/"3"')]


def test_who_was_fenced_tells_nothing_of_what_was_not_taken(
    nodes: Neighbours, sync: Store, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: another node has become the primary while the answer waited, and this commit is not on the record."""
    replica = nodes.replica(replication="sync")
    cluster(replica).promote(ANONYMOUS, "test")
    write(sync)
    client = client_of(sync)
    monkeypatch.setattr(cluster(sync), "published", lambda: turn(sync))
    patience(sync, PATIENCE)

    refused = client.get("Patient/example")

    assert is_untold(refused, 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json["issue"][0]["code"] == "conflict"
    assert client.get("Patient/example").headers["ETag"] == 'W/"2"', "it follows now"


def test_the_journal_says_that_nothing_was_given_out(sync: Store, client_of: Callable[..., Any]) -> None:
    """A line with 504, without version and patients."""
    journal = Journal.open(sync.git_dir, durable=False, timeout=PATIENCE)
    client = client_of(sync, journal=journal)
    write(sync)
    client.get("Patient/example")
    client.get("Patient/example/_history/1")
    journal.close()

    found = [(each.status, each.version, each.patients) for each in lines(Path(sync.git_dir))]
    assert found == [(504, None, ()), (200, "1", ("example",))]


def test_in_async_and_alone_nothing_waits(
    nodes: Neighbours, store: Store, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = nodes.primary()
    monkeypatch.setattr(cluster(primary), "published", lambda: None)
    write(primary)
    assert client_of(primary).get("Patient/example").status_code == 200
    write(store)
    assert client_of(store).get("Patient/example").status_code == 200


def test_a_replica_answers_at_once(nodes: Neighbours, sync: Store, client_of: Callable[..., Any]) -> None:
    """What it knows it has from the hub."""
    replica = nodes.replica(replication="sync")
    patience(replica, 0)
    write(sync)
    client = client_of(replica)
    for url in ("Patient/example", "Patient", "Patient/nobody", "Patient/gone"):
        assert client.get(url).status_code in (200, 404, 410)


# Min-Git-Commit


@pytest.mark.parametrize("text", ["main", "abc", "A" * 40, "0" * 41, f"{NOWHERE},{NOWHERE}", ""])
def test_what_is_no_commit_is_refused(client: Any, issue: Callable[..., Any], text: str) -> None:
    refused = client.get("Patient", Min_Git_Commit=text)
    assert refused.status_code == 400
    assert issue(refused)[1] == "value"


def test_a_commit_that_is_here_is_not_waited_for(store: Store, client: Any) -> None:
    write(store)
    first = store.snapshot().commit.id
    write(store)
    for id in (first, store.snapshot().commit.id):
        for url in ("Patient/example", "Patient", "_history", f"/at/{first}/fhir/Patient/example"):
            assert client.get(url, Min_Git_Commit=id).status_code == 200
        assert (
            client.put("Patient/x", {"resourceType": "Patient", "id": "x"}, Min_Git_Commit=id).status_code
            < 300
        )


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "Patient/example", None),
        ("GET", "Patient", None),
        ("POST", "Patient/_search", b""),
        ("GET", "_history", None),
        ("GET", "/at/main/fhir/Patient/example", None),
        ("GET", "/at/2023-11-14/fhir/Patient/example", None),
        ("POST", "Patient", {"resourceType": "Patient"}),
        ("PUT", "Patient/example", {"resourceType": "Patient", "id": "example"}),
    ],
)
def test_a_commit_that_does_not_come_is_503(
    store: Store,
    client_of: Callable[..., Any],
    issue: Callable[..., Any],
    method: str,
    url: str,
    body: Any,
) -> None:
    """Transient, with Retry-After; and nothing was done."""
    write(store)
    client = client_of(store, longest_wait=0.0)
    before = store.snapshot().commit

    refused = client.request(method, url, body, Min_Git_Commit=NOWHERE)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert issue(refused) == ("error", "transient", f"This node has no commit {NOWHERE} yet.")
    assert store.snapshot().commit == before


def test_monitors_and_preflights_wait_for_nothing(store: Store, client_of: Callable[..., Any]) -> None:
    client = client_of(store, longest_wait=0.0)
    for url in ("/health", "/ready", "metadata"):
        assert client.get(url, Min_Git_Commit=NOWHERE).status_code == 200
    assert client.request("OPTIONS", "Patient", Min_Git_Commit=NOWHERE).status_code == 204


def test_who_writes_here_and_reads_there_reads_what_he_wrote(
    nodes: Neighbours, client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica looks at the hub at once, instead of at its next look; an as-of, too, finds the commit."""
    primary, replica = nodes.primary(), nodes.replica()
    at_primary, at_replica = client_of(primary), client_of(replica)
    written = at_primary.put("Patient/example", {"resourceType": "Patient", "id": "example"})
    turn(primary)
    assert at_replica.get("Patient/example").status_code == 404
    monkeypatch.setattr(cluster(replica), "wake", lambda: turn(replica))

    id = written.headers["Git-Commit"]
    read = at_replica.get(f"/at/{id}/fhir/Patient/example", Min_Git_Commit=id)

    assert (read.status_code, read.headers["ETag"]) == (200, 'W/"1"')
    assert at_replica.get("Patient/example", Min_Git_Commit=id).status_code == 200


def test_only_so_many_wait(store: Store, client_of: Callable[..., Any]) -> None:
    """The others are refused at once; who needn't wait is not concerned."""
    places = Places.of(8)
    client = client_of(store, longest_wait=3600.0, places=places)
    for _ in range(2):
        assert places.waiting.acquire(blocking=False)

    refused = client.get("Patient", Min_Git_Commit=NOWHERE)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert client.get("Patient", Min_Git_Commit=store.snapshot().commit.id).status_code == 200


def test_a_place_is_given_back(store: Store, client_of: Callable[..., Any]) -> None:
    client = client_of(store, longest_wait=0.0, places=Places.of(4))
    texts = [client.get("Patient", Min_Git_Commit=NOWHERE).text for _ in range(3)]
    assert all("has no commit" in text for text in texts)


def test_some_threads_are_left_for_the_others() -> None:
    """Half of them at most are with the primary, a quarter waits for commits."""
    for threads in (4, 8, 32, 100):
        places = Places.of(threads)
        taken = sum(
            1 for each in (places.waiting, places.passing) for _ in range(200) if each.acquire(blocking=False)
        )
        assert 0 < taken < threads


def test_pages_of_other_origins_may_send_it(store: Store, settings: Settings, clock: Clock) -> None:
    origin = "https://app.example"
    client = Client(create_app(store, replace(settings, cors_origin=(origin,)), clock=clock))
    preflight = client.request("OPTIONS", "Patient", Origin=origin, Access_Control_Request_Method="GET")
    assert "Min-Git-Commit" in preflight.headers["Access-Control-Allow-Headers"].split(", ")
