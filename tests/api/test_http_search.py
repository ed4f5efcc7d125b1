"""Search over HTTP: Bundles, links, pages. https://hl7.org/fhir/R4/http.html#search"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gitstore import ANONYMOUS, Create, Invalid, read_settings
from tests.api.ward import BASE, ids, link, reader, repository, ward

__all__ = ["reader", "repository", "ward"]


def test_a_search_is_answered_with_a_searchset(client, store):
    """12a.3, 12a.5: 200; entries have an absolute fullUrl without version and say why they are there."""
    response = client.get("Patient?name=byron")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/fhir+json"
    assert response.headers["Git-Commit"] == store.snapshot().commit.id
    assert "ETag" not in response.headers
    assert response.json == {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": client.get("Observation/o3").json["meta"]["lastUpdated"]},
        "type": "searchset",
        "total": 1,
        "link": [
            {"relation": "self", "url": f"{BASE}/Patient?name=byron"},
            {"relation": "first", "url": f"{BASE}/Patient?name=byron"},
        ],
        "entry": [
            {
                "fullUrl": f"{BASE}/Patient/ada",
                "resource": client.get("Patient/ada").json,
                "search": {"mode": "match"},
            }
        ],
    }


@pytest.mark.parametrize(
    "query",
    [
        "Patient?name=nobody",
        "Patient?_id=unknown",
        "Patient?gender=no-code",
        "Observation?subject=Patient/nobody",
    ],
)
def test_finding_nothing_is_no_error(reader, query):
    """12a.3: 200, total 0, and no empty array of entries."""
    bundle = reader.get(query).json

    assert (bundle["type"], bundle["total"]) == ("searchset", 0)
    assert "entry" not in bundle


@pytest.mark.parametrize(
    "query", ["Patient", "Patient?", "Patient?name=", "Patient?_format=json&_pretty=true"]
)
def test_without_criteria_it_is_every_resource_of_the_type(reader, query):
    """12b.11: a parameter without a value is none, and those of every interaction select nothing."""
    assert ids(reader.get(query).json) == ["ada", "bob"]


def test_the_base_alone_lists_everything_page_by_page(reader):
    """12a.2: a search of all types, with or without `_type`."""
    everything = reader.get("").json

    assert everything["total"] == 5
    assert link(everything, "self") == BASE
    assert sorted(ids(reader.get("?_type=Patient,Group").json)) == ["ada", "bob"]
    assert ids(reader.get("?_type=Patient,Observation&_id=o2").json) == ["o2"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("Patient/ada/Observation", ["o1", "o2", "o3"]),
        ("Patient/ada/Observation?date=2026-01-02", ["o2"]),
        ("Patient/ada/*", ["ada", "o1", "o2", "o3"]),
        ("Patient/ada/*?_type=Patient", ["ada"]),
        ("Patient/bob/Observation", []),
        ("Patient/nobody/Observation", []),
    ],
)
def test_a_compartment_is_searched(reader, path, found):
    """12a.2, 12a.6: and the link says which. https://hl7.org/fhir/R4/compartmentdefinition.html"""
    bundle = reader.get(path).json

    assert sorted(ids(bundle)) == found
    assert link(bundle, "self") == f"{BASE}/{path}"


@pytest.mark.parametrize(
    "path",
    ["Gurke?name=x", "Patient/ada/Gurke", "Gurke/1/Patient", "Organization/1/Patient", "Patient/ada/$x"],
)
def test_what_can_not_be_searched_is_not_found(reader, issue, path):
    """404: no such type, operation or compartment."""
    response = reader.get(path)

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-supported")


def test_head_is_get_without_its_body(reader):
    """12a.8"""
    for path in ("", "Patient?name=byron", "Patient/ada/Observation"):
        got, headed = reader.get(path), reader.request("HEAD", path)
        assert (headed.status_code, headed.content) == (200, b"")
        assert headed.headers["Content-Type"] == got.headers["Content-Type"]
        assert headed.headers["Git-Commit"] == got.headers["Git-Commit"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "Patient/ada/Observation", "GET, HEAD, OPTIONS"),
        ("POST", "Patient/ada/Observation", "GET, HEAD, OPTIONS"),
        ("DELETE", "Patient/ada/*", "GET, HEAD, OPTIONS"),
        ("GET", "_search", "OPTIONS, POST"),
        ("PUT", "Patient/_search", "OPTIONS, POST"),
        ("GET", "Patient/ada/Observation/_search", "OPTIONS, POST"),
    ],
)
def test_other_verbs_are_answered_with_the_right_ones(reader, method, path, allowed):
    """1.11"""
    response = reader.request(method, path)

    assert response.status_code == 405
    assert response.headers["Allow"] == allowed


