"""Links of a resource. https://hl7.org/fhir/R4/references.html"""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir import json
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.references import references, rewrite

NEW = {
    "urn:uuid:1": "Patient/42",
    "http://example.org/fhir/Patient/1": "Patient/43",
    "urn:x?a&b": 'Patient/"&',
}


def rewritten(resource):
    """The result, after looking that what was given is as it was."""
    before = copy.deepcopy(resource)
    result = rewrite(resource, NEW.get)
    assert resource == before
    return result


LINKS = {
    # the property, and what becomes of "urn:uuid:1" in it
    "a Reference": ("Observation", {"subject": {"reference": "@"}}),
    "a Reference in an array": ("Observation", {"performer": [{"display": "x"}, {"reference": "@"}]}),
    "a choice": ("MedicationRequest", {"medicationReference": {"reference": "@"}}),
    "a backbone element": ("Patient", {"link": [{"other": {"reference": "@"}}]}),
    "a contentReference": (
        "Questionnaire",
        {"item": [{"item": [{"initial": [{"valueReference": {"reference": "@"}}]}]}]},
    ),
    "a uri": ("Patient", {"implicitRules": "@"}),
    "Identifier.system": ("Patient", {"identifier": [{"system": "@", "value": "7"}]}),
    "an array of uris": ("ServiceRequest", {"instantiatesUri": ["a", "@", None]}),
    "an address of a backbone element": ("CapabilityStatement", {"implementation": {"url": "@"}}),
    "an extension": ("Patient", {"extension": [{"url": "http://x", "valueUri": "@"}]}),
    "an oid": ("Patient", {"extension": [{"url": "http://x", "valueOid": "@"}]}),
    "a uuid": ("Patient", {"extension": [{"url": "http://x", "valueUuid": "@"}]}),
    "a url": ("Patient", {"extension": [{"url": "http://x", "valueUrl": "@"}]}),
    "an extension of a primitive": (
        "Patient",
        {"_birthDate": {"extension": [{"url": "http://x", "valueUri": "@"}]}},
    ),
    "an extension of one of many primitives": (
        "Patient",
        {
            "name": [
                {"_given": [None, {"extension": [{"url": "http://x", "valueReference": {"reference": "@"}}]}]}
            ]
        },
    ),
    "an attachment": ("Patient", {"photo": [{"url": "@"}]}),
    "a contained resource": (
        "Patient",
        {"contained": [{"resourceType": "Observation", "subject": {"reference": "@"}}]},
    ),
    "a resource in a Bundle": (
        "Bundle",
        {"entry": [{"resource": {"resourceType": "Observation", "subject": {"reference": "@"}}}]},
    ),
    "a resource in Parameters": (
        "Parameters",
        {
            "parameter": [
                {"part": [{"resource": {"resourceType": "Observation", "subject": {"reference": "@"}}}]}
            ]
        },
    ),
    "a Reference in Parameters": ("Parameters", {"parameter": [{"valueReference": {"reference": "@"}}]}),
}

NO_LINKS = {
    "an id": ("Patient", {"id": "@"}),
    "a string": ("Patient", {"name": [{"text": "@", "family": "@"}], "language": "@"}),
    "a display": ("Observation", {"subject": {"display": "@"}}),
    "a canonical": ("Patient", {"meta": {"profile": ["@"]}}),
    "a canonical extension": ("Patient", {"extension": [{"url": "http://x", "valueCanonical": "@"}]}),
    "a markdown": ("Observation", {"note": [{"text": "@"}]}),
    "the name of an extension": ("Patient", {"extension": [{"url": "@", "valueString": "x"}]}),
    "the canonical name of a resource": ("ValueSet", {"url": "@"}),
    "the element id of a Reference": ("Observation", {"subject": {"id": "@"}}),
    "an unknown property": (
        "Patient",
        {"unknown": {"reference": "@"}, "": "@", "_": "@", "_x": {"reference": "@"}},
    ),
    "a resource of unknown type": (
        "Patient",
        {"contained": [{"resourceType": "Unknown", "subject": {"reference": "@"}}]},
    ),
    "a resource without type": ("Patient", {"contained": [{"subject": {"reference": "@"}}]}),
    "a data type in place of a resource": (
        "Patient",
        {"contained": [{"resourceType": "Reference", "reference": "@"}]},
    ),
}


def filled(template, text):
    return json.loads(json.dumps(template).replace(b'"@"', json.dumps(text)))


