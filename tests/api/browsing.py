"""What tests of pages share: a browser, as far as it matters, and the sample clinic to look at."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import falcon.testing
import pytest
from lxml import html

from gitstore import Settings, Store

ROOT = Path(__file__).parents[2]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
HOST = "http://localhost:8080"
HTML = "text/html; charset=utf-8"


class Reader:
    """A browser, as far as it matters here."""

    def __init__(self, app: Any, **headers: str) -> None:
        self._http = falcon.testing.TestClient(
            app, headers={"Host": "localhost:8080", "Accept": BROWSER, **headers}
        )

    def open(
        self, url: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> falcon.testing.Result:
        path, _, query = str(url).partition("?")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._http.simulate_request(method, path, query_string=query, headers=sent, body=body)

    def page(self, url: str) -> html.HtmlElement:
        response = self.open(url)
        assert response.headers["Content-Type"] == HTML, (url, response.status_code)
        return html.document_fromstring(response.text)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The sample clinic."""
    path = tmp_path_factory.mktemp("clinic") / "clinic.git"
    bundle = ROOT / "sample_repo" / "clinic.bundle"
    subprocess.run(["git", "clone", "-q", "--bare", bundle, path], check=True)
    with Store.open(path, Settings(durability="off")) as store:
        yield store


def said(element: html.HtmlElement) -> str:
    return " ".join(element.text_content().split())


def inert(page: html.HtmlElement, url: str) -> None:
    """That it holds nothing that runs or fetches."""
    assert not page.xpath("//script|//img|//iframe|//object|//embed|//link|//base|//svg"), url
    assert len(page.xpath("//style")) == 1, url
    assert not page.xpath("//@style|//@*[starts-with(name(), 'on')]|//@srcdoc|//@formaction"), url
    for href in page.xpath("//@href|//@action|//@src"):
        assert href.startswith(("/", "#", "http://", "https://")), (url, href)


def links(page: html.HtmlElement, url: str) -> Iterator[str]:
    for href in page.xpath("//a/@href"):
        target = urljoin(HOST + url, href).partition("#")[0]
        if target.startswith(HOST) and "_format=" not in target and "/at/" not in target:
            yield target.removeprefix(HOST)
