"""Behind a reverse proxy: whom to believe about scheme, host and path. https://www.rfc-editor.org/rfc/rfc7239"""

from __future__ import annotations

from dataclasses import replace

import pytest
from falcon.testing import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.proxy import Public, is_trusted, networks, public
from gitstore import Invalid

TRUSTED = networks(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
PUBLIC = "fhir.example.org"


def seen(peer="127.0.0.1", trusted=TRUSTED, **headers):
    """What is believed of these headers of a request from that peer."""
    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return public({"REMOTE_ADDR": peer, "HTTP_HOST": "backend", **environ}, trusted)


def from_localhost(client):
    """The client, with the peer's address, as a real server gives it."""
    app = client._http.app

    def reached(environ, start_response):
        return app({**environ, "REMOTE_ADDR": "127.0.0.1"}, start_response)

    client._http = TestClient(reached)
    return client


@pytest.fixture
def behind(make_client, settings):
    """A client whose requests come from 127.0.0.1, which is a proxy that the settings name."""
    return from_localhost(make_client(replace(settings, trusted_proxy=("127.0.0.1",), host_name=(PUBLIC,))))


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({}, "http://localhost:8080/fhir"),
        ({"Forwarded": f"for=1.2.3.4;proto=https;host={PUBLIC}"}, f"https://{PUBLIC}/fhir"),
        ({"X_Forwarded_Proto": "https", "X_Forwarded_Host": PUBLIC}, f"https://{PUBLIC}/fhir"),
        ({"X_Forwarded_Host": PUBLIC, "X_Forwarded_Prefix": "/ehr/"}, f"http://{PUBLIC}/ehr/fhir"),
        ({"X_Forwarded_Proto": "https"}, "https://localhost:8080/fhir"),
    ],
)
def test_links_are_those_of_the_proxy(behind, patient, headers, base):
    """1.9: Location, the statement's own URL, links of Bundles."""
    written = behind.put("Patient/example", patient, **headers)

    assert written.headers["Location"] == f"{base}/Patient/example/_history/1"
    assert behind.get("metadata", **headers).json["implementation"]["url"] == base
    assert behind.get("_history", **headers).json["link"][0]["url"] == f"{base}/_history"


def test_without_trusted_proxies_nothing_is_believed(client):
    """The default: the headers are as if they were not there, be they malformed."""
    headers = {"Forwarded": "proto=https;host=evil.example", "X_Forwarded_Host": "evil example"}

    response = from_localhost(client).get("metadata", **headers)

    assert response.json["implementation"]["url"] == "http://localhost:8080/fhir"


def test_a_base_url_of_the_settings_outweighs_all(make_client, settings):
    """1.9"""
    client = from_localhost(
        make_client(replace(settings, base_url="https://one.example/fhir", trusted_proxy=("127.0.0.1",)))
    )

    response = client.get("metadata", X_Forwarded_Host="two.example", X_Forwarded_Proto="gopher")

    assert response.json["implementation"]["url"] == "https://one.example/fhir"


@pytest.mark.parametrize("header", ["X_Forwarded_Host", "Forwarded"])
def test_a_forwarded_host_must_be_one_of_ours(behind, issue, header):
    """A page could send the header, and have links of the record point at itself."""
    value = "evil.example" if header == "X_Forwarded_Host" else "host=evil.example"

    response = behind.get("metadata", **{header: value})

    assert response.status_code == 421
    assert "evil.example" in issue(response)[2]


