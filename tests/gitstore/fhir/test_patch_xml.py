"""XML Patch, operation by operation. RFC 5261; https://hl7.org/fhir/R4/http.html#patch"""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from gitstore.errors import Invalid, TooLarge, Unprocessable
from gitstore.fhir import json
from gitstore.fhir.patch import parse, xml_selectors
from gitstore.fhir.patch.result import Work, copied

XHTML = "http://www.w3.org/1999/xhtml"
DIV = f'<div xmlns="{XHTML}">Born &quot;1815&quot;<p>first</p> <p>second</p><!-- note --> end<?stop here?></div>'
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "text": {"status": "additional", "div": DIV},
    "birthDate": "1815-12-10",
    "name": [
        {"id": "n", "use": "official", "family": "Lovelace", "given": ["Ada", "Augusta"]},
        {"use": "maiden", "family": "Byron"},
    ],
    "identifier": [{"system": "urn:a", "value": "1"}, {"system": "urn:b", "value": "2"}],
    "extension": [{"url": "http://example.org/e", "valueDecimal": json.Number("1.50")}],
    "active": True,
}


def patched(*operations: str, resource: dict[str, Any] = PATIENT) -> dict[str, Any]:
    document = f'<diff xmlns="http://hl7.org/fhir" xmlns:h="{XHTML}">{" ".join(operations)}</diff>'
    return parse("application/xml-patch+xml", document.encode()).apply(resource)


def names(*changed: dict[str, Any]) -> dict[str, Any]:
    return {"name": list(changed)}


LOVELACE, BYRON = PATIENT["name"]
KING = {"family": "King"}
KING_XML = "<name><family value='King'/></name>"

DONE: dict[str, tuple[str, dict[str, Any]]] = {
    # replace
    "an attribute": ('<replace sel="Patient/birthDate/@value">1816</replace>', {"birthDate": "1816"}),
    "from the root": ('<replace sel="/Patient/birthDate/@value">1816</replace>', {"birthDate": "1816"}),
    "a boolean": ('<replace sel="Patient/active/@value">false</replace>', {"active": False}),
    "an element": (
        '<replace sel="Patient/birthDate"><birthDate value="1816"/></replace>',
        {"birthDate": "1816"},
    ),
    "with space around": (
        '<replace sel="Patient/birthDate">\n  <birthDate value="1816"/>\n</replace>',
        {"birthDate": "1816"},
    ),
    "by another name": (
        '<replace sel="Patient/birthDate"><deceasedBoolean value="true"/></replace>',
        {"birthDate": ..., "deceasedBoolean": True},
    ),
    "an item": (f'<replace sel="Patient/name[2]">{KING_XML}</replace>', names(LOVELACE, KING)),
    # add
    "a child": ('<add sel="Patient"><gender value="female"/></add>', {"gender": "female"}),
    "several children": (
        '<add sel="Patient">\n <gender value="female"/>\n <language value="en"/>\n</add>',
        {"gender": "female", "language": "en"},
    ),
    "an item at the end": (f'<add sel="Patient">{KING_XML}</add>', names(LOVELACE, BYRON, KING)),
    "an item before": (
        f'<add sel="Patient/name[1]" pos="before">{KING_XML}</add>',
        names(KING, LOVELACE, BYRON),
    ),
    "an item after": (
        f'<add sel="Patient/name[1]" pos="after">{KING_XML}</add>',
        names(LOVELACE, KING, BYRON),
    ),
    "a child in front": (
        '<add sel="Patient/name[1]" pos="prepend"><given value="Anne"/></add>',
        names(LOVELACE | {"given": ["Anne", "Ada", "Augusta"]}, BYRON),
    ),
    "an attribute that is new": (
        '<add sel="Patient/name[2]" type="@id">m</add>',
        names(LOVELACE, BYRON | {"id": "m"}),
    ),
    "a namespace": ('<add sel="Patient" type="namespace::x">urn:x</add>', {}),
    "an element with what is in it": (
        '<add sel="Patient/active"><extension url="urn:e"><valueCode value="x"/></extension></add>',
        {"_active": {"extension": [{"url": "urn:e", "valueCode": "x"}]}},
    ),
    "a comment": ('<add sel="Patient"><!-- why --></add>', {}),
    # remove
    "and remove": ('<remove sel="Patient/birthDate"/>', {"birthDate": ...}),
    "and remove an item": ('<remove sel="Patient/name[2]"/>', names(LOVELACE)),
    "and remove an attribute": (
        '<remove sel="Patient/name[1]/@id"/>',
        names({name: value for name, value in LOVELACE.items() if name != "id"}, BYRON),
    ),
    "and remove a value": ('<remove sel="Patient/birthDate/@value"/>', {"birthDate": ...}),
    "and remove all of an element": (
        '<remove sel="Patient/extension/valueDecimal"/><remove sel="Patient/extension/@url"/>',
        {"extension": ...},
    ),
    "and remove white space that isn't there": (
        '<remove sel="Patient/birthDate" ws="both"/>',
        {"birthDate": ...},
    ),
    # selectors
    "by an attribute": ("<remove sel=\"Patient/name[@id='n']\"/>", names(BYRON)),
    "by a value": ("<remove sel=\"Patient/name[use/@value='maiden']\"/>", names(LOVELACE)),
    "by a value in other quotes": (
        "<remove sel='Patient/name[ use/@value = \"maiden\" ]'/>",
        names(LOVELACE),
    ),
    "by several conditions": (
        "<remove sel=\"Patient/identifier[system/@value='urn:b'][1]\"/>",
        {"identifier": PATIENT["identifier"][:1]},
    ),
    "by any name": ("<remove sel=\"*/name[*/@value='Byron']\"/>", names(LOVELACE)),
    "by its own attribute": (
        "<remove sel=\"Patient/name/given[@value='Ada']\"/>",
        names(LOVELACE | {"given": ["Augusta"]}, BYRON),
    ),
    "by prefixes": (
        '<f:remove xmlns:f="http://hl7.org/fhir" sel="/f:Patient/f:name[2]"/>',
        names(LOVELACE),
    ),
    # several, each on the result of the one before
    "one after the other": (
        f'<remove sel="Patient/name[1]"/><add sel="Patient/name[1]" pos="after">{KING_XML}</add><remove sel="Patient/name[1]"/>',
        names(KING),
    ),
    "nothing": ("", {}),
}


