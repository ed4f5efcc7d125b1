"""Searching in tests: resources go in by their ids, a query is written as in a URL, ids come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import pytest

from gitstore import Author, Delete, Invalid, Store, Update
from gitstore.fhir.ids import ResourceId

Resource = dict[str, Any]
ADA = Author("Ada Lovelace", "ada@clinic.example")


def resource(type: str, id: str, /, **elements: Any) -> Resource:
    """`class_` and the like stand for elements that Python has other uses for."""
    return {"resourceType": type, "id": id, **{name.rstrip("_"): value for name, value in elements.items()}}


def id_of(one: Resource) -> ResourceId:
    return ResourceId(one["resourceType"], one["id"])


def put(store: Store, *resources: Resource) -> None:
    """Write them, in one commit."""
    store.commit([Update(id_of(one), one) for one in resources], ADA)


def delete(store: Store, type: str, id: str) -> None:
    store.commit([Delete(ResourceId(type, id))], ADA)


def question(text: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Types and pairs of `Patient?name=peter`; without a type for a search of everything."""
    type, _, query = text.partition("?")
    return (type,) if type else (), parse_qsl(query, keep_blank_values=True)


def search(store: Store, text: str, **options: Any) -> Any:
    """A SearchPage."""
    types, pairs = question(text)
    with store.reading() as snapshot:
        return snapshot.search(types, pairs, **options)


def listed(store: Store, text: str, **options: Any) -> list[str]:
    """What matches, in its order: ids, or in a search of everything type and id."""
    names = [match.version.resource_id for match in search(store, text, **options).matches]
    return [str(name) if text.startswith("?") else name.id for name in names]


def found(store: Store, text: str, **options: Any) -> set[str]:
    """The same without order; nothing may be there twice, and the total has to say how many there are."""
    page = search(store, text, **options)
    names = listed(store, text, **options)
    assert len(set(names)) == len(names), names
    assert page.total in (None, len(names)), (page.total, names)
    return set(names)


def included(store: Store, text: str, **options: Any) -> set[str]:
    """What comes along with the matches."""
    names = [str(version) for version in search(store, text, **options).included]
    assert len(set(names)) == len(names), names
    return {name.partition("/_history")[0] for name in names}


def refused(store: Store, text: str, **options: Any) -> str:
    """The issue code with which the search is refused; that it is refused is asserted."""
    with pytest.raises(Invalid) as caught:
        search(store, text, **options)
    assert caught.value.issues[0].text
    return str(caught.value.issues[0].code)


def warnings(store: Store, text: str, **options: Any) -> list[str]:
    """The issue codes of what was left out of the search."""
    return [issue.code for issue in search(store, text, **options).query.issues]


def used(store: Store, text: str, **options: Any) -> Sequence[tuple[str, str]]:
    """The parameters that had an effect: what the self link says."""
    return search(store, text, **options).query.used


def words(text: str) -> set[str]:
    return set(text.split())


def concept(*codings: str, text: str | None = None) -> dict[str, Any]:
    """A CodeableConcept of `system|code` each, either of which may be empty."""
    made: dict[str, Any] = {"coding": [coding(one) for one in codings]} if codings else {}
    return made | ({"text": text} if text else {})


def coding(text: str) -> dict[str, str]:
    system, _, code = text.rpartition("|")
    return ({"system": system} if system else {}) | ({"code": code} if code else {})


def reference(text: str) -> dict[str, str]:
    return {"reference": text}
