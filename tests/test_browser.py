"""The pages in a real browser, where there is one: they are drawn, in both colour schemes, and nothing on them is refused."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import html

from tools.screenshots import BUNDLE, PAGES, SECONDS, arguments, chromium, served, take

BROWSER = chromium()

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the sample clinic."""
    clone = tmp_path_factory.mktemp("browser") / "clinic.git"
    subprocess.run(["git", "clone", "-q", "--bare", BUNDLE, clone], check=True)
    with served(clone) as url:
        yield url


def loaded(url: str, profile: Path) -> tuple[html.HtmlElement, str]:
    """The page as the browser understands it, and what it says about it."""
    assert BROWSER is not None
    command = [BROWSER, *arguments(profile), "--enable-logging=stderr", "--dump-dom", url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    return html.document_fromstring(result.stdout), result.stderr


def pixels(picture: Path) -> bytes:
    """What a PNG is drawn of, not unfiltered. https://www.w3.org/TR/png/#5DataRep"""
    data, place, found = picture.read_bytes(), 8, b""
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if data[place + 4 : place + 8] == b"IDAT":
            found += data[place + 8 : place + 8 + length]
        place += length + 12
    return zlib.decompress(found)


@pytest.mark.parametrize(
    ("url", "heading"),
    [
        ("/", "The record"),
        *zip(
            PAGES.values(),
            (
                "The record",
                "Amara Ngozi Okafor",
                "History of Amara Ngozi Okafor",
                "Changes to Amara Ngozi Okafor",
                "Who set what in Amara Ngozi Okafor",
                "Observation: search results",
            ),
            strict=True,
        ),
        ("/fhir/Patient/nobody", "Not Found"),
    ],
)
def test_a_browser_opens_a_page_and_has_nothing_to_complain_of(
    server: str, tmp_path: Path, url: str, heading: str
) -> None:
    """No more than its own style works there: had the page anything else, the policy would refuse it and say so."""
    page, complaints = loaded(server + url, tmp_path)

    assert " ".join(page.find(".//h1").text_content().split()) == heading
    assert "Content Security Policy" not in complaints
    assert ":CONSOLE" not in complaints


def test_complaints_would_be_heard(tmp_path: Path) -> None:
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    (tmp_path / "bad.html").write_text(f"{policy}<h1 style='color: red'>x</h1>")

    _, complaints = loaded(f"file://{tmp_path}/bad.html", tmp_path / "profile")

    assert "Content Security Policy" in complaints


def test_pages_are_light_or_dark_as_their_reader_likes(server: str, tmp_path: Path) -> None:
    """And not blank: https://www.w3.org/TR/mediaqueries-5/#prefers-color-scheme"""
    assert BROWSER is not None
    drawn = {}
    for dark in (False, True):
        picture = tmp_path / f"{dark}.png"
        take(BROWSER, f"{server}{PAGES['resource']}", picture, dark=dark)
        drawn[dark] = pixels(picture)
    assert min(len(set(each)) for each in drawn.values()) > 20
    assert drawn[False] != drawn[True]


def test_a_page_fits_a_telephone(server: str, tmp_path: Path) -> None:
    assert BROWSER is not None
    picture = tmp_path / "small.png"

    take(BROWSER, f"{server}{PAGES['front']}", picture, size=(500, 800))

    assert len(set(pixels(picture))) > 20
