"""Regular expressions that someone sends, matched in time linear in the text.

They choose codes of a code system (https://hl7.org/fhir/R4/valueset.html#filter, operator regex), and must not keep a
server busy: Python's `re` takes exponential time for patterns such as `(a+)+b`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

_Test: TypeAlias = Callable[[str], bool]
"""Whether a single character fits."""

_MAX_LENGTH = 500
_MAX_DEPTH = 20
_MAX_STEPS = 2000
_MAX_ADDED = 10_000
_MAX_REMEMBERED = 10_000
_END = -1


class UnsupportedPatternError(ValueError):
    """The pattern is malformed, too large, or uses what isn't built: anchors within it, look-around, references."""


class Pattern:
    """A pattern of literals, `.`, classes, groups, `|`, `*`, `+`, `?`, `{m,n}`, and \\d, \\w, \\s and opposites.

    It must fit the whole text, so that `^` at its start and `$` at its end change nothing. Raises
    UnsupportedPatternError for other patterns and for those of more than some thousand steps.
    """

    def __init__(self, text: str) -> None:
        node = _Reader(text).whole()
        self._steps: list[_Step] = []
        self._added = 0
        self._start = self._closure([self._add(node, _END)])
        self._next: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def fits(self, text: str) -> bool:
        """Whether the pattern matches all of the text."""
        places = self._start
        for character in text:
            following = self._next.get((places, character))
            if following is None:
                following = self._follow(places, character)
            places = following
            if not places:
                return False
        return _END in places

    def _follow(self, places: frozenset[int], character: str) -> frozenset[int]:
        steps = (self._steps[place] for place in places if place != _END)
        following = self._closure(step.next for step in steps if step.test and step.test(character))
        if len(self._next) < _MAX_REMEMBERED:
            self._next[places, character] = following
        return following

    def _closure(self, places: Iterator[int] | list[int]) -> frozenset[int]:
        """The places with those that are reached from them without reading a character."""
        waiting, seen = list(places), set[int]()
        while waiting:
            place = waiting.pop()
            if place not in seen:
                seen.add(place)
                if place != _END and self._steps[place].test is None:
                    waiting += (self._steps[place].next, self._steps[place].other)
        return frozenset(place for place in seen if place == _END or self._steps[place].test)

    def _step(self, test: _Test | None, next: int, other: int) -> int:
        if len(self._steps) == _MAX_STEPS:
            raise UnsupportedPatternError("the pattern has too many steps")
        self._steps.append(_Step(test, next, other))
        return len(self._steps) - 1

    def _add(self, node: _Node, next: int) -> int:
        """The place where a node begins that goes on at `next`."""
        self._added += 1
        if self._added > _MAX_ADDED:
            raise UnsupportedPatternError("the pattern repeats too much")
        if isinstance(node, _One):
            return self._step(node.test, next, next)
        if isinstance(node, _Sequence):
            for part in reversed(node.parts):
                next = self._add(part, next)
            return next
        if isinstance(node, _Choice):
            place = self._add(node.parts[-1], next)
            for part in reversed(node.parts[:-1]):
                place = self._step(None, self._add(part, next), place)
            return place
        if node.most is None:
            loop = self._step(None, next, next)
            self._steps[loop].other = self._add(node.part, loop)
            next = loop
        else:
            end = next
            for _ in range(node.most - node.least):
                next = self._step(None, self._add(node.part, next), end)
        for _ in range(node.least):
            next = self._add(node.part, next)
        return next


@dataclass(slots=True)
class _Step:
    """Goes on at `next` with a character that fits; without a test at `next` and `other` at once."""

    test: _Test | None
    next: int
    other: int


class _One(Struct, frozen=True):
    test: _Test


