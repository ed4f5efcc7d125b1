"""JSON Patch, operation by operation. RFC 6902; https://hl7.org/fhir/R4/http.html#patch"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.errors import Invalid, TooLarge, Unprocessable
from gitstore.fhir import json
from gitstore.fhir.patch import json_patch, parse
from gitstore.fhir.patch.result import copied

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "meta": {"versionId": "3", "lastUpdated": "2026-01-01T12:00:00Z", "source": "http://example.org/a"},
    "active": True,
    "name": [{"family": "Lovelace", "given": ["Ada", "Augusta"]}, {"family": "Byron"}],
    "multipleBirthInteger": 2,
    "extension": [{"url": "http://example.org/a~b/c", "valueDecimal": json.Number("1.50")}],
}


def patched(*operations: dict[str, Any], resource: dict[str, Any] = PATIENT) -> dict[str, Any]:
    return parse("application/json-patch+json", json.dumps(list(operations))).apply(resource)


def with_(**elements: Any) -> dict[str, Any]:
    return PATIENT | elements


DONE: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("no operation", [], PATIENT),
    # add
    ("a property", [{"op": "add", "path": "/gender", "value": "female"}], with_(gender="female")),
    ("in place of one", [{"op": "add", "path": "/active", "value": False}], with_(active=False)),
    (
        "into an array",
        [{"op": "add", "path": "/name/1", "value": {"family": "King"}}],
        with_(name=[PATIENT["name"][0], {"family": "King"}, PATIENT["name"][1]]),
    ),
    (
        "at the end by its number",
        [{"op": "add", "path": "/name/2", "value": {"family": "King"}}],
        with_(name=[*PATIENT["name"], {"family": "King"}]),
    ),
    (
        "at the end by a dash",
        [{"op": "add", "path": "/name/-", "value": {"family": "King"}}],
        with_(name=[*PATIENT["name"], {"family": "King"}]),
    ),
    (
        "an array and then its first item",
        [
            {"op": "add", "path": "/telecom", "value": []},
            {"op": "add", "path": "/telecom/-", "value": {"value": "1"}},
        ],
        with_(telecom=[{"value": "1"}]),
    ),
    # remove
    (
        "a property",
        [{"op": "remove", "path": "/name/0/given"}],
        with_(name=[{"family": "Lovelace"}, {"family": "Byron"}]),
    ),
    ("an item", [{"op": "remove", "path": "/name/0"}], with_(name=[{"family": "Byron"}])),
    # replace
    (
        "a value",
        [{"op": "replace", "path": "/name/1/family", "value": "King"}],
        with_(name=[PATIENT["name"][0], {"family": "King"}]),
    ),
    # move
    (
        "within an array",
        [{"op": "move", "from": "/name/0", "path": "/name/1"}],
        with_(name=[{"family": "Byron"}, PATIENT["name"][0]]),
    ),
    (
        "to the end",
        [{"op": "move", "from": "/name/0", "path": "/name/-"}],
        with_(name=[{"family": "Byron"}, PATIENT["name"][0]]),
    ),
    ("to itself", [{"op": "move", "from": "/active", "path": "/active"}], PATIENT),
    # copy
    (
        "a value",
        [{"op": "copy", "from": "/name/0/given/1", "path": "/name/1/given", "value": "ignored"}],
        with_(name=[PATIENT["name"][0], {"family": "Byron", "given": "Augusta"}]),
    ),
    # test
    ("the whole document", [{"op": "test", "path": "", "value": PATIENT}], PATIENT),
    ("a number by its value", [{"op": "test", "path": "/extension/0/valueDecimal", "value": 1.5}], PATIENT),
    ("keys in any order", [{"op": "test", "path": "/name/1", "value": {"family": "Byron"}}], PATIENT),
    ("the version", [{"op": "test", "path": "/meta/versionId", "value": "3"}], PATIENT),
    # members that an operation does not have are ignored. RFC 6902, section 4
    ("more members", [{"op": "remove", "path": "/name/1", "note": "x"}], with_(name=PATIENT["name"][:1])),
]


@pytest.mark.parametrize(
    ("operations", "expected"), [case[1:] for case in DONE], ids=[case[0] for case in DONE]
)
def test_operations_are_done_in_their_order(operations, expected):
    """9.4: RFC 6902, section 4"""
    assert patched(*operations) == expected


def test_a_tilde_and_a_slash_in_a_name_are_escaped():
    """`~0` is ~ and `~1` is /, and `~01` is ~1. RFC 6901, section 4"""
    resource = {"resourceType": "Basic", "a/b": 1, "m~n": 2, "~1": 3}

    result = patched(
        {"op": "replace", "path": "/a~1b", "value": "one"},
        {"op": "replace", "path": "/m~0n", "value": "two"},
        {"op": "replace", "path": "/~01", "value": "three"},
        resource=resource,
    )

    assert result == {"resourceType": "Basic", "a/b": "one", "m~n": "two", "~1": "three"}


REFUSED = [
    ("missing property", {"op": "remove", "path": "/gender"}),
    ("missing parent", {"op": "add", "path": "/maritalStatus/text", "value": "x"}),
    ("missing property to replace", {"op": "replace", "path": "/gender", "value": "female"}),
    ("missing property to test", {"op": "test", "path": "/gender", "value": None}),
    ("missing source", {"op": "copy", "from": "/gender", "path": "/name/-"}),
    ("missing source that is the target", {"op": "move", "from": "/gender", "path": "/gender"}),
    ("item beyond the end", {"op": "remove", "path": "/name/2"}),
    ("item far beyond the end", {"op": "add", "path": "/name/3", "value": {}}),
    ("item of 20 digits", {"op": "remove", "path": "/name/11111111111111111111"}),
    ("leading zero", {"op": "remove", "path": "/name/01"}),
    ("sign", {"op": "remove", "path": "/name/-1"}),
    ("digit of another script", {"op": "remove", "path": "/name/١"}),
    ("exponent", {"op": "remove", "path": "/name/1e0"}),
    ("name in an array", {"op": "add", "path": "/name/family", "value": "x"}),
    ("removal at the end", {"op": "remove", "path": "/name/-"}),
    ("test at the end", {"op": "test", "path": "/name/-", "value": {}}),
    ("inside of text", {"op": "test", "path": "/id/0", "value": "a"}),
    ("below text", {"op": "add", "path": "/id/0", "value": "a"}),
    ("below a number", {"op": "add", "path": "/multipleBirthInteger/x", "value": "a"}),
    ("into itself", {"op": "move", "from": "/name", "path": "/name/0/x"}),
    ("the document into itself", {"op": "move", "from": "", "path": "/contained"}),
    ("removal of the document", {"op": "remove", "path": ""}),
    ("replacement of the document", {"op": "replace", "path": "", "value": PATIENT}),
    ("true for a number", {"op": "test", "path": "/multipleBirthInteger", "value": True}),
    ("text for a number", {"op": "test", "path": "/multipleBirthInteger", "value": "2"}),
    ("one for true", {"op": "test", "path": "/active", "value": 1}),
    ("null for true", {"op": "test", "path": "/active", "value": None}),
    ("true within an array", {"op": "test", "path": "/name/0/given", "value": ["Ada", True]}),
    ("a shorter array", {"op": "test", "path": "/name/0/given", "value": ["Ada"]}),
    ("a part of an object", {"op": "test", "path": "/name/0", "value": {"family": "Lovelace"}}),
    ("another number", {"op": "test", "path": "/extension/0/valueDecimal", "value": 1.51}),
]


@pytest.mark.parametrize("operation", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_the_resource_does_not_allow_is_unprocessable(operation):
    """422 with the code processing, and nothing is changed. https://hl7.org/fhir/R4/http.html#patch"""
    before = copied(PATIENT)

    with pytest.raises(Unprocessable) as refusal:
        patched({"op": "replace", "path": "/active", "value": False}, operation)

    assert [issue.code for issue in refusal.value.issues] == ["processing"]
    assert "operation 2" in str(refusal.value)
    assert before == PATIENT


