"""How units go to the store: in groups, and once more after the rest where something was missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.documents import Place
from cli.importing import Importer, Refused, Report
from cli.units import Item
from gitstore import Ask, Interaction, Outcome, Store, StoreError, Unit, Update
from gitstore.fhir.ids import ResourceId
from tests.cli.conftest import ADA, open_store, patient


def item(id: str, *, needs: str | None = None) -> Item:
    """A unit that writes a Patient, and is refused as not found while the one that it needs isn't there."""
    interactions: list[Interaction] = [Update(ResourceId("Patient", id), patient(id))]
    if needs is not None:
        interactions.append(Ask(lambda snapshot: snapshot.read(ResourceId("Patient", needs))))
    return Item(Place(id), Unit(interactions, ADA, interaction="transaction"), 100)


def test_what_refers_to_something_later_is_tried_again_after_the_rest(repository: Path) -> None:
    """As often as that helps; what stays unmatched is refused in the end."""
    report = Report()
    with open_store(repository) as store:
        importer = Importer(store, report)
        for one in (item("a", needs="b"), item("b", needs="c"), item("x", needs="nobody"), item("c")):
            importer.add(one)
        importer.flush()
        assert report.refused == []
        importer.finish()
        present = [version.resource_id.id for version in store.snapshot().resources()]

    assert present == ["a", "b", "c"]
    assert report.counts == {"created": 3}
    assert [refusal.place.file for refusal in report.refused] == ["x"]


def test_strict_waits_for_what_may_come_but_not_longer(repository: Path) -> None:
    """A reference to something later is no refusal until the end."""
    report = Report()
    with open_store(repository) as store:
        importer = Importer(store, report, strict=True)
        for one in (item("a", needs="b"), item("b"), item("x", needs="nobody")):
            importer.add(one)
        with pytest.raises(Refused):
            importer.finish()

    assert report.counts == {"created": 2}


class Counting:
    """A store that notes how many units come at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.groups: list[int] = []
        self.snapshot = store.snapshot

    def commit_in_order(self, units: Iterable[Unit]) -> list[list[Outcome] | StoreError]:
        units = list(units)
        self.groups.append(len(units))
        return self._store.commit_in_order(units)


def test_units_go_to_the_store_in_groups(repository: Path) -> None:
    """500 at a time or 16 MB, whichever is less."""
    with open_store(repository) as store:
        counting = Counting(store)
        importer = Importer(counting, Report())  # type: ignore[arg-type]  # has what an Importer asks of a store
        for number in range(501):
            importer.add(item(f"p{number}"))
        large = item("large")
        importer.add(Item(large.place, large.unit, 17_000_000))
        importer.finish()

    assert counting.groups == [500, 2]


def test_a_refusal_that_time_does_not_mend_is_not_tried_again(repository: Path) -> None:
    """Only `not-found` may be mended by what comes later."""
    report = Report()
    refused = Unit([Update(ResourceId("Patient", "a"), patient("b"))], ADA)
    with open_store(repository) as store:
        counting = Counting(store)
        importer = Importer(counting, report)  # type: ignore[arg-type]  # has what an Importer asks of a store
        importer.add(Item(Place("a"), refused, 10))
        importer.finish()

    assert counting.groups == [1]
    assert len(report.refused) == 1
