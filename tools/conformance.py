"""docs/conformance.md, from routes, CapabilityStatement, settings, choices and tests: `python -m tools.conformance`."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import typing
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from falcon.testing import TestClient

from api.app import BASE_PATH, ROUTES, create_app
from gitstore import Settings, Store, init
from tools.checklist import SECTIONS, Row, Section
from tools.choices import CHOICES

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
HEAD = """\
# Conformance

What this server does of FHIR R4 (4.0.1), which way it went where FHIR leaves the way open, and which test holds it to that.
This page is made from the code by `python -m tools.conformance > docs/conformance.md`, and a test keeps it current.
"""
SETTINGS_HEAD = """\
Git configuration of the repository; [operations](operations.md#settings) says what each is for.
"""
ROWS_HEAD = """\
Each row is tested, or says why it is not. A test names its rows at the start of its docstring, so
`grep -rn '4\\.3' tests` finds those of row 4.3. Level is FHIR's word for how binding a row is; HTTP, R5 and R6 are where it comes from
if not from R4, and *ours* is what FHIR leaves open.
"""

_PAGES = {
    "history-instance": "history",
    "history-type": "history",
    "history-system": "history",
    "search-type": "search",
    "search-system": "search",
    "batch": "batch-and-transaction",
    "transaction": "batch-and-transaction",
    "$diff": "../audit",
    "$blame": "../audit",
    "$changes": "../audit",
    "$restore": "../audit",
    "$revert": "../audit",
}
_CONDITIONAL = (
    # R4 has no claim for conditional patches, which work where conditional updates do.
    (
        "conditional read",
        "read.md",
        "`GET [base]/[type]/[id]` with If-None-Match, If-Modified-Since",
        "conditionalRead",
    ),
    (
        "conditional create",
        "create.md#conditional-create",
        "`POST [base]/[type]` with If-None-Exist",
        "conditionalCreate",
    ),
    (
        "conditional update",
        "update.md#conditional-update",
        "`PUT [base]/[type]?criteria`",
        "conditionalUpdate",
    ),
    ("conditional patch", "patch.md", "`PATCH [base]/[type]?criteria`", "conditionalUpdate"),
    (
        "conditional delete",
        "delete.md#conditional-delete",
        "`DELETE [base]/[type]?criteria`",
        "conditionalDelete",
    ),
)
_NUMBER = r"\d+[a-c]?(?:\.\d+)+"
_NAMED = re.compile(rf"({_NUMBER}(?:, {_NUMBER})*)(?::\s|\Z)")
_UNITS = (("g", 1024**3), ("m", 1024**2), ("k", 1024))


def page() -> str:
    """The whole page as Markdown."""
    statement = _statement()
    sections = (
        HEAD,
        *_part("Interactions", _interactions(statement["rest"][0]["resource"][0])),
        *_part("The CapabilityStatement", _claims(statement)),
        *_part("Choices", _choices()),
        *_part("Settings", _settings(), SETTINGS_HEAD),
        f"## Row by row\n\n{ROWS_HEAD}",
        *(text for section in SECTIONS for text in _section(section)),
    )
    return "\n".join(sections)


def rows_of(docstring: str) -> tuple[str, ...]:
    """The numbers that a test's docstring begins with: `7.1, 7.2: weak comparison` names two."""
    found = _NAMED.match(docstring)
    return tuple(found[1].split(", ")) if found else ()


@cache
def tests_of_rows() -> dict[str, tuple[Path, ...]]:
    """The files of the tests that name each row, by its number."""
    found: dict[str, dict[Path, None]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for docstring in docstrings(path):
            for number in rows_of(docstring):
                found.setdefault(number, {})[path] = None
    return {number: tuple(paths) for number, paths in found.items()}


@cache
def docstrings(path: Path) -> tuple[str, ...]:
    """Those of the tests in a file, as they are and not as they are indented."""
    return tuple(
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def variable(field: str) -> str:
    """The variable of git's configuration for a field of Settings: `fhir.maxBody` for `max_body`."""
    first, *rest = field.split("_")
    return f"fhir.{first}{''.join(word.title() for word in rest)}"


def _part(title: str, lines: Iterable[str], head: str = "") -> Iterator[str]:
    yield f"## {title}\n"
    if head:
        yield head
    yield from lines
    yield ""


def _table(*heads: str) -> Iterator[str]:
    yield _line(*heads)
    yield "|" + "---|" * len(heads)


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _interactions(claims: dict[str, Any]) -> Iterator[str]:
    """One line for each code of FHIR, with the requests that the route table has for it."""
    requests: dict[str, list[str]] = {}
    for path, endpoint in ROUTES:
        for method, codes in endpoint.interactions.items():
            for code in codes:
                # One endpoint answers the searches of all levels; a path with a type is of its level alone.
                if code != ("search-system" if "{type}" in path else "search-type"):
                    requests.setdefault(code, []).append(f"`{method} {_public(path)}`")
    yield from _table("interaction", "request")
    for code, found in requests.items():
        name = _PAGES.get(code, code.removeprefix("$"))
        yield _line(f"[{code}](interactions/{name}.md)", ", ".join(found))
    for title, link, request, claim in _CONDITIONAL:
        if claims[claim] not in (False, "not-supported"):
            yield _line(f"[{title}](interactions/{link})", request)


def _public(path: str) -> str:
    return "[base]" + path.removeprefix(BASE_PATH).replace("{", "[").replace("}", "]")


def _statement() -> dict[str, Any]:
    """The CapabilityStatement of an empty record with the settings that are the default."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.git"
        init(path)
        with Store.open(path) as store:
            client = TestClient(create_app(store), headers={"Host": "localhost"})
            statement: dict[str, Any] = client.simulate_get(f"{BASE_PATH}/metadata").json
    return statement


def _claims(statement: dict[str, Any]) -> Iterator[str]:
    """What `metadata` says of all types alike, and how much of what differs."""
    [rest] = statement["rest"]
    types = rest["resource"]
    yield from _table("element", "value")
    for name in ("fhirVersion", "format", "patchFormat"):
        yield _line(name, _values(statement[name]))
    yield _line("rest.interaction", _values([each["code"] for each in rest["interaction"]]))
    yield _line("rest.resource", f"all {len(types)} types of R4")
    for name, value in types[0].items():
        if name == "interaction":
            yield _line(f"rest.resource.{name}", _values([each["code"] for each in value]))
        elif name not in _OF_EACH_TYPE and all(each.get(name) == value for each in types):
            yield _line(f"rest.resource.{name}", _values(value))
    for name in ("searchParam", "searchInclude", "searchRevInclude"):
        yield _line(f"rest.resource.{name}", f"{sum(len(each.get(name, [])) for each in types):,} in all")
    operations = {each["name"]: None for type in types for each in type.get("operation", [])}
    yield _line("rest.resource.operation", _values([f"${name}" for name in operations]))


_OF_EACH_TYPE = ("type", "searchParam", "searchInclude", "searchRevInclude", "operation")


def _values(value: object) -> str:
    many = value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]
    return ", ".join(f"`{each}`" for each in many)


def _choices() -> Iterator[str]:
    yield from _table("what FHIR leaves open", "what is done", "because", "setting", "rows")
    for choice in CHOICES:
        settings = ", ".join(f"`{variable(field)}`" for field in choice.settings)
        yield _line(choice.about, choice.done, choice.reason, settings, ", ".join(choice.rows))


def _settings() -> Iterator[str]:
    kinds = typing.get_type_hints(Settings)
    yield from _table("setting", "default", "other values")
    for field in fields(Settings):
        others = [value for value in typing.get_args(kinds[field.name]) if isinstance(value, str)]
        yield _line(
            f"`{variable(field.name)}`",
            _default(field.default),
            ", ".join(f"`{value}`" for value in others if value != field.default),
        )


def _default(value: object) -> str:
    """As one would write it in a configuration; nothing where there is no default."""
    if value is None or value == ():
        return "none"
    if isinstance(value, int | float):
        for unit, size in _UNITS:
            if value % size == 0:
                return f"`{int(value // size)}{unit}`"
        return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
    return f"`{value}`"


def _section(section: Section) -> Iterator[str]:
    yield f"### {section.title}\n"
    yield f"[FHIR]({section.source})\n"
    yield from _table("row", "", "level", "tests")
    for row in section.rows:
        yield _line(
            row.number, row.title, f"*{row.level}*" if row.level == "ours" else row.level, _tests(row)
        )
    yield ""


def _tests(row: Row) -> str:
    """Links to the files, or the reason why there are none; empty for neither, which a test doesn't let pass."""
    if row.why_untested is not None:
        return f"none: {row.why_untested}"
    paths = tests_of_rows().get(row.number, ())
    return ", ".join(f"[{_short(path)}](../{path.relative_to(ROOT)})" for path in paths)


def _short(path: Path) -> str:
    return path.stem.removeprefix("test_").removeprefix("http_").replace("_", " ")


if __name__ == "__main__":
    sys.stdout.write(page().rstrip("\n") + "\n")
