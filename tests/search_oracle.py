"""A FHIR search as plain as can be, over a list of resources: what tests hold the search index against.

Nothing is indexed and nothing is quick. Each resource is asked, for each parameter, what its values are (a walk along
the expressions of the definitions) and whether one of them fits. https://hl7.org/fhir/R4/search.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from search_oracle_values import (
    CASE_SENSITIVE,
    IMPLIED_SYSTEMS,
    amount_fits,
    fold,
    interval,
    moment_fits,
    parts,
    period,
    timing,
    unescape,
)

from gitstore.fhir.definitions import (
    RESOURCE_TYPES,
    SearchParameter,
    elements,
    is_primitive,
    search_parameters,
)

Resource = dict[str, Any]
LITERAL = re.compile(
    rf"(?P<base>.*/)?(?P<type>{'|'.join(RESOURCE_TYPES)})/(?P<id>[A-Za-z0-9.-]{{1,64}})(/_history/(?P<version>\w+))?"
)
STEP = re.compile(
    r"\(?(?P<path>[\w.]+?)(?: as (?P<as>\w+)\)?)?(?:\.as\((?P<of>\w+)\))?(?:\.where\((?P<where>.+)\))?(?P<rest>(?:\.\w+)*)"
)


class Node(NamedTuple):
    """A value somewhere in a resource: its FHIR type, its JSON, and the path that led there, without indexes."""

    type: str
    value: Any
    path: str


class Target(NamedTuple):
    """What a reference says: a resource of this server, or a URL."""

    type: str | None
    id: str | None
    url: str | None
    version: str | None


# Where the values of a parameter are


@functools.cache
def parameter(type: str, code: str) -> SearchParameter | None:
    for one in search_parameters().values():
        if one.code == code and {type, "Resource", "DomainResource"} & set(one.base):
            return one
    return None


def children(node: Node, name: str) -> Iterator[Node]:
    if is_primitive(node.type) or not isinstance(node.value, dict):
        return
    for key, element in elements(node.type).items():
        if name in (key, element.choice) and key in node.value:
            held = node.value[key]
            for one in held if isinstance(held, list) else [held]:
                if one is not None:
                    yield Node(element.type, one, f"{node.path}.{name}")


def walk(nodes: Iterable[Node], steps: Iterable[str]) -> list[Node]:
    for step in steps:
        nodes = [child for node in nodes for child in children(node, step)]
    return list(nodes)


def nodes(start: Node, expression: str) -> list[Node]:
    """What the expression selects, seen from a resource, or for the part of a composite from one of its elements."""
    if expression == "Patient.deceased.exists() and Patient.deceased != false":
        dead = start.value.get("deceasedBoolean", "deceasedDateTime" in start.value)
        return [Node("boolean", dead is not False, "")]
    found = []
    for alternative in expression.split(" | "):
        match = STEP.fullmatch(alternative.strip())
        if match is None:
            assert f"{start.type}." not in alternative, alternative
            continue
        first, *steps = match["path"].split(".")
        if first in RESOURCE_TYPES or first in ("Resource", "DomainResource"):
            if first not in (start.type, "Resource", "DomainResource"):
                continue
        else:
            steps = [first, *steps]
        some = walk([start], steps)
        if wanted := match["as"] or match["of"]:
            some = [node for node in some if node.type.lower() == wanted.lower()]
        if match["where"]:
            some = [node for node in some if holds(node, match["where"])]
        found += walk(some, match["rest"].split(".")[1:])
    return found


def holds(node: Node, condition: str) -> bool:
    if type := re.fullmatch(r"resolve\(\) is (\w+)", condition):
        # The URL of a resource elsewhere says its type as well.
        named = LITERAL.fullmatch(node.value.get("reference", ""))
        return named is not None and named["type"] == type[1]
    equal = re.fullmatch(r"(\w+)\s*=\s*'(\w+)'", condition)
    assert equal, condition
    return bool(node.value.get(equal[1]) == equal[2])


def root(resource: Resource) -> Node:
    return Node(resource["resourceType"], resource, resource["resourceType"])


# What the values are, by type of parameter


def strings(node: Node) -> list[str]:
    parts_of = {
        "HumanName": ("text", "family", "given", "prefix", "suffix"),
        "Address": ("text", "line", "city", "district", "state", "postalCode", "country"),
    }
    if node.type in parts_of:
        return [str(part.value) for name in parts_of[node.type] for part in children(node, name)]
    return [node.value] if isinstance(node.value, str) else []


def tokens(node: Node) -> list[tuple[str | None, str | None]]:
    """System and code of each."""
    value = node.value
    if node.type == "CodeableConcept":
        return [(coding.get("system"), coding.get("code")) for coding in value.get("coding", [])]
    if node.type == "Coding":
        return [(value.get("system"), value.get("code"))]
    if node.type == "Identifier":
        return [(value.get("system"), value.get("value"))]
    if node.type == "ContactPoint":
        return [(None, value["value"])] if "value" in value else []
    if node.type == "boolean":
        return [(None, "true" if value else "false")]
    return [(IMPLIED_SYSTEMS.get(node.path), value)]


def texts(node: Node) -> list[str]:
    """What :text looks at."""
    value = node.value
    if node.type == "CodeableConcept":
        displays = [coding["display"] for coding in value.get("coding", []) if "display" in coding]
        return displays + ([value["text"]] if "text" in value else [])
    if node.type == "Coding":
        return [value["display"]] if "display" in value else []
    if node.type == "Identifier" and "text" in value.get("type", {}):
        return [value["type"]["text"]]
    return []


def target(text: str, bases: Sequence[str] = ()) -> Target:
    match = LITERAL.fullmatch(text)
    if match and (not match["base"] or match["base"].rstrip("/") in bases):
        return Target(match["type"], match["id"], None, match["version"])
    url, _, version = text.partition("|")
    return Target(None, None, url, version or None)


def targets(node: Node, bases: Sequence[str] = ()) -> list[Target]:
    text = node.value.get("reference") if node.type == "Reference" else node.value
    return [target(text, bases)] if text and not text.startswith("#") else []


def intervals(node: Node) -> list[tuple[float, float]]:
    if node.type == "Period":
        return period(node.value)
    if node.type == "Timing":
        return timing(node.value)
    return [interval(node.value)]


# Whether a value fits what was asked


def token_fits(node: Node, wanted: str) -> bool:
    system, code = parts(wanted, "|") if len(parts(wanted, "|")) == 2 else (None, unescape(wanted))
    return any(
        (system is None or system == (has_system or ""))
        and (not code or same_code(has_system, has_code, code))
        for has_system, has_code in tokens(node)
        if has_code is not None or (system and not code)
    )


def same_code(system: str | None, code: str | None, wanted: str) -> bool:
    if code is None:
        return False
    return code == wanted if system in CASE_SENSITIVE else code.casefold() == wanted.casefold()


def of_type_fits(node: Node, wanted: str) -> bool:
    system, code, value = parts(wanted, "|")
    kinds = node.value.get("type", {}).get("coding", [])
    return same_code(node.value.get("system"), node.value.get("value"), value) and any(
        kind.get("system") == system and same_code(system, kind.get("code"), code) for kind in kinds
    )


def reference_fits(node: Node, wanted: str, type: str | None, bases: Sequence[str] = ()) -> bool:
    text = unescape(wanted)
    asked = target(text, bases)
    for has in targets(node, bases):
        version = asked.version in (None, has.version)
        if asked.type:
            fits = (asked.type, asked.id) == (has.type, has.id) and type in (None, asked.type)
        elif re.fullmatch(r"[A-Za-z0-9.-]{1,64}", text):
            fits = has.id == text and type in (None, has.type)
        else:
            fits = has.url is not None and has.url == asked.url
        if fits and version:
            return True
    return False


def uri_fits(has: str, wanted: str, modifier: str) -> bool:
    if modifier == "below":
        return has == wanted or has.startswith(wanted.rstrip("/") + "/")
    if modifier == "above":
        return wanted == has or wanted.startswith(has.rstrip("/") + "/")
    return has == wanted


def string_fits(has: str, wanted: str, modifier: str) -> bool:
    if modifier == "exact":
        return has == wanted
    if modifier == "contains":
        return fold(wanted) in fold(has)
    return fold(has).startswith(fold(wanted))


Fits = Callable[[Node, str], bool]


class Records:
    """Resources to search in. `now` in microseconds since 1970 UTC; `bases` are this server's own URLs."""

    def __init__(self, resources: Iterable[Resource], *, now: int, bases: Sequence[str] = ()) -> None:
        self.all = {(one["resourceType"], one["id"]): one for one in resources}
        self.now = now
        self.bases = bases

    def matches(self, type: str, query: str) -> set[str]:
        """Ids of all resources of the type that fit every parameter; those of sorting, paging, including are ignored."""
        asked = [
            pair
            for pair in parse_qsl(query)
            if pair[0].partition(":")[0] not in ("_sort", "_count", "_include", "_revinclude", "_total")
        ]
        return {
            id
            for (of, id), resource in self.all.items()
            if of == type and all(self.fits(resource, name, value) for name, value in asked)
        }

    def fits(self, resource: Resource, name: str, value: str) -> bool:
        if name.startswith("_has:"):
            _, type, code, rest = name.split(":", 3)
            return any(
                self.fits(other, rest, value)
                for (of, _), other in self.all.items()
                if of == type and any(one is resource for one in self.referred(other, code))
            )
        if "." in name:
            link, rest = name.split(".", 1)
            code, _, type = link.partition(":")
            return any(
                self.fits(one, rest, value)
                for one in self.referred(resource, code)
                if type in ("", one["resourceType"]) and self.knows(one["resourceType"], rest)
            )
        code, _, modifier = name.partition(":")
        values = parts(value, ",", keep=True)
        if code == "_id":
            return resource["id"] in values
        if code == "_lastUpdated":
            instants = [interval(resource["meta"]["lastUpdated"])]
            return any(moment_fits(has, one, self.now) for has in instants for one in values)
        definition = parameter(resource["resourceType"], code)
        assert definition is not None, (resource["resourceType"], code)
        if definition.type == "composite":
            return any(self.composite(root(resource), definition, one) for one in values)
        found = nodes(root(resource), definition.expression or "")
        if modifier == "missing":
            return (value == "true") == (not self.has_value(definition.type, found))
        if modifier == "not":
            return not any(token_fits(node, one) for node in found for one in values)
        fits = self.test_of(definition.type, modifier)
        return any(fits(node, one) for node in found for one in values)

    def knows(self, type: str, name: str) -> bool:
        if name.startswith(("_has:", "_id", "_lastUpdated")):
            return True
        return parameter(type, re.split(r"[.:]", name)[0]) is not None

    def has_value(self, kind: str, found: list[Node]) -> bool:
        readers: dict[str, Callable[[Node], list[Any]]] = {
            "string": strings,
            "reference": lambda node: targets(node, self.bases),
            "date": intervals,
            "token": lambda node: [*(one for one in tokens(node) if any(one)), *texts(node)],
        }
        return any(readers.get(kind, lambda node: [node])(node) for node in found)

    def test_of(self, kind: str, modifier: str) -> Fits:
        """Whether a node fits one value (still with its escapes), for a parameter of this type with this modifier."""
        if kind == "string":
            return lambda node, one: any(string_fits(has, unescape(one), modifier) for has in strings(node))
        if kind == "uri":
            return lambda node, one: uri_fits(node.value, unescape(one), modifier)
        if kind == "date":
            return lambda node, one: any(moment_fits(has, one, self.now) for has in intervals(node))
        if kind in ("quantity", "number"):
            return lambda node, one: amount_fits(node.value, one)
        if kind == "reference":
            if modifier == "identifier":
                return lambda node, one: token_fits(
                    Node("Identifier", node.value.get("identifier", {}), ""), one
                )
            return lambda node, one: reference_fits(node, one, modifier or None, self.bases)
        assert kind == "token", kind
        if modifier == "text":
            return lambda node, one: any(string_fits(has, unescape(one), "") for has in texts(node))
        if modifier == "of-type":
            return of_type_fits
        assert not modifier, modifier
        return token_fits

    def composite(self, start: Node, definition: SearchParameter, value: str) -> bool:
        """One element has all the parts at once."""
        asked = parts(value, "$", keep=True)
        for alternative in (definition.expression or "").split(" | "):
            for element in walk([start], alternative.split(".")[1:]):
                if all(
                    any(
                        self.test_of(search_parameters()[id].type, "")(node, one)
                        for node in nodes(element, path)
                    )
                    for (id, path), one in zip(definition.components, asked, strict=True)
                ):
                    return True
        return False

    def referred(self, resource: Resource, code: str) -> list[Resource]:
        """The resources here that it refers to by this parameter, as they are now."""
        definition = parameter(resource["resourceType"], code)
        if definition is None or definition.type != "reference":
            return []
        found = nodes(root(resource), definition.expression or "")
        keys = [(one.type, one.id) for node in found for one in targets(node, self.bases)]
        return [self.all[key] for key in keys if key in self.all]  # type: ignore[index]  # URLs are no keys

    # What else a search answers

    def included(self, type: str, query: str, ids: Iterable[str]) -> set[tuple[str, str]]:
        """Type and id of what _include and _revinclude bring in besides these matches."""
        matched = {(type, id) for id in ids}
        brought: set[tuple[str, str]] = set()
        wishes = [
            (name, value) for name, value in parse_qsl(query) if name.startswith(("_include", "_revinclude"))
        ]
        new = set(matched)
        first = True
        while new:
            step: set[tuple[str, str]] = set()
            for name, value in wishes:
                if first or name.endswith(":iterate"):
                    step |= self.brought(name.partition(":")[0], value, new)
            new = step - brought - matched
            brought |= new
            first = False
        return brought

    def brought(self, kind: str, value: str, start: set[tuple[str, str]]) -> set[tuple[str, str]]:
        source, code, wanted = [*value.split(":"), ""][:3]
        found = set()
        for key, resource in self.all.items():
            if key[0] != source:
                continue
            for one in self.referred(resource, code):
                other = (one["resourceType"], one["id"])
                if wanted in ("", other[0]):
                    if kind == "_include" and key in start:
                        found.add(other)
                    if kind == "_revinclude" and other in start:
                        found.add(key)
        return found

    def compare(self, type: str, sort: str, one: str, other: str) -> int:
        """Below 0 where the id `one` has to come before `other`, 0 where either may."""
        for key in sort.split(","):
            code, descending = key.removeprefix("-"), key.startswith("-")
            a, b = (self.sort_value(self.all[type, id], code, descending) for id in (one, other))
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return (1 if descending else -1) if a < b else (-1 if descending else 1)
        return 0

    def sort_value(self, resource: Resource, code: str, descending: bool) -> Any:
        """The least value, the greatest for descending; None for none."""
        if code == "_id":
            return resource["id"]
        if code == "_lastUpdated":
            return interval(resource["meta"]["lastUpdated"])[0]
        definition = parameter(resource["resourceType"], code)
        assert definition is not None
        values: list[Any] = []
        for node in nodes(root(resource), definition.expression or ""):
            if definition.type == "string":
                values += [fold(text) for text in strings(node)]
            elif definition.type == "date":
                values += [low for low, _ in intervals(node)]
            elif definition.type == "token":
                values += [(has or "").casefold() for _, has in tokens(node)]
            else:
                assert definition.type == "uri", definition
                values.append(node.value)
        return (max if descending else min)(values, default=None)


def matches(resources: list[Resource], type: str, query: str, *, now: int) -> set[str]:
    """Ids of the resources of the type that fit. `query` is written as in a URL."""
    return Records(resources, now=now).matches(type, query)


def ordered(resources: list[Resource], type: str, query: str, *, now: int) -> list[str]:
    """The same in the order of _sort; ties by id."""
    records = Records(resources, now=now)
    sort = dict(parse_qsl(query)).get("_sort", "_id")
    found = sorted(records.matches(type, query))
    return sorted(found, key=functools.cmp_to_key(functools.partial(records.compare, type, sort)))
