"""What a large unit of work has ready for the writer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir.stored import Template
from gitstore.search.rows import Contained, Rows
from gitstore.shelf import Printed, Shelf

NUMBERS = st.integers(-(2**62), 2**62)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def rows_of(contained):
    return st.builds(
        Rows,
        tokens=st.lists(st.tuples(NUMBERS, TEXTS, TEXTS, NUMBERS), max_size=2),
        strings=st.lists(st.tuples(NUMBERS, TEXTS, NUMBERS, NUMBERS), max_size=2),
        dates=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=2),
        quantities=st.lists(st.tuples(NUMBERS, TEXTS, TEXTS, st.binary(), st.binary(), NUMBERS), max_size=2),
        references=st.lists(
            st.tuples(NUMBERS, st.none() | TEXTS, TEXTS, st.none() | TEXTS, NUMBERS), max_size=2
        ),
        positions=st.lists(st.tuples(NUMBERS, st.floats(-90, 90), st.floats(-180, 180)), max_size=2),
        narrative=TEXTS,
        content=TEXTS,
        contained=contained,
    )


ROWS = rows_of(st.lists(st.builds(Contained, TEXTS, TEXTS, rows_of(st.just([]))), max_size=2))
PRINTED = st.builds(Printed, st.builds(Template, st.binary(), st.binary(), st.binary()), st.none() | ROWS)


@given(st.lists(PRINTED, max_size=8))
def test_what_is_shelved_comes_back_as_it_was(printed):
    """Files byte for byte, and each row with the types that SQLite tells apart."""
    shelf = Shelf()
    shelved = [shelf.put(each) for each in printed]

    assert [Printed(each.template, each.contents) for each in shelved] == printed
