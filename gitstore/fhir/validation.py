"""Whether a resource is FHIR R4, and everything that is wrong about it. https://hl7.org/fhir/R4/validation.html

All of it is driven by the definitions: no resource type is special here. docs/validation.md lists the checks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from gitstore.errors import Invalid, Issue, Unprocessable
from gitstore.fhir import Resource, definitions, narrative, nodes
from gitstore.fhir.invariants import Invariant
from gitstore.fhir.path_functions import literal_type
from gitstore.fhir.paths import Context
from gitstore.fhir.primitives import Check, fault, shown
from gitstore.fhir.shapes import Property, Shape, expected_codes, has_coding, shape

STRUCTURAL = frozenset({"structure", "required", "value", "invalid"})
"""Issue codes of what can't be parsed as FHIR."""

MAX_ISSUES = 1_000
"""More than these are not reported."""

MAX_HINTS = 20
"""After so many issues, what may have been meant by an unknown name is not looked for any more."""

Place: TypeAlias = "tuple[Place | None, str, int | None]"  # the place around, a name, its number in an array


def is_structural(issue: Issue) -> bool:
    """Whether an issue says that this isn't FHIR (400), rather than that it breaks a rule (422)."""
    return issue.severity == "error" and issue.code in STRUCTURAL


def refusal(found: Sequence[Issue]) -> Invalid | None:
    """What to raise because of the errors among some issues: Invalid (400), Unprocessable (422) or nothing."""
    errors = [issue for issue in found if issue.severity == "error"]
    if not errors:
        return None
    return Invalid(*errors) if any(map(is_structural, errors)) else Unprocessable(*errors)


def issues(resource: Any, *, type: str | None = None, structure_only: bool = False) -> list[Issue]:
    """All that is wrong with a resource; nothing where it is valid. `type` is the one that it must have.

    Issues have severity error or warning; those of STRUCTURAL come from unknown elements, wrong types,
    cardinality, formats and choices, and are all there is with `structure_only`. The others come from required
    bindings (code-invalid), invariants and narrative (invariant), and references (business-rule). An
    invariant is not judged where structure is at fault within the element on which it stands.
    """
    examination = _Examination(structure_only)
    examination.resource(resource, (None, _root_name(resource, type), None), None, type)
    return examination.issues


