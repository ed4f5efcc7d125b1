"""Whether resources fit the profiles that they claim or that are asked for.

What the StructureDefinition's snapshot says is applied: cardinality, types, fixed values and patterns, required
bindings, targets of references, profiles of extensions and data types, maxLength, its own invariants, and slicing
by value, pattern, type, existence or profile. https://hl7.org/fhir/R4/profiling.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gitstore.errors import Issue
from gitstore.fhir import Resource, definitions, nodes, paths
from gitstore.fhir.invariants import compiled
from gitstore.fhir.nodes import Node
from gitstore.fhir.path_functions import literal_type
from gitstore.fhir.paths import Context, PathError
from gitstore.fhir.primitives import shown
from gitstore.fhir.profile_rules import CORE, Profile, Rule, equals, fits, matches, profile
from gitstore.fhir.value_sets import Codes, Find, codes_of, has


class Profiles:
    """The profiles that `find` knows, each read once: one of these serves one state of the record."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._profiles: dict[str, Profile | None] = {}
        self._codes: dict[str, Codes | None] = {}

    def issues(self, resource: Resource, asked: Sequence[str] = ()) -> list[Issue]:
        """What breaks the profiles in meta.profile, of the resource and of those in it, and the ones `asked` for.

        The resource must have passed `validation.issues`. A profile that isn't known, or has no snapshot, is
        a warning.
        """
        node = nodes.of_resource(resource)
        examination = _Examination(self, node)
        for url in asked:
            examination.apply(url, node, node[0], node[0])
        examination.claimed(node, node[0], asked)
        return examination.issues

    def profile(self, url: str) -> Profile | None:
        """The profile with this canonical URL, None where it isn't known or has no snapshot."""
        if url not in self._profiles:
            structure = self._find(url)
            is_profile = structure is not None and structure.get("resourceType") == "StructureDefinition"
            self._profiles[url] = profile(structure) if structure is not None and is_profile else None
        return self._profiles[url]

    def codes(self, value_set: str) -> Codes | None:
        if value_set not in self._codes:
            self._codes[value_set] = codes_of(value_set, self._find)
        return self._codes[value_set]