@pytest.mark.parametrize(("operations", "changes"), DONE.values(), ids=DONE)
def test_operations_are_done(operations, changes):
    """9.8: RFC 5261, sections 4.3 to 4.5; ... stands for what is gone. What isn't touched is as it was, in
    its order."""
    expected = {name: value for name, value in (PATIENT | changes).items() if value is not ...}
    before = copied(PATIENT)

    result = patched(operations)

    assert result == expected
    assert list(result) == list(expected)
    assert before == PATIENT


NARRATIVES = {
    '<replace sel="Patient/text/h:div/h:p[2]/text()">2nd</replace>': DIV.replace("second", "2nd"),
    '<remove sel="Patient/text/h:div/h:p[1]" ws="after"/>': DIV.replace("<p>first</p> ", ""),
    '<remove sel="Patient/text/h:div/h:p[2]" ws="before"/>': DIV.replace(" <p>second</p>", ""),
    '<remove sel="Patient/text/h:div/h:p[2]" ws="both"/>': DIV.replace(" <p>second</p>", ""),
    '<remove sel="Patient/text/h:div/h:p[1]"/>': DIV.replace("<p>first</p>", ""),
    '<remove sel="Patient/text/h:div/h:p[2]"/>': DIV.replace("<p>second</p>", ""),
    '<remove sel="Patient/text/h:div/h:p[1]" ws="before"/>': DIV.replace("<p>first</p>", ""),
    '<remove sel="Patient/text/h:div/text()[1]"/>': DIV.replace("Born &quot;1815&quot;", ""),
    '<remove sel="Patient/text/h:div/comment()"/>': DIV.replace("<!-- note -->", ""),
    '<replace sel="Patient/text/h:div/comment()[1]"><!--x--></replace>': DIV.replace(" note ", "x"),
    '<remove sel="Patient/text/h:div/processing-instruction()"/>': DIV.replace("<?stop here?>", ""),
    "<remove sel=\"Patient/text/h:div/processing-instruction('stop')\"/>": DIV.replace("<?stop here?>", ""),
    '<add sel="Patient/text/h:div/h:p[2]">!</add>': DIV.replace("second", "second!"),
    '<add sel="Patient/text/h:div/h:p[2]" pos="prepend">my </add>': DIV.replace("second", "my second"),
    '<add sel="Patient/text/h:div/h:p[2]" pos="before">x<h:br/>y</add>': DIV.replace(
        "<p>second", "x<br/>y<p>second"
    ),
    '<add sel="Patient/text/h:div/h:p[2]" pos="after">x<h:br/>y</add>': DIV.replace(
        "second</p>", "second</p>x<br/>y"
    ),
    '<add sel="Patient/text/h:div/h:p[1]" pos="after">x</add>': DIV.replace("first</p>", "first</p>x"),
    '<add sel="Patient/text/h:div" pos="prepend">x<h:br/></add>': DIV.replace("Born", "x<br/>Born"),
    '<add sel="Patient/text/h:div">x</add>': DIV.replace("</div>", "x</div>"),
    '<add sel="Patient/text/h:div/text()[1]" pos="before"><h:b/></add>': DIV.replace("Born", "<b/>Born"),
    '<add sel="Patient/text/h:div/text()[1]" pos="after">x</add>': DIV.replace("<p>first", "x<p>first"),
    "<replace sel=\"Patient/text/h:div/h:p[.='second']\"><h:p>2</h:p></replace>": DIV.replace("second", "2"),
    "<remove sel=\"Patient/text/h:div[h:p='first']/h:p[1]\"/>": DIV.replace("<p>first</p>", ""),
    '<add sel="Patient/text/h:div/h:p[1]" type="@class">x</add>': DIV.replace(
        "<p>first", '<p class="x">first'
    ),
}