class _Examination:
    """One walk through a resource, from the outside in."""

    def __init__(self, structure_only: bool) -> None:
        self.issues: list[Issue] = []
        self._structure_only = structure_only
        self._faults = 0  # of structure so far
        self._types_by_full_url: dict[str, str] = {}

    def resource(
        self, value: Any, place: Place, container: Context | None = None, expected: str | None = None
    ) -> None:
        if not isinstance(value, dict):
            self._structure(place, f"`{_text(place)}` is {shown(value)}; expected a resource, an object.")
            return
        type = value.get("resourceType")
        if not isinstance(type, str) or not definitions.is_resource_type(type):
            self._resource_type(value, place)
            return
        if expected is not None and type != expected:
            self._fault("invalid", place, f"The resourceType is `{type}`; expected `{expected}`.")
        node = nodes.of_resource(value)
        context = Context.of(node) if container is None else container.within(node)
        if type == "Bundle":
            self._note_full_urls(value)
        self._object(value, shape(type), place, context, is_resource=True)

    def _resource_type(self, value: dict[str, Any], place: Place) -> None:
        if "resourceType" not in value:
            text = f"`{_text(place)}` has no resourceType; expected the type of the resource."
        else:
            text = f"The resourceType is {shown(value['resourceType'])}, which is none of FHIR R4."
        self._fault("invalid", place, text)

    def _note_full_urls(self, bundle: Resource) -> None:
        entries = bundle.get("entry")
        for entry in entries if isinstance(entries, list) else ():
            full_url = entry.get("fullUrl") if isinstance(entry, dict) else None
            if isinstance(full_url, str) and isinstance(entry.get("resource"), dict):
                self._types_by_full_url[full_url] = str(entry["resource"].get("resourceType"))

    def _object(
        self,
        value: dict[str, Any],
        shape: Shape,
        place: Place,
        context: Context,
        *,
        is_resource: bool = False,
    ) -> None:
        faults = self._faults
        properties = shape.properties
        chosen: dict[str, str] | None = None
        for name, child in value.items():
            property = properties.get(name)
            if property is None:
                if name != "resourceType" or not is_resource:
                    self._unknown(name, shape, place)
                continue
            if property.is_choice:
                chosen = chosen or {}
                self._choice(chosen, property, place)
            if property.is_valid is not None:
                self._primitive(child, property, property.is_valid, value, place, context)
            elif property.sibling_of is not None:
                self._sibling(child, property, value, place, context)
            else:
                self._complex(child, property, place, context)
        for path_name, names in shape.required:
            for name in names:
                if name in value:
                    break
            else:
                self._missing(path_name, names, place)
        if not value:
            self._structure(
                place, f"`{_text(place)}` is an empty object; leave it out where there is nothing."
            )
        if shape.invariants and faults == self._faults and not self._structure_only:
            self._invariants(shape.invariants, (shape.type, value, None), place, context)

    # The parts of an object.

    def _choice(self, chosen: dict[str, str], property: Property, place: Place) -> None:
        name = property.sibling_of or property.name
        other = chosen.setdefault(property.path_name, name)
        if other != name:
            text = f"`{_text(place)}` has both `{other}` and `{name}`; expected one {property.path_name}[x]."
            self._structure((place, property.path_name, None), text)

    def _primitive(
        self,
        value: Any,
        property: Property,
        is_valid: Check,
        parent: dict[str, Any],
        place: Place,
        context: Context,
    ) -> None:
        has_rules = property.is_code is not None or property.invariants or property.type == "xhtml"
        if property.max == 1:
            if not is_valid(value):
                self._not_valid(value, property, (place, property.path_name, None))
            elif has_rules:
                self._primitive_rules(value, property, (place, property.path_name, None), context)
            return
        if not self._is_array(value, property, place):
            return
        extras = parent.get("_" + property.name)
        for number, item in enumerate(value):
            here = (place, property.path_name, number)
            if is_valid(item):
                if has_rules:
                    self._primitive_rules(item, property, here, context)
            elif item is not None or not _has_extra(extras, number):
                self._not_valid(item, property, here)

    def _not_valid(self, value: Any, property: Property, place: Place) -> None:
        self._faults += 1
        self._add(fault(property.type, value, _text(place)))

    def _primitive_rules(self, value: Any, property: Property, place: Place, context: Context) -> None:
        if self._structure_only:
            return
        if property.is_code is not None and not property.is_code(value):
            text = f"`{_text(place)}` is `{value}`; expected {expected_codes(property.value_set or '')}."
            self._rule("code-invalid", place, text)
        if property.type == "xhtml":
            for problem in narrative.faults(value):
                self._rule("invariant", place, f"`{_text(place)}` {problem}.")
        if property.invariants:
            self._invariants(property.invariants, (property.type, value, None), place, context)

    def _sibling(
        self, value: Any, property: Property, parent: dict[str, Any], place: Place, context: Context
    ) -> None:
        """The ids and extensions of a primitive. https://hl7.org/fhir/R4/json.html#primitive"""
        has_value = property.sibling_of in parent
        if property.max == 1:
            self._element(value, has_value, (place, property.path_name, None), property.name, context)
            return
        if not self._is_array(value, property, place):
            return
        values = parent.get(property.sibling_of or "", [None] * len(value))
        if isinstance(values, list) and len(values) != len(value):
            text = (
                f"`{property.name}` has {len(value)} items and `{property.sibling_of}` {len(values)}; expected the"
                " same number, with null where there is nothing."
            )
            self._structure((place, property.path_name, None), text)
        for number, item in enumerate(value):
            here = (place, property.path_name, number)
            if item is not None:
                has_value = isinstance(values, list) and number < len(values) and values[number] is not None
                self._element(item, has_value, here, property.name, context)
            elif property.sibling_of not in parent:
                self._structure(here, f"`{_text(here)}` has neither a value nor an id or extension.")

    def _element(self, value: Any, has_value: bool, place: Place, name: str, context: Context) -> None:
        if not isinstance(value, dict):
            text = f"`{name}` is {shown(value)}; expected an object with the id and extensions of `{_text(place)}`."
            self._structure(place, text)
            return
        self._object(value, shape("Element"), place, context)
        if not has_value and not self._structure_only and "id" in value and len(value) == 1:
            self._only_id(place)

    def _complex(self, value: Any, property: Property, place: Place, context: Context) -> None:
        if property.max == 1:
            self._item(value, property, (place, property.path_name, None), context)
        elif self._is_array(value, property, place):
            for number, item in enumerate(value):
                self._item(item, property, (place, property.path_name, number), context)

    def _item(self, value: Any, property: Property, place: Place, context: Context) -> None:
        if property.type == "Resource":
            self.resource(value, place, context if property.name == "contained" else None)
            return
        if not isinstance(value, dict):
            text = f"`{_text(place)}` is {shown(value)}, but must be an object in JSON: its type is {property.type}."
            self._structure(place, text)
            return
        faults = self._faults
        self._object(value, shape(property.type), place, context)
        if self._structure_only or self._faults != faults:
            return
        if len(value) == 1 and "id" in value:
            self._only_id(place)
        if property.type == "Reference":
            self._reference(value, property, place, context)
        if property.value_set is not None:
            self._coded(value, property.value_set, place)
        if property.invariants:
            self._invariants(property.invariants, (property.type, value, None), place, context)

    def _is_array(self, value: Any, property: Property, place: Place) -> bool:
        if isinstance(value, list) and value and (property.max is None or len(value) <= property.max):
            return True
        here = (place, property.path_name, None)
        if not isinstance(value, list):
            text = f"`{_text(here)}` is {shown(value)}, but must be an array in JSON: it may be there several times."
        elif not value:
            text = f"`{_text(here)}` is an empty array; leave it out where there is nothing."
        else:
            text = f"`{_text(here)}` is there {len(value)} times; expected at most {property.max}."
        self._structure(here, text)
        return False

    # Rules.

    def _invariants(
        self, invariants: tuple[Invariant, ...], node: nodes.Node, place: Place, context: Context
    ) -> None:
        for invariant in invariants:
            context.start(node)
            if not invariant.check(context):
                where = _text(place)
                text = f"`{where}` breaks {invariant.key}: {invariant.text}."
                self._add(Issue(invariant.severity, "invariant", text, where))

    def _only_id(self, place: Place) -> None:
        text = (
            f"`{_text(place)}` breaks ele-1: it has an id and nothing else; expected a value or an extension."
        )
        self._rule("invariant", place, text)

    def _reference(self, value: dict[str, Any], property: Property, place: Place, context: Context) -> None:
        text = value.get("reference")
        type = value.get("type")
        if isinstance(text, str):
            found = self._type_of_target(text, place, context)
            if (
                found is not None
                and type is not None
                and definitions.is_resource_type(type)
                and type != found
            ):
                problem = f"`{_text(place)}` has the type `{type}`, but leads to `{_short(text)}`."
                self._rule("business-rule", place, problem)
            type = found
        if property.targets is None or type is None or type in property.targets:
            return
        if definitions.is_resource_type(type):
            expected = " or ".join(sorted(property.targets))
            problem = f"`{_text(place)}` leads to {type} (`{_short(text or type)}`); expected {expected}."
            self._rule("business-rule", place, problem)

    def _type_of_target(self, reference: str, place: Place, context: Context) -> str | None:
        """The type of what a reference leads to, where it can be told."""
        if reference.startswith("#"):
            return _type_of_contained(reference, context)
        if reference in self._types_by_full_url:
            return self._types_by_full_url[reference]
        match = _RELATIVE_REFERENCE.fullmatch(reference)
        if match is None:
            return literal_type(reference) if _HTTP.match(reference) else None
        if match["type"] is None or not definitions.is_resource_type(match["type"]):
            problem = (
                f"`{_text(place)}` is `{_short(reference)}`; expected Type/id with a resource type of R4."
            )
            self._rule("business-rule", (place, "reference", None), problem)
            return None
        return match["type"]

    def _coded(self, value: dict[str, Any], value_set: str, place: Place) -> None:
        """A required binding of a Coding or CodeableConcept: one of the codings must be of the value set."""
        codings = value.get("coding", []) if "system" not in value and "code" not in value else [value]
        results = [has_coding(value_set, coding.get("system"), coding.get("code")) for coding in codings]
        if True in results or None in results or (not results and has_coding(value_set, "", "") is None):
            return
        given = ", ".join(f"`{coding.get('system', '')}|{coding.get('code', '')}`" for coding in codings)
        text = f"`{_text(place)}` has {given or 'no coding'}; expected {expected_codes(value_set)}."
        self._rule("code-invalid", place, text)

    # Saying so.

    def _unknown(self, name: str, shape: Shape, place: Place) -> None:
        close = (
            difflib.get_close_matches(name[:80], shape.properties, 1) if len(self.issues) < MAX_HINTS else []
        )
        hint = f" Did you mean `{close[0]}`?" if close else ""
        here = (place, name if _NAME.fullmatch(name) else f"`{_short(name).replace('`', '')}`", None)
        self._structure(here, f"`{_short(name)}` is no element of {shape.type}.{hint}")

    def _missing(self, path_name: str, names: tuple[str, ...], place: Place) -> None:
        expected = [f"`{name}`" for name in names if not name.startswith("_")]
        text = f"`{_text(place)}` has no `{path_name}`; it must be there"
        if len(expected) > 1:
            text += f", as {' or '.join(expected) if len(expected) < 6 else f'`{path_name}[x]`'}"
        self._fault("required", place, text + ".")

    def _structure(self, place: Place, text: str) -> None:
        self._fault("structure", place, text)

    def _fault(self, code: str, place: Place, text: str) -> None:
        self._faults += 1
        self._add(Issue("error", code, text, _text(place)))

    def _rule(self, code: str, place: Place, text: str) -> None:
        self._add(Issue("error", code, text, _text(place)))

    def _add(self, issue: Issue) -> None:
        if len(self.issues) < MAX_ISSUES:
            self.issues.append(issue)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}", re.ASCII)
