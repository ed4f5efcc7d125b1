"""The HTTP tests' world: a fresh store, a clock that only the test moves, ids that count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from falcon.testing import Result, TestClient

from api.app import create_app
from gitstore import Settings, Store, init
from tests.api.keepers import FakeEtcd, Node, Time
from tests.conftest import copy_record

START = 1_700_000_000_250_000
"""2023-11-14T22:13:20.25Z in microseconds."""


class Clock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


class Client:
    """Speaks FHIR to the application: bodies are resources, and Host is a name of this machine."""

    def __init__(self, app: Any) -> None:
        self._http = TestClient(app)

    def request(self, method: str, url: str, resource: Any = None, **headers: str) -> Result:
        """`url` below /fhir, or absolute with a leading slash. Headers are written with underscores."""
        sent = {"Host": "localhost:8080"}
        body: str | bytes | None = None
        if resource is not None:
            sent["Content-Type"] = "application/fhir+json"
            body = resource if isinstance(resource, str | bytes) else json.dumps(resource)
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        path, _, query = (url if url.startswith("/") else f"/fhir/{url}").partition("?")
        return self._http.simulate_request(method, path, query_string=query, headers=sent, body=body)

    def get(self, url: str, **headers: str) -> Result:
        return self.request("GET", url, **headers)

    def post(self, url: str, resource: Any, **headers: str) -> Result:
        return self.request("POST", url, resource, **headers)

    def put(self, url: str, resource: Any, **headers: str) -> Result:
        return self.request("PUT", url, resource, **headers)

    def delete(self, url: str, **headers: str) -> Result:
        return self.request("DELETE", url, **headers)

    def follow(self, url: str, **headers: str) -> Result:
        """GET a link of a Bundle."""
        server = "http://localhost:8080"
        assert url.startswith(f"{server}/fhir")
        return self.get(url.removeprefix(server), **headers)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Path:
    """Made a minute before START, so that the first version is of START exactly. Opened once, so it has its index."""
    path = tmp_path_factory.mktemp("empty") / "record.git"
    init(path, clock=lambda: START - 60_000_000)
    Store.open(path, settings).close()
    return path


@pytest.fixture
def repository(empty_record: Path, tmp_path: Path) -> Path:
    """A copy: to make a record takes several fsyncs, and most tests need one."""
    return copy_record(empty_record, tmp_path / "record.git")


@pytest.fixture(scope="session")
def settings() -> Settings:
    """No fsync and no validation: neither the disk nor FHIR's rules are what most tests are about."""
    return Settings(durability="off", validation="off", max_body=50_000, max_bundle=200_000, max_entries=20)


@pytest.fixture
def store(repository: Path, settings: Settings, clock: Clock) -> Iterator[Store]:
    ids = count(1)
    with Store.open(repository, settings, clock=clock, new_id=lambda: f"new-{next(ids)}") as opened:
        yield opened


@pytest.fixture
def make_client(store: Store, settings: Settings, clock: Clock) -> Callable[..., Client]:
    def make(settings: Settings = settings, store: Store = store) -> Client:
        ids = count(1)
        return Client(create_app(store, settings, new_request_id=lambda: f"request-{next(ids)}", clock=clock))

    return make


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def patient() -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "example", "active": True}


@pytest.fixture
def issue() -> Callable[[Result], tuple[str, str, str]]:
    """Severity, code and text of an answer that must be an OperationOutcome."""

    def read(response: Result) -> tuple[str, str, str]:
        assert response.headers["Content-Type"].startswith("application/"), response.text
        outcome = response.json
        assert outcome["resourceType"] == "OperationOutcome"
        first = outcome["issue"][0]
        assert first["diagnostics"]
        return first["severity"], first["code"], first["details"]["text"]

    return read


# What a keeper sees of the world: see keepers


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def etcd(time: Time) -> FakeEtcd:
    return FakeEtcd(time)


@pytest.fixture
def node(etcd: FakeEtcd, time: Time, tmp_path: Path) -> Callable[..., Node]:
    """Makes a node with a keeper: `node("primary")`, `node("replica", "two")`."""

    def make(role: Literal["primary", "replica"], name: str = "one") -> Node:
        return Node(etcd, time, role, tmp_path / name, name)

    return make
