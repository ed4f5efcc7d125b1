"""What is no FHIR XML is refused at its place, and at once. https://hl7.org/fhir/R4/xml.html"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir import json, xml

FHIR = 'xmlns="http://hl7.org/fhir"'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


def narrative(div: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "text": {"status": "generated", "div": div}}


REFUSED_XML = [
    ("", None, "no element found"),
    ("<Patient", None, "not XML"),
    (f"<Patient {FHIR}><a></Patient>", "Patient.a", "does not have there"),
    (f"<Patient {FHIR}><id value='1'></Patient>", None, "mismatched tag at line 1, column"),
    (f"<Patient {FHIR}/>\n<Patient/>", None, "junk after document element at line 2, column 1"),
    (f"<Patient {FHIR}><active value='true' value='true'/></Patient>", None, "duplicate attribute"),
    (f"<Patient {FHIR}><x:active value='true'/></Patient>", None, "unbound prefix"),
    ("<Patient/>", "Patient", "no namespace"),
    ('<Patient xmlns="urn:hl7-org:v3"/>', "Patient", "`urn:hl7-org:v3`"),
    (f"<Gurke {FHIR}/>", "Gurke", "no resource type"),
    (f"<HumanName {FHIR}/>", "HumanName", "no resource type"),
    (f"<Patient {FHIR} id='1'/>", "Patient", "attribute `id`"),
    (f"<Patient {FHIR}><name>\n  <famly value='x'/></name></Patient>", "Patient.name[0].famly", "(line 2, column 3)"),
    (f"<Patient {FHIR}><name/><name><use url='x'/></name></Patient>", "Patient.name[1].use", "attribute `url`"),
    (f"<Patient {FHIR}><name value='x'/></Patient>", "Patient.name[0]", "attribute `value`"),
    (f"<Patient {FHIR}><valueString value='x'/></Patient>", "Patient.valueString", "does not have there"),
    (f"<Patient {FHIR}><resourceType value='x'/></Patient>", "Patient.resourceType", "does not have there"),
    (f"<Patient {FHIR}><active value='yes'/></Patient>", "Patient.active", "neither true nor false"),
    (f"<Patient {FHIR}><active>true</active></Patient>", "Patient.active", "text `true`"),
    (f"<Patient {FHIR}><active value='true'/><active value='true'/></Patient>", "Patient.active", "twice"),
    (f"<Patient {FHIR}><multipleBirthInteger value='1.5'/></Patient>", "Patient.multipleBirthInteger", "whole"),
    (f"<Patient {FHIR}><multipleBirthInteger value='01'/></Patient>", "Patient.multipleBirthInteger", "whole"),
    (f"<TestReport {FHIR}><score value='NaN'/></TestReport>", "TestReport.score", "no number"),
    (f"<TestReport {FHIR}><score value='{'1' * 65}'/></TestReport>", "TestReport.score", "65 characters"),
    (f"<TestReport {FHIR}><score value='1e1001'/></TestReport>", "TestReport.score", "out of range"),
    (f"<Patient {FHIR}><contained/></Patient>", "Patient.contained[0]", "no resource in it"),
    (
        f"<Patient {FHIR}><contained><Basic/><Basic/></contained></Patient>",
        "Patient.contained[0].Basic",
        "second resource",
    ),
    (f"<Patient {FHIR}><contained><Gurke/></contained></Patient>", "Patient.contained[0].Gurke", "no resource type"),
    (f"<Patient {FHIR}><contained><Basic><x/></Basic></contained></Patient>", "Patient.contained[0].x", "not have"),
    (f"<Patient {FHIR}><text><div>x</div></text></Patient>", "Patient.text.div", "namespace"),
    (f"<Patient {FHIR}><text><div {XHTML}/><div {XHTML}/></text></Patient>", "Patient.text.div", "twice"),
    (f"<Patient {FHIR}><text><div {XHTML}>&nbsp;</div></text></Patient>", None, "undefined entity"),
    ('<Patient xmlns="http://hl7.org/fhir x"/>', None, "syntax error"),
    (
        f"<Patient {FHIR} xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'><name xsi:nil='true'/></Patient>",
        "Patient.name[0]",
        "attribute `nil`",
    ),
    (f"<Patient {FHIR}><name xml:lang='de'/></Patient>", "Patient.name[0]", "attribute `lang`"),
    ('<?xml version="1.0" encoding="ISO-8859-1"?><Patient/>', None, "UTF-8"),
    ('<?xml version="1.0" encoding="utf-16"?><Patient/>', None, "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "expression", "text"), REFUSED_XML)
def test_what_fhir_has_no_place_for_is_refused(document, expression, text):
    """With the place in the document, and in the resource where it is known."""
    with pytest.raises(Invalid) as refusal:
        xml.loads(document.encode())

    [issue] = refusal.value.issues
    assert (issue.severity, issue.code, issue.expression) == ("error", "structure", expression)
    assert text in issue.text
    assert issue.diagnostics is not None
    assert issue.diagnostics.startswith("line ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused(encoding):
    """2.11: FHIR is UTF-8."""
    with pytest.raises(Invalid):
        xml.loads(f'<Patient {FHIR}><language value="ä"/></Patient>'.encode(encoding))


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
DOCUMENT_TYPES = [
    f'<!DOCTYPE l [<!ENTITY l0 "ha">{LAUGHS}]><Patient {FHIR}><id value="&l9;"/></Patient>',
    '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/hostname">]><p>&x;</p>',
    '<!DOCTYPE p [<!ENTITY % x SYSTEM "http://localhost:1/x.dtd"> %x;]><p/>',
    '<!DOCTYPE p SYSTEM "http://localhost:1/x.dtd"><p/>',
    '<?xml version="1.0"?>\n<!-- <?a?> --><?b <!-- ?>\n<!DOCTYPE p><p/>',
    "<!DOCTYPE",
]


@pytest.mark.parametrize("document", DOCUMENT_TYPES)
def test_a_document_type_is_refused_before_anything_is_expanded(document):
    """Bombs, files and addresses of entities are never looked at. https://hl7.org/fhir/R4/security.html#xml"""
    for prefix in ("", "\ufeff"):
        with pytest.raises(Invalid, match="document type"):
            xml.loads((prefix + document).encode())


