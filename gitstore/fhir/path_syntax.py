"""Reads the text of a FHIRPath expression into a tree. http://hl7.org/fhirpath/N1/#expressions

Patient.name.where(use = 'official').given[0]

Index(Member(Call(Member(Member(None, "Patient"), "name"), "where", (Operation("=", ...),)), "given"),
      Literal("integer", 0))
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec import Struct

MAX_LENGTH = 4096
"""Characters of an expression."""

MAX_NESTING = 50
"""Parentheses, brackets and arguments may lie this deep in one another."""


class PathError(ValueError):
    """The text is not FHIRPath, or uses a part of it that is not known here; it says where."""


class Literal(Struct, frozen=True):
    """A value in the text, with its FHIR type."""

    type: str
    value: Any


class Empty(Struct, frozen=True):
    """The empty collection, {}."""


class This(Struct, frozen=True):
    """The item that is looked at, $this."""


class Constant(Struct, frozen=True):
    """A value from outside: %resource."""

    name: str


class Member(Struct, frozen=True):
    """The children of this name; of the item that is looked at where there is no target."""

    target: Tree | None
    name: str


class Index(Struct, frozen=True):
    """One item by its number, from 0."""

    target: Tree
    number: Tree


class Call(Struct, frozen=True):
    """A function."""

    target: Tree | None
    name: str
    arguments: tuple[Tree, ...]


class Operation(Struct, frozen=True):
    """Two operands and what stands between them."""

    operator: str
    left: Tree
    right: Tree


class OfType(Struct, frozen=True):
    """`is` or `as` with the name of a type."""

    operator: str
    target: Tree
    type: str


Tree: TypeAlias = Literal | Empty | This | Constant | Member | Index | Call | Operation | OfType

_TOKEN = re.compile(
    r"(?:\s|//[^\n]*|/\*.*?\*/)*"
    r"(?:(?P<string>'(?:[^'\\]|\\.)*')"
    r"|(?P<quoted>`(?:[^`\\]|\\.)*`)"
    r"|(?P<date>@[0-9T][0-9:.TZ+-]*)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?)"
    r"|(?P<constant>%[A-Za-z_][A-Za-z0-9_-]*|%`[^`]*`|%'[^']*')"
    r"|(?P<name>\$?[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark><=|>=|!=|!~|[.,()\[\]{}|=~<>+\-*/&])"
    r"|(?P<end>\Z))",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
_BINDING_FROM_LOOSE_TO_TIGHT = (
    ("implies",),
    ("or", "xor"),
    ("and",),
    ("in", "contains"),
    ("=", "~", "!=", "!~"),
    ("<=", "<", ">", ">="),
    ("|",),
    ("is", "as"),
    ("+", "-", "&"),
    ("*", "/", "div", "mod"),
)


def parse(text: str) -> Tree:
    """The tree of an expression. Raises PathError."""
    if len(text) > MAX_LENGTH:
        raise PathError(f"the expression has {len(text)} characters; at most {MAX_LENGTH} may be")
    reader = _Reader(text)
    tree = reader.expression()
    reader.expect_end()
    return tree


class _Reader:
    """Tokens from left to right, one looked at ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._nesting = 0
        self._kind = ""
        self._token = ""
        self._advance()

    def expect_end(self) -> None:
        if self._kind != "end":
            raise self._unexpected()

    def expression(self, level: int = 0) -> Tree:
        if level == len(_BINDING_FROM_LOOSE_TO_TIGHT):
            return self._invocations()
        left = self.expression(level + 1)
        operators = _BINDING_FROM_LOOSE_TO_TIGHT[level]
        while self._kind in ("mark", "name") and self._token in operators:
            operator = self._take()
            if operator in ("is", "as"):
                left = OfType(operator, left, self._type_name())
            else:
                left = Operation(operator, left, self.expression(level + 1))
        return left

    def _invocations(self) -> Tree:
        if self._token == "-" and self._kind == "mark":
            self._take()
            if self._token == "-":
                raise self._unexpected()
            return Operation("-", Literal("integer", 0), self._invocations())
        tree = self._term()
        while self._kind == "mark" and self._token in (".", "["):
            is_member = self._take() == "."
            tree = self._member_or_call(tree) if is_member else Index(tree, self._nested("]"))
        return tree

    def _term(self) -> Tree:
        kind, token = self._kind, self._token
        if kind == "mark" and token == "(":
            self._take()
            return self._nested(")")
        if kind == "mark" and token == "{":
            self._take()
            self._expect("}")
            return Empty()
        if kind == "name" and token in ("true", "false"):
            return Literal("boolean", self._take() == "true")
        if kind in ("name", "quoted"):
            return self._member_or_call(None)
        if kind in ("string", "number", "date", "constant"):
            self._take()
            return _literal(kind, token)
        raise self._unexpected()

    def _member_or_call(self, target: Tree | None) -> Tree:
        quoted = self._kind == "quoted"
        if self._kind not in ("name", "quoted"):
            raise self._unexpected()
        name = self._take()
        if quoted:
            return Member(target, _unescape(name))
        if name == "$this" and target is None:
            return This()
        if name.startswith("$"):
            raise PathError(f"{name} is not known here")
        if self._kind == "mark" and self._token == "(":
            self._take()
            return Call(target, name, self._arguments())
        return Member(target, name)

    def _arguments(self) -> tuple[Tree, ...]:
        if self._kind == "mark" and self._token == ")":
            self._take()
            return ()
        arguments = [self._nested(None)]
        while self._kind == "mark" and self._token == ",":
            self._take()
            arguments.append(self._nested(None))
        self._expect(")")
        return tuple(arguments)

    def _nested(self, closing: str | None) -> Tree:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise PathError(f"the expression is nested more than {MAX_NESTING} deep")
        tree = self.expression()
        self._nesting -= 1
        if closing is not None:
            self._expect(closing)
        return tree

    def _type_name(self) -> str:
        if self._kind not in ("name", "quoted"):
            raise self._unexpected()
        name = self._take()
        while self._kind == "mark" and self._token == ".":
            self._take()
            name = self._take()  # the namespace before it, FHIR or System, says nothing new
        return name.strip("`")

    def _expect(self, mark: str) -> None:
        if self._kind != "mark" or self._token != mark:
            raise self._unexpected()
        self._take()

    def _take(self) -> str:
        token = self._token
        self._advance()
        return token

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            raise PathError(
                f"`{self._text[self._position :][:20]}` is not FHIRPath (at {self._position + 1})"
            )
        self._kind = match.lastgroup or ""
        self._token = match[self._kind]
        self._position = match.end()

    def _unexpected(self) -> PathError:
        shown = f"`{self._token}`" if self._token else "the end"
        return PathError(f"{shown} was not expected (at {self._position - len(self._token) + 1})")


def _literal(kind: str, token: str) -> Tree:
    if kind == "string":
        return Literal("string", _unescape(token))
    if kind == "constant":
        return Constant(token[1:].strip("`'"))
    if kind == "date":
        text = token[1:]
        if text.startswith("T"):
            return Literal("time", text[1:])
        return Literal("dateTime" if "T" in text else "date", text.removesuffix("T"))
    return Literal("decimal", Decimal(token)) if "." in token else Literal("integer", int(token))


def _unescape(quoted: str) -> str:
    return _ESCAPE.sub(
        lambda match: chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[2]), quoted[1:-1]
    )
