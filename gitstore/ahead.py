"""Units of work that are prepared ahead of their turn, by another process maybe, and done as if one waited for the other.

What preparing comes to depends on the unit and on what the record says meanwhile, and on nothing else. So it may be done
early and anywhere, if it is noted what the record was asked: when the turn has come that is looked at again, by the
writer under its lock for what is to be written, and here for refusals and for the profiles that were needed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gitstore.aims import Rules
from gitstore.assumptions import Asked, Assumption
from gitstore.canonicals import TYPES, Judge, State
from gitstore.errors import RepositoryDamaged, RepositoryRefused, StoreError, TooCostly, Unavailable
from gitstore.git.message import safe_request_id
from gitstore.interactions import Outcome, Unit
from gitstore.preparation import Prepared, prepare_asking
from gitstore.search.parameters import Registry
from gitstore.snapshot import Snapshot
from gitstore.version import ANONYMOUS

_PASSING = Unavailable | RepositoryDamaged | RepositoryRefused | TooCostly
"""Refusals that are no fault of the unit."""
_NO_UNIT = Unit((), ANONYMOUS)

Result: TypeAlias = "list[Outcome] | StoreError"


class Ahead(Struct, frozen=True):
    """A unit, and what preparing it has come to: one of `prepared` and `error`.

    `seen` is the commit whose state was asked, None where nothing was, and `assumptions` are the answers. `judged` is
    what the profiles were that were looked for, None where none were.
    """

    unit: Unit
    prepared: Prepared | None
    error: StoreError | None
    assumptions: tuple[Assumption, ...]
    seen: str | None
    judged: State | None

    def without_unit(self) -> Ahead:
        """The same to be handed over to who has the unit."""
        prepared = None if self.prepared is None else replace(self.prepared, unit=None)
        return replace(self, unit=_NO_UNIT, prepared=prepared)

    def of(self, unit: Unit) -> Ahead:
        """Undoes that. The unit may have got its request id only now."""
        prepared = self.prepared
        if prepared is not None:
            prepared = replace(prepared, unit=unit, request_id=safe_request_id(unit.request_id))
        return replace(self, unit=unit, prepared=prepared)

    def may_change(self, commit: str) -> bool:
        """Whether it was refused for what the record said before this commit."""
        return self.error is not None and self.seen is not None and self.seen != commit

    def holds(self, state: Callable[[], State], now: Callable[[Ahead], Snapshot]) -> bool:
        """Whether preparing the unit now would come to the same, but for what the writer looks at."""
        if self.judged is not None and self.judged != state():
            return False
        if self.error is None or self.seen is None:
            return not isinstance(self.error, _PASSING)
        snapshot = now(self)
        if self.seen == snapshot.commit.id:
            return True
        return bool(self.assumptions) and all(each.holds(snapshot) for each in self.assumptions)


def prepare_ahead(unit: Unit, rules: Rules, state: Callable[[], Snapshot]) -> Ahead:
    """Prepare a unit, and keep what that depends on. See `preparation.prepare`; what that raises is the error here."""
    asked = Asked(state)
    prepared, refused = None, None
    try:
        prepared = prepare_asking(unit, rules, asked)
    except StoreError as error:
        refused = error
    judged = rules.validate.state if isinstance(rules.validate, Judge) else None
    return Ahead(unit, prepared, refused, tuple(asked.assumptions), asked.commit, judged)


def do_in_order(
    units: Iterable[Unit | Ahead],
    prepare: Callable[[Unit], Ahead],
    holds: Callable[[Ahead], bool],
    commit: Callable[[Sequence[Prepared]], Sequence[Result]],
) -> list[Result]:
    """Each unit as if those before it had been committed before it was prepared; but `commit` gets as many as it can."""
    results: dict[int, Result] = {}
    waiting: dict[int, Prepared] = {}

    def flush() -> None:
        results.update(zip(waiting, commit(list(waiting.values())), strict=True))
        waiting.clear()

    for number, given in enumerate(units):
        ahead = given if isinstance(given, Ahead) else prepare(given)
        must_wait = waiting and _depends(ahead, waiting.values())
        if must_wait:
            flush()
        if (must_wait or ahead is given) and not holds(ahead):
            ahead = prepare(ahead.unit)
        if ahead.prepared is not None:
            waiting[number] = ahead.prepared
        elif ahead.error is not None:
            results[number] = ahead.error
    if waiting:
        flush()
    return [results[number] for number in sorted(results)]


def _depends(ahead: Ahead, before: Iterable[Prepared]) -> bool:
    """Whether these units may change what has been found of the one that was prepared without them."""
    if ahead.error is not None and ahead.seen is not None:
        return True
    return ahead.judged is not None and any(
        write.resource_id.type in TYPES for prepared in before for write in prepared.writes
    )


# Between processes: pickles, as both ends are the same program and nobody else can write into the pipe.


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> str | None:
        return value.digest if isinstance(value, Registry) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, registry: Registry | None) -> None:
        super().__init__(io.BytesIO(data))
        self._registry = registry

    def persistent_load(self, digest: object) -> Registry | None:
        """Our search parameters where they are the same, and else none: then what is searched is extracted anew."""
        return self._registry if self._registry is not None and self._registry.digest == digest else None


def hand_over(value: object) -> bytes:
    """A value with Aheads in it, without their units, to be handed over to another process of ours."""
    written = io.BytesIO()
    _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(value)
    return written.getvalue()


def taken_over(data: bytes, registry: Registry | None) -> object:
    """Undoes `hand_over`, for a record that is searched by these parameters."""
    return _Unpickler(data, registry).load()
