"""Pages for people: which requests get one, that each is sound, and that nothing in a record can become a part of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from lxml import html

from api.app import create_app
from gitstore import Settings, Store
from gitstore.fhir import json
from tests.api.browsing import BROWSER, HTML, Reader, clinic, inert, links, said

__all__ = ["clinic"]

PATIENT = "/fhir/Patient/amara-okafor"


@pytest.fixture(scope="module")
def reader(clinic: Store) -> Reader:
    return Reader(create_app(clinic))


# Who gets a page


@pytest.mark.parametrize(
    ("accept", "query", "expected"),
    [
        (BROWSER, "", HTML),
        ("text/html", "", HTML),
        ("application/fhir+json", "_format=html", HTML),
        ("application/fhir+json", "_format=text/html", HTML),
        ("*/*", "", "application/fhir+json"),
        (None, "", "application/fhir+json"),
        ("application/fhir+json, text/html;q=0.5", "", "application/fhir+json"),
        (BROWSER, "_format=json", "application/fhir+json"),
        (BROWSER, "_format=xml", "application/fhir+xml"),
    ],
)
@pytest.mark.parametrize("url", [PATIENT, f"{PATIENT}/_history", "/fhir/Patient", "/fhir/Patient/nobody"])
def test_a_page_is_for_who_prefers_html(
    reader: Reader, url: str, accept: str | None, query: str, expected: str
) -> None:
    """JSON remains what is answered otherwise. https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1"""
    response = reader.open(f"{url}?{query}", Accept=accept or "")

    assert response.headers["Content-Type"] == expected
    assert "Accept" in response.headers["Vary"]


def test_a_write_gets_no_page(client, patient):
    response = client.put("Patient/example", patient, Accept=BROWSER)

    assert response.headers["Content-Type"] in ("application/xml", "application/fhir+json")


def test_a_page_is_never_taken_for_what_fhir_answers(reader: Reader) -> None:
    """It has no ETag, is never 304, and each is fetched anew: what is around the resource changes without it."""
    tag = reader.open(PATIENT, Accept="application/fhir+json").headers["ETag"]
    response = reader.open(PATIENT, If_None_Match=tag)

    assert response.status_code == 200
    assert "ETag" not in response.headers
    assert "Last-Modified" not in response.headers
    for url in (PATIENT, f"{PATIENT}/_history/1", "/fhir", "/fhir/metadata"):
        assert reader.open(url).headers["Cache-Control"] == "private, no-cache"


def test_behind_a_proxy_links_have_its_prefix(clinic: Store) -> None:
    settings = Settings(base_url="https://example.org/records/a/fhir")
    reader = Reader(create_app(clinic, settings))

    for url in (
        "/fhir",
        "/fhir/Patient/amara-okafor",
        "/fhir/Patient/amara-okafor/_history",
        "/fhir/Patient",
    ):
        for place in reader.page(url).xpath("//@href|//@action"):
            assert place.startswith(("/records/a/", "#")), place


def test_the_root_leads_browsers_to_the_record(reader: Reader) -> None:
    response = reader.open("/")
    assert (response.status_code, response.headers["Location"]) == (303, "/fhir")
    assert reader.open("/", Accept="application/json").status_code == 404


def test_a_commit_is_a_page_and_nothing_else(reader: Reader, clinic: Store) -> None:
    url = f"/commits/{clinic.snapshot().commit.id}"

    assert reader.open(url, Accept="application/fhir+json").status_code == 406
    for unknown in ("0" * 40, "main", clinic.snapshot().commit.id[:10]):
        assert reader.open(f"/commits/{unknown}").status_code == 404


def test_xml_runs_nothing_in_a_browser(reader: Reader) -> None:
    """Browsers show XML, and run the scripts of XHTML in it: a record may hold narratives that nobody has checked."""
    response = reader.open(f"{PATIENT}?_format=xml")

    assert response.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


# What every page is like


def check(page: html.HtmlElement, url: str) -> None:
    """The structure by which screen readers and keyboards find their way. https://www.w3.org/TR/WCAG22/"""
    assert page.get("lang") == "en", url
    assert said(page.find(".//title")).endswith("· git-fhir"), url
    assert len(page.xpath("//h1")) == 1, url
    assert [len(page.xpath(f"/html/body/{name}")) for name in ("header", "main", "footer")] == [1, 1, 1], url
    assert page.xpath("//a[1]/@href")[0] == "#main", url
    assert all(nav.get("aria-label") for nav in page.iter("nav")), url
    levels = [int(heading.tag[1]) for heading in page.xpath("//h1|//h2|//h3|//h4|//h5|//h6")]
    assert all(after <= before + 1 for before, after in pairwise(levels)), url
    for table in page.iter("table"):
        assert table.xpath("./thead//th[@scope='col']"), url
        assert table.xpath("./tbody/tr/th[@scope='row']") or not table.xpath("./tbody/tr/td[2]"), url
    for field in page.xpath("//input[not(@type='hidden')]"):
        assert page.xpath("//label[@for=$id]", id=field.get("id")), (url, field.get("name"))
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids)), url
    for place in page.xpath("//@href[starts-with(., '#')]|//@aria-labelledby"):
        assert place.removeprefix("#") in ids, (url, place)
    inert(page, url)