@pytest.mark.parametrize(("type", "template"), LINKS.values(), ids=LINKS)
def test_a_link_is_rewritten_wherever_the_types_say_so(type, template):
    resource = {"resourceType": type, **filled(template, "urn:uuid:1")}

    assert rewritten(resource) == {"resourceType": type, **filled(template, "Patient/42")}


@pytest.mark.parametrize(("type", "template"), NO_LINKS.values(), ids=NO_LINKS)
def test_what_is_no_link_stays(type, template):
    """Not canonical, not id; and so not the url that canonicals refer to either."""
    resource = {"resourceType": type, **filled(template, "urn:uuid:1")}

    assert rewritten(resource) is resource


TEXTS = {
    "urn:uuid:1": "Patient/42",
    "urn:uuid:1#part": "Patient/42#part",
    "urn:uuid:1#": "Patient/42#",
    "http://example.org/fhir/Patient/1": "Patient/43",
    "urn:uuid:12": "urn:uuid:12",
    "urn:uuid:": "urn:uuid:",
    " urn:uuid:1": " urn:uuid:1",
    "URN:UUID:1": "URN:UUID:1",
    "http://example.org/fhir/Patient/1/_history/2": "http://example.org/fhir/Patient/1/_history/2",
    "#urn:uuid:1": "#urn:uuid:1",
    "#": "#",
    "": "",
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_a_link_matches_as_a_whole_or_up_to_its_fragment(text, expected):
    resource = {"resourceType": "Observation", "subject": {"reference": text}}

    assert rewritten(resource)["subject"]["reference"] == expected


def test_a_reference_into_the_resource_itself_is_never_asked_for():
    """`#p1` is a contained resource, whatever the empty text might stand for."""
    resource = {"resourceType": "Observation", "subject": {"reference": "#p1"}}

    assert rewrite(resource, {"": "Patient/1"}.get) is resource


def test_what_is_not_touched_is_shared():
    resource = {"resourceType": "Observation", "code": {"text": "x"}, "subject": {"reference": "urn:uuid:1"}}

    result = rewritten(resource)

    assert result["code"] is resource["code"]
    assert list(result) == list(resource)


def test_a_link_that_stands_for_itself_changes_nothing():
    resource = {"resourceType": "Observation", "subject": {"reference": "Patient/1"}}

    assert rewrite(resource, lambda text: text) is resource


NARRATIVES = {
    '<a href="urn:uuid:1">x</a>': '<a href="Patient/42">x</a>',
    "<a href='urn:uuid:1'>x</a>": "<a href='Patient/42'>x</a>",
    '<a  class="b"\n href = "urn:uuid:1"  >x</a >': '<a  class="b"\n href = "Patient/42"  >x</a >',
    '<img alt="urn:uuid:1" src="urn:uuid:1#f"/>': '<img alt="urn:uuid:1" src="Patient/42#f"/>',
    '<i/><a href="urn:uuid:1">1</a> <a href="urn:uuid:1">2</a>': (
        '<i/><a href="Patient/42">1</a> <a href="Patient/42">2</a>'
    ),
    '<a href="urn&#58;uuid&#x3a;1">x</a>': '<a href="Patient/42">x</a>',
    '<a href="urn:x?a&amp;b">x</a>': '<a href="Patient/&quot;&amp;">x</a>',
    "<a href='urn:x?a&amp;b'>x</a>": "<a href='Patient/&quot;&amp;'>x</a>",
    '<a title="a &gt; b > c" href="urn:uuid:1"/>': '<a title="a &gt; b > c" href="Patient/42"/>',
}

UNTOUCHED_NARRATIVES = [
    "<p>urn:uuid:1</p>",
    '<a href="urn:uuid:12">urn:uuid:1</a>',
    '<a href="http://example.org/?q=urn:uuid:1">x</a>',
    '<a src="urn:uuid:1" name="urn:uuid:1">href="urn:uuid:1"</a>',
    '<img href="urn:uuid:1"/>',
    '<abbr href="urn:uuid:1"/><image src="urn:uuid:1"/>',
    '<link href="urn:uuid:1"/>',
    '<a xhref="urn:uuid:1" data-href="urn:uuid:1">x</a>',
    "<a title=\"see href='urn:uuid:1'\">x</a>",
    '<!-- <a href="urn:uuid:1">x</a> -->',
    '<![CDATA[<a href="urn:uuid:1">x</a>]]>',
    '<?pi <a href="urn:uuid:1">?>',
    '<!-- <a href="urn:uuid:1">x</a>',
    '<a href="urn:uuid:1"',
    "<a href=urn:uuid:1>x</a>",
    "&lt;a href=\"urn:uuid:1\"&gt; <p title='&nbsp;&eacute;'>href</p>",
]


@pytest.mark.parametrize(("div", "expected"), NARRATIVES.items())
def test_links_in_narrative_are_rewritten_and_nothing_else_of_it(div, expected):
    """<a href> and <img src>; byte for byte the same otherwise."""
    resource = {"resourceType": "Patient", "text": {"div": f"<div>é&#233;{div}</div>"}}

    assert rewritten(resource)["text"]["div"] == f"<div>é&#233;{expected}</div>"


@pytest.mark.parametrize("div", UNTOUCHED_NARRATIVES)
def test_what_is_no_link_in_narrative_stays(div):
    resource = {"resourceType": "Patient", "text": {"status": "generated", "div": f"<div>{div}</div>"}}

    assert rewritten(resource) is resource


@pytest.mark.parametrize(
    "part", ["<a ", '<a "', "<a '", "<!--", "<![CDATA[", "<?", "<a x=", '<a href="', "&a", "<a x", " x", "x"]
)
@pytest.mark.parametrize("end", ["", ">"])
def test_narrative_that_never_ends_costs_no_more_than_reading_it(part, end):
    """One that cost the square of its length would keep a server busy: this text would take minutes."""
    div = "<a href " + part * (500_000 // len(part)) + end
    resource = {"resourceType": "Patient", "text": {"div": div}}

    assert rewrite(resource, NEW.get) is resource


def test_references_tells_place_and_text_of_each():
    """Expressions are FHIRPath: a choice by its name before [x], no underscores."""
    resource = {
        "resourceType": "Observation",
        "contained": [{"resourceType": "Patient", "link": [{"other": {"reference": "Patient/1"}}]}],
        "_status": {"extension": [{"url": "http://x", "valueReference": {"reference": "Patient/2"}}]},
        "subject": {"reference": "Patient?identifier=3", "display": "x"},
        "performer": [{"display": "x"}, {"reference": "Practitioner/4"}],
        "instantiatesUri": "Patient/5",
        "component": [{"extension": [{"url": "http://x", "valueUri": "Patient/6"}]}],
    }

    assert list(references(resource)) == [
        ("contained[0].link[0].other.reference", "Patient/1"),
        ("status.extension[0].value.reference", "Patient/2"),
        ("subject.reference", "Patient?identifier=3"),
        ("performer[1].reference", "Practitioner/4"),
    ]


@pytest.mark.parametrize("type", [None, "", 1, [], {}, "Unknown", "Reference", "Patient.link"])
def test_what_has_no_known_type_has_no_references(type):
    resource = {"resourceType": type, "other": {"reference": "urn:uuid:1"}, "reference": "urn:uuid:1"}

    assert list(references(resource)) == []
    assert rewrite(resource, NEW.get) is resource


def test_rewriting_reaches_every_reference_of_the_official_examples(examples):
    """`rewrite` and `references` agree on what there is, and nothing is changed by looking."""
    for name, data in examples.items():
        resource = json.loads_trusted(data)
        before = json.dumps(resource)
        there = [text for _, text in references(resource)]

        moved = rewrite(resource, lambda text: "moved:" + text)

        expected = ["moved:" + text for text in there]
        assert [text for _, text in references(moved)] == expected, name
        assert json.dumps(resource) == before
        assert rewrite(resource, lambda text: None) is resource, name
        back = rewrite(moved, lambda text: text.removeprefix("moved:"))
        assert len(json.dumps(back)) <= len(json.dumps(moved))


_properties = st.sampled_from(
    [
        "resourceType",
        "subject",
        "reference",
        "text",
        "div",
        "contained",
        "extension",
        "url",
        "valueUri",
        "entry",
    ]
) | st.sampled_from(["resource", "link", "parameter", "_id"])
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["urn:uuid:1", '<a href="urn:uuid:1"/>', "x", ""]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_properties, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_properties, _anything), st.sampled_from(RESOURCE_TYPES))
def test_malformed_resources_are_left_to_the_validation(properties, type):
    """Whatever stands in a place, it is rewritten or left alone, never an error."""
    resource = {**properties, "resourceType": type}

    rewritten(resource)
    assert all(isinstance(text, str) for _, text in references(resource))