class _Sequence(Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Choice(Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Repeat(Struct, frozen=True):
    part: _Node
    least: int
    most: int | None


_Node: TypeAlias = _One | _Sequence | _Choice | _Repeat

_CATEGORIES: dict[str, _Test] = {
    "d": str.isdecimal,
    "w": lambda character: character.isalnum() or character == "_",
    "s": str.isspace,
    "D": lambda character: not character.isdecimal(),
    "W": lambda character: not (character.isalnum() or character == "_"),
    "S": lambda character: not character.isspace(),
}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r"}


class _Reader:
    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise UnsupportedPatternError("the pattern is too long")
        before = text[:-1]
        is_escaped = (len(before) - len(before.rstrip("\\"))) % 2
        self._text = before if text.endswith("$") and not is_escaped else text
        self._place = int(self._text.startswith("^"))

    def whole(self) -> _Node:
        node = self._choice(0)
        if self._place < len(self._text):
            raise UnsupportedPatternError("a parenthesis is closed that was not opened")
        return node

    def _peek(self) -> str:
        return self._text[self._place : self._place + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise UnsupportedPatternError("the pattern ends too early")
        self._place += 1
        return character

    def _choice(self, depth: int) -> _Node:
        if depth > _MAX_DEPTH:
            raise UnsupportedPatternError("groups lie too deep in one another")
        parts = [self._sequence(depth)]
        while self._peek() == "|":
            self._place += 1
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _sequence(self, depth: int) -> _Node:
        parts: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._part(depth)))
        return _Sequence(tuple(parts))

    def _part(self, depth: int) -> _Node:
        character = self._take()
        if character == "(":
            if self._peek() == "?":
                self._place += 1
                if self._take() != ":":
                    raise UnsupportedPatternError("only (...) and (?:...) are groups")
            node = self._choice(depth + 1)
            if self._take() != ")":
                raise UnsupportedPatternError("a group is not closed")
            return node
        if character == "[":
            return _One(self._class())
        if character == ".":
            return _One(lambda character: character != "\n")
        if character == "\\":
            return _One(_test(self._escaped()))
        if character in "*+?{}^$]":
            raise UnsupportedPatternError(f"`{character}` stands where it has no meaning")
        return _One(_equal(character))

    def _repeated(self, part: _Node) -> _Node:
        counts: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        mark = self._peek()
        if mark in counts:
            self._place += 1
            least, most = counts[mark]
        elif mark == "{":
            least, most = self._counts()
        else:
            return part
        if self._peek() == "?":  # as few as will do: which texts fit is the same
            self._place += 1
        if self._peek() in ("*", "+", "?", "{"):
            raise UnsupportedPatternError("a repetition is repeated")
        return _Repeat(part, least, most)

    def _counts(self) -> tuple[int, int | None]:
        inner, closed, _ = self._text[self._place + 1 :].partition("}")
        least, comma, most = inner.partition(",")
        sound = closed and _is_count(least) and (not most or _is_count(most))
        if not sound:
            raise UnsupportedPatternError(f"`{{{inner}` is no number of repetitions")
        self._place += len(inner) + 2
        if not comma:
            return int(least), int(least)
        if most and int(most) < int(least):
            raise UnsupportedPatternError(f"`{inner}` are no numbers of repetitions")
        return int(least), int(most) if most else None

    def _escaped(self) -> str | _Test:
        """What a backslash and the next character stand for: a character or a category of them."""
        character = self._take()
        if character in _CATEGORIES:
            return _CATEGORIES[character]
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise UnsupportedPatternError(f"`\\{character}` is not supported")
        return character

    def _class(self) -> _Test:
        negated = self._peek() == "^"
        self._place += negated
        tests: list[_Test] = []
        while not tests or self._peek() != "]":
            first = self._class_item()
            if self._peek() != "-" or self._text[self._place + 1 : self._place + 2] in ("", "]"):
                tests.append(_test(first))
                continue
            self._place += 1
            last = self._class_item()
            if not isinstance(first, str) or not isinstance(last, str) or last < first:
                raise UnsupportedPatternError("a range of characters has no order")
            tests.append(_between(first, last))
        self._place += 1
        return lambda character: any(test(character) for test in tests) != negated

    def _class_item(self) -> str | _Test:
        character = self._take()
        if character == "[":
            raise UnsupportedPatternError("classes within classes are not supported")
        return self._escaped() if character == "\\" else character


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4


def _test(item: str | _Test) -> _Test:
    return _equal(item) if isinstance(item, str) else item


def _equal(wanted: str) -> _Test:
    return lambda character: character == wanted


def _between(first: str, last: str) -> _Test:
    return lambda character: first <= character <= last