@pytest.mark.parametrize(("operation", "div"), NARRATIVES.items())
def test_narratives_are_patched_as_any_xml(operation, div):
    """Text, comments and white space count there, and XHTML is of its own namespace. RFC 5261, section 4.2"""
    result = patched(operation)

    assert result["text"]["div"].replace("h:", "").replace(":h", "") == div.replace("&quot;", '"')


def test_a_narrative_that_is_not_touched_keeps_its_text():
    """`&nbsp;` and `"` may be written in several ways, and one of them was signed."""
    divs = [f'<div xmlns="{XHTML}">&nbsp;{number} &#x41; &quot;</div>' for number in range(3)]
    resource = {
        "resourceType": "Patient",
        "contained": [
            {"resourceType": "Basic", "text": {"status": "generated", "div": div}} for div in divs[1:]
        ],
        "text": {"status": "generated", "div": divs[0]},
    }

    result = patched(
        '<remove sel="Patient/contained[1]"/>',
        '<add sel="Patient"><active value="true"/></add>',
        resource=resource,
    )

    assert result["text"]["div"] == divs[0]
    assert result["contained"][0]["text"]["div"] == divs[2]


def test_a_narrative_can_be_added():
    narrative = '<add sel="Patient"><text><status value="generated"/><h:div>{}</h:div></text></add>'

    result = patched(narrative.format("&lt;1"), resource={"resourceType": "Patient"})

    assert result["text"] == {"status": "generated", "div": f'<h:div xmlns:h="{XHTML}">&lt;1</h:div>'}


def test_a_patch_needs_no_namespace_of_its_own():
    """A FHIR resource has only two, and XHTML's is never meant without saying so."""
    body = b'<diff><add sel="Patient"><active value="true"/></add></diff>'
    other = (
        b'<p:patch xmlns:p="urn:ietf:rfc:7351"><p:add sel="Patient"><active value="true"/></p:add></p:patch>'
    )
    default = b'<patch xmlns="urn:ietf:rfc:7351"><add sel="Patient"><active value="true"/></add></patch>'

    for document in (body, other, default):
        patch = parse("application/xml-patch+xml", document)
        assert patch.apply({"resourceType": "Patient"}) == {"resourceType": "Patient", "active": True}


def test_numbers_keep_their_digits():
    """https://hl7.org/fhir/R4/datatypes.html#decimal"""
    result = patched(
        '<add sel="Patient"><extension url="urn:e"><valueDecimal value="2.500"/></extension></add>'
    )

    assert json.dumps([each["valueDecimal"] for each in result["extension"]]) == b"[1.50,2.500]"


