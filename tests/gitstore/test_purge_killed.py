"""A purge that is killed has happened or not, whoever comes next. docs/architecture.md, "Erasure" """

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from purges import OTHER, PATIENT, PLAIN, gone, purge, put, told, traces, unreachable

from gitstore import Store, StoreError
from gitstore.git import references as references_module
from gitstore.git import swap as swap_module
from gitstore.search import index as index_module


class Mortal:
    """Stands in for the modules `os` and `shutil`; the process dies right before the n-th call that changes something."""

    CALLS = frozenset(["open", "link", "rename", "unlink", "symlink", "makedirs", "rmdir", "rmtree"])

    def __init__(self, module: Any, calls: list[str], death: int) -> None:
        self._module = module
        self._calls = calls
        self._death = death

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in self.CALLS:
            return found

        def call(*arguments: Any, **keywords: Any) -> Any:
            if len(self._calls) == self._death:
                os.kill(os.getpid(), signal.SIGKILL)
            result = found(*arguments, **keywords)
            # One that fails has changed nothing: a death before it is one before the next.
            self._calls.append(
                f"{name}:{os.path.basename(str(arguments[-1 if name in ('rename', 'link') else 0]))}"
            )
            return result

        return call


def purge_in_a_child(
    record: str,
    clock: Callable[[], int],
    death: int,
    patch: pytest.MonkeyPatch,
    *,
    after_opening: bool = True,
) -> tuple[int, list[str]]:
    """Purge Patient/a: how the process ended, and its calls where it came to its end. The death counts from the purge on,
    or from the opening of the store."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            calls: list[str] = []
            if not after_opening:
                make_mortal(calls, death, patch)
            with Store.open(record, PLAIN, clock=clock) as store:
                if after_opening:
                    make_mortal(calls, death, patch)
                purge(store, "Patient/a")
                os.write(writer, "\n".join(calls).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    return os.waitpid(pid, 0)[1], said.splitlines()


def make_mortal(calls: list[str], death: int, patch: pytest.MonkeyPatch) -> None:
    for module in (swap_module, references_module, index_module):
        patch.setattr(module, "os", Mortal(os, calls, death))
    patch.setattr(swap_module, "shutil", Mortal(shutil, calls, death))


def steps(calls: list[str]) -> list[int]:
    """The first call of each kind; with GIT_FHIR_EVERY_STEP all of them: many only remove one file more."""
    if os.environ.get("GIT_FHIR_EVERY_STEP"):
        return list(range(len(calls)))
    kinds = [re.sub(r"[0-9a-f]{2,}|[0-9]+", "0", call) for call in calls]
    return sorted({kind: number for number, kind in reversed(list(enumerate(kinds)))}.values())


def leftovers(record: str) -> Iterator[Path]:
    for pattern in ("git-fhir/purge", "refs/**/*.lock", "*.lock", "objects/pack/*.keep", "objects/pack/tmp*"):
        yield from Path(record).glob(pattern)


def test_a_purge_that_is_killed_at_any_step_has_happened_or_not(
    record: str,
    clock: Callable[[], int],
    tmp_path: Path,
    git: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever comes next undoes or finishes it: before the journal is in place nothing has happened, after it all has."""
    with Store.open(record, PLAIN, clock=clock) as store:
        put(store, OTHER, "Other")
        put(store, PATIENT, "Marker")
        put(store, OTHER, "Other again")
        before = told(store)
    git("tag", "-a", "-m", "t", "t")
    git("pack-refs", "--all")
    whole = shutil.copytree(record, tmp_path / "whole.git", symlinks=True)
    status, calls = purge_in_a_child(record, clock, 10**6, monkeypatch)
    assert status == 0
    decided = calls.index("rename:journal")
    assert decided > 5
    assert {"link:main.lock", "rename:main", "rename:rewritten", "rename:index.sqlite"} <= set(calls)
    left = {name: facts for name, facts in before.items() if not name.startswith("Patient/a/")}

    for death in steps(calls):
        where = f"before {calls[death]}"
        shutil.rmtree(record)
        shutil.copytree(whole, record, symlinks=True)
        status, _ = purge_in_a_child(record, clock, death, monkeypatch)
        assert os.WTERMSIG(status) == signal.SIGKILL, where

        with Store.open(record, PLAIN, clock=clock) as store:
            assert told(store) == (before if death <= decided else left), where
            if death > decided:
                assert traces(record, "Marker") == [], where
                assert unreachable(record) == [], where
                gone(store, "Patient/a")
            assert list(leftovers(record)) == [], where
            put(store, OTHER, "It goes on")
            assert list(store.verify()) == [], where


def test_whoever_finishes_it_may_be_killed_as_well(
    record: str, clock: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step after the decision may be done twice."""
    with Store.open(record, PLAIN, clock=clock) as store:
        put(store, PATIENT, "Marker")
    whole = shutil.copytree(record, tmp_path / "whole.git", symlinks=True)
    _, calls = purge_in_a_child(record, clock, 10**6, monkeypatch)
    for death in (3, 6, 9, 12):
        shutil.rmtree(record)
        shutil.copytree(whole, record, symlinks=True)
        purge_in_a_child(record, clock, calls.index("rename:rewritten"), monkeypatch)
        status, _ = purge_in_a_child(record, clock, death, monkeypatch, after_opening=False)
        assert os.WTERMSIG(status) == signal.SIGKILL

        with Store.open(record, PLAIN, clock=clock) as store:
            gone(store, "Patient/a")
            assert traces(record, "Marker") == []
            assert list(leftovers(record)) == []
            assert list(store.verify()) == []


def test_a_server_that_runs_on_finishes_what_another_process_left(
    record: str, clock: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next write does it, is refused for once, and finds an index of what is left."""
    with Store.open(record, PLAIN, clock=clock) as store:
        put(store, PATIENT, "Marker")
        put(store, OTHER, "Other")
        assert store.snapshot().read(PATIENT).version_id == 1
    _, calls = purge_in_a_child(
        str(shutil.copytree(record, f"{record}.copy", symlinks=True)), clock, 10**6, monkeypatch
    )
    with Store.open(record, PLAIN, clock=clock) as store:
        purge_in_a_child(record, clock, calls.index("rename:main"), monkeypatch)
        assert store.snapshot().read(PATIENT).version_id == 1  # nobody has finished it yet

        with pytest.raises(StoreError):
            put(store, OTHER, "First try")

        gone(store, "Patient/a")
        assert put(store, OTHER, "Second try").version_id == 2
        assert traces(record, "Marker") == []
        assert list(store.verify()) == []
