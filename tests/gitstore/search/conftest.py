"""Stores that a whole table of questions is asked of: made once for a file, since nothing is written to them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from searches import put

from gitstore import Settings, Store, init


@pytest.fixture(scope="module")
def store_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Store]]:
    """Makes a store of these resources, without validation. Time begins in 2026 and passes with each commit."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))

        def make(resources: Sequence[dict[str, Any]], **settings: Any) -> Store:
            ticks = itertools.count(1_767_268_800_000_000, 1_000_000)
            record = init(tmp_path_factory.mktemp("record"), clock=lambda: next(ticks))
            options = Settings(validation="off", durability="off", **settings)
            store = stack.enter_context(Store.open(record, options, clock=lambda: next(ticks)))
            put(store, *resources)
            return store

        yield make
