"""What users write for _text and _content becomes a query that FTS5 understands, whatever it is.

https://hl7.org/fhir/R4/search.html#content
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from asked import asked, refused
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.search import rows
from gitstore.search.filters import Not, Words
from gitstore.search.words import TOKENIZER, words

SCHEMA = (Path(rows.__file__).parent / "schema.sql").read_text()


def documents(*texts):
    """The table of schema.sql with these narratives."""
    memory = sqlite3.connect(":memory:")
    memory.execute(re.search(r"CREATE VIRTUAL TABLE words .*?;", SCHEMA, re.DOTALL)[0])
    memory.executemany("INSERT INTO words (rowid, narrative) VALUES (?, ?)", enumerate(texts))
    return memory


def matches(memory, filter):
    if isinstance(filter, Not):
        return {*range(TEXTS)} - matches(memory, filter.filter)
    query = f"{{narrative}} : ({filter.query})"
    return {row for (row,) in memory.execute("SELECT rowid FROM words WHERE words MATCH ?", (query,))}


NARRATIVES = ("bone liver", "bone", "liver metastases", "Leber, Größe: 5.4 mg", "nothing at all", "été")
TEXTS = len(NARRATIVES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bone", {0, 1}),
        ("BONE", {0, 1}),
        ("bone liver", {0}),
        ("liver bone", {0}),
        ("bone,metastases", {0, 1, 2}),
        ("bone OR metastases", {0, 1, 2}),
        ("bone or metastases", set()),
        ("bone AND liver", {0}),
        ("(bone OR liver) and metastases", {2}),
        ("bone NOT liver", {1}),
        ("NOT bone", {2, 3, 4, 5}),
        ("NOT bone NOT liver", {3, 4, 5}),
        ("metastases, NOT liver", {1, 2, 3, 4, 5}),
        ("NOT (bone OR liver)", {3, 4, 5}),
        ("NOT NOT bone", {0, 1}),
        ('"liver bone"', {0}),
        ('"OR"', set()),
        ('"all', {4}),
        ("große", {3}),
        ("GRÖßE", {3}),
        ("ete", {5}),
        ("5.4", {3}),
        ("bone) liver", {0}),
        ("((bone", {0, 1}),
        ("narrative:bone", set()),
        ("bon*", set()),
        (r"bone\,liver", {0}),
        ("bone AND", {0, 1}),
        ("OR bone", {0, 1}),
    ],
)
def test_words(text, found):
    memory = documents(*NARRATIVES)
    assert matches(memory, words("_text", "narrative", text)) == found


def test_the_tokenizer_is_that_of_the_schema():
    assert f"tokenize = '{TOKENIZER}'" in SCHEMA


@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                [
                    "a",
                    "é",
                    "OR",
                    "AND",
                    "NOT",
                    "NEAR",
                    "(",
                    ")",
                    '"',
                    ",",
                    "*",
                    "^",
                    "-",
                    ":",
                    "{",
                    "+",
                    "'",
                    "\0",
                    "𞤀b",
                ]
            )
        ).map(" ".join),
    )
)
def test_whatever_is_written_fts5_understands(text):
    memory = documents("a b c")
    try:
        filter = words("_content", "content", text)
    except Invalid:
        return
    query = filter.filter.query if isinstance(filter, Not) else filter.query
    memory.execute("SELECT rowid FROM words WHERE words MATCH ?", (query,)).fetchall()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_text_is_found_by_its_own_words(text):
    """Folding and cutting are FTS5's own: so what it made words of is found by them."""
    memory = documents(text)
    quoted = '"' + text.replace('"', " ") + '"'
    try:
        filter = words("_text", "narrative", quoted)
    except Invalid:
        return
    assert matches(memory, filter) == {0}


@pytest.mark.parametrize("text", ["-", "()", "OR", '""', "NOT"])
def test_without_a_word_there_is_nothing_to_look_for(text):
    assert refused("Patient", [("_text", text)])[0] == "value"


@pytest.mark.parametrize("text", ["a " * 201, "(" * 21 + "a"])
def test_a_query_has_a_limit(text):
    assert refused("Patient", [("_content", text)])[0] == "too-costly"


def test_the_columns():
    assert asked("Patient", "_text=Bone") == Words("narrative", '"bone"')
    assert asked("Patient", "_content=Bone") == Words("content", '"bone"')