def test_a_document_type_in_a_narrative_is_refused():
    """JSON could bring one into XML."""
    with pytest.raises(Invalid, match="document type"):
        xml.dumps(narrative(f'<!DOCTYPE div [<!ENTITY a "b">]><div {XHTML}>&a;</div>'))


def nested(depth: int) -> bytes:
    """An extension within extensions."""
    open, close = '<extension url="x">' * depth, "</extension>" * depth
    return f"<Patient {FHIR}>{open}{close}</Patient>".encode()


def test_nesting_is_bounded_as_in_json():
    """What can be read here can be read again as JSON."""
    resource = xml.loads(nested(31))
    assert json.loads(json.dumps(resource)) == resource

    with pytest.raises(Invalid, match="64 deep"):
        xml.loads(nested(32))


LEAVES = [
    {},
    {"valueCode": "a"},
    {"valueCode": "a", "_valueCode": {"id": "b"}},
    {"valueAddress": {"text": "a", "_text": {"id": "b"}}},
    {"valueAddress": {"line": ["a"]}},
    {"valueAddress": {"line": ["a"], "_line": [{"id": "b"}]}},
    {"valueHumanName": {"period": {"start": "2026", "_start": {"extension": [{"url": "y"}]}}}},
]


@pytest.mark.parametrize("leaf", LEAVES)
def test_xml_may_be_as_deep_as_its_json(leaf):
    """Arrays and the siblings of primitives count in JSON, so they count here."""
    for depth in range(27, 34):
        extension = {"url": "x", **leaf}
        for _ in range(depth - 1):
            extension = {"url": "x", "extension": [extension]}
        resource = {"resourceType": "Patient", "extension": [extension]}

        assert is_read(xml.loads, xml.dumps(resource)) == is_read(json.loads, json.dumps(resource)), depth


