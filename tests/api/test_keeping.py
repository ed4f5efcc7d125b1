"""The lease in a worker's life, with an etcd, a hub at a path, and the stores of two nodes."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from api.etcd import Etcd
from api.keeper import key_of
from api.keeping import Keeping, _Beat
from api.lease_files import Files
from gitstore import Author, Create, Invalid, Settings, Store
from tests.api.etcds import PATIENCE, TIMEOUT, running
from tests.conftest import copy_record

ADA = Author("Ada Lovelace", "ada@clinic.example")
PATIENT = {"resourceType": "Patient", "active": True}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("etcd")) as url:
        yield url


@pytest.fixture
def shared(settings: Settings, url: str, tmp_path: Path) -> Settings:
    hub = tmp_path / "hub.git"
    subprocess.run(["git", "init", "-q", "--bare", "--initial-branch=main", hub], check=True)
    return replace(settings, hub=str(hub), etcd=(url,), node_url="http://one:8080", lease_ttl=2.0)


@pytest.fixture
def holder(url: str, repository: Path, settings: Settings) -> Iterator[Callable[[], str | None]]:
    """Whose URL stands in etcd. Each record begins with the same commit, so that what a test leaves is taken away."""
    etcd = Etcd([url], TIMEOUT)
    with Store.open(copy_record(repository, repository.parent / "copy.git"), settings) as store:
        key = key_of(store.snapshot(1).commit.id)

    def ask() -> str | None:
        held = etcd.get(key)
        return None if held is None else held.value

    yield ask
    etcd.delete(key)


@contextmanager
def kept(path: Path, settings: Settings, *, as_replica: bool = False) -> Iterator[Store]:
    with Keeping(settings, pytest.fail) as lease, Store.open(path, settings) as store:
        assert store.cluster is not None
        if as_replica:
            store.cluster.follow()
        store.cluster.start()
        with lease.of(store):
            yield store


def until(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def test_a_node_has_the_lease_from_its_first_write_to_its_last_push(repository, shared, holder):
    with kept(repository, shared) as store:
        assert holder() == "http://one:8080"
        store.commit([Create(PATIENT)], ADA)
        tip = store.snapshot().commit.id

    assert holder() is None
    pushed = subprocess.run(
        ["git", "-C", shared.hub, "rev-parse", "main"], check=True, capture_output=True, text=True
    )
    assert pushed.stdout.strip() == tip


def test_a_replica_takes_over_when_the_primary_stops(repository, shared, holder, tmp_path):
    other = copy_record(repository, tmp_path / "other.git")
    one = kept(repository, shared)
    one.__enter__().commit([Create(PATIENT)], ADA)
    with kept(other, replace(shared, node_url="http://two:8080"), as_replica=True) as two:
        assert two.cluster.known_primary() == "http://one:8080"

        one.__exit__(None, None, None)
        until(lambda: two.cluster.role == "primary" and two.cluster.status().suspended is None, "no primary")

        assert holder() == "http://two:8080"
        assert two.snapshot().commit.interaction == "promote"
        two.commit([Create(PATIENT)], ADA)
        assert two.cluster.known_primary() is None


def test_a_process_that_stays_goes_on_with_the_lease(repository, shared, holder):
    with kept(repository, shared):
        with kept(repository, shared):
            assert holder() == "http://one:8080"
        assert holder() == "http://one:8080"
    assert holder() is None


def test_an_etcd_without_a_hub_is_refused(repository, settings, url):
    there = replace(settings, etcd=(url,))
    with (
        Keeping(there) as lease,
        Store.open(repository, there) as store,
        pytest.raises(Invalid, match=r"fhir\.hub"),
        lease.of(store),
    ):
        pytest.fail("it began")


def test_without_etcd_there_is_no_keeper(repository, settings):
    with Keeping(settings) as lease, Store.open(repository, settings) as store, lease.of(store):
        assert not (repository / "git-fhir" / "keeper.lock").exists()


def test_what_a_keeper_left_does_not_outlast_the_setting(repository, shared, holder):
    """Or a node whose etcd was given up would never write again."""
    alone = replace(shared, etcd=())
    with Store.open(repository, alone) as store:
        store.cluster.suspend("etcd does not answer")
    (repository / "git-fhir" / "primary").write_text("http://gone:8080\n")

    with kept(repository, alone) as store:
        store.commit([Create(PATIENT)], ADA)
        assert store.cluster.known_primary() is None


class Breaking:
    """A keeper whose second step breaks down."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.steps = 0

    def step(self) -> float:
        self.steps += 1
        if self.steps == 2:
            raise ZeroDivisionError
        return 0.0

    def leave(self) -> None: ...

    def give_back(self) -> None: ...


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_whose_keeper_breaks_down_is_ended(tmp_path):
    """Nobody would stop its writes any more."""
    failed = threading.Event()

    beat = _Beat(Breaking(), Files(str(tmp_path)), ThreadPoolExecutor(1), failed.set)

    assert failed.wait(PATIENCE)
    beat.leave()
    beat.close()