def test_every_page_of_the_clinic_is_sound_and_every_link_leads_somewhere(reader: Reader) -> None:
    """From the front page to wherever a link leads. Forms of FHIR are left out, of which there is one for each page."""
    policy = reader.open("/fhir").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    seen: set[str] = set()
    kinds: set[str] = set()
    waiting = ["/fhir"]
    while waiting:
        url = waiting.pop()
        if url in seen:
            continue
        seen.add(url)
        response = reader.open(url)
        assert response.status_code == 200, url
        assert response.headers["Content-Security-Policy"] == policy
        page = html.document_fromstring(response.text)
        check(page, url)
        waiting += links(page, url)
        kinds.add(url.partition("?")[0].rpartition("/")[2])
    assert len(seen) > 500
    assert {"_history", "$diff", "$blame", "metadata", "*", "Patient"} <= kinds


def test_the_forms_of_fhir_that_pages_link_to_are_there(reader: Reader) -> None:
    for url in (
        "/fhir/Patient?name=okafor",
        PATIENT,
        f"{PATIENT}/_history",
        f"{PATIENT}/$diff",
        "/fhir/metadata",
    ):
        found = [href for href in reader.page(url).xpath("//footer//a/@href") if "_format=" in href]
        assert len(found) == 2
        assert {reader.open(href).headers["Content-Type"] for href in found} == {
            "application/fhir+json",
            "application/fhir+xml",
        }


# The pages


def test_a_resource_is_told_in_words(reader: Reader) -> None:
    page = reader.page(PATIENT)

    assert said(page.find(".//h1")) == "Amara Ngozi Okafor"
    main = said(page.find(".//main"))
    assert "Version 4 · updated by Inês Carvalho · 2026-02-16 09:06:00 UTC" in main
    assert "New telephone number." in main
    terms = {
        said(each.find("dt")): said(each.find("dd")) for each in page.xpath("//dl[@class='elements']/div")
    }
    assert terms["Birth date"] == "1984-03-19"
    assert terms["Telecom"] == "+44 20 7946 0119 phone, mobile"
    assert page.xpath("//dd/a[.='Dr Zoë Lindqvist']/@href") == ["/fhir/Practitioner/zoe-lindqvist"]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Each primitive with the name of its element."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, key)
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, name)
    elif not isinstance(value, bool):
        yield name, str(value)


