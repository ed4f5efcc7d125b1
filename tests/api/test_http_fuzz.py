"""Whatever comes in: never a 500, always an OperationOutcome for an error, and a record that is whole."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitstore.fhir import xml

SEGMENT = st.one_of(
    st.sampled_from(
        [
            "Patient",
            "Observation",
            "Binary",
            "p",
            "1",
            "_history",
            "_search",
            "metadata",
            "$meta",
            "$x",
            "",
            ".",
            "..",
            "Gurke",
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=8),
)
PATH = st.lists(SEGMENT, max_size=5).map("/".join)
PARAMETER = st.tuples(
    st.sampled_from(
        [
            "_format",
            "_pretty",
            "_count",
            "_since",
            "_at",
            "_page",
            "_summary",
            "_elements",
            "mode",
            "name",
            "",
        ]
    ),
    st.one_of(
        st.sampled_from(
            ["json", "xml", "true", "0", "1", "-1", "2026", "2026-02-30", "1.o1.0", "9" * 15, "9" * 30]
        ),
        st.text(st.characters(codec="ascii", exclude_characters="&#"), max_size=8),
    ),
).map("=".join)
HEADER = st.one_of(
    st.sampled_from(
        [
            'W/"1"',
            "*",
            "1",
            "return=minimal",
            "gzip",
            "deflate",
            "application/json",
            "application/pdf",
            "text/xml",
            "application/fhir+xml",
            "=?utf-8?B?!?=",
            "UTF-8''%ff",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "Prefer",
            "Accept",
            "Accept-Encoding",
            "Content-Encoding",
            "Content-Type",
            "X-Request-Id",
            "X-Commit-Message",
            "X-Security-Context",
            "X-Forwarded-Host",
            "Forwarded",
            "Origin",
        ]
    ),
    HEADER,
    max_size=3,
)
VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from(["Patient", "p", "urn:uuid:1", "GET", ""])
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["resourceType", "id", "meta", "entry", "request", "method", "url", "resource", "type"]
            ),
            children,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "fullUrl": st.sampled_from(["urn:uuid:1", "urn:uuid:2", "Patient/1", "http://a/Patient/1", 7]),
        "resource": st.one_of(VALUE, st.just({"resourceType": "Patient", "id": "p"})),
        "request": st.fixed_dictionaries(
            {},
            optional={
                "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "get", None]),
                "url": st.one_of(
                    PATH, st.sampled_from(["Patient", "Patient/p", "Patient?x=y", "_history?_count=x"]), VALUE
                ),
                "ifMatch": st.one_of(HEADER, VALUE),
                "ifNoneMatch": st.one_of(HEADER, VALUE),
                "ifModifiedSince": VALUE,
            },
        ),
    },
)
BUNDLE = st.fixed_dictionaries(
    {"resourceType": st.just("Bundle")},
    optional={
        "type": st.sampled_from(["batch", "transaction", "batch", "transaction", "searchset", 7]),
        "entry": st.one_of(st.lists(st.one_of(ENTRY, ENTRY, VALUE), max_size=4), VALUE),
    },
)
METHOD = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])

EXAMPLES = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check(response):
    assert response.status_code != 500, response.text
    if response.status_code >= 400 and response.content:
        is_xml = "xml" in response.headers["Content-Type"]
        outcome = xml.loads(response.content) if is_xml else response.json
        assert outcome["resourceType"] == "OperationOutcome"
        assert outcome["issue"]
    return response


@EXAMPLES
@given(METHOD, PATH, st.lists(PARAMETER, max_size=3).map("&".join), HEADERS, st.one_of(st.none(), VALUE))
def test_no_request_brings_the_server_down(client, method, path, query, headers, value):
    url = f"{path}?{query}" if query and "?" not in path else path

    check(client.request(method, url, value, **headers))


@EXAMPLES
@given(BUNDLE)
def test_no_bundle_brings_the_server_down(client, store, bundle):
    """Nor does an entry of one: in a batch each answer stands in its place."""
    before = store.snapshot().commit.sequence

    response = check(client.post("", json.dumps(bundle)))

    if response.status_code != 200:
        assert store.snapshot().commit.sequence == before, "something was written by what was refused"
    elif bundle["type"] == "batch":
        entries = response.json.get("entry", [])
        assert len(entries) == len(bundle.get("entry") or [])
        assert not [
            each for each in entries if each["response"]["status"].startswith("5") and "501" not in str(each)
        ]


@EXAMPLES
@given(st.binary(max_size=200), st.sampled_from(["identity", "gzip"]))
def test_no_body_brings_the_server_down(client, body, encoding):
    assert check(client.put("Patient/example", body, Content_Encoding=encoding)).status_code == 400
