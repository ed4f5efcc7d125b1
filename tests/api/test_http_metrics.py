"""/metrics: what is counted, under which labels, and that the numbers of several workers add up."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from wsgiref.validate import WSGIWarning

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import ROUTES, create_app
from api.metrics import MAX_REASONS, METHODS, Metrics
from gitstore import ANONYMOUS, ClusterStatus, Create, Store, TooCostly
from gitstore.git.upkeep import count_packs

PATIENT = {"resourceType": "Patient", "id": "example"}
ROOT = Path(__file__).parents[2]
WORKERS = 2
PATIENCE = 30


def numbers(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return numbers(text).get((f"git_fhir_{name}", frozenset(labels.items())), 0.0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def store(repository, settings, clock, metrics) -> Iterator[Store]:
    with Store.open(repository, settings, clock=clock, observer=metrics) as opened:
        yield opened


@pytest.fixture
def client(store, settings, clock, metrics, make_client):
    made = make_client()
    made._http.app = create_app(store, settings, clock=clock, metrics=metrics)
    return made


def test_it_is_prometheus_text(client):
    """https://prometheus.io/docs/instrumenting/exposition_formats/ Whatever Prometheus says that it accepts."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    response = client.get("/metrics", Accept=accept)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert client.get("/metrics", Accept="text/plain").status_code == 200
    assert all(name.startswith("git_fhir_") for name, _ in numbers(response.text))


@pytest.mark.parametrize(
    ("method", "url", "body", "interaction"),
    [
        ("GET", "Patient/example", None, "read"),
        ("HEAD", "Patient/example", None, "read"),
        ("GET", "Patient/example/_history/1", None, "vread"),
        ("PUT", "Patient/example", PATIENT, "update"),
        ("PUT", "Patient?identifier=1", PATIENT, "update"),
        ("PATCH", "Patient/example", b"[]", "patch"),
        ("PATCH", "Patient?identifier=1", b"[]", "patch"),
        ("DELETE", "Patient/example", None, "delete"),
        ("DELETE", "Patient?identifier=1", None, "delete"),
        ("POST", "Patient", PATIENT, "create"),
        ("GET", "Patient?name=x", None, "search-type"),
        ("POST", "Patient/_search", b"", "search-type"),
        ("GET", "Patient/1/Observation", None, "search-type"),
        ("GET", "?_type=Patient", None, "search-system"),
        ("POST", "_search", b"", "search-system"),
        ("GET", "_history", None, "history-system"),
        ("GET", "Patient/_history", None, "history-type"),
        ("GET", "Patient/example/_history", None, "history-instance"),
        ("GET", "metadata", None, "capabilities"),
        ("POST", "", {"resourceType": "Bundle", "type": "batch"}, "batch"),
        ("POST", "", {"resourceType": "Bundle", "type": "transaction"}, "transaction"),
        ("POST", "", {"resourceType": "Bundle", "type": "document"}, "other"),
        ("POST", "Patient/$validate", PATIENT, "$validate"),
        ("GET", "Patient/example/$meta", None, "$meta"),
        ("GET", "Patient/example/$everything", None, "$everything"),
        ("GET", "/health", None, "health"),
        ("GET", "/ready", None, "ready"),
        ("OPTIONS", "Patient", None, "other"),
        ("GET", "/nowhere", None, "other"),
    ],
)
def test_requests_are_counted_by_their_interaction(client, method, url, body, interaction):
    """FHIR's code, as the route table has it; the method and the status beside it, and how long it took."""
    response = client.request(method, url, body)

    text = client.get("/metrics").text
    labels = {"interaction": interaction, "method": method, "status": str(response.status_code)}
    assert value(text, "requests_total", **labels) == 1
    assert value(text, "request_seconds_count", interaction=interaction) == 1
    assert value(text, "sent_bytes_total") == (0 if method == "HEAD" else len(response.content))
    assert value(text, "requests_in_flight") == 1, "this very one"