class _Examination:
    """One resource, with all that is found about it."""

    def __init__(self, profiles: Profiles, root: Node) -> None:
        self.issues: list[Issue] = []
        self._profiles = profiles
        self._url = ""
        self._context = Context.of(root)

    def claimed(self, node: Node, place: str, asked: Sequence[str] = ()) -> None:
        """Apply what a resource claims, and what those in it claim."""
        meta = node[1].get("meta", {})
        for number, url in enumerate(meta.get("profile", ())):
            if url is not None and url not in asked:
                self.apply(url, node, place, f"{place}.meta.profile[{number}]")
        outer = self._context
        for path, inner in _inner_resources(node, place):
            is_contained = path.startswith(f"{place}.contained[")
            self._context = outer.within(inner) if is_contained else Context.of(inner)
            self.claimed(inner, path)
        self._context = outer

    def apply(self, url: str, node: Node, place: str, named_at: str) -> None:
        known = self._profiles.profile(url)
        if known is None:
            if not _is_core(url):
                text = f"The profile `{url}` is not known here with a snapshot; it was not applied."
                self.issues.append(Issue("warning", "not-found", text, named_at))
            return
        if known.type not in definitions.lineage(node[0]):
            text = f"`{place}` is of type {node[0]}; the profile `{url}` is for {known.type}."
            self._broken("business-rule", text, place)
            return
        outer = self._url, self._context
        self._url = url
        if definitions.is_resource_type(node[0]) and node[1] is not self._context.resource[1]:
            self._context = Context.of(node)
        self._rules(node, known.root, place)
        self._url, self._context = outer

    def _rules(self, node: Node, rule: Rule, place: str) -> None:
        """What a rule says about one value, and then its children."""
        self._value(node, rule, place)
        for child in rule.children:
            items = nodes.numbered_children(node, child.name)
            name = child.name.removesuffix("[x]")
            placed = [
                (f"{place}.{name}" if number is None else f"{place}.{name}[{number}]", item)
                for number, item in items
            ]
            self._count(len(items), child, f"{place}.{name}", place)
            for path, item in placed:
                self._rules(item, child, path)
            if child.slices:
                self._slices(placed, child, f"{place}.{name}")

    def _slices(self, items: list[tuple[str, Node]], rule: Rule, place: str) -> None:
        counts = dict.fromkeys(range(len(rule.slices)), 0)
        for path, item in items:
            number = next(
                (number for number, part in enumerate(rule.slices) if self._is_of_slice(item, part, rule)),
                None,
            )
            if number is not None:
                counts[number] += 1
                self._rules(item, rule.slices[number], path)
            elif rule.is_closed:
                names = ", ".join(str(part.slice_name) for part in rule.slices)
                text = f"`{path}` is none of the slices {names}, and no other is allowed by `{self._url}`."
                self._broken("business-rule", text, path)
        for number, part in enumerate(rule.slices):
            self._count(counts[number], part, place, place)

    def _count(self, count: int, rule: Rule, place: str, parent: str) -> None:
        what = f"`{place}`" if rule.slice_name is None else f"The slice `{rule.slice_name}` of `{place}`"
        if count < rule.min:
            text = f"{what} {_times(count)}; `{self._url}` expects at least {rule.min}."
            self._broken("business-rule", text, parent)
        if rule.max is not None and count > rule.max:
            text = f"{what} {_times(count)}; `{self._url}` expects at most {rule.max}."
            self._broken("business-rule", text, place)

    # Slices.

    def _is_of_slice(self, item: Node, part: Rule, whole: Rule) -> bool:
        discriminators = whole.discriminators or (("value", "$this"),)
        return all(self._discriminates(item, part, type, path) for type, path in discriminators)

    def _discriminates(self, item: Node, part: Rule, type: str, path: str) -> bool:
        rules = _rules_at(part, path)
        found = self._at(item, path)
        if type == "exists":
            return any(not found if rule.max == 0 else bool(found) or rule.min == 0 for rule in rules[:1])
        if type == "type":
            return any(_is_of_types(node, rule) for node in found for rule in rules or [part])
        if type == "profile":
            urls = [url for rule in rules or [part] for url in _profiles_of(rule)]
            return any(self._has_profile(node, url) for node in found for url in urls)
        if not rules:
            # The value is said by the profile of the slice's type, as an extension's url is by its profile.
            known = [self._profiles.profile(url) for url in _profiles_of(part)]
            rules = [rule for one in known if one is not None for rule in _rules_at(one.root, path)]
            if not rules:
                return path == "url" and any(node[1] == url for node in found for url in _profiles_of(part))
        return any(self._has_value(node, rule) for node in found for rule in rules)

    def _has_value(self, node: Node, rule: Rule) -> bool:
        result = fits(node, rule)
        if result is None and rule.value_set is not None:
            codes = self._profiles.codes(rule.value_set)
            return codes is not None and _has_code(codes, node)
        return bool(result)

    def _has_profile(self, node: Node, url: str) -> bool:
        examination = _Examination(self._profiles, self._context.root)
        examination.apply(url, node, node[0], node[0])
        return not any(issue.severity == "error" for issue in examination.issues) and (
            self._profiles.profile(url) is not None or node[0] == url.removeprefix(CORE)
        )

    def _at(self, item: Node, path: str) -> Sequence[Node]:
        try:
            compiled_path = paths.compile(path)
        except PathError:
            return ()
        self._context.start(item)
        return compiled_path([item], self._context)

    # Values.

    def _value(self, node: Node, rule: Rule, place: str) -> None:
        if rule.fixed is not None and not equals(node[1], rule.fixed[0]):
            text = f"`{place}` is {shown(node[1])}; `{self._url}` expects {_described(rule.fixed[0])}."
            self._broken("business-rule", text, place)
        if rule.pattern is not None and not matches(node[1], rule.pattern[0]):
            text = f"`{place}` doesn't have what `{self._url}` expects: {_described(rule.pattern[0])}."
            self._broken("business-rule", text, place)
        if rule.types and rule.name.endswith("[x]") and not _is_of_types(node, rule):
            text = f"`{place}` is of type {node[0]}; `{self._url}` expects {' or '.join(rule.types)}."
            self._broken("business-rule", text, place)
        if rule.max_length is not None and isinstance(node[1], str) and len(node[1]) > rule.max_length:
            text = (
                f"`{place}` has {len(node[1])} characters; `{self._url}` expects at most {rule.max_length}."
            )
            self._broken("business-rule", text, place)
        if rule.value_set is not None:
            self._binding(node, rule.value_set, place)
        if rule.targets and node[0] == "Reference":
            self._target(node, rule, place)
        if rule.constraints:
            self._constraints(node, rule, place)
        self._type_profiles(node, rule, place)

    def _binding(self, node: Node, value_set: str, place: str) -> None:
        codes = self._profiles.codes(value_set)
        if codes is None:
            text = f"The value set `{value_set}` can't be expanded here; the codes of `{place}` were not examined."
            self.issues.append(Issue("warning", "not-found", text, place))
        elif node[1] is not None and not _has_code(codes, node):
            text = f"`{place}` has no code of `{value_set}`, which `{self._url}` expects."
            self._broken("code-invalid", text, place)

    def _target(self, node: Node, rule: Rule, place: str) -> None:
        reference = node[1].get("reference")
        type = literal_type(reference) if isinstance(reference, str) else node[1].get("type")
        expected = {self._type_of(url) for url in rule.targets}
        if type is None or None in expected or "Resource" in expected or type in expected:
            return
        names = " or ".join(sorted(str(name) for name in expected))
        self._broken("business-rule", f"`{place}` leads to {type}; `{self._url}` expects {names}.", place)

    def _type_of(self, url: str) -> str | None:
        if _is_core(url):
            return url.removeprefix(CORE)
        known = self._profiles.profile(url)
        return None if known is None else known.type

    def _constraints(self, node: Node, rule: Rule, place: str) -> None:
        for constraint in rule.constraints:
            try:
                invariant = compiled(*constraint)
            except PathError as error:
                text = f"The invariant {constraint.key} of `{self._url}` was not examined: {error}."
                self.issues.append(Issue("warning", "not-supported", text, place))
                continue
            self._context.start(node)
            if not invariant.check(self._context):
                text = f"`{place}` breaks {invariant.key} of `{self._url}`: {invariant.text}."
                self.issues.append(Issue(invariant.severity, "invariant", text, place))

    def _type_profiles(self, node: Node, rule: Rule, place: str) -> None:
        """The profiles of which a value must fit one, such as that of an extension."""
        known = [url for url in rule.types.get(node[0], ()) if self._profiles.profile(url) is not None]
        if len(known) == 1:
            self.apply(known[0], node, place, place)
        elif known and not any(self._has_profile(node, url) for url in known):
            names = ", ".join(known)
            self._broken("business-rule", f"`{place}` fits none of the profiles {names}.", place)

    def _broken(self, code: str, text: str, place: str) -> None:
        self.issues.append(Issue("error", code, text, place))