def test_nothing_of_a_resource_is_left_out(reader: Reader, clinic: Store) -> None:
    """Each primitive stands on the page, or in full beside a shorter word for it."""
    snapshot = clinic.snapshot()
    looked = 0
    for version in snapshot.resources():
        resource = json.loads(snapshot.body(version))
        page = reader.page(f"/fhir/{version.resource_id}")
        shown = " ".join([said(page), *map(str, page.xpath("//@title|//@href"))])
        for name, text in leaves({**resource, "meta": {}, "text": {}}):
            if name == "div" or "T" in text[10:11]:  # narratives, and times, which are written otherwise
                continue
            looked += 1
            assert " ".join(text.split()) in shown, (version, name, text)
    assert looked > 1000


def test_a_past_version_says_so_and_leads_to_the_newest(reader: Reader) -> None:
    page = reader.page(f"{PATIENT}/_history/2")

    assert "Version 2, not the newest one" in said(page.find(".//main"))
    notice = page.xpath("//div[@class='notice']")[0]
    assert notice.xpath(".//a/@href") == [PATIENT, f"{PATIENT}/$diff?fromVersion=2&toVersion=4"]
    assert notice.xpath("./form/@action") == [f"{PATIENT}/$restore?version=2"]


def test_a_history_is_a_timeline_of_what_changed(reader: Reader) -> None:
    page = reader.page(f"{PATIENT}/_history")

    entries = [said(each) for each in page.xpath("//ol[@class='timeline']/li")]
    assert len(entries) == 4
    assert entries[2].startswith(
        "updated version 2 Inês Carvalho · 2026-01-12 10:31:00 UTC · commit 889e52d2b5"
    )
    assert "Her passport says 19 March 1984." in entries[2]
    assert entries[2].endswith("~ changed Birth date 1984-09-13 → 1984-03-19")
    assert entries[3].startswith("created version 1")
    assert page.xpath("//input[@name='fromVersion']/@max") == ["4"]


def test_two_versions_stand_side_by_side(reader: Reader) -> None:
    """The marks say without colour what is new and what is old, and `ins` and `del` say it to machines."""
    page = reader.page(f"{PATIENT}/$diff?fromVersion=1&toVersion=4")

    rows = {said(row.find("th").find("code")): row for row in page.xpath("//table[@class='diff']/tbody/tr")}
    assert said(rows["birthDate"].xpath("./td[1]/span[1]")[0]) == "~"
    assert said(rows["birthDate"].find(".//del")) == "1984-09-13"
    assert said(rows["birthDate"].find(".//ins")) == "1984-03-19"
    assert said(rows["contact"].xpath("./td[1]/span[1]")[0]) == "+"
    assert rows["contact"].find(".//del") is None


def test_two_resources_stand_side_by_side(reader: Reader) -> None:
    page = reader.page("/fhir/$diff?from=Patient/amara-okafor&to=Patient/li-xiulan")

    assert "birthDate" in {said(code) for code in page.xpath("//th/code")}


def test_each_element_names_who_set_it(reader: Reader) -> None:
    page = reader.page(f"{PATIENT}/$blame")

    rows = {
        said(row.find("th")): [said(cell) for cell in row.findall("td")] for row in page.xpath("//tbody/tr")
    }
    assert rows["Birth date"] == ["1984-03-19", "2", "Inês Carvalho", "2026-01-12 10:31:00 UTC"]
    assert rows["Contact › Telecom › Value"][1:3] == ["3", "Nguyễn Thị Lan"]


def test_a_commit_shows_all_that_it_changed(reader: Reader, clinic: Store) -> None:
    page = reader.page(f"/commits/{clinic.snapshot().commit.id}")

    assert said(page.find(".//h2")) == "4 resources changed"
    assert "updated CarePlan “Blood pressure and sugar”" in said(page.find(".//main"))
    assert "Metformin and losartan go on" in said(page.find(".//main"))


