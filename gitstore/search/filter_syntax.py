"""The language of _filter as a tree. https://hl7.org/fhir/R4/search_filter.html

```
name co "pet"                            Test((Step("name"),), "co", "pet")
given eq a and birthdate ge 2014         Logic(Test(…), "and", Test(…))
a eq 1 or b eq 2 and c eq 3              Logic(Logic(a, "or", b), "and", c): from left to right
not (active eq true)                     Negation(Test(…))
subject.name co pet                      Test((Step("subject"), Step("name")), "co", "pet")
subject[active eq true].name co pet      Test((Step("subject", Test(…)), Step("name")), "co", "pet")
```
"""

from __future__ import annotations

import json as plain_json
import re
from typing import TypeAlias

from msgspec import Struct

from gitstore.errors import Invalid, Issue
from gitstore.search.asking import shown, too_costly

OPERATORS = frozenset(
    (
        "eq",
        "ne",
        "co",
        "sw",
        "ew",
        "gt",
        "lt",
        "ge",
        "le",
        "ap",
        "sa",
        "eb",
        "pr",
        "po",
        "ss",
        "sb",
        "in",
        "ni",
        "re",
    )
)
"""https://hl7.org/fhir/R4/search_filter.html#ops"""

_MAX_DEPTH = 30
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_OPERATOR = re.compile(r"\s+(?P<word>[A-Za-z]+)\s+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_TOKEN = re.compile(r'[^\s\])"][^\s\])]*')
_LOGIC = re.compile(r"(and|or)(?![A-Za-z0-9_-])")
_NOT = re.compile(r"not\s*\(")


class Step(Struct, frozen=True):
    """One name of a path. The `filter` in brackets is about what the name, a reference, leads to."""

    name: str
    filter: Expression | None = None


class Test(Struct, frozen=True):
    """`value` is the same whether it was written as a string or as a token."""

    path: tuple[Step, ...]
    operator: str
    value: str


class Negation(Struct, frozen=True):
    of: Expression


class Logic(Struct, frozen=True):
    left: Expression
    operator: str
    right: Expression


Expression: TypeAlias = Test | Negation | Logic


def parse(text: str, max_tests: int = 100) -> Expression:
    """Raises Invalid with the place where it isn't in the language, and where it is too large."""
    reader = _Reader(text, max_tests)
    found = reader.expression(0)
    reader.skip()
    if not reader.at_end():
        raise reader.error("`and`, `or` or the end")
    return found


def print_filter(expression: Expression) -> str:
    """Text of which `parse` makes this tree."""
    if isinstance(expression, Negation):
        return f"not ({print_filter(expression.of)})"
    if isinstance(expression, Logic):
        right = print_filter(expression.right)
        if isinstance(expression.right, Logic):
            right = f"({right})"
        return f"{print_filter(expression.left)} {expression.operator} {right}"
    path = ".".join(
        step.name if step.filter is None else f"{step.name}[{print_filter(step.filter)}]"
        for step in expression.path
    )
    plain = _TOKEN.fullmatch(expression.value)
    return f"{path} {expression.operator} {expression.value if plain else plain_json.dumps(expression.value)}"


class _Reader:
    def __init__(self, text: str, max_tests: int) -> None:
        self._text = text
        self._place = 0
        self._tests = 0
        self._max_tests = max_tests

    def expression(self, depth: int) -> Expression:
        if depth > _MAX_DEPTH:
            raise too_costly(f"_filter: more than {_MAX_DEPTH} parentheses stand within one another.")
        found = self._part(depth)
        while True:
            self.skip()
            word = self._take(_LOGIC)
            if word is None:
                return found
            found = Logic(found, word, self._part(depth))

    def skip(self) -> None:
        self._take(_SPACE)

    def at_end(self) -> bool:
        return self._place == len(self._text)

    def error(self, expected: str) -> Invalid:
        place = f"at character {self._place + 1}" if not self.at_end() else "at the end"
        return Invalid(Issue("error", "value", f"_filter {shown(self._text)}: expected {expected} {place}."))

    def _part(self, depth: int) -> Expression:
        self.skip()
        negative = self._take(_NOT) is not None
        if not negative and not self._passes("("):
            return self._test(depth)
        found = self.expression(depth + 1)
        self.skip()
        if not self._passes(")"):
            raise self.error("`)`")
        return Negation(found) if negative else found

    def _test(self, depth: int) -> Test:
        self._tests += 1
        if self._tests > self._max_tests:
            raise too_costly(f"_filter: there are more than {self._max_tests} comparisons.")
        path = [self._step(depth)]
        while self._passes("."):
            path.append(self._step(depth))
            if len(path) > _MAX_DEPTH:
                raise too_costly(f"_filter: a path has more than {_MAX_DEPTH} names.")
        if path[-1].filter is not None:
            raise self.error("`.` and a name after the filter in brackets")
        match = _OPERATOR.match(self._text, self._place)
        if match is None or match["word"] not in OPERATORS:
            raise self.error(f"one of {' '.join(sorted(OPERATORS))} between two spaces")
        self._place = match.end()
        return Test(tuple(path), match["word"], self._value())

    def _step(self, depth: int) -> Step:
        name = self._take(_NAME)
        if name is None:
            raise self.error("the name of a parameter")
        if not self._passes("["):
            return Step(name)
        inner = self.expression(depth + 1)
        self.skip()
        if not self._passes("]"):
            raise self.error("`]`")
        return Step(name, inner)

    def _value(self) -> str:
        quoted = self._take(_STRING)
        if quoted is None:
            value = self._take(_TOKEN)
            if value is None:
                raise self.error("a value")
            return value
        try:
            value = str(plain_json.loads(quoted))
            value.encode()
        except ValueError as error:
            raise self.error("a JSON string before this") from error
        return value

    def _passes(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._place)
        self._place += found
        return found

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._place)
        if match is None:
            return None
        self._place = match.end()
        return match[0]
