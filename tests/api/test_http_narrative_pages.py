"""What a page shows of a narrative: never anything that runs, fetches, or leaves its place. https://hl7.org/fhir/R4/narrative.html#security"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from api.html.narrative import plain, shown

XMLNS = "http://www.w3.org/1999/xhtml"

REFUSED = [
    "<script>alert(1)</script>",
    "<SCRIPT>alert(1)</SCRIPT>",
    "<p onclick='alert(1)'>x</p>",
    "<img src='x' onerror='alert(1)'/>",
    "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "<svg><script>alert(1)</script></svg>",
    "<math xmlns='http://www.w3.org/1998/Math/MathML'><mtext>x</mtext></math>",
    "<iframe src='https://evil.example'></iframe>",
    "<object data='x'></object>",
    "<embed src='x'/>",
    "<form action='/logout' method='post'><button>Go on</button></form>",
    "<input autofocus='' onfocus='alert(1)'/>",
    "<style>* { display: none }</style>",
    "<link rel='stylesheet' href='https://evil.example/x.css'/>",
    "<meta http-equiv='refresh' content='0;url=https://evil.example'/>",
    "<base href='https://evil.example/'/>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href=' &#1;javascript:alert(1)'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<a href='data:text/html,x'>x</a>",
    "<p style='background: expression(alert(1))'>x</p>",
    "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
    "<template><p>x</p></template>",
    "<p>not closed",
    "&unknown;",
    "</div><script>alert(1)</script><div>",
    "]]><p>x</p>",
]

CHANGED = [
    ("<p style='position: fixed'>x</p>", "<p>x</p>"),
    ("<p class='site' id='main'>x</p>", '<p id="narrative-main">x</p>'),
    ("<p id='a b'>x</p>", "<p>x</p>"),
    ("<h1>x</h1><h2>y</h2>", "<h4>x</h4><h5>y</h5>"),
    ("<img src='https://evil.example/x.png' alt='A &lt;b&gt;'/>", "<span>[A &lt;b&gt;]</span>"),
    ("<img src='data:image/png;base64,AA'/>", "<span>[image]</span>"),
    ("<a href='ftp://evil.example'>x</a>", "<a>x</a>"),
    ("<a href='/logout'>x</a>", "<a>x</a>"),
    ("<a href='Patient/1'>x</a>", "<a>x</a>"),
    ("<a href='//evil.example'>x</a>", "<a>x</a>"),
    ("<a href='mailto:a@b'>x</a>", "<a>x</a>"),
    ("<a href='#here'>x</a>", '<a href="#narrative-here">x</a>'),
    (
        "<a href='https://hl7.org/?a&amp;b&quot;'>x</a>",
        '<a href="https://hl7.org/?a&amp;b&#34;" rel="noreferrer noopener external">x</a>',
    ),
    ("<p title='&quot;&gt;&lt;script&gt;'>x</p>", '<p title="&#34;&gt;&lt;script&gt;">x</p>'),
    ("<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
    ("<p><!-- --><![CDATA[<script>alert(1)</script>]]></p>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
    ("a<br/>b<hr/>", "a<br>b<hr>"),
    ("<font color='red'>x</font><center>y</center>", "xy"),
    ("<td colspan='2' bgcolor='red'>x</td>", '<td colspan="2">x</td>'),
    ("&nbsp;&copy;", "\u00a0©"),
    ("<b tabindex='1' accesskey='x'>x</b>", "<b>x</b>"),
]


def div(inside: str) -> str:
    return f'<div xmlns="{XMLNS}">{inside}</div>'


@pytest.mark.parametrize("inside", REFUSED)
def test_a_hostile_narrative_is_shown_as_its_source(inside: str) -> None:
    """Not repaired: who reads it should know what it is."""
    found = shown(div(inside))

    assert found is not None
    assert found.html is None
    assert found.text == div(inside)
    assert found.why


@pytest.mark.parametrize(("inside", "expected"), CHANGED)
def test_what_is_harmless_is_shown_and_what_is_not_needed_goes(inside: str, expected: str) -> None:
    found = shown(div(inside))

    assert found is not None
    assert found.html == f"<div>{expected}</div>"


@pytest.mark.parametrize(
    "text",
    [
        f'<!DOCTYPE div [<!ENTITY x SYSTEM "file:///etc/passwd">]><div xmlns="{XMLNS}">&x;</div>',
        f'<!DOCTYPE div [<!ENTITY x "{"y" * 100}">]><div xmlns="{XMLNS}">&x;&x;</div>',
        "<div>no namespace</div>",
        f'<p xmlns="{XMLNS}">no div</p>',
        f'<?xml-stylesheet href="x.xsl"?><div xmlns="{XMLNS}">x</div>',
        "no XML",
        "<div" * 10_000,
        f'<div xmlns="{XMLNS}">' + "<b>" * 300 + "</b>" * 300 + "</div>",
    ],
)
def test_nothing_is_expanded_or_fetched(text: str) -> None:
    found = shown(text)

    assert found is not None
    assert (found.html, found.text) == (None, text)


@pytest.mark.parametrize("div", [None, "", "  ", 7, ["x"], {"x": 1}])
def test_no_narrative_is_nothing(div: object) -> None:
    assert shown(div) is None


def test_its_words_alone_are_for_lists() -> None:
    assert plain(div("<p>One <b>two</b></p>\n<p>three</p>")) == "One two three"
    assert plain("<p>") == "<p>"


_PIECES = st.sampled_from(
    re.findall(
        r"<[^>]*>|\S+",
        "<p> </p> <b> </b> <br/> <a href='https://x.example'> <a href='javascript:x'> </a> <img src='x'/> <script> </script> "
        "<td> </td> <p id='x'> <p onclick='x'> &lt; &amp; &#60; ' \" > ]]> <!-- --> <![CDATA[ x é",
    )
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_whatever_is_put_together_only_kept_elements_and_attributes_come_out(inside: str) -> None:
    found = shown(div(inside))

    assert found is not None
    if found.html is None:
        return
    tree = html.fromstring(f"<main>{found.html}</main>")
    for element in tree.iter():
        assert element.tag in {"main", "div", "p", "b", "br", "a", "span", "td"}
        assert set(element.keys()) <= {"href", "rel", "id"}
        assert re.fullmatch(r"(https://x\.example)?", element.get("href", ""))