def test_what_a_client_makes_up_is_no_label(client):
    """The number of series is bounded, whatever is sent."""
    with pytest.warns(WSGIWarning, match="BREW"):
        client.request("BREW", "Patient/1")
    for number in range(20):
        client.get(f"/made-up-{number}")
        client.get(f"Madeup{number}/1")
        client.get(f"Patient/made-up-{number}")

    text = client.get("/metrics").text
    assert "made-up" not in text.lower()
    assert value(text, "requests_total", interaction="other", method="GET", status="404") == 20
    assert sum(number for (_, labels), number in numbers(text).items() if ("method", "other") in labels) == 1


def test_every_label_of_a_request_is_bounded():
    """Codes come from the route table, methods from HTTP."""
    codes = {code for _, kind in ROUTES for each in kind.interactions.values() for code in each}
    names = {kind.name for _, kind in ROUTES}

    for _, kind in ROUTES:
        for method in (*METHODS, "BREW"):
            for path in ({}, {"type": "x"}):
                assert kind.interaction(method, path) in codes | names


def test_commits_and_their_groups(client, store, metrics):
    """Each durable write: how many commits shared it, how long it took, how long the lock was waited for."""
    client.put("Patient/example", PATIENT)
    client.put("Patient/example", PATIENT)
    client.request("PUT", "Patient/example", PATIENT, If_Match='W/"9"')

    text = client.get("/metrics").text
    assert value(text, "commits_total") == 2
    assert value(text, "group_commits_count") == value(text, "publish_seconds_count") == 2
    assert value(text, "group_commits_bucket", le="1.0") == 2
    assert value(text, "lock_wait_seconds_count") >= 3, "the refused one took it, too"
    assert value(text, "publish_seconds_sum") > 0
    assert value(text, "publish_failures_total") == value(text, "queue_units") == 0
    assert value(text, "record_commits") == 3, "the first one made the record"
    assert value(text, "record_versions") == 2
    assert value(text, "last_commit_timestamp_seconds") == store.snapshot().commit.last_updated / 1_000_000


def test_the_files_of_the_record(client, repository):
    """As they are when somebody asks."""
    client.put("Patient/example", PATIENT)

    text = client.get("/metrics").text
    assert value(text, "packs") == count_packs(str(repository))[0] == 2
    assert value(text, "objects_bytes") > 0
    assert value(text, "index_bytes") > 0
    disk = os.statvfs(repository)
    assert value(text, "disk_free_bytes") == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.2)


def test_checks_and_the_lag_of_the_index(client, repository):
    """A foreign commit is one that the index doesn't hold."""
    text = client.get("/metrics").text
    assert (value(text, "check", check="index"), value(text, "index_lag_commits")) == (1, 0)

    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(repository)]
    made = subprocess.run(
        [*git, "commit-tree", "main^{tree}", "-p", "main", "-m", "by hand"], capture_output=True, check=True
    )
    subprocess.run([*git, "update-ref", "refs/heads/main", made.stdout.decode().strip()], check=True)
    assert client.put("Patient/example", PATIENT).status_code == 503

    text = client.get("/metrics").text
    assert (value(text, "check", check="index"), value(text, "index_lag_commits")) == (0, 1)
    assert value(text, "publish_failures_total") == 1


def test_maintenance_is_counted(client, store):
    store.maintain()

    text = client.get("/metrics").text
    assert value(text, "maintenance_seconds_count") == 1
    assert value(text, "maintenance_failures_total") == 0


def test_searches_that_cost_too_much_are_counted(client, store, settings):
    """fhir.searchLimit"""
    made = [Create({"resourceType": "Patient", "name": [{"family": f"n{number}"}]}) for number in range(400)]
    store.commit(made, ANONYMOUS)
    store._reading._settings = replace(settings, search_limit=1)
    query = "Patient?_sort=-family"
    assert client.get(query).json["issue"][0]["code"] == TooCostly.code

    assert value(client.get("/metrics").text, "searches_too_costly_total") == 1


def test_who_is_refused_is_counted_by_reason(client, metrics):
    """Also where nobody gave one: by what the status means."""
    client.get("metadata", Host="evil.example")
    metrics.denied("expired")
    metrics.denied("expired")

    text = client.get("/metrics").text
    assert value(text, "denied_total", reason="host") == 1
    assert value(text, "denied_total", reason="expired") == 2


