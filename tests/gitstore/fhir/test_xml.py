"""FHIR's XML and JSON are two forms of the same. https://hl7.org/fhir/R4/xml.html"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import definitions, json, xml

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
FHIR = 'xmlns="http://hl7.org/fhir"'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


SORTED = msgspec.json.Encoder(order="sorted", enc_hook=lambda number: json.Raw(number.lexeme.encode()))


def canonical(value: Any) -> bytes:
    """JSON in which two resources are equal only where each number is written in the same way."""
    return SORTED.encode(value)


def assert_round_trip(resource: Any) -> None:
    for printed in (xml.dumps(resource), xml.dumps_pretty(resource)):
        assert canonical(xml.loads(printed)) == canonical(resource)


def test_every_official_example_survives(examples):
    """JSON to XML to JSON, compact and pretty: nothing is lost, no digit changes."""
    for number, (name, data) in enumerate(examples.items()):
        resource = json.loads(data)
        for dumps in (xml.dumps, xml.dumps_pretty) if number % 8 == 0 else (xml.dumps,):
            assert canonical(xml.loads(dumps(resource))) == canonical(resource), name


def test_resources_of_synthea_survive(synthea):
    """Each twentieth of them: real sizes, real extensions."""
    for name, bundle in synthea:
        for entry in bundle["entry"][::20]:
            resource = entry["resource"]
            assert canonical(xml.loads(xml.dumps(resource))) == canonical(resource), name


def test_the_order_is_that_of_the_definitions(examples):
    """Elements come in the order of the specification, in whatever order JSON had them."""
    chance = random.Random(4)
    for name, data in list(examples.items())[::4]:
        resource = shuffled(json.loads(data), chance)
        root = ElementTree.fromstring(xml.dumps(resource))  # noqa: S314 - we have printed it ourselves
        assert list(misplaced(root, resource["resourceType"])) == [], name
        assert xml.dumps(resource) == xml.dumps(json.loads(data)), name


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(each, chance) for each in value] if isinstance(value, list) else value


def misplaced(element: ElementTree.Element, type: str) -> Iterator[str]:
    """Elements that come before one which the definitions put in front of them."""
    described = definitions.elements(type)
    order = list(described)
    last = -1
    for child in element:
        name = child.tag.rpartition("}")[2]
        if name == "div":
            continue
        if order.index(name) < last:
            yield f"{type}.{name}"
        last = order.index(name)
        child_type = described[name].type
        if child_type == "Resource":
            [resource] = child
            yield from misplaced(resource, resource.tag.rpartition("}")[2])
        elif not definitions.is_primitive(child_type):
            yield from misplaced(child, child_type)


FORMS = [
    # primitive values are attributes; an array is the element again and again
    (
        {"resourceType": "Patient", "active": True, "name": [{"given": ["Ada", "A."]}], "birthDate": "1815"},
        '<active value="true"/><name><given value="Ada"/><given value="A."/></name><birthDate value="1815"/>',
    ),
    # the id of a resource is an element, that of an element an attribute
    (
        {"resourceType": "Patient", "id": "1", "name": [{"id": "n", "family": "Lovelace"}]},
        '<id value="1"/><name id="n"><family value="Lovelace"/></name>',
    ),
    # id and extensions of a primitive with and without a value
    (
        {"resourceType": "Patient", "birthDate": "1815", "_birthDate": {"id": "b"}},
        '<birthDate id="b" value="1815"/>',
    ),
    (
        {
            "resourceType": "Patient",
            "_gender": {"extension": [{"url": "http://why", "valueCode": "unknown"}]},
        },
        '<gender><extension url="http://why"><valueCode value="unknown"/></extension></gender>',
    ),
    # nulls in JSON's arrays keep values and siblings together
    (
        {
            "resourceType": "Patient",
            "name": [{"given": ["A", None, "C"], "_given": [None, {"id": "b"}, {"id": "c"}]}],
        },
        '<name><given value="A"/><given id="b"/><given id="c" value="C"/></name>',
    ),
    (
        {"resourceType": "Patient", "name": [{"_given": [{"id": "a"}]}]},
        '<name><given id="a"/></name>',
    ),
    # the url of an extension is an attribute, any other url an element
    (
        {
            "resourceType": "Patient",
            "extension": [
                {"id": "e", "url": "http://u", "extension": [{"url": "x", "valueUrl": "http://v"}]}
            ],
            "photo": [{"url": "http://p"}],
        },
        '<extension id="e" url="http://u"><extension url="x"><valueUrl value="http://v"/></extension></extension>'
        '<photo><url value="http://p"/></photo>',
    ),
    # a contained resource stands within an element of its own
    (
        {
            "resourceType": "Patient",
            "contained": [{"resourceType": "Organization", "id": "o"}, {"resourceType": "Basic"}],
        },
        '<contained><Organization><id value="o"/></Organization></contained><contained><Basic></Basic></contained>',
    ),
    # the narrative is XHTML as it is
    (
        {
            "resourceType": "Patient",
            "text": {
                "status": "generated",
                "div": f"<div {XHTML}>A &amp; <b\n class='x'>&quot;B\"</b><br />\r\n</div>",
            },
        },
        f'<text><status value="generated"/><div {XHTML}>A &amp; <b\n class=\'x\'>&quot;B"</b><br />\r\n</div></text>',
    ),
    # white space and quotes in values are written so that XML's readers give them back
    (
        {"resourceType": "Basic", "code": {"text": "a\tb\nc\r\nd \"e\" 'f' <g> & &amp; 😀 é"}},
        "<code><text value=\"a&#9;b&#10;c&#13;&#10;d &quot;e&quot; 'f' &lt;g> &amp; &amp;amp; 😀 é\"/></code>",
    ),
]


@pytest.mark.parametrize(("resource", "content"), FORMS)
def test_the_form_is_that_of_the_specification(resource, content):
    """Each rule of https://hl7.org/fhir/R4/xml.html, both ways."""
    document = f"{HEAD}<{resource['resourceType']} {FHIR}>{content}</{resource['resourceType']}>"

    assert xml.dumps(resource).decode() == document
    assert xml.loads(document.encode()) == resource


