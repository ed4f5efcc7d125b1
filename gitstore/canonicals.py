"""The profiles, value sets and code systems that the record itself holds, and validation by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from gitstore.errors import Issue
from gitstore.fhir import Resource, conformance, json, validation
from gitstore.fhir.profiles import Profiles
from gitstore.fhir.value_sets import Find
from gitstore.interactions import Validate
from gitstore.snapshot import Snapshot
from gitstore.version import Version

TYPES = ("StructureDefinition", "ValueSet", "CodeSystem")

State: TypeAlias = tuple[str | None, ...]
"""What the profiles of the record are: the last commit that changed a resource of each of TYPES."""


class Canonicals:
    """What the record holds under canonical URLs, as it is now. Any thread may call.

    The record is looked through anew when one of these resources has changed; an index of their URLs will do that
    once there is search.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._state: State | None = None
        """That of `_profiles`."""
        self._profiles = Profiles(lambda _: None)
        self._names: dict[str, tuple[str, ...]] = {}
        """The names of each resource, by the blob that it is: a blob never changes."""

    def validator(self, level: Literal["off", "structure", "full"]) -> Validate | None:
        """What the setting fhir.validation asks for; None for nothing."""
        if level == "off":
            return None
        return partial(validation.issues, structure_only=True) if level == "structure" else self.issues

    def issues(self, resource: Any, *, type: str | None = None, asked: Sequence[str] = ()) -> list[Issue]:
        """See `conformance.issues`; profiles are those of the record."""
        return conformance.issues(resource, self.profiles, type=type, asked=asked)

    def profiles(self) -> Profiles:
        """The profiles of the record, each of which is read when it is first asked for."""
        return self.current()[0]

    def current(self) -> tuple[Profiles, State]:
        """The same, and what they are."""
        snapshot = self._snapshot()
        state = _state(snapshot)
        with self._lock:
            if state != self._state:
                self._profiles = Profiles(self._finder(snapshot))
                self._state = state
            return self._profiles, state

    def state(self) -> State:
        """What the profiles of the record are now."""
        return _state(self._snapshot())

    def _finder(self, snapshot: Snapshot) -> Find:
        versions = [version for type in TYPES for version in snapshot.resources(type)]
        self._names = {str(version.blob): self._names_of(snapshot, version) for version in versions}
        by_name: dict[str, Version] = {}
        # Of several under one name the one that was written last counts.
        for version in sorted(versions, key=lambda version: version.last_updated):
            for name in self._names[str(version.blob)]:
                by_name[name] = version

        def find(name: str) -> Resource | None:
            version = by_name.get(name)
            return None if version is None else _sound(json.loads_trusted(snapshot.body(version)))

        return find

    def _names_of(self, snapshot: Snapshot, version: Version) -> tuple[str, ...]:
        known = self._names.get(str(version.blob))
        return known if known is not None else _names(json.loads_trusted(snapshot.body(version)))


class Judge:
    """Validates the resources of one unit of work, all by the profiles that the record has at the first need of them.

    `state` is what these are; None as long as none was needed.
    """

    def __init__(self, canonicals: Canonicals) -> None:
        self.state: State | None = None
        self._canonicals = canonicals
        self._profiles: Profiles | None = None

    def __call__(self, resource: Resource) -> Sequence[Issue]:
        return conformance.issues(resource, self._found)

    def _found(self) -> Profiles:
        if self._profiles is None:
            self._profiles, self.state = self._canonicals.current()
        return self._profiles


def _state(snapshot: Snapshot) -> State:
    return tuple(snapshot.last_change(type) for type in TYPES)


def _names(resource: Resource) -> tuple[str, ...]:
    """The canonical URL, and also with its version: `http://example.org/profile|1.0`.

    https://hl7.org/fhir/R4/references.html#canonical
    """
    url, version = resource.get("url"), resource.get("version")
    if not isinstance(url, str):
        return ()
    return (url, f"{url}|{version}") if isinstance(version, str) else (url,)


def _sound(resource: Resource) -> Resource | None:
    """The resource, unless it was stored unseen and has faults: nothing can be judged by it then."""
    return None if validation.refusal(validation.issues(resource)) else resource