def is_read(loads: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        loads(data)
    except Invalid:
        return False
    return True


@pytest.mark.parametrize(
    "document",
    [
        b"<a>" * (10 * 1024**2 // 3),
        b'<Patient xmlns="http://hl7.org/fhir">' + b'<extension url="x">' * (10 * 1024**2 // 19),
        b'<Patient xmlns="http://hl7.org/fhir"><text><div xmlns="http://www.w3.org/1999/xhtml">'
        + b"<b>" * (10 * 1024**2 // 3),
        b"<Patient><!--" + b"x" * (xml.MAX_MARKUP + 3 * 1024**2),
    ],
    ids=["elements", "extensions", "narrative", "comment"],
)
def test_ten_megabytes_of_nesting_are_refused_at_once(document):
    """Nothing is built of what lies deeper."""
    with pytest.raises(Invalid):
        xml.loads(document)


REFUSED_JSON: list[tuple[Any, str, str]] = [
    ({"resourceType": "Gurke"}, "Gurke.resourceType", "no resource type"),
    ({"id": "1"}, "Resource.resourceType", "no resource type"),
    ([], "Resource", "no object"),
    ({"resourceType": "Patient", "gurke": 1}, "Patient.gurke", "does not have there"),
    ({"resourceType": "Patient", "gur`ke ": 1}, "Patient.`gur?ke `", "does not have there"),
    ({"resourceType": "Patient", "_name": [{}]}, "Patient._name", "does not have there"),
    ({"resourceType": "Patient", "name": [{"famly": "x"}]}, "Patient.name[0].famly", "does not have there"),
    ({"resourceType": "Patient", "name": [{"_id": {}}]}, "Patient.name[0]._id", "does not have there"),
    ({"resourceType": "Patient", "name": [{"id": 7}]}, "Patient.name[0].id", "no text"),
    ({"resourceType": "Patient", "name": {}}, "Patient.name", "must be an array"),
    ({"resourceType": "Patient", "name": []}, "Patient.name", "empty array"),
    ({"resourceType": "Patient", "name": [None]}, "Patient.name[0]", "null"),
    ({"resourceType": "Patient", "name": ["x"]}, "Patient.name[0]", "must be an object"),
    ({"resourceType": "Patient", "name": [{"given": []}]}, "Patient.name[0].given", "empty array"),
    ({"resourceType": "Patient", "name": [{"given": "x"}]}, "Patient.name[0].given", "must be an array"),
    ({"resourceType": "Patient", "name": [{"given": [None]}]}, "Patient.name[0].given[0]", "null"),
    ({"resourceType": "Patient", "name": [{"given": ["a", 1]}]}, "Patient.name[0].given[1]", "no text"),
    ({"resourceType": "Patient", "maritalStatus": [{}]}, "Patient.maritalStatus", "must be an object"),
    ({"resourceType": "Patient", "birthDate": None}, "Patient.birthDate", "null"),
    ({"resourceType": "Patient", "birthDate": ["1815"]}, "Patient.birthDate", "no text"),
    ({"resourceType": "Patient", "_birthDate": []}, "Patient.birthDate", "must have an object"),
    ({"resourceType": "Patient", "active": "true"}, "Patient.active", "not true or false"),
    ({"resourceType": "Patient", "active": 1}, "Patient.active", "not true or false"),
    ({"resourceType": "Patient", "multipleBirthInteger": True}, "Patient.multipleBirthInteger", "whole"),
    ({"resourceType": "Patient", "multipleBirthInteger": json.Number("1.0")}, "Patient.multipleBirthInteger", "whole"),
    ({"resourceType": "TestReport", "score": "1"}, "TestReport.score", "no number"),
    ({"resourceType": "TestReport", "score": 1.5}, "TestReport.score", "no number"),
    ({"resourceType": "Patient", "language": "a\x01"}, "Patient.language", "U+0001"),
    ({"resourceType": "Patient", "contained": [{"id": "1"}]}, "Patient.contained[0].resourceType", "no resource"),
    ({"resourceType": "Patient", "contained": [7]}, "Patient.contained[0]", "no object"),
    (narrative("<div>x</div>"), "Patient.text.div", XHTML),
    (narrative(f"<p {XHTML}/>"), "Patient.text.div", "no <div"),
    (narrative(f"<div {XHTML}><p></div>"), "Patient.text.div", "mismatched tag"),
    (narrative(f"<div {XHTML}/><id value='1'/>"), "Patient.text.div", "junk"),
    (narrative(f"<div {XHTML}>&gurke;</div>"), "Patient.text.div", "undefined entity"),
    (narrative("text"), "Patient.text.div", "no XML"),
    ({"resourceType": "Patient", "text": {"div": 7}}, "Patient.text.div", "no text"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "expression", "text"), REFUSED_JSON)
def test_what_xml_has_no_place_for_is_refused(resource, expression, text):
    """Rather than left out: what is read as XML is all there is."""
    with pytest.raises(Invalid) as refusal:
        xml.dumps(resource)

    [issue] = refusal.value.issues
    assert (issue.severity, issue.code, issue.expression) == ("error", "structure", expression)
    assert text in issue.text


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from("<>/='\"! ?-[]&;x:id valuePatientname"), max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data):
    """Nothing but Invalid comes of them."""
    for document in (data, f"<Patient {FHIR}>".encode() + data + b"</Patient>"):
        if is_read(xml.loads, document):
            assert xml.loads(document)["resourceType"] == "Patient"
