"""What an access sees of a past state in searches: what it would have seen then, and sees now.

A resource that was taken out of a compartment, or labelled as withheld, is gone from the past as well; seeing.py says
the same of versions. The index of a past state knows nothing of now, so what has to be hidden is found out beforehand.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from gitstore.access import Access
from gitstore.fhir.ids import ResourceId
from gitstore.git.repository import Repository
from gitstore.search import index, select, versions
from gitstore.search.asking import any_of
from gitstore.search.filters import All, Filter, Ids, Not, OfTypes
from gitstore.search.index import Connection
from gitstore.search.parameters import Registry
from gitstore.search.sight import EVERYTHING, NOTHING, Sight
from gitstore.seeing import Seeing
from gitstore.version import Commit

_LETTERS = ("r", "s")
_PORTION = 500
_REMEMBERED = 64
_MOST = 10_000_000
"""Deleted resources of a type that are looked through."""

Hidden = Mapping[str, Mapping[str, Collection[str]]]
"""For each letter and type the ids that are not seen any more."""


class _Sight(Sight):
    """What one access sees of a past state, but for what is hidden."""

    def __init__(self, access: Access, registry: Registry | None, hidden: Hidden) -> None:
        super().__init__(access, registry)
        self._hidden = hidden

    def _limit(self, letter: str, types: Sequence[str]) -> Filter:
        allowed = super()._limit(letter, types)
        hidden = self._hidden.get(letter, {})
        taken: list[Filter] = [
            All((OfTypes((type,)), Ids(tuple(sorted(hidden[type]))))) for type in types if hidden.get(type)
        ]
        if allowed == NOTHING or not taken:
            return allowed
        kept = Not(any_of(taken))
        return kept if allowed == EVERYTHING else All((allowed, kept))


@dataclass
class _Looked:
    """What was found out about one access and state, up to a commit of now."""

    upto: int
    hidden: dict[str, dict[str, set[str]]]
    seeing: Seeing
    lock: threading.Lock = field(default_factory=threading.Lock)


class Hindsight:
    """What accesses see of past states. Any thread may call."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._looked: OrderedDict[tuple[Access, int, int], _Looked] = OrderedDict()

    def seeing(
        self, seeing: Seeing, now: Connection, commit: Commit, then: Connection, registry: Registry
    ) -> Seeing:
        """Judges what the index of `commit` holds, `then`, with what `seeing` judges by `now`.

        `registry` is that of then. Both connections are in a transaction.
        """
        tip = versions.tip(now)
        assert tip is not None
        looked = self._of(seeing, now, commit, then, registry)
        with looked.lock:
            if looked.upto < tip.sequence:
                plain = Seeing(Sight(seeing.sight.access, registry), self._repository)
                changed = _ids(versions.changed_after(now, looked.upto))
                hidden = {letter: {**types} for letter, types in looked.hidden.items()}
                for letter in _LETTERS:
                    _note(
                        hidden.setdefault(letter, {}),
                        changed,
                        _seen(plain, then, letter, changed),
                        _seen(seeing, now, letter, changed),
                    )
                if hidden != looked.hidden:
                    looked.hidden = hidden
                    looked.seeing = Seeing(_Sight(seeing.sight.access, registry, hidden), self._repository)
                looked.upto = tip.sequence
            return looked.seeing

    def _of(
        self, seeing: Seeing, now: Connection, commit: Commit, then: Connection, registry: Registry
    ) -> _Looked:
        access = seeing.sight.access
        key = (access, index.generation(now), index.generation(then))
        with self._lock:
            found = self._looked.get(key)
            if found is None:
                upto = commit.sequence
                current = seeing.sight.registry
                if current is None or current.digest != registry.digest:
                    # What did not change may be seen by search parameters that there aren't any more.
                    upto = 0
                sight = _Sight(access, registry, {})
                found = self._looked[key] = _Looked(upto, {}, Seeing(sight, self._repository))
                while len(self._looked) > _REMEMBERED:
                    self._looked.popitem(last=False)
            self._looked.move_to_end(key)
            return found


_Ids = dict[str, set[str]]
"""Ids by type."""


def _ids(resource_ids: Iterable[ResourceId]) -> _Ids:
    found: _Ids = {}
    for type, id in resource_ids:
        found.setdefault(type, set()).add(id)
    return found


def _note(hidden: dict[str, set[str]], changed: _Ids, then: _Ids, now: _Ids) -> None:
    """Hide what was seen then and isn't now, of what changed."""
    for type, ids in changed.items():
        kept = hidden.get(type, set()) - ids
        kept |= then.get(type, set()) - now.get(type, set())
        if kept:
            hidden[type] = kept
        else:
            hidden.pop(type, None)


def _seen(seeing: Seeing, connection: Connection, letter: str, resource_ids: _Ids) -> _Ids:
    """Those that are seen; of what is deleted those of which the content was."""
    found: _Ids = {}
    for type, ids in resource_ids.items():
        limit = seeing.sight.limit(letter, (type,))
        if limit == NOTHING:
            continue
        if limit == EVERYTHING:
            found[type] = ids
            continue
        here = found[type] = set()
        for portion in _portions(sorted(ids)):
            fitting = All((Ids(tuple(portion)), limit))
            here |= {each.id for each in select.matching(connection, fitting, type, len(portion))}
        gone = {each.id for each in versions.deleted(connection, (type,), _MOST)} & ids
        here |= {id for id in gone if seeing.resource(connection, letter, ResourceId(type, id))}
    return found


def _portions(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while portion := list(islice(remaining, _PORTION)):
        yield portion