MALFORMED: list[tuple[str, bytes]] = [
    ("no JSON", b"[{]"),
    ("an object", b'{"op": "remove", "path": "/active"}'),
    ("a number as operation", b"[5]"),
    ("a list as operation", b"[[]]"),
    ("no op", b'[{"path": "/active"}]'),
    ("unknown op", b'[{"op": "merge", "path": "/active"}]'),
    ("op in capitals", b'[{"op": "Remove", "path": "/active"}]'),
    ("list as op", b'[{"op": ["remove"], "path": "/active"}]'),
    ("op given twice", b'[{"op": "test", "op": "remove", "path": "/active"}]'),
    ("no path", b'[{"op": "remove"}]'),
    ("number as path", b'[{"op": "remove", "path": 1}]'),
    ("path without a slash", b'[{"op": "remove", "path": "active"}]'),
    ("wrong escape", b'[{"op": "remove", "path": "/a~2"}]'),
    ("escape at the end", b'[{"op": "remove", "path": "/a~"}]'),
    ("add without value", b'[{"op": "add", "path": "/active"}]'),
    ("replace without value", b'[{"op": "replace", "path": "/active"}]'),
    ("test without value", b'[{"op": "test", "path": "/active"}]'),
    ("move without from", b'[{"op": "move", "path": "/active"}]'),
    ("copy with a wrong from", b'[{"op": "copy", "path": "/active", "from": "active"}]'),
]


