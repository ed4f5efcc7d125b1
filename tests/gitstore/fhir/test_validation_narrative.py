"""The HTML that a narrative may hold. https://hl7.org/fhir/R4/narrative.html#xhtml"""

from __future__ import annotations

import time

import pytest

from gitstore.fhir.narrative import faults


def div(content: str) -> str:
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{content}</div>'


@pytest.mark.parametrize(
    "text",
    [
        div("Ada"),
        div('<p class="a" style="color: red" id="x" title="t">Ada &amp; &nbsp;&eacute; &#233;</p>'),
        div(
            '<table border="1"><thead><tr><th colspan="2">a</th></tr></thead><tbody><tr><td>b</td></tr></tbody></table>'
        ),
        div('<img src="#pic" alt=""/>'),
        div('<a href="http://example.org" name="a">b</a><ul><li>c</li></ul><!-- a comment -->'),
        div("<![CDATA[ <p> ]]>"),
        '<h:div xmlns:h="http://www.w3.org/1999/xhtml"><h:b>Ada</h:b></h:div>',
        '<div xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">Ada</div>',
    ],
)
def test_what_is_allowed(text):
    assert faults(text) == ()


REFUSED = {
    "<script>alert(1)</script>a": "holds <script>, which is not allowed there (txt-1)",
    "<SCRIPT/>a": "holds <SCRIPT>, which is not allowed there (txt-1)",
    "<style>p {}</style>a": "holds <style>, which is not allowed there (txt-1)",
    "<link rel='stylesheet' href='http://example.org/a.css'/>a": "holds <link>, which is not allowed there (txt-1)",
    "<object/>a": "holds <object>, which is not allowed there (txt-1)",
    "<svg xmlns='http://www.w3.org/2000/svg'/>a": "holds <svg>, which is not allowed there (txt-1)",
    "<p onmouseover='x()'>a</p>": "holds <p onmouseover>, an attribute that is not allowed there (txt-1)",
    "<p xmlns:x='http://www.w3.org/1999/xlink' x:href='a'>a</p>": (
        "holds <p http://www.w3.org/1999/xlink href>, an attribute that is not allowed there (txt-1)"
    ),
    "<a href=' JavaScript:x()'>a</a>": "holds <a href> with a script (txt-1)",
    "<a href='java&#10;script:x()'>a</a>": "holds <a href> with a script (txt-1)",
    "<img src='data:text/html;base64,YQ=='/>": "holds <img src> with a script (txt-1)",
    "<p style='width: expression(x())'>a</p>": "holds <p style> with something that runs (txt-1)",
    "<?php x?>a": "holds the processing instruction <?php>",
    "": "has neither text nor an image (txt-2)",
    "<p> \n\u00a0</p>": "has neither text nor an image (txt-2)",
    "<p>a": "is not well-formed XML: mismatched tag at line 1, column 49",
    "&unknown;": "is not well-formed XML: undefined entity at line 1, column 43",
    "a & b": "is not well-formed XML: not well-formed (invalid token) at line 1, column 46",
    "<p>" * 300 + "</p>" * 300: "is nested more than 200 deep",
}


@pytest.mark.parametrize(("content", "fault"), REFUSED.items(), ids=[text[:30] for text in REFUSED])
def test_what_is_refused(content, fault):
    """17.8"""
    assert faults(div(content)) == (fault,)


@pytest.mark.parametrize(
    "text", ["<div>a</div>", '<p xmlns="http://www.w3.org/1999/xhtml">a</p>', '<div xmlns="x">a</div>']
)
def test_the_outside_is_a_div_of_xhtml(text):
    assert faults(text) == ('is not a <div xmlns="http://www.w3.org/1999/xhtml">',)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE div [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE div SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE div [<!ENTITY a "aaaaaaaaaa"><!ENTITY x "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    ],
)
def test_a_document_type_is_refused_before_anything_is_expanded(doctype):
    assert faults(doctype + div("&x;")) == ("has a document type, which could define entities",)


def test_ten_megabytes_of_nesting_take_no_time():
    start = time.process_time()

    assert faults(div("<p>" * 3_500_000)) == ("is nested more than 200 deep",)
    assert time.process_time() - start < 2


def test_each_fault_is_reported_once():
    assert len(faults(div("<script/><script/><form/>a"))) == 2