def test_the_past_is_a_record_of_its_own(reader: Reader) -> None:
    """Its links stay in it, but for the one that leads back."""
    there = reader.open("/at?point=2026-01-10").headers["Location"]
    assert there == "/at/2026-01-10/fhir"
    for url in (there, f"{there}/Patient/amara-okafor", f"{there}/Patient?name=okafor", f"{there}/_history"):
        page = reader.page(url)
        check(page, url)
        [notice, *_] = page.xpath("//p[@class='notice']")
        assert notice.xpath("./a/@href") == [url.removeprefix("/at/2026-01-10")]
        for place in links(page, url):
            assert place.startswith("/commits/") or f"{place}?".startswith("/fhir")
    assert "1984-09-13" in said(reader.page(f"{there}/Patient/amara-okafor"))


def test_the_feed_can_be_filtered(reader: Reader) -> None:
    """A form sends what was left empty, and days as days."""
    url = "/fhir/Patient/_history?_author=In%C3%AAs%20Carvalho&_since=2026-02-01&_at=&_count=2"
    page = reader.page(url)

    assert len(page.xpath("//ul[@class='made']/li")) == 2
    assert {said(each) for each in page.xpath("//span[@class='author']")} == {"Inês Carvalho"}
    assert page.xpath("//input[@name='_since']/@value") == ["2026-02-01"]
    [older] = page.xpath("//a[@rel='next']/@href")
    assert "_author=In" in older
    assert len(reader.page(older).xpath("//ul[@class='made']/li")) == 2


def test_a_search_is_a_table_with_its_form_and_its_pages(reader: Reader) -> None:
    page = reader.page("/fhir/Observation?patient=amara-okafor&code=&_sort=-date&_count=5")

    assert [said(each) for each in page.xpath("//thead//th")][:4] == ["Code", "Value", "Status", "Effective"]
    assert len(page.xpath("//tbody/tr")) == 5
    assert page.xpath("//input[@name='patient']/@value") == ["amara-okafor"]
    assert "12 matches, 5 on this page." in said(page.find(".//main"))
    [older] = page.xpath("//a[@rel='next']/@href")
    assert "code=&" not in older
    assert reader.page(older).xpath("//a[@rel='prev']")


def test_what_a_search_did_not_understand_is_said(reader: Reader) -> None:
    page = reader.page("/fhir/Patient?nonsense=1&name=okafor")

    assert "nonsense" in said(page.xpath("//section[@class='notice']")[0])


def test_the_front_page_counts_and_tells_what_happened_last(reader: Reader) -> None:
    page = reader.page("/fhir")

    counts = {
        said(row.find("th")): said(row.find("td")) for row in page.xpath("//table[@class='counts']/tbody/tr")
    }
    assert counts["Patient"] == "6"
    assert said(page.find(".//pre")) == "git clone http://localhost:8080/fhir.git"
    assert page.xpath("//ol[@class='timeline']/li")


@pytest.mark.parametrize(
    ("url", "status", "word"),
    [
        ("/fhir/Patient/nobody", 404, "not-found"),
        ("/fhir/Patient/test-patient", 410, "deleted"),
        ("/fhir/Nonsense", 404, "not-supported"),
        ("/nothing/here", 404, "not-found"),
        ("/fhir/Patient?birthdate=x", 400, "value"),
        ("/fhir/_history?_count=x", 400, "value"),
    ],
)
def test_errors_are_pages_too(reader: Reader, url: str, status: int, word: str) -> None:
    response = reader.open(url)

    assert response.status_code == status
    page = html.document_fromstring(response.text)
    check(page, url)
    assert word in said(page.find(".//main"))
    if status == 410:
        assert page.xpath("//main//a/@href")[0] == "/fhir/Patient/test-patient/_history"


def test_a_version_is_restored_at_the_push_of_a_button(client, store, patient):
    client.put("Patient/example", patient)
    client.put("Patient/example", {**patient, "active": False})

    response = client.request(
        "POST",
        "Patient/example/$restore?version=1",
        b"",
        Accept=BROWSER,
        Content_Type="application/x-www-form-urlencoded",
    )

    assert (response.status_code, response.headers["Location"]) == (303, "/fhir/Patient/example")
    assert client.get("Patient/example").json["active"] is True