def test_resources_within_bundles_and_parameters_have_their_own_element():
    """Bundle.entry.resource and Parameters.parameter.resource."""
    patient = {"resourceType": "Patient", "active": False}
    bundle = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"fullUrl": "urn:x:1", "resource": patient}],
    }
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "p", "resource": bundle}]}

    printed = xml.dumps(parameters).decode()

    assert '<parameter><name value="p"/><resource><Bundle><type value="batch"/><entry>' in printed
    assert '<resource><Patient><active value="false"/></Patient></resource></entry>' in printed
    assert_round_trip(parameters)


def test_children_of_a_content_reference_are_those_of_what_it_names():
    """Questionnaire.item.item is a Questionnaire.item. https://hl7.org/fhir/R4/elementdefinition.html"""
    item = {"linkId": "1", "type": "group", "item": [{"linkId": "1.1", "type": "string", "maxLength": 7}]}

    assert_round_trip({"resourceType": "Questionnaire", "status": "draft", "item": [item]})


@pytest.mark.parametrize(
    "lexeme", ["0", "1.00", "-0.0", "0.010", "1E+2", "1.5e-7", "100", "123456789012345678.123456789", "-0"]
)
def test_decimals_keep_their_digits(lexeme):
    """17.1: 1.00 says more than 1. https://hl7.org/fhir/R4/datatypes.html#decimal"""
    data = b'{"resourceType":"Observation","valueQuantity":{"value":%b}}' % lexeme.encode()

    printed = xml.dumps(json.loads(data))

    assert f'<value value="{lexeme}"/>'.encode() in printed
    assert json.dumps(xml.loads(printed)) == data