REFUSED = {
    "no match": '<remove sel="Patient/gender"/>',
    "no match for an attribute": '<replace sel="Patient/birthDate/@id">x</replace>',
    "no match for a type": '<remove sel="Observation/status"/>',
    "no match beyond the end": '<remove sel="Patient/name[3]"/>',
    "no match for a namespace": '<remove sel="Patient/namespace::x"/>',
    "several matches": '<remove sel="Patient/name"/>',
    "several texts": '<remove sel="Patient/text/h:div/text()"/>',
    "several by a condition on text": "<remove sel=\"Patient/text/h:div/text()[.='x']\"/>",
    "an attribute that is there": '<add sel="Patient/name[1]" type="@id">x</add>',
    "an attribute of an attribute": '<add sel="Patient/name[1]/@id" type="@id">x</add>',
    "elements as an attribute": '<add sel="Patient/name[2]" type="@id"><a/></add>',
    "elements for an attribute": '<replace sel="Patient/birthDate/@value"><a/></replace>',
    "a child of an attribute": '<add sel="Patient/birthDate/@value">x</add>',
    "a child of a comment": '<add sel="Patient/text/h:div/comment()">x</add>',
    "a child of a text": '<add sel="Patient/text/h:div/text()[1]">x</add>',
    "beside the resource": '<add sel="Patient" pos="after"><Patient/></add>',
    "in place of the resource": '<replace sel="Patient"><Patient/></replace>',
    "the resource": '<remove sel="Patient"/>',
    "two for one": '<replace sel="Patient/birthDate"><birthDate value="1"/><birthDate value="2"/></replace>',
    "text for one": '<replace sel="Patient/birthDate">1816</replace>',
    "a comment for an element": '<replace sel="Patient/birthDate"><!-- x --></replace>',
    "another declaration": '<add sel="Patient/text/h:div"><h:p xmlns:x="urn:x" x:y=""/></add><replace sel="Patient/text/h:div/h:p[3]/namespace::x">x</replace>',
    "no declaration": '<add sel="Patient/text/h:div"><h:p xmlns:x="urn:x" x:y=""/></add><remove sel="Patient/text/h:div/h:p[3]/namespace::x"/>',
    "white space of an attribute": '<remove sel="Patient/birthDate/@value" ws="both"/>',
    # and what the result can't be
    "the id": '<replace sel="Patient/id/@value">x</replace>',
    "no id": '<remove sel="Patient/id"/>',
    "unknown element": '<add sel="Patient"><birthday value="1"/></add>',
    "unknown attribute": '<add sel="Patient/name[1]" type="@use">x</add>',
    "element of no namespace of FHIR's": '<add sel="Patient"><x:active xmlns:x="urn:x" value="true"/></add>',
    "element twice": '<add sel="Patient"><birthDate value="1"/></add>',
    "boolean that is none": '<replace sel="Patient/active/@value">yes</replace>',
    "text in an element": '<add sel="Patient">text</add>',
    "narrative of another namespace": '<replace sel="Patient/text/h:div"><div>x</div></replace>',
    "no narrative element": '<add sel="Patient/text"><h:p>x</h:p></add>',
    "narrative where none is": '<add sel="Patient"><h:div>x</h:div></add>',
}


@pytest.mark.parametrize("operation", REFUSED.values(), ids=REFUSED)
def test_what_the_resource_does_not_allow_is_unprocessable(operation):
    """422; exactly one node must be selected, and the result must be FHIR's XML. RFC 5261, section 4.1"""
    before = copied(PATIENT)

    with pytest.raises(Unprocessable):
        patched('<replace sel="Patient/birthDate/@value">1816</replace>', operation)

    assert before == PATIENT


MALFORMED = {
    "no XML": "<diff>",
    "nothing": "",
    "JSON": "[]",
    "another root": '<Patient xmlns="http://hl7.org/fhir"/>',
    "unknown operation": '<diff><move sel="Patient/name"/></diff>',
    "no sel": "<diff><remove/></diff>",
    "unknown attribute": '<diff><remove sel="Patient/name" all="true"/></diff>',
    "pos of a replace": '<diff><replace sel="Patient/name" pos="after"/></diff>',
    "ws of an add": '<diff><add sel="Patient/name" ws="both"/></diff>',
    "unknown pos": '<diff><add sel="Patient/name" pos="last"/></diff>',
    "unknown ws": '<diff><remove sel="Patient/name" ws="all"/></diff>',
    "pos and type": '<diff><add sel="Patient/name" pos="after" type="@id">x</add></diff>',
    "a document type": "<!DOCTYPE diff><diff/>",
    "an entity": '<!DOCTYPE diff [<!ENTITY x "y">]><diff><add sel="Patient">&x;</add></diff>',
    "a file": '<!DOCTYPE diff [<!ENTITY x SYSTEM "file:///etc/passwd">]><diff><add sel="Patient">&x;</add></diff>',
    "an unknown entity": '<diff><add sel="Patient">&nbsp;</add></diff>',
}
SELECTORS = [
    "",
    "/",
    "Patient/",
    "//name",
    "Patient//name",
    "Patient/..",
    "Patient/./name",
    "Patient/name[",
    "Patient/name[]",
    "Patient/name[0]",
    "Patient/name[-1]",
    "Patient/name[01]",
    "Patient/name[last()]",
    "Patient/name[use]",
    "Patient/name[position()=1]",
    "Patient/name[use/@value!='x']",
    "Patient/name[use/@value='x' or 1=1]",
    "Patient/name[../active/@value='true']",
    "Patient/name[count(given)='2']",
    "Patient/name[@use=$x]",
    "Patient/child::name",
    "Patient/descendant::name",
    "Patient/name|Patient/active",
    "count(Patient)",
    "document('file:///etc/passwd')",
    "Patient/node()",
    "Patient/comment('x')",
    "Patient/@value/name",
    "Patient/text()/name",
    "Patient/@value[1]",
    "@value",
    "text()",
    "id('n')",
    "x:Patient",
    "Patient/x:name",
    "Patient/name[x:use/@value='official']",
    "Patient name",
    "1",
    "Patient/" + "*/" * 3000 + "name",
]


