"""Bundles of very many entries are read like all others, and kept smaller."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import json, packed
from gitstore.fhir.drawers import Drawers

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS | st.sampled_from([json.Number("-0")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
ENTRIES = st.lists(VALUES | st.fixed_dictionaries({"resource": st.dictionaries(TEXTS, VALUES)}), max_size=5)
KINDS = st.sampled_from(["batch", "transaction", "history", "collection", None])


def whole(bundle):
    """The Bundle with its entries unpacked."""
    if not isinstance(bundle, dict) or not isinstance(bundle.get("entry"), list):
        return bundle
    return {**bundle, "entry": [packed.unpacked(entry) for entry in bundle["entry"]]}


def read(loads, data):
    """The value, or what is said of it."""
    try:
        return whole(loads(data))
    except Invalid as error:
        return [error.issues]


@given(KINDS, ENTRIES, st.dictionaries(TEXTS, VALUES, max_size=2), st.booleans())
def test_a_bundle_says_the_same_packed(kind, entries, others, first):
    """Whatever stands in it, and wherever the entries do."""
    head = {"resourceType": "Bundle", "type": kind}
    value = {"entry": entries, **others, **head} if first else {**head, **others, "entry": entries}

    assert read(packed.loads, json.dumps(value)) == read(json.loads, json.dumps(value))


@given(ENTRIES, st.data())
def test_a_damaged_bundle_is_refused_in_the_same_words(entries, data):
    """The place in it included: who reads packed finds no other faults, and none less."""
    sent = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries})
    at = data.draw(st.integers(0, len(sent) - 1))
    piece = data.draw(st.sampled_from([b"", b'"', b"{", b"]", b",", b"-0", b"1e9999", b"\\ud800", b"\xff"]))
    damaged = sent[:at] + piece + sent[at + 1 :]

    assert read(packed.loads, damaged) == read(json.loads, damaged)


def nested(depth):
    return b"[" * depth + b"]" * depth


HEAD = b'"resourceType":"Bundle","type":"transaction"'


@pytest.mark.parametrize(
    "sent",
    [
        b"{" + HEAD + b',"entry":[{"a":1,"a":2}]}',
        b"{" + HEAD + b',"entry":[1],"entry":[1]}',
        b"{" + HEAD + b',"id":"[1]","entry":[1]}',
        b"{" + HEAD + b',"link":[1],"entry":[1]}',
        b"{" + HEAD + b',"id":"[1]","entry":[1],"link":[1]}',
        b"{" + HEAD + b',"link":{"entry":[1]},"entry":[1]}',
        b"{" + HEAD + b',"entry":[' + nested(62) + b"]}",
        b"{" + HEAD + b',"entry":[' + nested(63) + b"]}",
        b"{" + HEAD + b',"entry":[' + nested(64) + b"]}",
        b"{" + HEAD + b',"entry":[' + nested(5000) + b"]}",
        b"{" + HEAD + b',"entry":{}}',
        b"{" + HEAD + b',"entry":[1,]}',
        b"{" + HEAD + b',"entry":[1]} {',
        b"\xef\xbb\xbf{" + HEAD + b',"entry":[-0]}',
        b"{" + HEAD + b"}",
        b"[]",
        b"",
    ],
)
def test_what_is_easily_overlooked(sent):
    """Names given twice, entries whose text stands elsewhere too, and what lies too deep."""
    assert read(packed.loads, sent) == read(json.loads, sent)


def test_the_resource_of_an_entry_stays_packed_too():
    """It is made anew each time, so what one reader does to it no other one sees."""
    bundle = packed.loads(b"{" + HEAD + b',"entry":[{"resource":{"resourceType":"Patient","x":1.0}}]}')
    [entry] = bundle["entry"]

    resource = entry.resource()
    resource.unpack()["x"] = 2

    assert json.dumps(resource.unpack()) == b'{"resourceType":"Patient","x":1.0}'


@given(st.lists(st.binary(max_size=50).map(lambda piece: piece * 999), max_size=30), st.data())
def test_each_piece_is_found_at_its_place(pieces, data):
    """In whatever order, and while others are still put."""
    drawers, kept = Drawers(), []
    for piece in pieces:
        kept.append(drawers.put(piece))
        asked = data.draw(st.sampled_from(kept))
        assert drawers.get(asked) == pieces[asked]
        if data.draw(st.booleans()):
            drawers.close()

    order = data.draw(st.permutations(kept))
    assert [drawers.get(place) for place in order] == [pieces[place] for place in order]
