"""Profiles, tags and security labels of a resource: what `$meta` shows, and `$meta-add` and `$meta-delete` change.

https://hl7.org/fhir/R4/resource-operation-meta.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gitstore.errors import Invalid, Issue, Unprocessable
from gitstore.fhir import Resource, json

LABELS = ("profile", "security", "tag")
"""The lists of `meta` that hold labels."""

SHOWN = ("versionId", "lastUpdated", *LABELS)
"""Of `meta`. The first two are always there, so that the Meta which is returned is never empty: FHIR has no empty ones."""

Labels: TypeAlias = dict[str, list[Any]]
"""The labels of each list of LABELS that is there."""


def shown(resource: Resource) -> Resource:
    """What `$meta` tells of a stored resource."""
    meta = resource["meta"]
    return {name: meta[name] for name in SHOWN if name in meta}


def returned(meta: Resource) -> Resource:
    """The Parameters that answer each of the operations."""
    return {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]}


def labels_of(parameters: Resource) -> Labels:
    """The labels in Parameters with one `meta`; what else is in that Meta doesn't count. Raises Invalid."""
    given = parameters.get("parameter")
    if (
        parameters.get("resourceType") == "Parameters"
        and isinstance(given, list)
        and len(given) == 1
        and isinstance(given[0], dict)
        and given[0].get("name") == "meta"
        and isinstance(meta := given[0].get("valueMeta"), dict)
    ):
        labels = {name: meta[name] for name in LABELS if name in meta}
        if all(isinstance(each, list) and _are_labels(name, each) for name, each in labels.items()):
            return labels
    text = "Expected Parameters with one parameter `meta`, a Meta with lists of profiles, tags or security labels."
    raise Invalid(Issue("error", "invalid", text, "Parameters.parameter"))


def relabelled(
    resource: Resource, given: Labels, change: Callable[[list[Any], list[Any]], list[Any]]
) -> Resource:
    """A stored resource with each of the lists as `change` makes it of what is there and what is given.

    Raises Unprocessable where something else than a list is there, which can be where nothing is validated.
    """
    meta = dict(resource["meta"])
    for name, labels in given.items():
        there = meta.get(name, [])
        if not isinstance(there, list):
            raise Unprocessable(
                Issue("error", "structure", f"`meta.{name}` of the resource is no list of labels.")
            )
        meta[name] = change(there, labels)
    return {**resource, "meta": {name: value for name, value in meta.items() if value}}


def added(there: list[Any], given: list[Any]) -> list[Any]:
    """The labels that are there, and those given that aren't, each once."""
    known = {_key(label) for label in there}
    new: dict[bytes, Any] = {}
    for label in given:
        if (key := _key(label)) not in known:
            new.setdefault(key, label)
    return [*there, *new.values()]


def removed(there: list[Any], given: list[Any]) -> list[Any]:
    """The labels that are there without those given."""
    unwanted = {_key(label) for label in given}
    return [label for label in there if _key(label) not in unwanted]


CHANGES: Mapping[str, Callable[[list[Any], list[Any]], list[Any]]] = {
    "$meta-add": added,
    "$meta-delete": removed,
}
"""What the operations that change labels do to one list of them."""


def _key(label: Any) -> bytes:
    """What makes a label the same: a profile's URL; of a tag system and code, and not its version or display."""
    return json.dumps([label.get("system"), label.get("code")] if isinstance(label, dict) else label)


def _are_labels(name: str, labels: list[Any]) -> bool:
    wanted = str if name == "profile" else dict
    return all(isinstance(label, wanted) for label in labels)
