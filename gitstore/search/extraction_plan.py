"""How the values of all parameters of a resource type are found: in one walk over the resource, but for a few.

A plan is made once for each type. Parameters that look at the same place, as `code` and `combo-code` do, share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from gitstore.fhir import definitions, paths
from gitstore.fhir.path_syntax import Tree
from gitstore.search.parameter_definitions import Component, Definition
from gitstore.search.places import Place, alternatives, concerns, first_element, found_places, places
from gitstore.search.values import Convert, Use, converter


@dataclass(slots=True)
class Step:
    """What is to be done with each value of one JSON property.

    Where it is an element of a composite, it gets the next number, which `slot` of Found.elements keeps.
    """

    converts: dict[Convert, list[Use]] = field(default_factory=dict)
    slot: int = 0
    children: dict[str, Step] = field(default_factory=dict)


class Asked(Struct, frozen=True):
    """An expression that is evaluated as such, where the resource has one of the properties `needed`, or these are None.

    For a composite `components` start at each of its results.
    """

    path: paths.Path
    needed: frozenset[str] | None
    kind: str
    use: Use
    components: tuple[tuple[paths.Path, str, Use], ...] = ()


class Plan:
    """What to look for in resources of a type: below `root` what the walk finds, and what is `asked` besides.

    `slots` is how many elements of composites can be looked at at a time; `composites` are the keys of each one's
    components.
    """

    def __init__(self, type: str, parameters: Sequence[tuple[Definition, Use, Sequence[Use]]]) -> None:
        self.type = type
        self.root = Step()
        self.slots = 1
        self.asked: list[Asked] = []
        self.composites = [
            tuple(use.key for use in components) for _, _, components in parameters if components
        ]
        for definition, use, components in parameters:
            if definition.kind == "composite":
                self._add_composite(
                    definition, use, list(zip(definition.components, components, strict=True))
                )
            else:
                self._add(definition, use)

    def _add(self, definition: Definition, use: Use) -> None:
        for tree in alternatives(definition.expression):
            if not concerns(tree, self.type):
                continue
            found = places(tree, self.type)
            if found is None or any(not place.properties for place in found):
                self.asked.append(Asked(paths.compiled(tree), _needed(tree, self.type), definition.kind, use))
            else:
                for place in found:
                    self._add_place((), place, definition.kind, use)

    def _add_place(self, above: tuple[str, ...], place: Place, kind: str, use: Use) -> None:
        convert = converter(kind, place.type, place.refers_to, place.value_set)
        if convert is not None:
            self._step((*above, *place.properties)).converts.setdefault(convert, []).append(use)

    def _step(self, properties: tuple[str, ...]) -> Step:
        step = self.root
        for name in properties:
            step = step.children.setdefault(name, Step())
        return step

    def _add_composite(
        self, definition: Definition, use: Use, components: Sequence[tuple[Component, Use]]
    ) -> None:
        found = found_places(definition.expression, self.type)
        if found is not None and all(_is_plain(component, found) for component, _ in components):
            for place in found:
                step = self._step(place.properties)
                if not step.slot:
                    step.slot, self.slots = self.slots, self.slots + 1
                for component, of_component in components:
                    for part in found_places(component.expression, place.type) or ():
                        self._add_place(
                            place.properties, part, component.kind, of_component._replace(slot=step.slot)
                        )
            return
        numbered = tuple(
            (paths.compile(component.expression), component.kind, of_component._replace(slot=self.slots))
            for component, of_component in components
        )
        self.slots += 1
        for tree in alternatives(definition.expression):
            if concerns(tree, self.type):
                path, needed = paths.compiled(tree), _needed(tree, self.type)
                self.asked.append(Asked(path, needed, definition.kind, use, numbered))


def _is_plain(component: Component, elements: list[Place]) -> bool:
    for element in elements:
        found = found_places(component.expression, element.type)
        if found is None or any(not (*element.properties, *place.properties) for place in found):
            return False
    return True


def _needed(tree: Tree, type: str) -> frozenset[str] | None:
    name = first_element(tree)
    if name is None:
        return None
    found = [
        element.name
        for element in definitions.elements(type).values()
        if (element.choice or element.name) == name
    ]
    return frozenset(found + ["_" + property for property in found])
