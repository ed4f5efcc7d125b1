"""Filters made up at random, over the values that selection_model.py makes records of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from selection_model import (
    CODES,
    IDS,
    INSTANTS,
    NUMBERS,
    PARAMETERS,
    PLACES,
    SYSTEMS,
    TEXTS,
    TYPES,
    URL,
    VERSION,
    WORDS,
)

from gitstore.search import filters as f
from gitstore.search.rows import EVER_AFTER, EVER_BEFORE, fold

COMPARISONS = st.sampled_from(["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
KEYS = st.lists(st.sampled_from(PARAMETERS), min_size=1, max_size=2, unique=True).map(tuple)
ONE_OR_NONE = st.sampled_from([(), (URL,)])


def some(values: Any, least: int = 1) -> Any:
    return st.lists(st.sampled_from(values), min_size=least, max_size=3).map(tuple)


def ordered(values: Any) -> Any:
    return st.lists(st.sampled_from(values), min_size=2, max_size=2, unique=True).map(sorted)


FOLDED = [fold(text) for text in TEXTS] + ["", "a", "d", "\U0010ffff"]
TOKENS = st.builds(
    f.Tokens,
    KEYS,
    st.lists(
        st.builds(
            f.TokenValue,
            st.sampled_from([None, *SYSTEMS, "http://unknown"]),
            st.sampled_from([None, *CODES, "SS", "none"]),
        ),
        max_size=3,
    ).map(tuple),
)
TOKEN_TEXTS = st.builds(
    f.TokenTexts,
    KEYS.map(lambda keys: tuple(key + 10 for key in keys)),
    st.sampled_from(["starts", "contains", "ends", "equals"]),
    some(FOLDED),
)
STRINGS = st.one_of(
    st.builds(f.Strings, KEYS, st.sampled_from(["starts", "contains", "ends", "equals"]), some(FOLDED)),
    st.builds(f.Strings, KEYS, st.sampled_from(["exact", "uri", "below"]), some(TEXTS)),
)
DATES = st.builds(
    lambda keys, comparison, ends, single: f.Dates(keys, comparison, *ends, single),
    KEYS,
    COMPARISONS,
    ordered([EVER_BEFORE, *INSTANTS, EVER_AFTER]),
    st.booleans(),
)
AMOUNTS = st.builds(lambda value, ends: f.Amount(value, *ends), st.sampled_from(NUMBERS), ordered(NUMBERS))
QUANTITIES = st.builds(
    f.Quantities,
    KEYS,
    COMPARISONS,
    AMOUNTS,
    st.sampled_from([None, "", "http://unitsofmeasure.org"]),
    st.sampled_from([None, "mg"]),
    st.one_of(st.none(), st.tuples(st.just("g"), AMOUNTS)),
)
REFERENCES = st.builds(
    f.References,
    KEYS,
    st.lists(
        st.one_of(
            st.builds(
                lambda type, id, version: f.ReferenceValue(type, id, None, version),
                st.sampled_from([None, *TYPES]),
                st.sampled_from(IDS),
                st.sampled_from([None, "1"]),
            ),
            st.builds(
                lambda url, version: f.ReferenceValue(None, None, url, version),
                st.sampled_from(TEXTS),
                st.sampled_from([None, "1.0"]),
            ),
        ),
        max_size=3,
    ).map(tuple),
)
VALUES = st.one_of(TOKENS, TOKEN_TEXTS, STRINGS, DATES, QUANTITIES, REFERENCES)
LEAVES = st.one_of(
    VALUES,
    VALUES,
    st.builds(f.OfTypes, some(TYPES, 0)),
    st.builds(f.Ids, some(IDS, 0)),
    st.builds(
        lambda comparison, ends: f.Updated(comparison, *ends), COMPARISONS, ordered([-1, 1, 2, 3, 4, 5, 7])
    ),
    st.builds(
        f.Present, st.sampled_from(["tokens", "strings", "dates", "quantities", "refs", "positions"]), KEYS
    ),
    st.builds(
        f.Hierarchy,
        KEYS,
        st.sampled_from(TYPES),
        st.sampled_from(IDS),
        KEYS,
        st.sampled_from(["below", "above"]),
    ),
    st.lists(VALUES, min_size=2, max_size=3).map(lambda parts: f.Composite(tuple(parts))),
    st.builds(f.Words, st.sampled_from(["narrative", "content"]), st.sampled_from(WORDS)),
    st.builds(f.Listed, some(IDS), KEYS),
    st.builds(
        lambda keys, place, kilometres: f.Near(keys, *place, kilometres),
        KEYS,
        st.sampled_from([*PLACES, (90.0, 0.0), (1.0, -179.0)]),
        st.sampled_from([0.0, 1.0, 30.0, 1200.0, 30_000.0]),
    ),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f.All(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: f.Any(tuple(parts))),
        st.builds(f.Not, inner),
        st.builds(
            f.Chain,
            KEYS,
            some(TYPES),
            inner,
            ONE_OR_NONE,
            st.just((VERSION,)),
        ),
        st.builds(f.ReferredBy, KEYS, inner),
    ),
    max_leaves=5,
)