_HTTP = re.compile(r"https?://")
_RELATIVE_REFERENCE = re.compile(
    r"(?![A-Za-z][A-Za-z0-9+.-]*:)(?:/?(?P<type>[A-Za-z]+)(?:/[A-Za-z0-9.-]{1,64}(?:/_history/[A-Za-z0-9.-]{1,64})?"
    r"(?:#.*)?|\?.*)|.*)",
    re.DOTALL,
)


def _root_name(resource: Any, type: str | None) -> str:
    name = resource.get("resourceType") if isinstance(resource, dict) else None
    return name if isinstance(name, str) and definitions.is_resource_type(name) else type or "Resource"


def _has_extra(extras: Any, number: int) -> bool:
    return isinstance(extras, list) and number < len(extras) and extras[number] is not None


def _type_of_contained(reference: str, context: Context) -> str | None:
    if reference == "#":
        return context.root[0]
    contained = context.contained.get(reference[1:])
    return None if contained is None else contained[0]  # ref-1 says that it is missing


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "…"


def _text(place: Place) -> str:
    """A place as FHIRPath: `Patient.contact[0].name`."""
    steps = []
    step: Place | None = place
    while step is not None:
        step, name, number = step
        steps.append(name if number is None else f"{name}[{number}]")
    return ".".join(reversed(steps))