def test_reasons_are_bounded(metrics):
    """Should one ever depend on what a client sends: there are MAX_REASONS, and what looks odd is `other`."""
    for number in range(200):
        metrics.denied("a" * (number % 60 + 1))
    metrics.denied("Lovelace, Ada")

    text = metrics.text(None, {}).decode()
    assert text.count("git_fhir_denied_total{") <= MAX_REASONS + 1
    assert "Lovelace" not in text
    assert value(text, "denied_total", reason="other") > 1


def test_the_journal_is_counted(metrics):
    metrics.journaled()
    metrics.journaled(3)

    assert value(metrics.text(None, {}).decode(), "journal_lines_total") == 4


def test_two_applications_count_apart(make_client):
    """Each has metrics of its own, where it is given none."""
    one, other = make_client(), make_client()
    one.get("Patient/example")

    assert "search-type" not in other.get("/metrics").text
    assert value(other.get("/metrics").text, "request_seconds_count", interaction="read") == 0


def test_a_record_that_can_not_be_read_is_a_number_too(client, repository):
    """Monitors must not lose sight of the server just then."""
    (repository / "git-fhir" / "index.sqlite").resolve().write_bytes(b"no database" * 1000)

    response = client.get("/metrics")

    assert response.status_code == 200
    assert value(response.text, "check", check="record") == 0


DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
NAMES = {name for line in EXPRESSIONS for name in re.findall(r"git_fhir_\w+", line)}


@pytest.fixture
def offered(client, metrics, store) -> set[str]:
    """The names of all series, also of those that only a record with several nodes has."""
    metrics.denied("expired")
    client.put("Patient/example", PATIENT)
    tip = store.snapshot().commit
    standing = ClusterStatus("primary", 0, "", None, "/hub", "async", tip, tip.sequence, 0, 0.0, None)
    text = client.get("/metrics").text + metrics.text(None, {}, standing).decode()
    families = list(text_string_to_metric_families(text))
    return {sample.name for family in families for sample in family.samples}


def test_the_dashboard_shows_what_there_is(offered):
    """docs/grafana-dashboard.json: every metric of its expressions is one of ours."""
    assert len(EXPRESSIONS) > 12
    assert offered >= NAMES


def test_the_dashboard_leaves_nothing_out(offered):
    assert {family(name) for name in offered} == {family(name) for name in NAMES}


def test_the_page_explains_every_metric(offered):
    """docs/operations.md, "Watching it": a row for each, and none for what there isn't."""
    page = (ROOT / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"^\| `(git_fhir_\w+)", page, re.MULTILINE))

    assert {family(name) for name in explained} == {family(name) for name in offered}


def family(name: str) -> str:
    return re.sub(r"_(total|bucket|sum|count)$", "", name)


def test_the_dashboard_asks_which_prometheus():
    """A variable for the data source, used by each panel; no two panels have one id."""
    [source] = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

    assert source["query"] == "prometheus"
    assert all(panel["datasource"]["uid"] == f"${{{source['name']}}}" for panel in panels)
    assert max(Counter(panel["id"] for panel in DASHBOARD["panels"]).values()) == 1


# Several workers


@dataclass
class Running:
    """`python -m api` with two workers."""

    process: subprocess.Popen[str]
    port: int
    home: Path

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/fhir+json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def metrics(self) -> str:
        status, text = self.request("GET", "/metrics")
        assert status == 200
        return text

    def log(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.home / "log").read_text().splitlines()]
        return [line for line in lines if line["message"].startswith(message)]

    def workers(self) -> list[int]:
        return [line["worker"] for line in self.log("worker ready")]

    def files(self) -> list[Path]:
        return list(self.home.glob("git-fhir-metrics-*/*.db"))

    def until(self, message: str, count: int) -> None:
        """Ask again and again until the log has so many such lines."""
        for _ in range(10_000):
            if len(self.log(message)) >= count:
                return
            self.request("GET", "/health")
        pytest.fail(f"the log has no {count} lines `{message}`")