_CONTAINERS = frozenset({"Bundle", "Parameters"})


def _inner_resources(node: Node, place: str) -> Iterator[tuple[str, Node]]:
    """The resources in a resource, contained ones and those in entries and parameters, without those in them."""
    name: str
    # Only in these types there can be a resource elsewhere.
    names = node[1] if node[0] in _CONTAINERS or "." in node[0] else node[1].keys() & {"contained"}
    for name in names:
        for number, child in nodes.numbered_children(node, name):
            path = f"{place}.{name}" if number is None else f"{place}.{name}[{number}]"
            if definitions.is_resource_type(child[0]):
                yield path, child
            elif isinstance(child[1], dict) and "." in child[0]:
                yield from _inner_resources(child, path)


def _is_core(url: str) -> bool:
    name = url.partition("|")[0]
    return name.startswith(CORE) and definitions.is_resource_type(name.removeprefix(CORE))


def _times(count: int) -> str:
    return {0: "is not there", 1: "is there once"}.get(count, f"is there {count} times")


def _described(value: object) -> str:
    """A fixed value or pattern for a message."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_described(child)}" for name, child in value.items())
    if isinstance(value, list):
        return " and ".join(map(_described, value))
    return shown(value)


def _rules_at(rule: Rule, path: str) -> list[Rule]:
    """The rules, also of slices, that a discriminator's path leads to; functions in it lead nowhere else."""
    rules = [rule]
    for step in path.split("."):
        if step != "$this" and "(" not in step and ")" not in step:
            children = [child for rule in rules if (child := rule.child(step)) is not None]
            rules = [part for child in children for part in (child, *child.slices)]
    return rules


def _is_of_types(node: Node, rule: Rule) -> bool:
    """Whether a value is of one of a rule's types; what a reference led to, of one of its targets."""
    if definitions.is_resource_type(node[0]) and rule.targets:
        return any(nodes.is_of_type(node, url.rpartition("/")[2]) for url in rule.targets)
    return any(nodes.is_of_type(node, type) for type in rule.types)


def _profiles_of(rule: Rule) -> list[str]:
    return [url for profiles in rule.types.values() for url in profiles]


def _has_code(codes: Codes, node: Node) -> bool:
    """Whether a code, Coding, CodeableConcept or Quantity is among the codes."""
    value = node[1]
    if isinstance(value, str):
        return has(codes, None, value)
    if not isinstance(value, dict):
        return True
    codings = value.get("coding", ()) if node[0] == "CodeableConcept" else (value,)
    return any(has(codes, coding.get("system", ""), coding.get("code")) for coding in codings)