# What a search is told


def test_the_total_can_be_left_out(reader):
    """12a.4"""
    assert "total" not in reader.get("Patient?_total=none").json
    assert reader.get("Patient?_total=accurate").json["total"] == 2


@pytest.mark.parametrize("wish", ["_count=0", "_summary=count"])
def test_the_total_can_be_all(reader, wish):
    """12a.4: no entries and no pages. https://hl7.org/fhir/R4/search.html#count"""
    bundle = reader.get(f"Observation?{wish}&unknown=x").json

    assert (bundle["type"], bundle["total"]) == ("searchset", 3)
    assert "entry" not in bundle
    assert [each["relation"] for each in bundle["link"]] == ["self"]


def test_the_self_link_says_what_was_used(reader):
    """12a.6: in their order, and GET of it finds the same; what was ignored and the form of the answer are absent."""
    query = "_count=2&unknown=x&code=http%3A%2F%2Floinc.org%7C29463-7&_format=json&status=final&date=ge2026&name%3Ax="
    bundle = reader.get(f"Observation?{query}").json

    own = link(bundle, "self")
    assert parse_qsl(own.partition("?")[2]) == [
        ("_count", "2"),
        ("code", "http://loinc.org|29463-7"),
        ("status", "final"),
        ("date", "ge2026"),
    ]
    assert "|" not in own
    assert ids(reader.follow(own).json) == ids(bundle)


@pytest.mark.parametrize("zone", ["%2B01:00", "+01:00"])
def test_a_plus_in_a_time_zone_may_stand_as_it_is(reader, zone):
    """Decoded it is a space; no date has one. The link is unambiguous."""
    bundle = reader.get(f"Observation?date=2026-01-02T10:00:00{zone}").json

    assert ids(bundle) == ["o2"]
    assert ids(reader.follow(link(bundle, "self")).json) == ["o2"]


@pytest.mark.parametrize("name", ["%FF", "%C3", "a%C3%28"])
def test_what_is_not_utf_8_is_refused(reader, issue, name):
    response = reader.get(f"Patient?name={name}")

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")


def test_a_reference_may_be_absolute(reader):
    """https://hl7.org/fhir/R4/search.html#reference: under this server's base it is a reference to its own resource."""
    assert len(ids(reader.get(f"Observation?subject={BASE}/Patient/ada").json)) == 3
    assert ids(reader.get("Observation?subject=http://elsewhere.example/Patient/ada").json) == []


def test_a_repeated_parameter_is_an_and(reader):
    """12b.11"""
    assert ids(reader.get("Observation?date=ge2026-01-02&date=lt2026-01-03").json) == ["o2"]
    assert sorted(ids(reader.get("Observation?_id=o1,o3").json)) == ["o1", "o3"]


# What a search does not know


def test_an_unknown_parameter_is_ignored_with_a_warning(reader):
    """12b.8: the outcome is the last entry, isn't counted, and has no errors in it."""
    bundle = reader.get("Patient?unknown=x&name=byron").json

    assert bundle["total"] == 1
    assert link(bundle, "self") == f"{BASE}/Patient?name=byron"
    match, outcome = bundle["entry"]
    assert match["search"] == {"mode": "match"}
    assert outcome["search"] == {"mode": "outcome"}
    assert outcome["fullUrl"].startswith("urn:uuid:")
    [issue] = outcome["resource"]["issue"]
    assert (issue["severity"], issue["code"]) == ("warning", "not-supported")
    assert "unknown" in issue["details"]["text"]


def test_the_warning_stands_on_the_first_page_alone(reader):
    first = reader.get("Observation?unknown=x&_count=2").json
    second = reader.follow(link(first, "next")).json

    assert [each["search"]["mode"] for each in first["entry"]] == ["match", "match", "outcome"]
    assert [each["search"]["mode"] for each in second["entry"]] == ["match"]


@pytest.mark.parametrize(
    ("default", "prefer", "status"),
    [
        ("lenient", "", 200),
        ("lenient", "handling=strict", 400),
        ("lenient", "return=minimal, handling=strict", 400),
        ("lenient", "handling=banana", 200),
        ("strict", "", 400),
        ("strict", "handling=lenient", 200),
        ("strict", "handling=banana", 400),
    ],
)
def test_handling_is_a_setting_and_a_preference(make_client, settings, default, prefer, status):
    """12b.8, 3.11.7: `fhir.searchHandling`, and Prefer outweighs it."""
    client = make_client(replace(settings, search_handling=default))

    response = client.get("Patient?unknown=x", Prefer=prefer)

    assert response.status_code == status
    if status == 400:
        assert response.json["issue"][0]["code"] == "not-supported"