@pytest.mark.parametrize("document", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_patch_is_invalid(document):
    """400, before any resource is looked at; nothing is expanded or fetched. RFC 5261, section 4.1"""
    with pytest.raises(Invalid) as refusal:
        parse("application/xml-patch+xml", document.encode())

    assert not isinstance(refusal.value, Unprocessable)


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_is_a_path_and_no_program(selector):
    """The part of XPath that RFC 5261 names, and conditions on values. RFC 5261, section 4.1"""
    escaped = selector.replace("'", "&apos;")

    with pytest.raises(Invalid) as refusal:
        patched(f"<remove sel='{escaped}'/>")

    assert not isinstance(refusal.value, Unprocessable)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_a_patch_is_utf_8(encoding):
    """https://hl7.org/fhir/R4/http.html#mime-type"""
    body = '<diff><replace sel="Patient/name[1]/family/@value">Łódź ó</replace></diff>'.replace("Łódź", "L")

    with pytest.raises(Invalid):
        parse("application/xml-patch+xml", body.encode(encoding))


def test_an_attribute_of_no_name_is_invalid():
    for type in ("@1 2", "id", "@", "", "@x:id"):
        with pytest.raises(Invalid) as refusal:
            patched(f'<add sel="Patient/name[2]" type="{type}">x</add>')
        assert not isinstance(refusal.value, Unprocessable)


def test_a_resource_that_xml_can_not_show_is_unprocessable():
    with pytest.raises(Unprocessable):
        patched("", resource={"resourceType": "Patient", "birthday": "1815"})
    with pytest.raises(Unprocessable):
        patched("", resource={"resourceType": "Patient", "text": {"status": "generated", "div": "<p>"}})
    with pytest.raises(Unprocessable):
        patched(
            "", resource={"resourceType": "Patient", "text": {"div": f'<div xmlns="{XHTML}">\ud800</div>'}}
        )


def test_the_number_of_operations_is_bounded():
    with pytest.raises(TooLarge, match="at most 1000"):
        patched('<remove sel="Patient/name"/>' * 1001)


def test_large_resources_can_be_patched():
    """libxml2 would refuse attributes of more than 10 MB if it were not told otherwise."""
    resource = {"resourceType": "Binary", "contentType": "text/plain", "data": "AAAA" * (3 * 1024**2)}

    result = patched('<replace sel="Binary/contentType/@value">text/csv</replace>', resource=resource)

    assert result == resource | {"contentType": "text/csv"}


def test_a_patch_can_be_applied_again():
    """What one application adds is its own copy."""
    patch = parse(
        "application/xml-patch+xml",
        b'<diff><add sel="Patient"><name><given value="A"/></name></add>'
        b'<add sel="Patient/name"><given value="B"/></add></diff>',
    )
    empty = {"resourceType": "Patient"}

    assert patch.apply(empty) == patch.apply(empty) == empty | {"name": [{"given": ["A", "B"]}]}


@pytest.mark.parametrize(
    "selector", ["a/b[1]", "a/b[.='x'][1]", "a/b[c='y'][1]", "a/*[c/@d='z'][1]", "*/b[*='y'][1]"]
)
def test_each_element_that_a_selector_looks_at_is_work(selector):
    root = etree.fromstring('<a xmlns="http://hl7.org/fhir">' + '<b>x<c d="z">y</c></b>' * 30 + "</a>")
    compiled = xml_selectors.compile(selector.replace("'x'", "'xy'"), {})

    assert len(compiled.select(root, Work(200))) == 1
    with pytest.raises(TooLarge, match="look at more than"):
        compiled.select(root, Work(29))


def test_the_work_of_selectors_is_bounded():
    """Each operation is cheap on its own; together they would take minutes, for which other writers had to wait."""
    large = {
        "resourceType": "Patient",
        "text": {"status": "additional", "div": f'<div xmlns="{XHTML}">{"<p>x</p>" * 2_000}</div>'},
    }
    same = '<replace sel="Patient/text/h:div/h:p[2]"><h:p>x</h:p></replace>'

    with pytest.raises(TooLarge, match="look at more than"):
        patched(same * 1_000, resource=large)
    assert patched(same * 10, resource=large) == large
