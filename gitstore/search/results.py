"""The parameters that say how a search is answered: _sort, _count, _include and the like.

Each is given at most once, but for _include and _revinclude. https://hl7.org/fhir/R4/search.html#return
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from gitstore.errors import Invalid, Issue
from gitstore.search import criteria_includes
from gitstore.search.asking import Asking, UnknownError, bad_value, not_supported, shown, too_costly
from gitstore.search.filters import Include, SortKey

IGNORED: Final = frozenset({"_format", "_pretty"})
"""They are about the form of the answer, not about what is searched."""

_MAX_COUNT = 2**31 - 1
_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)
_VALUES: Final = {
    "_total": ("none", "estimate", "accurate"),
    "_summary": ("true", "text", "data", "count", "false"),
    "_contained": ("false", "true", "both"),
    "_containedType": ("container", "contained"),
}
NAMES: Final = frozenset({"_sort", "_count", "_elements", *_VALUES, *criteria_includes.NAMES})


@dataclass(slots=True)
class Results:
    """What was asked for so far. `ignore` is told what has no effect; it raises Invalid where the search is strict."""

    asking: Asking
    types: Sequence[str]
    ignore: Callable[[str], None]
    sort: tuple[SortKey, ...] = ()
    count: int | None = None
    elements: frozenset[str] = frozenset()
    includes: list[Include] = field(default_factory=list)
    _chosen: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    @property
    def total(self) -> Literal["none", "estimate", "accurate"]:
        return cast(Literal["none", "estimate", "accurate"], self._chosen.get("_total", "accurate"))

    @property
    def contained(self) -> Literal["false", "true", "both"]:
        return cast(Literal["false", "true", "both"], self._chosen.get("_contained", "false"))

    @property
    def contained_type(self) -> Literal["container", "contained"]:
        return cast(Literal["container", "contained"], self._chosen.get("_containedType", "container"))

    @property
    def summary(self) -> str:
        return self._chosen.get("_summary", "false")

    def take(self, written: str, text: str) -> str | None:
        """Take a parameter into account. The value as far as it had an effect, None where it had none.

        Raises Invalid for a value or modifier that can't be, and for a parameter that may not be repeated.
        """
        name, colon, modifier = written.partition(":")
        if name in criteria_includes.NAMES:
            return self._include(name, modifier if colon else None, text)
        if colon:
            raise not_supported(f"{shown(written)}: {name} has no modifiers.")
        if name in self._seen:
            raise Invalid(Issue("error", "invalid", f"{name} may be given only once."))
        self._seen.add(name)
        if name == "_sort":
            return self._sort(text)
        if name == "_elements":
            return self._elements(text)
        if name == "_count":
            if not _COUNT.fullmatch(text):
                raise bad_value(name, text, "a number of resources, 0 or more")
            self.count = min(int(text), _MAX_COUNT)
        elif text in _VALUES[name]:
            self._chosen[name] = text
        else:
            raise bad_value(name, text, f"one of {', '.join(_VALUES[name])}")
        return text

    def _elements(self, text: str) -> str | None:
        self.elements = frozenset(name.strip() for name in text.split(",") if name.strip())
        return text if self.elements else None

    def _include(self, name: str, modifier: str | None, text: str) -> str | None:
        if len(self.includes) >= self.asking.limits.max_includes:
            raise too_costly(
                f"There are more than {self.asking.limits.max_includes} of _include and _revinclude."
            )
        try:
            self.includes.append(criteria_includes.include(self.asking, self.types, name, modifier, text))
        except UnknownError as error:
            self.ignore(error.text)
            return None
        return text

    def _sort(self, text: str) -> str | None:
        used, keys = [], []
        for part in filter(None, (part.strip() for part in text.split(","))):
            key = self._sort_key(part.removeprefix("-"), part.startswith("-"))
            if key is None:
                self.ignore(f"_sort: there is no order by {shown(part)} here.")
            else:
                used.append(part)
                keys.append(key)
        if len(keys) > self.asking.limits.max_parameters:
            raise too_costly(f"_sort has more than {self.asking.limits.max_parameters} keys.")
        self.sort = tuple(keys)
        return ",".join(used) or None

    def _sort_key(self, code: str, descending: bool) -> SortKey | None:
        if code == "_id":
            return SortKey("id", (), descending)
        if code == "_lastUpdated":
            return SortKey("updated", (), descending)
        parameters = self.asking.parameters(self.types, code)
        tables = {parameter.table for parameter in parameters}
        if len(parameters) < len(self.types) or len(tables) != 1:
            return None
        table = tables.pop()
        if table is None or table == "positions":
            return None
        return SortKey(table, tuple(parameter.key for parameter in parameters), descending)
