"""Entries of a batch or transaction. https://hl7.org/fhir/R4/http.html#transaction"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.bundle import Request, requests, resolver
from gitstore.fhir.references import rewrite

PATIENT = {"resourceType": "Patient"}
BASES = ["http://localhost:8080/fhir", "https://example.org/"]


def bundle(*entries):
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def entry(method="GET", url="Patient/1", resource=None, **request):
    made = {"request": {"method": method, "url": url, **request}}
    return made if resource is None else {"resource": resource, **made}


def refusal(*entries, bases=BASES):
    with pytest.raises(Invalid) as refused:
        requests(bundle(*entries), bases)
    [issue] = refused.value.issues
    assert issue.severity == "error"
    return issue


# Requests


def test_an_entry_is_a_request():
    everything = {
        "fullUrl": "urn:uuid:1",
        "resource": PATIENT,
        "request": {
            "method": "PUT",
            "url": "Patient/1",
            "ifMatch": 'W/"1"',
            "ifNoneMatch": "*",
            "ifModifiedSince": "2026-01-01T00:00:00Z",
            "ifNoneExist": "identifier=1",
        },
    }

    assert requests(bundle(everything)) == [
        Request(
            entry=0,
            method="PUT",
            path=("Patient", "1"),
            query="",
            resource=PATIENT,
            full_url="urn:uuid:1",
            if_match='W/"1"',
            if_none_match="*",
            if_modified_since="2026-01-01T00:00:00Z",
            if_none_exist="identifier=1",
        )
    ]


def test_requests_stand_in_the_order_of_the_entries():
    found = requests(bundle(entry("GET"), entry("DELETE"), entry("POST", "Patient", PATIENT)))

    assert [(request.entry, request.method) for request in found] == [(0, "GET"), (1, "DELETE"), (2, "POST")]


@pytest.mark.parametrize("empty", [{}, {"entry": []}])
def test_an_empty_bundle_asks_for_nothing(empty):
    """The spec says that it is no error."""
    assert requests({"resourceType": "Bundle", "type": "transaction", **empty}) == []


URLS = {
    # request.url: path, query
    "Patient": (("Patient",), ""),
    "Patient/1": (("Patient", "1"), ""),
    "/Patient/1": (("Patient", "1"), ""),
    "Patient/": (("Patient",), ""),
    "Patient/1/_history/2": (("Patient", "1", "_history", "2"), ""),
    "Patient?name=a%20b&x=http://y/z": (("Patient",), "name=a%20b&x=http://y/z"),
    "/Patient?": (("Patient",), ""),
    "Patient/1?a=?": (("Patient", "1"), "a=?"),
    "Patient/a%2Fb%C3%A9": (("Patient", "a/bé"), ""),
    "Patient/%2e%2e/x": (("Patient", "..", "x"), ""),
    "Patient/%2541": (("Patient", "%41"), ""),
    "Patient/é": (("Patient", "é"), ""),
    "metadata": (("metadata",), ""),
    "$op": (("$op",), ""),
    "?_type=Patient": ((), "_type=Patient"),
    "": ((), ""),
    "http://localhost:8080/fhir/Patient/1": (("Patient", "1"), ""),
    "http://localhost:8080/fhir?_type=Patient": ((), "_type=Patient"),
    "http://localhost:8080/fhir": ((), ""),
    "https://example.org/Patient": (("Patient",), ""),
}

BAD_URLS = [
    "http://localhost:8080/fhirPatient/1",
    "http://localhost:8080/Patient/1",
    "http://localhost:80800/fhir/Patient/1",
    "https://elsewhere.org/fhir/Patient/1",
    "//example.org/Patient/1",
    "urn:uuid:1",
    "Patient//1",
    "Patient/1//",
    "Patient/%zz",
    "Patient/%4",
    "Patient/%ff",
    "Patient/a b",
    "Patient/1\n",
    "Patient/\x00",
    "Patient/1#x",
]


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_a_url_is_path_and_query_below_the_base(url, expected):
    [request] = requests(bundle(entry("GET", url)), BASES)

    assert (request.path, request.query) == expected


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_is_not_on_this_server_or_malformed_is_refused(url):
    issue = refusal(entry("GET", url))

    assert (issue.code, issue.expression) == ("value", "Bundle.entry[0].request.url")
    assert f"`{url}`" in issue.text


def test_no_absolute_url_is_on_a_server_that_knows_no_base():
    assert refusal(entry("GET", "http://localhost:8080/fhir/Patient/1"), bases=()).code == "value"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_reading_and_deleting_need_no_resource(method):
    assert requests(bundle(entry(method)))[0].resource is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_writing_needs_a_resource(method):
    issue = refusal(entry(method))

    assert (issue.code, issue.expression) == ("required", "Bundle.entry[0]")
    assert issue.text == f"Bundle.entry[0] has no `resource`: expected what to {method}."


# Malformed entries

MALFORMED = {
    # what is wrong: entry, code, expression
    "no request": ({"resource": PATIENT}, "required", "Bundle.entry[1]"),
    "no method": ({"request": {"url": "Patient"}}, "required", "Bundle.entry[1].request"),
    "no url": ({"request": {"method": "GET"}}, "required", "Bundle.entry[1].request"),
    "unknown method": (entry("OPTIONS"), "value", "Bundle.entry[1].request.method"),
    "method in lower case": (entry("get"), "value", "Bundle.entry[1].request.method"),
    "empty method": (entry(""), "value", "Bundle.entry[1].request.method"),
    "PUT without target": (entry("PUT", "", PATIENT), "value", "Bundle.entry[1].request.url"),
    "DELETE of everything": (entry("DELETE", "?_id=1"), "value", "Bundle.entry[1].request.url"),
    "a Bundle within": (entry("POST", "", bundle()), "invalid", "Bundle.entry[1].request.url"),
    "a Bundle within, with slash": (entry("POST", "/", bundle()), "invalid", "Bundle.entry[1].request.url"),
    "a Bundle within, absolute": (
        entry("POST", BASES[0], bundle()),
        "invalid",
        "Bundle.entry[1].request.url",
    ),
    "a resource without type": (
        entry("POST", "Patient", {"id": "1"}),
        "required",
        "Bundle.entry[1].resource",
    ),
    "a resource of no type": (
        entry("POST", "Patient", {"resourceType": 1}),
        "invalid",
        "Bundle.entry[1].resource.resourceType",
    ),
    "a relative fullUrl": ({"fullUrl": "Patient/1", **entry()}, "value", "Bundle.entry[1].fullUrl"),
    "an empty fullUrl": ({"fullUrl": "", **entry()}, "value", "Bundle.entry[1].fullUrl"),
    "a fullUrl with fragment": ({"fullUrl": "urn:uuid:1#a", **entry()}, "value", "Bundle.entry[1].fullUrl"),
    "a fullUrl with space": ({"fullUrl": "urn:uuid:1 ", **entry()}, "value", "Bundle.entry[1].fullUrl"),
    "a versioned fullUrl": (
        {"fullUrl": "http://example.org/Patient/1/_history/1", **entry()},
        "invalid",
        "Bundle.entry[1].fullUrl",
    ),
}


@pytest.mark.parametrize(("malformed", "code", "expression"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_entry_is_refused_at_its_place(malformed, code, expression):
    issue = refusal(entry(), malformed)

    assert (issue.code, issue.expression) == (code, expression)


TYPES = {
    "entry": list,
    "entry[0]": dict,
    "entry[0].fullUrl": str,
    "entry[0].resource": dict,
    "entry[0].resource.resourceType": str,
    "entry[0].request": dict,
    "entry[0].request.method": str,
    "entry[0].request.url": str,
    "entry[0].request.ifMatch": str,
    "entry[0].request.ifNoneMatch": str,
    "entry[0].request.ifModifiedSince": str,
    "entry[0].request.ifNoneExist": str,
}
WRONG_TYPES = [
    (place, value)
    for place, type in TYPES.items()
    for value in (None, True, 0, 1.5, [], ["GET"], {}, "text")
    if not isinstance(value, type)
]


@pytest.mark.parametrize(("place", "value"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_refused_at_its_place(place, value):
    """Whatever JSON stands there."""
    whole = bundle({"fullUrl": "urn:uuid:1", **entry("PUT", "Patient/1", dict(PATIENT))})
    parent, (*steps, last) = whole, place.replace("[0]", ".0").split(".")
    for step in steps:
        parent = parent[int(step) if step == "0" else step]
    parent[int(last) if last == "0" else last] = value

    with pytest.raises(Invalid) as refused:
        requests(whole)

    [issue] = refused.value.issues
    assert (issue.code, issue.expression) == ("invalid", f"Bundle.{place}")
    assert issue.text.startswith(f"Bundle.{place} is `")


def test_the_first_malformed_entry_is_the_one_named():
    with pytest.raises(Invalid) as refused:
        requests(bundle(entry(), entry("X"), entry("Y")))

    assert refused.value.entry == 1


def test_in_a_batch_a_malformed_entry_stands_in_its_place():
    """One failure does not affect the others."""
    first, second, third = requests(bundle(entry(), entry("X"), entry("DELETE")), each=True)

    assert isinstance(second, Invalid)
    assert second.entry == 1
    assert [first.entry, third.entry] == [0, 2]


def test_a_batch_whose_entries_are_no_array_is_refused_as_a_whole():
    with pytest.raises(Invalid):
        requests({"entry": {}}, each=True)


def test_a_long_value_is_cut_in_the_message():
    assert len(refusal(entry("X" * 10_000)).text) < 300


# fullUrl


@pytest.mark.parametrize(
    "full_url", ["urn:uuid:1", "urn:oid:1.2.3", "http://example.org/fhir/Patient/1", "https://x/Patient/1"]
)
def test_a_full_url_is_any_absolute_uri(full_url):
    [request] = requests(bundle({"fullUrl": full_url, **entry()}))

    assert request.full_url == full_url


def versioned(version_id):
    resource = PATIENT if version_id is None else {**PATIENT, "meta": {"versionId": version_id}}
    return {"fullUrl": "urn:uuid:1", **entry("PUT", "Patient/1", resource)}


@pytest.mark.parametrize("version_id", [None, "1"])
def test_a_full_url_stands_once(version_id):
    """bdl-7"""
    issue = refusal(versioned(version_id), entry(), versioned(version_id))

    assert (issue.code, issue.expression) == ("invalid", "Bundle.entry[2].fullUrl")
    assert "Bundle.entry[0]" in issue.text


def test_a_full_url_may_stand_again_for_another_version():
    """bdl-7"""
    assert len(requests(bundle(versioned(None), versioned("1"), versioned("2")))) == 3


# Links between entries

HERE = {
    "urn:uuid:1": "Patient/1",
    "http://example.org/fhir/Patient/p": "Patient/2",
    "https://elsewhere.org/Patient/p": "Patient/3",
    "https://elsewhere.org/Patient/p?x": "Patient/4",
}

OWN = [
    # the entry's own fullUrl, a link in it, what it stands for
    (None, "urn:uuid:1", "Patient/1"),
    (None, "http://example.org/fhir/Patient/p", "Patient/2"),
    (None, "Patient/p", None),
    ("urn:uuid:2", "Patient/p", None),
    ("urn:uuid:2", "urn:uuid:1", "Patient/1"),
    ("http://example.org/fhir/Observation/7", "Patient/p", "Patient/2"),
    ("http://example.org/fhir/Observation/7", "urn:uuid:1", "Patient/1"),
    ("http://example.org/fhir/Observation/7", "https://elsewhere.org/Patient/p", "Patient/3"),
    ("https://elsewhere.org/Observation/7", "Patient/p", "Patient/3"),
    ("https://elsewhere.org/Observation/7", "Patient/other", None),
    ("https://elsewhere.org/Observation/7", "Patient/p/_history/1", None),
    ("https://elsewhere.org/Observation/7", "https://elsewhere.org/Patient/p/_history/1", None),
    ("https://elsewhere.org/Observation/7", "Patient/p?x", None),
    ("https://elsewhere.org/Observation/7", "patient/p", None),
    ("https://elsewhere.org/Observation/7", "Patient?identifier=p", None),
    ("https://elsewhere.org/not-restful", "Patient/p", None),
    ("https://elsewhere.org/Nothing/7", "Patient/p", None),
    ("https://Observation/7", "Patient/p", None),
    ("https://", "Patient/p", None),
    ("https://elsewhere.org/Observation/7", "", None),
]


@pytest.mark.parametrize(("own", "link", "expected"), OWN)
def test_a_link_to_another_entry_is_found_by_its_full_url(own, link, expected):
    """Relative ones against the base of the entry itself. https://hl7.org/fhir/R4/bundle.html#references"""
    assert resolver(HERE, own)(link) == expected


