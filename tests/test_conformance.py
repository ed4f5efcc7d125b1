"""docs/conformance.md is current, and every row of the checklist has a test or a reason."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from gitstore import Settings
from tools import conformance
from tools.checklist import SECTIONS, Row
from tools.choices import CHOICES

ROWS = [row for section in SECTIONS for row in section.rows]
NUMBERS = {row.number for row in ROWS}
TESTS = sorted(conformance.TESTS.rglob("test_*.py"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_every_row_has_a_test_or_a_reason(row: Row) -> None:
    """And not both: the reason goes once there is a test."""
    tests = conformance.tests_of_rows().get(row.number, ())

    assert tests or row.why_untested, f"no test names {row.number} ({row.title}): tools/checklist.py"
    assert not (tests and row.why_untested), (
        f"{row.number} is tested now: drop its reason in tools/checklist.py"
    )


def test_every_row_that_a_test_names_is_in_the_checklist() -> None:
    assert set(conformance.tests_of_rows()) - NUMBERS == set()


def test_rows_are_numbered_once_and_in_order() -> None:
    numbers = [[int(part) for part in re.findall(r"\d+", row.number)] for row in ROWS]

    assert len(NUMBERS) == len(ROWS)
    for before, after in pairwise(numbers):
        assert before < after or before[0] == after[0] == 12


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_docstrings_that_begin_with_a_row_name_it(path: Path) -> None:
    """`6.10 and more` or `2.1 to 2.5: text` would name nothing, or not all."""
    for docstring in conformance.docstrings(path):
        begins = re.match(r"\d+[a-c]?(\.\d+)+", docstring)
        if begins and begins[0] in NUMBERS:
            assert conformance.rows_of(docstring), docstring


def test_rows_are_read_from_the_start_of_a_docstring() -> None:
    assert conformance.rows_of("4.3: 410 with the ETag.") == ("4.3",)
    assert conformance.rows_of("7.1, 12b.8, 3.11.2: more") == ("7.1", "12b.8", "3.11.2")
    assert conformance.rows_of("5.3") == ("5.3",)
    assert conformance.rows_of("400: it is refused") == ()
    assert conformance.rows_of("RFC 7240, section 4.1") == ()
    assert conformance.rows_of("1.0 and 1.00 are not the same.") == ()


def test_every_choice_is_about_something_there() -> None:
    """Rows of the checklist, fields of Settings; each setting that has alternatives is one of the choices."""
    settings = {field.name: field.type for field in fields(Settings)}

    for choice in CHOICES:
        assert set(choice.rows) <= NUMBERS, choice.about
        assert set(choice.settings) <= set(settings), choice.about
    alternatives = {name for name, kind in settings.items() if "Literal" in str(kind)}
    assert alternatives - {setting for choice in CHOICES for setting in choice.settings} == {
        "maintenance",
        "replication",
    }


def test_the_page_is_current() -> None:
    """It is what `python -m tools.conformance` prints."""
    page = (conformance.ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")

    assert page.rstrip("\n") == conformance.page().rstrip("\n"), (
        "run: python -m tools.conformance > docs/conformance.md"
    )