def test_whole_numbers_may_have_a_plus():
    """R4's integer allows it, JSON doesn't."""
    document = f'<Patient {FHIR}><multipleBirthInteger value="+3"/></Patient>'

    assert xml.loads(document.encode())["multipleBirthInteger"] == 3


EXCLUDED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""https://www.w3.org/TR/xml/#charsets"""

EXTRA = st.one_of(
    st.none(),
    st.fixed_dictionaries({"id": st.from_regex(r"[a-z]{1,3}", fullmatch=True)}),
    st.just({"extension": [{"url": "http://x", "valueBoolean": True}]}),
)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
    min_size=1,
)
ITEMS = st.lists(
    st.tuples(st.one_of(st.none(), TEXT), EXTRA).filter(lambda item: item != (None, None)),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(ITEMS)
def test_arrays_of_primitives_stay_aligned(items):
    """17.4: values and their siblings, with null where there is none. https://hl7.org/fhir/R4/json.html#primitive"""
    values = [value for value, _ in items]
    extras = [extra for _, extra in items]
    name: dict[str, Any] = {}
    if any(value is not None for value in values):
        name["given"] = values
    if any(extra is not None for extra in extras):
        name["_given"] = extras

    assert_round_trip({"resourceType": "Patient", "name": [name]})


@settings(deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from("\t\n\r<>&\"'\ufffe\ud800\x01"))))
def test_any_text_comes_back_or_is_refused(text):
    """What XML excludes is refused; everything else comes back, line ends and all."""
    resource = {"resourceType": "Basic", "code": {"text": text}}

    if EXCLUDED.search(text):
        with pytest.raises(Invalid, match=r"`Basic.code.text` contains U\+"):
            xml.dumps(resource)
    else:
        assert xml.loads(xml.dumps(resource)) == resource


def narrative(div: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "text": {"status": "generated", "div": div}}


@pytest.mark.parametrize(
    "div",
    [
        f"<div {XHTML}/>",
        f"<div {XHTML} id='a>b'/>",
        f"<div  {XHTML}\n></div >",
        f"<div {XHTML}><!-- kept --><p></p><p/><![CDATA[<&>]]>&#160;&#xA0;\u00a0</div>",
        f'<div {XHTML}><svg:svg xmlns:svg="http://www.w3.org/2000/svg"><svg:g svg:x="1"/></svg:svg></div>',
        f'<div {XHTML} xml:lang="de">Größe 😀</div>',
        '<h:div xmlns:h="http://www.w3.org/1999/xhtml"><h:br/></h:div>',
        f"<div {XHTML}><div><div/></div></div>",
    ],
)
def test_a_narrative_keeps_its_text(div):
    """Quotes, references, comments, empty elements: byte for byte."""
    assert_round_trip(narrative(div))
    assert div.encode() in xml.dumps(narrative(div))


@pytest.mark.parametrize(
    ("div", "comes_back"),
    [
        (f"<div {XHTML}>a&nbsp;&copy;&amp;</div>", f"<div {XHTML}>a&#160;&#169;&amp;</div>"),
        (
            f"<div {XHTML}><![CDATA[&nbsp;]]>&nbsp;</div>",
            f"<div {XHTML}><![CDATA[&nbsp;]]>&#160;</div>",
        ),
        (f" <!-- x --><div {XHTML}/> ", f"<div {XHTML}/>"),
        (f'<?xml version="1.0"?>\n<div {XHTML}>a</div>', f"<div {XHTML}>a</div>"),
    ],
)
def test_what_of_a_narrative_can_not_stand_in_xml_is_replaced(div, comes_back):
    """HTML's names of characters become numbers; what lies around the div has no place."""
    printed = xml.dumps(narrative(div))

    assert xml.loads(printed)["text"]["div"] == comes_back
    assert xml.dumps(xml.loads(printed)) == xml.dumps(narrative(comes_back))