def test_a_fragment_of_a_relative_reference_is_kept():
    resource = {"resourceType": "Observation", "subject": {"reference": "Patient/p#name"}}

    moved = rewrite(resource, resolver(HERE, "http://example.org/fhir/Observation/7"))

    assert moved["subject"]["reference"] == "Patient/2#name"


# Any JSON at all

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "GET", "PUT", "Patient/1", "urn:uuid:1"])
    | st.text(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "request",
                    "method",
                    "url",
                    "resource",
                    "resourceType",
                    "fullUrl",
                    "meta",
                    "versionId",
                    "ifMatch",
                ]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=15,
)
_url = st.text("Patient/1%?#:.ht\x00é") | _json
_request = (
    st.fixed_dictionaries({"method": st.sampled_from(["GET", "PUT", "POST"]) | _json, "url": _url}) | _json
)
_entry = st.fixed_dictionaries({"request": _request}, optional={"resource": _json, "fullUrl": _json}) | _json


@given(st.fixed_dictionaries({}, optional={"entry": st.lists(_entry, max_size=3) | _json}))
def test_any_json_is_requests_or_invalid(properties):
    try:
        found = requests(properties, BASES, each=True)
    except Invalid as refused:
        [issue] = refused.issues
        assert issue.expression == "Bundle.entry"
        return
    for number, request in enumerate(found):
        assert request.entry == number
        if isinstance(request, Invalid):
            assert request.issues[0].expression.startswith(f"Bundle.entry[{number}]")