def test_the_handling_is_read_from_gits_configuration(repository):
    """And what it can't be is refused."""
    assert read_settings(repository).search_handling == "lenient"
    for value in ("strict", "harsh"):
        subprocess.run(["git", "-C", str(repository), "config", "fhir.searchHandling", value], check=True)
        if value == "strict":
            assert read_settings(repository).search_handling == value
    with pytest.raises(Invalid, match="searchHandling is `harsh`; expected one of lenient, strict"):
        read_settings(repository)


@pytest.mark.parametrize("prefer", ["handling=strict", "handling=lenient"])
@pytest.mark.parametrize(
    "query",
    [
        "name:banana=x", "birthdate=abc", "_count=x", "_count=-1", "_summary=banana", "_total=banana",
        "_page=banana", "_page=1", "_page=1.2", "_page=1.1..x", "_page=a&_page=b", "_page=", "_count=1&_count=2",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_any_case(reader, issue, query, prefer):
    """12b.9, 12b.10"""
    response = reader.get(f"Patient?{query}", Prefer=prefer)

    assert response.status_code == 400, response.text
    assert issue(response)[0] == "error"


def test_general_parameters_are_no_search_parameters(reader):
    """2.9: not even where the search is strict."""
    query = "Patient?_format=json&_pretty=true&_summary=false&_elements=name"

    assert reader.get(query, Prefer="handling=strict").status_code == 200


def test_more_parameters_than_a_link_can_hold_are_too_many(reader, issue):
    """Each page repeats them, and a server takes so many bytes in a URL: 413."""
    response = reader.get("Patient?name=" + "x" * 60_000)

    assert response.status_code == 413
    assert issue(response)[1] == "too-long"


def test_too_costly_a_search_is_refused(make_client, settings, store, issue, write_basics):
    """422 too-costly, by `fhir.searchLimit`."""
    write_basics(1_000)
    store._reading._settings = replace(settings, search_limit=1)

    response = make_client().get("Basic?_sort=-created")

    assert response.status_code == 422
    assert issue(response)[:2] == ("error", "too-costly")


# What comes along, and what is left of it


def test_included_resources_are_marked_and_not_counted(reader):
    """12a.5"""
    bundle = reader.get("Observation?_include=Observation:subject&_count=2").json

    assert bundle["total"] == 3
    assert ids(bundle) == ["o1", "o2"]
    assert ids(bundle, "include") == ["ada"]
    assert bundle["entry"][-1]["fullUrl"] == f"{BASE}/Patient/ada"


@pytest.mark.parametrize(
    ("wish", "kept", "left_out"),
    [("_summary=true", "subject", "note"), ("_elements=subject", "subject", "date")],
)
def test_a_part_of_each_resource_can_be_asked_for(reader, wish, kept, left_out):
    """12c.14: of matches and of what is included; both say that they are not whole.
    https://hl7.org/fhir/R4/search.html#elements"""
    bundle = reader.get(f"Observation?_id=o1&_include=Observation:subject&{wish}").json

    match, included = (each["resource"] for each in bundle["entry"])
    assert kept in match
    assert left_out not in match
    for resource in (match, included):
        assert resource["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert wish in link(bundle, "self")


def test_numbers_and_order_are_those_of_the_record(client):
    """17.1: what is stored is embedded as it lies."""
    body = (
        '{"resourceType":"Observation","id":"n","valueQuantity":{"value":1.00,"unit":"kg"},"status":"final"}'
    )
    client.put("Observation/n", body)

    text = client.get("Observation?_id=n").text

    assert '"value": 1.00' in text
    assert text.index("valueQuantity") < text.index('"status"')


def test_contained_resources_can_be_found_themselves(client):
    """https://hl7.org/fhir/R4/search.html#contained: the fullUrl is that of the container, with a fragment."""
    resource = {
        "resourceType": "Observation",
        "id": "c",
        "contained": [{"resourceType": "Patient", "id": "p", "name": [{"family": "Inner"}]}],
        "subject": {"reference": "#p"},
    }
    client.put("Observation/c", resource)

    bundle = client.get("Patient?name=inner&_contained=true&_containedType=contained").json
    container = client.get("Patient?name=inner&_contained=true").json

    [entry] = bundle["entry"]
    assert entry["fullUrl"] == f"{BASE}/Observation/c#p"
    assert entry["resource"] == resource["contained"][0]
    assert ids(container) == ["c"]


def test_a_search_can_be_answered_as_xml(reader):
    """2.17"""
    text = reader.get("Patient?name=byron&unknown=x&_format=xml").text

    assert '<Bundle xmlns="http://hl7.org/fhir">' in text
    assert '<search><mode value="match"/></search>' in text
    assert '<search><mode value="outcome"/></search>' in text
    assert f'<fullUrl value="{BASE}/Patient/ada"/>' in text


# Pages


def walk(client, url, relation="next"):
    """Bundles along a kind of link."""
    bundle = client.get(url).json
    pages = [bundle]
    while (next_page := link(bundle, relation)) is not None:
        bundle = client.follow(next_page).json
        pages.append(bundle)
        assert len(pages) < 50
    return pages


def test_pages_follow_one_another_in_both_directions(reader):
    """12a.7: no previous on the first, no next on the last; together they are everything once."""
    pages = walk(reader, "Observation?_sort=-date&_count=1")

    assert [ids(page) for page in pages] == [["o3"], ["o2"], ["o1"]]
    assert {page["total"] for page in pages} == {3}
    assert link(pages[0], "previous") is None
    assert link(pages[-1], "next") is None
    assert ids(reader.follow(link(pages[2], "previous")).json) == ["o2"]
    assert ids(reader.follow(link(pages[2], "first")).json) == ["o3"]
    assert [ids(reader.follow(link(page, "self")).json) for page in pages] == [["o3"], ["o2"], ["o1"]]


def test_a_link_repeats_all_that_was_asked(reader):
    """Also the form of the answer."""
    bundle = reader.get("Observation?status=final&_count=2&unknown=x&_pretty=true").json

    assert parse_qsl(link(bundle, "next").partition("?")[2])[:-1] == [
        ("status", "final"),
        ("_count", "2"),
        ("unknown", "x"),
        ("_pretty", "true"),
    ]


def test_pages_are_pinned(client):
    """12a.7: what is written meanwhile moves nothing to another page, and is not on a later one."""
    first = client.get("Observation?_count=2").json
    client.put("Observation/o9", {"resourceType": "Observation", "id": "o9"})

    second = client.follow(link(first, "next")).json

    assert ids(second) == ["o3"]
    assert second["total"] == 3


def test_fifty_to_a_page_unless_it_is_said_and_a_thousand_at_most(client, store, write_basics):
    """12a.7: the choice of this server."""
    write_basics(60)

    assert len(ids(client.get("Basic").json)) == 50
    assert len(ids(client.get("Basic?_count=60").json)) == 60
    bundle = client.get("Basic?_count=5000").json
    assert len(ids(bundle)) == 60
    assert link(bundle, "next") is None


@pytest.fixture
def write_basics(store):
    """Writes so many small resources, in one commit."""

    def write(number):
        store.commit([Create({"resourceType": "Basic"}) for _ in range(number)], ANONYMOUS)

    return write


@pytest.mark.parametrize("query", ["Patient?_page=999.1..x", "Patient?_page=1.99.5.x"])
def test_a_page_of_no_state_is_refused(reader, issue, query):
    """400 or 404, and it says why."""
    response = reader.get(query)

    assert response.status_code in (400, 404)
    assert issue(response)[0] == "error"


def test_a_page_of_a_commit_that_is_not_there_is_not_found(reader, issue):
    page = link(reader.get("Observation?_count=1").json, "next")
    url, _, token = page.rpartition("_page=")

    response = reader.follow(f"{url}_page=999{token}")

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-found")


@examples(max_examples=40, deadline=None)
@given(
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    page=st.text(st.sampled_from("0123456789.-_abcXYZ~"), max_size=20),
)
def test_no_text_makes_the_server_fail(reader, value, page):
    """A self link leads to the same, and a page is one or is refused."""
    response = reader.get("Patient?" + urlencode({"name:exact": value}))

    assert response.status_code in (200, 400)
    if response.status_code == 200:
        own = link(response.json, "self")
        assert dict(parse_qsl(own.partition("?")[2])).get("name:exact", value) == value
        assert reader.follow(own).json["link"][0]["url"] == own
    assert reader.get(f"Patient?_page={page}").status_code in (200, 400, 404)