@pytest.mark.parametrize(
    ("document", "div"),
    [
        (
            '<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"><f:text>'
            '<h:div class="a&quot;&#10;"><!-- gone --><h:p>1 &lt; 2 &gt; &#13; &amp;</h:p><h:br></h:br></h:div></f:text></f:Patient>',
            f'<div {XHTML} class="a&quot;&#10;"><p>1 &lt; 2 &gt; &#13; &amp;</p><br/></div>',
        ),
        (
            f'<f:Patient xmlns:f="http://hl7.org/fhir" {XHTML} xmlns:s="urn:s"><f:text><div xml:lang="de">'
            '<s:a s:b="1" s:c="2"><i/></s:a></div></f:text></f:Patient>',
            f'<div {XHTML} xml:lang="de"><a xmlns="urn:s" xmlns:s="urn:s" s:b="1" s:c="2"><i {XHTML}/></a></div>',
        ),
    ],
)
def test_a_narrative_that_leans_on_what_is_around_it_is_printed_anew(document, div):
    """In JSON it stands alone, so it brings its namespaces along."""
    resource = xml.loads(document.encode())

    assert resource["text"]["div"] == div
    assert_round_trip(resource)


def test_other_tools_prefixes_are_understood(examples):
    """The same documents as ElementTree writes them: with prefixes everywhere, and narratives too."""
    for name, data in list(examples.items())[::6]:
        resource = json.loads(data)
        prefixed = ElementTree.tostring(ElementTree.fromstring(xml.dumps(resource)), "utf-8")  # noqa: S314 - we have printed it ourselves
        assert b"<ns0:" in prefixed
        assert canonical(without_narratives(xml.loads(prefixed))) == canonical(
            without_narratives(resource)
        ), name


def without_narratives(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_narratives(item) for key, item in value.items() if key != "div"}
    return [without_narratives(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "document",
    [
        f"<Patient {FHIR}><active value='true'/></Patient>",
        f'\ufeff<?xml version="1.0"?><Patient {FHIR}><active value="true"/></Patient>',
        f'<?xml version="1.0" encoding="utf-8"?>\n<Patient {FHIR}>\n<active value="true"></active>\n</Patient>\n',
        f'<!-- a --><?b c?><Patient {FHIR}><!-- d --><active value="true"><?e f?></active></Patient><!-- g -->',
        '<x:Patient xmlns:x="http://hl7.org/fhir"><x:active value="true"/></x:Patient>',
        f'<Patient {FHIR} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="a b">'
        '<active value="&#116;rue"/></Patient>',
    ],
)
def test_what_says_nothing_is_ignored(document):
    """Prefixes, comments, instructions, white space, a byte order mark, where the schema lies."""
    assert xml.loads(document.encode()) == {"resourceType": "Patient", "active": True}


def test_elements_may_come_in_any_order():
    """Also those of an array with others between."""
    document = f'<Patient {FHIR}><name><given value="A"/><family value="F"/><given id="b"/></name><id value="1"/></Patient>'

    assert xml.loads(document.encode()) == {
        "resourceType": "Patient",
        "name": [{"given": ["A", None], "_given": [None, {"id": "b"}], "family": "F"}],
        "id": "1",
    }


def test_documents_longer_than_a_piece_are_whole():
    """The parser gets them in pieces of a megabyte; narratives are cut out of the document by place."""
    lines = [f"{number:06} Größe" for number in range(90_000)]
    div = f"<div {XHTML}>{'<br/>'.join(lines)}</div>"
    resource = {**narrative(div), "address": [{"line": lines}]}

    assert xml.loads(xml.dumps(resource)) == resource


def test_the_given_resource_is_not_changed(examples):
    """A resource may be shared."""
    resource = json.loads(examples["Patient-example.json"])
    before = canonical(resource)

    xml.dumps(resource)

    assert canonical(resource) == before
