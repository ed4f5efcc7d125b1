"""All there is about a patient or an encounter: its compartment, and what that refers to.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from gitstore.errors import TooCostly
from gitstore.fhir.definitions import compartments, search_parameters
from gitstore.fhir.ids import ResourceId
from gitstore.snapshot import Snapshot
from gitstore.version import Version

LIMIT = 50_000
"""Resources, of which only the versions are in memory at once."""

_PIECE = 1000
_FURTHER = ("HealthcareService", "Location", "Medication", "Organization", "PractitionerRole")
"""What is brought in and then brings in what it refers to itself. None of them refers to a patient."""

_CARE_DATES = {
    "Account": "period",
    "Basic": "created",
    "ChargeItem": "occurrence",
    "Claim": "created",
    "ClaimResponse": "created",
    "Communication": "sent",
    "CommunicationRequest": "occurrence",
    "Condition": "onset-date",
    "CoverageEligibilityRequest": "created",
    "CoverageEligibilityResponse": "created",
    "DetectedIssue": "identified",
    "DeviceRequest": "event-date",
    "DocumentManifest": "created",
    "ExplanationOfBenefit": "created",
    "Goal": "start-date",
    "ImagingStudy": "started",
    "Media": "created",
    "MedicationAdministration": "effective-time",
    "MedicationDispense": "whenhandedover",
    "MedicationRequest": "authoredon",
    "MedicationStatement": "effective",
    "NutritionOrder": "datetime",
    "Provenance": "recorded",
    "QuestionnaireResponse": "authored",
    "RequestGroup": "authored",
    "ServiceRequest": "occurrence",
    "Specimen": "collected",
    "VisionPrescription": "datewritten",
}
"""The search parameter that says when care took place, where it is not `date`."""


class Everything(Struct, frozen=True):
    """What is asked about a resource that has a compartment.

    `start` and `end` are dates as FHIR writes them, `since` an instant; no `types` are all. `bases` are URLs of this
    server.
    """

    focus: ResourceId
    start: str | None = None
    end: str | None = None
    since: int | None = None
    types: frozenset[str] = frozenset()
    bases: tuple[str, ...] = ()

    def place(self, resource_id: ResourceId) -> tuple[int, str, str]:
        """Where a resource stands in the order of the answer: this depends on nothing but its id."""
        if resource_id == self.focus:
            return (0, "", "")
        return (1 if self.is_inside(resource_id) else 2, *resource_id)

    def is_inside(self, resource_id: ResourceId) -> bool:
        """Whether a resource is there as one of the compartment, and not just because others refer to it."""
        return resource_id == self.focus or resource_id.type in self.members

    @property
    def members(self) -> frozenset[str]:
        """The types that can be in the compartment."""
        return _members(self.focus.type)


@functools.cache
def _members(type: str) -> frozenset[str]:
    return frozenset(name for name, codes in compartments()[type].items() if codes)


def everything_about(snapshot: Snapshot, asked: Everything, state: Snapshot | None = None) -> list[Version]:
    """The resource itself, then its compartment, then what these refer to; the last two by type and id, each once.

    `snapshot` is one of `Store.reading`. In an earlier `state` what has changed since is as it was then; what was
    deleted since, or has left the compartment, is missing.
    Raises NotFound, Gone, NotSupported, TooCostly; Invalid for a date that is none.
    """
    state = state or snapshot
    found = {asked.focus: state.read(asked.focus)}
    for version in _found(snapshot, asked):
        id = version.resource_id
        is_newer = id not in found or found[id].version_id < version.version_id
        if is_newer and (then := _then(state, version)) is not None:
            found[id] = then
            if len(found) > LIMIT:
                raise TooCostly(f"There is more than {LIMIT} resources. Ask for less: _type, start, end.")
    kept = [
        version
        for version in found.values()
        if (not asked.types or version.resource_id.type in asked.types)
        and (asked.since is None or version.last_updated >= asked.since)
    ]
    return sorted(kept, key=lambda version: asked.place(version.resource_id))


def _then(state: Snapshot, version: Version) -> Version | None:
    if version.commit.sequence <= state.commit.sequence:
        return version
    then = state.newest(version.resource_id)
    return None if then is None or then.deleted else then


def _found(snapshot: Snapshot, asked: Everything) -> Iterator[Version]:
    """What is in the compartment, and what it refers to."""
    inside = asked.members
    bring = not asked.types or not asked.types <= inside
    wanted = inside if bring else inside & asked.types
    for types, filters in _questions(asked, wanted):
        pairs = [("_type", ",".join(sorted(types))), *filters]
        if bring:
            pairs.append(("_include", "*"))
            pairs += [("_include:iterate", f"{type}:*") for type in _FURTHER]
        yield from _pages(snapshot, asked, pairs)


def _questions(
    asked: Everything, types: Collection[str]
) -> Iterator[tuple[frozenset[str], Sequence[tuple[str, str]]]]:
    """Which types are asked for together, and how they are narrowed to the dates of care. What has no date is kept."""
    dated: dict[str, str] = {}
    if asked.start is not None or asked.end is not None:
        dated = {type: code for type in types if type != asked.focus.type and (code := _care_date(type))}
    if undated := frozenset(types) - dated.keys():
        yield undated, ()
    for type, code in sorted(dated.items()):
        # A stay that ends on the first day is no later than that day, but overlaps it.
        bounds = (("ge", asked.start), ("le", asked.end))
        within = " and ".join(
            f"({code} {operator} {date} or {code} po {date})" for operator, date in bounds if date is not None
        )
        yield frozenset((type,)), [("_filter", f"({within}) or {code} pr false")]


def _care_date(type: str) -> str | None:
    """None where no parameter tells, as of a Coverage or a RelatedPerson."""
    return _CARE_DATES.get(type, "date" if type in _dated() else None)


@functools.cache
def _dated() -> frozenset[str]:
    return frozenset(
        type
        for each in search_parameters().values()
        if (each.code, each.type) == ("date", "date")
        for type in each.base
    )


def _pages(snapshot: Snapshot, asked: Everything, pairs: Sequence[tuple[str, str]]) -> Iterator[Version]:
    following = None
    while True:
        found = snapshot.search(
            (),
            [*pairs, ("_count", str(_PIECE)), ("_total", "none")],
            compartment=asked.focus,
            page=following,
            bases=asked.bases,
        )
        for match in found.matches:
            yield match.version
        for version in found.included:
            # What could be in a compartment and is not, is another patient's, or of no concern here.
            if version.resource_id.type not in asked.members:
                yield version
        following = found.next
        if following is None:
            return
