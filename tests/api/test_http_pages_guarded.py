"""Pages for people: nothing in a record or a URL can become a part of one, and what may not be seen is on none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from lxml import html

from api.app import create_app
from api.credentials import Credentials
from gitstore import Author, Delete, Journal, Settings, Store, Tokens, Update, accesses
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId
from tests.api.browsing import HTML, Reader, clinic, inert, links, said
from tests.api.conftest import START
from tests.conftest import copy_record

__all__ = ["clinic"]

OTHERS = "qzjxk"
HOSTILE = "</title></style></textarea>--><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def reader(clinic: Store) -> Reader:
    return Reader(create_app(clinic))


# What is in a record stays text


def everywhere(value: Any) -> Any:
    """The same with hostile strings in every place of a text."""
    if isinstance(value, dict):
        return {name: everywhere(child) if name != "resourceType" else child for name, child in value.items()}
    if isinstance(value, list):
        return [everywhere(child) for child in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.fixture
def hostile(store: Store, clinic: Store) -> list[str]:
    """The clinic's resources with a hostile string in each text, by a hostile author with hostile words; their URLs."""
    urls = []
    author = Author(HOSTILE, "x@y")
    snapshot = clinic.snapshot()
    for number, version in enumerate(snapshot.resources()):
        type = version.resource_id.type
        target = ResourceId(type, f"h{number}")
        resource = {**everywhere(json.loads(snapshot.body(version))), "id": target.id, "resourceType": type}
        resource.pop("meta", None)
        resource[HOSTILE] = {HOSTILE: [HOSTILE], "extension": [{"url": HOSTILE, "valueString": HOSTILE}]}
        store.commit([Update(target, resource)], author, message=HOSTILE)
        changed = {**resource, "language": HOSTILE, "contained": [{"resourceType": HOSTILE, "id": HOSTILE}]}
        made, *_ = store.commit([Update(target, changed)], author, message=HOSTILE)
        assert made.version is not None
        path = f"/fhir/{target}"
        urls += [path, f"{path}/_history", f"{path}/$diff", f"{path}/$blame"]
        urls.append(f"/commits/{made.version.commit.id}")
    types = sorted({url.split("/")[2] for url in urls if url.startswith("/fhir/")})
    return [*urls, *(f"/fhir/{type}" for type in types), "/fhir/_history", "/fhir"]


def test_nothing_in_a_record_becomes_a_part_of_a_page(
    store: Store, settings: Settings, hostile: list[str]
) -> None:
    reader = Reader(create_app(store, settings))
    shown = 0
    for url in hostile:
        response = reader.open(f"{url}?_format=html" if "/Binary" in url else url)
        assert response.status_code == 200, url
        page = html.document_fromstring(response.text)
        inert(page, url)
        assert "{{ 7 * 7 }}" in response.text or url.count("/") < 3, url
        shown += page.text_content().count("<script>alert(1)</script>")
    assert shown > 1000


@pytest.mark.parametrize(
    "url",
    [
        "/fhir/{}",
        "/fhir/Patient/{}",
        "/fhir/Patient?name={}&{}={}",
        "/fhir/Patient/_history?_author={}",
        "/fhir/Patient/_history?_since={}",
        "/commits/{}",
        "/{}",
    ],
)
def test_nothing_in_a_url_becomes_a_part_of_a_page(reader: Reader, url: str) -> None:
    response = reader.open(url.replace("{}", quote(HOSTILE, safe="")))

    assert response.headers["Content-Type"] == HTML
    inert(html.document_fromstring(response.text), url)


# What may not be seen is on no page


@pytest.fixture(scope="module")
def ward(
    empty_record: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, Credentials, dict[str, str]]]:
    """Two patients, some commits of both, and by name a token for the first one, with and without history."""
    path = copy_record(empty_record, tmp_path_factory.mktemp("ward") / "record.git")

    def told(who: str, word: str) -> list[Update]:
        subject = {"reference": f"Patient/{who}"}
        resources: list[dict[str, Any]] = [
            {"resourceType": "Patient", "id": who, "name": [{"family": word}]},
            {"resourceType": "Observation", "id": f"o-{who}", "code": {"text": word}, "subject": subject},
        ]
        return [Update(ResourceId(each["resourceType"], each["id"]), each) for each in resources]

    with Store.open(path, settings, clock=lambda: START) as store:
        store.commit(told("own", "Plain"), Author("Ada", "ada@x"), message="For her alone")
        store.commit(told("other", OTHERS), Author(OTHERS, f"{OTHERS}@x"), message=OTHERS)
        both = [*told("own", "Both"), *told("other", f"{OTHERS} both")]
        store.commit(both, Author("Bob", "bob@x"), message=f"About {OTHERS}, too", interaction="transaction")
        store.commit([Delete(ResourceId("Observation", "o-other"))], Author(OTHERS, "x@x"), message=OTHERS)
        scopes = {
            "past": "patient/*.rs git-fhir/history",
            "now": "patient/*.rs",
            "full": "user/*.rs git-fhir/*",
        }
        secrets = {
            name: Tokens(str(path)).create(
                name="App", email="app@x", scope=scope, patient="own", now=START, expires=None
            )[0]
            for name, scope in scopes.items()
        }
        yield store, Credentials(str(path), settings, lambda: START + 1), secrets