@pytest.mark.parametrize("body", [case[1] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_is_no_patch_is_invalid(body):
    """400, before any resource is looked at. RFC 6902, section 4"""
    with pytest.raises(Invalid) as refusal:
        parse("application/json-patch+json", body)

    assert not isinstance(refusal.value, Unprocessable)


def test_numbers_keep_their_digits():
    """Those of the resource and those of the patch. https://hl7.org/fhir/R4/json.html#decimal"""
    body = b'[{"op": "add", "path": "/x", "value": 3.1400}, {"op": "copy", "from": "/x", "path": "/y"}]'

    result = parse("application/json-patch+json", body).apply(PATIENT)

    assert (
        json.dumps([result["extension"][0]["valueDecimal"], result["x"], result["y"]])
        == b"[1.50,3.1400,3.1400]"
    )


def test_a_patch_can_be_applied_again():
    """What one application changes in a value that the patch added is not in the next one."""
    patch = json_patch.parse(
        [
            {"op": "add", "path": "/telecom", "value": [{"value": "1"}]},
            {"op": "add", "path": "/telecom/0/use", "value": "home"},
        ]
    )

    assert patch.apply(PATIENT) == patch.apply(PATIENT)
    assert patch.apply(PATIENT)["telecom"] == [{"value": "1", "use": "home"}]


def test_copies_of_copies_are_bounded():
    """30 operations would make a document of a billion values."""
    doubling = [{"op": "copy", "from": "/extension", "path": "/extension/-"} for _ in range(30)]
    shallow = [{"op": "copy", "from": "/name", "path": f"/x{number}"} for number in range(3)]

    with pytest.raises(TooLarge, match="copies more"):
        patched(*doubling)
    wide = {"resourceType": "Basic", "a": ["x" * 1024] * 1024}
    with pytest.raises(TooLarge, match="copies more"):
        patched(*[{"op": "copy", "from": "/a", "path": f"/b{number}"} for number in range(20)], resource=wide)
    assert len(patched(*shallow)) == len(PATIENT) + 3


def test_nesting_is_bounded_in_between():
    """Each operation lays what there is one deeper; the sixtieth is refused and not a recursion error."""
    deeper = [
        {"op": "move", "from": "/name", "path": "/x"},
        {"op": "add", "path": "/name", "value": [{}]},
        {"op": "move", "from": "/x", "path": "/name/0/x"},
    ]

    with pytest.raises(Unprocessable, match="more than 64 deep"):
        patched(*deeper * 500)


def test_values_may_lie_as_deep_as_json_may():
    """64 arrays and objects in one another, the resource among them."""
    deep: Any = "x"
    for _ in range(63):
        deep = [deep]

    assert json_patch.parse([{"op": "add", "path": "/x", "value": deep}]).apply(PATIENT)["x"] == deep
    with pytest.raises(Unprocessable, match=r"With operation 1 .* more than 64 deep"):
        json_patch.parse([{"op": "add", "path": "/x", "value": [deep]}]).apply(PATIENT)


def test_the_number_of_operations_is_bounded():
    assert len(json_patch.parse([{"op": "remove", "path": "/x"}] * 10_000).operations) == 10_000
    with pytest.raises(TooLarge, match="at most 10000"):
        json_patch.parse([{"op": "remove", "path": "/x"}] * 10_001)