@pytest.fixture
def running(repository, tmp_path) -> Iterator[Running]:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "api",
        str(repository),
        "--allow-anonymous",
        "--port",
        "0",
        "--workers",
        str(WORKERS),
    ]
    with (tmp_path / "log").open("w") as stream:
        process = subprocess.Popen(
            [*command, "--threads", "4"], stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
        )
    assert process.stdout is not None
    greeting = process.stdout.readline()
    yield Running(process, int(greeting.rsplit(":", 1)[1].removesuffix("/fhir\n")), tmp_path)
    process.terminate()
    assert process.wait(PATIENCE) in (0, -signal.SIGKILL)
    process.stdout.close()
    assert list(tmp_path.glob("git-fhir-metrics-*")) == [], "the folder goes with the server"


def reads(text: str) -> float:
    return value(text, "requests_total", interaction="read", method="GET", status="404")


def test_the_numbers_of_all_workers_add_up(running):
    """Whichever worker is asked; and they stay when workers are killed or replaced."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: running.request("GET", "/fhir/Patient/nobody"), range(100)))
        list(threads.map(lambda _: running.request("PUT", "/fhir/Patient/example", PATIENT), range(20)))
    folder = running.files()[0].parent
    assert folder.stat().st_mode & 0o077 == 0, "private"
    assert {path.name for path in folder.glob("counter_*")} == {"counter_0.db", "counter_1.db"}
    for text in (running.metrics() for _ in range(10)):
        assert reads(text) == 100
        assert value(text, "request_seconds_count", interaction="read") == 100
        assert value(text, "commits_total") == value(text, "group_commits_sum") == 20
        assert value(text, "record_commits") == 21
        assert value(text, "workers") == WORKERS
        assert value(text, "requests_in_flight") == 1

    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    running.until("worker ready", 2 * WORKERS)
    assert reads(running.metrics()) == 100
    assert running.request("GET", "/fhir/Patient/nobody")[0] == 404
    assert reads(running.metrics()) == 101
    assert value(running.metrics(), "workers") == WORKERS
    assert value(running.metrics(), "requests_in_flight") == 1


def test_what_never_became_a_request_is_counted(running):
    """What waitress refuses by itself, as it can't be read: by its status alone."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/9.9\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.")
        while connection.recv(1000):
            pass

    text = running.metrics()
    assert value(text, "requests_total", interaction="other", method="other", status="400") == 1
    assert value(text, "requests_in_flight") == 1


def test_replaced_workers_leave_no_files_behind(running):
    """SIGHUP: there are never more numbers than workers at one time, and a new one goes on where an old one ended."""
    running.request("GET", "/fhir/Patient/nobody")
    for time in range(1, 4):
        running.process.send_signal(signal.SIGHUP)
        running.until("settings reloaded", time)

    assert reads(running.metrics()) == 1
    numbered = {path.stem.rpartition("_")[2] for path in running.files()}
    assert len(numbered) < len(running.workers()) == WORKERS * 4


def test_without_a_master_the_workers_tidy_up(running):
    """Killed, it can't remove the folder itself. The fixture looks whether it is gone."""
    descriptors = [os.pidfd_open(pid) for pid in running.workers()]
    running.process.kill()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], PATIENCE)[0], "it ends by itself"
        os.close(descriptor)


def test_what_a_dead_worker_had_in_hand_is_forgotten(tmp_path):
    """Its counters stay."""
    program = """
import sys
from api.metrics import Metrics, bury
metrics = Metrics.shared(sys.argv[1], 3)
metrics.begun()
metrics.journaled()
text = metrics.text(None, {}).decode()
bury(sys.argv[1], 3)
print(text, "--", metrics.text(None, {}).decode(), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )

    alive, _, dead = done.stdout.partition("--\n")
    assert (value(alive, "requests_in_flight"), value(dead, "requests_in_flight")) == (1, 0)
    assert value(alive, "journal_lines_total") == value(dead, "journal_lines_total") == 1
