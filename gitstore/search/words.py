"""The words of _text and _content as a query of SQLite's FTS5. https://hl7.org/fhir/R4/search.html#content

```
bone liver               "bone" AND "liver"
bone, liver              "bone" OR "liver"
(bone OR liver) and met  ("bone" OR "liver") AND "met"
bone NOT liver           "bone" NOT "liver"
NOT bone                 what does not match "bone"
"bone marrow"            "bone" AND "marrow": the index knows no order of words
```
OR and NOT are words of the query in capitals only. Parentheses that don't match are passed over.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Literal

from msgspec import Struct

from gitstore.search.asking import bad_value, too_costly
from gitstore.search.filters import Filter, Not, Words

TOKENIZER = "unicode61 remove_diacritics 2"
"""As schema.sql has it."""
_MAX_WORDS = 200
_MAX_DEPTH = 20
_ITEM = re.compile(r'\s*(?:(?P<mark>[(),])|"(?P<quoted>[^"]*)"?|(?P<plain>[^\s(),"]+))')


def words(name: str, column: Literal["narrative", "content"], text: str) -> Filter:
    """Raises Invalid where there is no word in the text, or too many."""
    unescaped = text.replace("\\,", " ").strip()  # an escaped comma is no "or"
    items = [match for match in _ITEM.finditer(unescaped) if match.end() > match.start()]
    terms = _terms([item["quoted"] or item["plain"] or "" for item in items])
    if sum(map(len, terms)) > _MAX_WORDS:
        raise too_costly(f"`{name}` has more than {_MAX_WORDS} words.")
    query = _Reader(items, terms).whole()
    if query is None:
        raise bad_value(name, text, "at least one word")
    found = Words(column, query.text)
    return Not(found) if query.negative else found


class _Query(Struct, frozen=True):
    """A query of FTS5 that has to match, or `negative`ly must not: FTS5 has no NOT that stands alone."""

    text: str
    negative: bool = False


def _terms(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, cut and folded by FTS5 itself: so none is ever two words to it."""
    found: list[list[str]] = [[] for _ in texts]
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute(f"CREATE VIRTUAL TABLE w USING fts5 (text, tokenize = '{TOKENIZER}')")
        memory.execute("CREATE VIRTUAL TABLE v USING fts5vocab (w, instance)")
        memory.executemany("INSERT INTO w (rowid, text) VALUES (?, ?)", enumerate(texts))
        for number, term in memory.execute("SELECT doc, term FROM v ORDER BY doc, offset"):
            found[number].append(term)
    return found


class _Reader:
    def __init__(self, items: Sequence[re.Match[str]], terms: Sequence[list[str]]) -> None:
        self._items = items
        self._terms = terms
        self._place = 0

    def whole(self) -> _Query | None:
        found: list[_Query] = []
        while self._place < len(self._items):
            query = self._alternatives(0)
            if query is not None:
                found.append(query)
            self._place += 1  # a parenthesis that closes nothing
        return _all(found)

    def _alternatives(self, depth: int) -> _Query | None:
        found = [self._together(depth)]
        while self._sees(",", "OR"):
            self._place += 1
            found.append(self._together(depth))
        return _any([query for query in found if query is not None])

    def _together(self, depth: int) -> _Query | None:
        found: list[_Query] = []
        negative = False
        while self._place < len(self._items) and not self._sees(",", "OR", ")"):
            item, terms = self._items[self._place], self._terms[self._place]
            self._place += 1
            if item["mark"] == "(":
                query = self._group(depth + 1)
            elif item["plain"] == "NOT":
                negative = not negative
                continue
            elif item["plain"] in ("AND", "and"):
                continue
            else:
                query = _all([_Query(f'"{term}"') for term in terms])
            if query is not None:
                found.append(_Query(query.text, query.negative != negative))
            negative = False
        return _all(found)

    def _group(self, depth: int) -> _Query | None:
        if depth > _MAX_DEPTH:
            raise too_costly(f"More than {_MAX_DEPTH} parentheses stand within one another.")
        query = self._alternatives(depth)
        if self._sees(")"):
            self._place += 1
        return query

    def _sees(self, *marks: str) -> bool:
        if self._place >= len(self._items):
            return False
        item = self._items[self._place]
        return (item["mark"] or item["plain"]) in marks


def _all(queries: Sequence[_Query]) -> _Query | None:
    positive = [query.text for query in queries if not query.negative]
    negative = [query.text for query in queries if query.negative]
    if not positive:
        return _Query(_joined(negative, "OR"), negative=True) if negative else None
    return _Query(_without(_joined(positive, "AND"), negative))


def _any(queries: Sequence[_Query]) -> _Query | None:
    positive = [query.text for query in queries if not query.negative]
    negative = [query.text for query in queries if query.negative]
    if not negative:
        return _Query(_joined(positive, "OR")) if positive else None
    return _Query(_without(_joined(negative, "AND"), positive), negative=True)


def _joined(texts: Sequence[str], operator: str) -> str:
    return texts[0] if len(texts) == 1 else "(" + f" {operator} ".join(texts) + ")"


def _without(text: str, others: Sequence[str]) -> str:
    return f"({text} NOT {_joined(others, 'OR')})" if others else text