def test_a_forwarded_host_does_not_replace_the_check_of_host(behind):
    """DNS rebinding in a browser on the proxy's machine: its page can set every header but Host."""
    assert behind.get("metadata", Host="evil.example", X_Forwarded_Host=PUBLIC).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Forwarded": "proto=gopher"},
        {"Forwarded": 'host="unclosed'},
        {"Forwarded": "host=a;host=b"},
        {"Forwarded": "nonsense"},
        {"X_Forwarded_Proto": "javascript"},
        {"X_Forwarded_Host": "a/b"},
        {"X_Forwarded_Port": "99999"},
        {"X_Forwarded_Port": "x", "X_Forwarded_Host": PUBLIC},
        {"X_Forwarded_Prefix": "//evil.example"},
        {"X_Forwarded_Prefix": "/a/../b"},
        {"X_Forwarded_Prefix": "no-slash"},
        {"X_Forwarded_Prefix": "/a?b"},
    ],
)
def test_what_a_proxy_says_wrongly_is_refused(behind, issue, headers):
    """400: a guess would end up in links that clients keep."""
    response = behind.get("metadata", **headers)

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("127.0.0.1", True),
        ("10.255.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("2001:db8::5", True),
        ("127.0.0.2", False),
        ("11.0.0.1", False),
        ("::1", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_a_peer_is_trusted_by_address_or_network(peer, trusted):
    assert is_trusted(peer, TRUSTED) is trusted
    assert (seen(peer, x_forwarded_proto="https") == Public("https")) is trusted


@pytest.mark.parametrize("value", ["*", "localhost", "10.0.0.1/8", "10.0.0.0/99", "", "10.0.0.1:80"])
def test_what_is_no_network_is_refused(value):
    with pytest.raises(Invalid, match=r"fhir\.trustedProxy is"):
        networks([value])


CHAINS = [
    # nearest to us last; only what trusted proxies added is believed, and of that the first
    ("proto=https;host=a", Public("https", "a")),
    ("Proto=HTTPS;Host=A", Public("https", "A")),
    ('host="[2001:db8::1]:8443";proto="https"', Public("https", "[2001:db8::1]:8443")),
    ('for="_gazonk";proto=https', Public("https")),
    ("for=1.2.3.4;host=a, for=10.0.0.7;host=b", Public(None, "a")),
    ("for=1.2.3.4;host=evil, for=5.6.7.8;host=b", Public(None, "b")),
    ('host=evil, for="[2001:db8::9]:1234";proto=https, for=10.0.0.1;host=b', Public("https", "evil")),
    ("host=evil, for=unknown;proto=https, for=10.0.0.1;host=b", Public("https", "b")),
    ("for=1.2.3.4;host=a,", Public(None, "a")),
    ("; proto=https;;host=a;", Public("https", "a")),
    ('for="a,b;c";host=a', Public(None, "a")),
    ('for="\\"";proto="h\\ttp"', Public("http")),
    ("", Public()),
]


@pytest.mark.parametrize(("header", "expected"), CHAINS)
def test_forwarded_is_understood(header, expected):
    """https://www.rfc-editor.org/rfc/rfc7239#section-4, quoted values and several hops."""
    assert seen(forwarded=header) == expected


def test_forwarded_outweighs_the_older_headers():
    assert seen(forwarded="proto=https", x_forwarded_proto="http", x_forwarded_host="a") == Public("https")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"x_forwarded_host": "a", "x_forwarded_port": "8443", "x_forwarded_proto": "https"},
            ("https", "a:8443"),
        ),
        ({"x_forwarded_host": "a:1", "x_forwarded_port": "8443"}, (None, "a:1")),
        ({"x_forwarded_host": "a", "x_forwarded_port": "443", "x_forwarded_proto": "https"}, ("https", "a")),
        ({"x_forwarded_host": "a", "x_forwarded_port": "80"}, (None, "a")),
        ({"x_forwarded_host": "a", "x_forwarded_port": "443"}, (None, "a:443")),
        ({"x_forwarded_host": "[::1]", "x_forwarded_port": "81"}, (None, "[::1]:81")),
        ({"x_forwarded_port": "8443", "x_forwarded_proto": "https"}, ("https", "backend:8443")),
        ({"x_forwarded_host": "evil, a"}, (None, "a")),
        ({"x_forwarded_host": "a, b", "x_forwarded_for": "1.2.3.4, 10.0.0.1"}, (None, "a")),
        ({"x_forwarded_proto": "https, http", "x_forwarded_for": "10.0.0.1, 1.2.3.4"}, ("http", None)),
        ({"x_forwarded_for": "10.0.0.1, 10.0.0.2, 10.0.0.3", "x_forwarded_host": "a"}, (None, "a")),
    ],
)
def test_the_older_headers_are_understood(headers, expected):
    """https://developer.mozilla.org/en-US/docs/Web/HTTP/Headers/X-Forwarded-Host, one value or one of each hop."""
    found = seen(**headers)

    assert (found.scheme, found.host) == expected


@given(st.text(st.sampled_from('ab=;,"\\ \t[]:/1.%*é'), max_size=30))
def test_any_header_is_understood_or_refused(text):
    """And what is understood can stand in a URL."""
    for name in (
        "forwarded",
        "x_forwarded_host",
        "x_forwarded_prefix",
        "x_forwarded_port",
        "x_forwarded_proto",
    ):
        try:
            found = seen(**{name: text})
        except Invalid:
            continue
        url = f"{found.scheme or 'http'}://{found.host or 'x'}{found.prefix}"
        assert not set(url) & set(' \t"\\,é')


@given(st.text(st.sampled_from('ab=;,"\\ \t[]:/1.%*é'), max_size=30))
def test_nothing_is_believed_of_strangers(text):
    for name in (
        "forwarded",
        "x_forwarded_host",
        "x_forwarded_prefix",
        "x_forwarded_port",
        "x_forwarded_proto",
    ):
        assert seen("192.0.2.1", **{name: text}) == Public()