def reader_of(ward: tuple[Store, Credentials, dict[str, str]], name: str, settings: Settings) -> Reader:
    store, credentials, secrets = ward
    app = create_app(store, settings, credentials=credentials, new_request_id=lambda: "request")
    return Reader(app, Authorization=f"Bearer {secrets[name]}")


def crawled(reader: Reader, start: str = "/fhir") -> dict[str, str]:
    """By URL the text of each page that answers."""
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        url = waiting.pop()
        if url not in found and not url.endswith("/metadata"):  # with a link for each of 146 types
            response = reader.open(url)
            found[url] = response.text if response.status_code == 200 else ""
            if found[url] and response.headers["Content-Type"] == HTML:
                waiting += links(html.document_fromstring(response.text), url)
    return found


@pytest.mark.parametrize("name", ["past", "now"])
def test_pages_show_nothing_of_another_patient(ward, settings, name):
    """Neither those that are found by links nor those that somebody else sees: and no author, no word, no commit of it."""
    reader = reader_of(ward, name, settings)
    all_there = crawled(reader_of(ward, "full", settings))
    assert any(OTHERS in text for text in all_there.values())

    own = crawled(reader)
    assert "/fhir/Patient/own" in own
    assert all(own.values()), [url for url, text in own.items() if not text]
    for url in {*own, *all_there}:
        response = reader.open(url)
        assert OTHERS not in response.text, url
        if "other" in url and response.status_code != 403:
            never = reader.open(url.replace("other", "never"))
            mine, theirs = (each.text.partition("</style>")[2] for each in (response, never))
            assert mine.replace("other", "never") == theirs, url
    commits = [
        url for url in all_there if url.startswith("/commits/") and reader.open(url).status_code == 200
    ]
    assert len(commits) == (2 if name == "past" else 0)


def test_words_about_somebody_else_are_not_told(ward, settings):
    """A commit that changed more than may be seen is told of by its author and time alone."""
    page = reader_of(ward, "past", settings).page("/fhir/Patient/own/_history")

    assert [said(each) for each in page.xpath("//blockquote")] == ["For her alone"]
    assert [said(each) for each in page.xpath("//span[@class='author']")] == ["Bob", "Ada"]


def test_who_may_not_see_the_past_sees_no_author(ward, settings):
    page = reader_of(ward, "now", settings).page("/fhir/Patient/own")

    assert not page.xpath("//span[@class='author']|//a[contains(@href, '_history')]|//blockquote")


def test_who_is_logged_in_is_told_so(ward, settings):
    page = reader_of(ward, "now", settings).page("/fhir")

    assert said(page.xpath("//header//strong")[0]) == "App"
    assert not page.xpath("//header//form")  # a token is not a session


def test_the_journal_says_whose_data_a_page_showed(
    store: Store, repository: Path, settings: Settings, patient: dict[str, Any]
) -> None:
    """As for FHIR's own forms: docs/audit-journal.md."""
    target = ResourceId("Patient", "example")
    store.commit([Update(target, patient)], Author("Ada", "ada@x"))
    journal = Journal.open(str(repository), durable=False)
    reader = Reader(create_app(store, settings, journal=journal))

    for url in (f"/fhir/{target}", f"/fhir/{target}/_history", "/fhir", "/fhir/Patient?active=true"):
        reader.page(url)

    journal.close()
    told = [each.entry for each in accesses(str(repository))]
    assert [entry.patients for entry in told] == [("example",)] * 4
    assert (told[0].interaction, told[0].version) == ("read", "1")


def test_a_session_ends_with_a_button(
    store: Store, repository: Path, settings: Settings, patient: dict[str, Any]
) -> None:
    """Which other sites can't push: the form is checked as that of the login is."""
    store.commit([Update(ResourceId("Patient", "example"), patient)], Author("Ada", "ada@x"))
    secret, _ = Tokens(str(repository)).create(
        name="Bob & Co", email="bob@x", scope="user/*.cruds git-fhir/*", now=START, expires=None
    )
    credentials = Credentials(str(repository), settings, lambda: START + 1)
    reader = Reader(create_app(store, settings, credentials=credentials))
    form = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}

    assert reader.open("/fhir/Patient/example").headers["Location"] == "/login?next=/fhir/Patient/example"
    entered = reader.open("/login", "POST", body=f"token={secret}&next=/fhir/Patient/example", **form)
    cookie = entered.headers["Set-Cookie"].partition(";")[0]
    page = html.document_fromstring(reader.open("/fhir/Patient/example", Cookie=cookie).text)
    assert said(page.xpath("//header//strong")[0]) == "Bob & Co"
    [action] = page.xpath("//header//form/@action")
    foreign = reader.open(action, "POST", Cookie=cookie, **{**form, "Sec_Fetch_Site": "cross-site"})
    assert foreign.status_code == 403
    left = reader.open(action, "POST", Cookie=cookie, **form)
    assert (left.status_code, left.headers["Location"]) == (303, "/login")


def test_who_may_be_anonymous_can_still_log_in(store: Store, repository: Path, settings: Settings) -> None:
    credentials = Credentials(str(repository), settings, lambda: START + 1, allow_anonymous=True)
    page = Reader(create_app(store, settings, credentials=credentials)).page("/fhir/Patient?name=x")

    assert page.xpath("//header//a[.='Log in']/@href") == ["/login?next=/fhir/Patient%3Fname%3Dx"]
