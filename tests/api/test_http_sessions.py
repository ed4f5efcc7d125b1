"""Logging in with a browser: the form, the cookie, what ends it, and what apps are told of logging in."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import pytest
from falcon.testing import Result, TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity import AUDIENCE, BASE, ISSUER, NOW, Clock, IdentityProvider, guarded
from lxml import html

from api import capabilities
from api.credentials import Credentials
from api.login import prefers_html
from api.origin import safe_place
from api.sessions import session_key
from api.smart import oauth_uris
from gitstore import RepositoryRefused, Settings, Token, Tokens

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
CONFIGURED = Settings(issuer=(ISSUER,), audience=(AUDIENCE,))
HTTPS = "https://fhir.example.org/fhir"
OWN = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
HOUR = 3600


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_record: Path) -> str:
    """A git directory for the whole file: its tokens are only added to."""
    return str(shutil.copytree(empty_record, tmp_path_factory.mktemp("home") / "record.git", symlinks=True))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture
def make(home: str, clock: Clock, provider: IdentityProvider) -> Callable[..., TestClient]:
    def make(base: str = BASE, settings: Settings = CONFIGURED, *, anonymous: bool = False) -> TestClient:
        credentials = Credentials(home, settings, clock, allow_anonymous=anonymous, fetch=provider)
        return guarded(credentials, base)

    return make


@pytest.fixture
def client(make: Callable[..., TestClient]) -> TestClient:
    return make()


def new_token(home: str, expires: int | None = None) -> tuple[str, Token]:
    return Tokens(home).create(
        name="Ada & Co", email="ada@clinic.example", scope="user/*.rs", now=NOW * 1_000_000, expires=expires
    )


@pytest.fixture
def token(home: str) -> tuple[str, Token]:
    return new_token(home)


def log_in(client: TestClient, secret: str, next: str | None = None, **headers: str) -> Result:
    form = {"token": secret} if next is None else {"token": secret, "next": next}
    sent = {**OWN, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.simulate_post("/login", body=urlencode(form), headers=sent)


def cookie(response: Result) -> str:
    """What the browser sends back: name and value."""
    return response.headers["Set-Cookie"].partition(";")[0]


def ask(client: TestClient, cookie: str, method: str = "GET", **headers: str) -> Result:
    sent = {"Cookie": cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.simulate_request(method, "/fhir", headers=sent)


# The session


def test_a_token_is_traded_for_a_session(client, token):
    response = log_in(client, token[0], "/fhir/Patient?name=ada")

    assert response.status_code == 303
    assert response.headers["Location"] == "/fhir/Patient?name=ada"
    assert response.headers["Cache-Control"] == "no-store"
    found = ask(client, cookie(response)).json
    assert (found["kind"], found["agent"]) == ("session", f"token {token[1].id}")


def test_the_cookie_is_for_this_server_alone(client, make, token):
    """By https under a name that no other host can set. HttpOnly, Lax, bounded."""
    open_one = log_in(client, token[0]).headers["Set-Cookie"]
    safe_one = log_in(make(HTTPS), token[0]).headers["Set-Cookie"]

    assert re.fullmatch(r"git-fhir=[\w.-]+; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax", open_one)
    assert re.fullmatch(
        r"__Host-git-fhir=[\w.-]+; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure", safe_one
    )
    assert token[0] not in open_one


def test_a_cookie_of_plain_http_says_nothing_over_https(client, make, token):
    """Whoever is on the way could have set it."""
    assert ask(make(HTTPS), cookie(log_in(client, token[0]))).status_code == 401


def test_a_session_ends_after_twelve_hours(client, token, clock):
    sent = cookie(log_in(client, token[0]))

    clock.forward(12 * HOUR - 1)
    assert ask(client, sent).status_code == 200

    clock.forward(1)
    response = ask(client, sent)
    assert (response.status_code, response.json["issue"][0]["code"]) == (401, "expired")


def test_a_session_ends_with_its_token(client, home, clock):
    secret, _ = new_token(home, expires=(NOW + 100) * 1_000_000)
    response = log_in(client, secret)

    assert "Max-Age=100;" in response.headers["Set-Cookie"]
    clock.forward(100)
    assert ask(client, cookie(response)).status_code == 401


def test_a_session_ends_the_moment_its_token_is_revoked(client, token, home, clock):
    sent = cookie(log_in(client, token[0]))
    assert ask(client, sent).status_code == 200

    Tokens(home).revoke(token[1].id, clock())

    response = ask(client, sent)
    assert (response.status_code, response.json["issue"][0]["code"]) == (401, "unknown")


def test_all_workers_understand_a_session(make, token):
    assert ask(make(), cookie(log_in(make(), token[0]))).status_code == 200


def test_the_header_outweighs_the_cookie(client, token):
    sent = cookie(log_in(client, token[0]))

    assert ask(client, sent, Authorization="Bearer gf_wrong").status_code == 401
    assert ask(client, "git-fhir=wrong", Authorization=f"Bearer {token[0]}").json["kind"] == "bearer"


def test_where_anyone_may_come_an_old_cookie_does_no_harm(make, token):
    client = make(anonymous=True)

    assert ask(client, "git-fhir=wrong").json["kind"] == "anonymous"
    assert ask(client, cookie(log_in(client, token[0]))).json["kind"] == "session"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 403), ({"Sec_Fetch_Site": "same-origin"}, 200), ({"Sec_Fetch_Site": "same-site"}, 403)],
)
def test_in_a_session_only_a_page_of_this_server_may_change_something(client, token, headers, status):
    sent = cookie(log_in(client, token[0]))

    assert ask(client, sent, "POST", **headers).status_code == status


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cookie_with_another_character_anywhere_is_none(client, home, data):
    sent = _value(client, home)
    place = data.draw(st.integers(len("git-fhir="), len(sent) - 1))
    other = data.draw(st.sampled_from("0123456789abcdefXYZ-_."))
    changed = sent[:place] + other + sent[place + 1 :]

    assert ask(client, changed).status_code == (200 if changed == sent else 401)


_VALUES: dict[str, str] = {}


def _value(client: TestClient, home: str) -> str:
    if home not in _VALUES:
        _VALUES[home] = cookie(log_in(client, new_token(home)[0]))
    return _VALUES[home]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.text(st.characters(max_codepoint=255), max_size=80)
    | st.from_regex(r"[0-9a-f]{12}\.[0-9]{1,12}\.[A-Za-z0-9_-]{43}", fullmatch=True)
)
def test_no_cookie_makes_the_server_fail(client, value):
    for header in (f"git-fhir={value}", value):
        response = client.simulate_get("/fhir", extras={"HTTP_COOKIE": header})
        assert response.status_code == 401


def test_a_session_can_not_be_prolonged(client, token):
    """The end stands under the HMAC."""
    name, _, value = cookie(log_in(client, token[0])).partition("=")
    id, end, mac = value.split(".")

    assert ask(client, f"{name}={id}.{int(end) + 1}.{mac}").status_code == 401
    assert ask(client, f"{name}={id}.0{end}.{mac}").status_code == 401


# The key


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(session_key, [str(tmp_path)] * 16))
    path = tmp_path / "git-fhir" / "session.key"

    assert keys == {path.read_bytes()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["session.key"]
    assert len(path.read_bytes()) == 32


def test_another_key_ends_all_sessions(client, make, token, home):
    sent = cookie(log_in(client, token[0]))

    Path(home, "git-fhir", "session.key").unlink()

    assert ask(make(), sent).status_code == 401


@pytest.mark.parametrize(("mode", "data"), [(0o640, b"k" * 32), (0o600, b""), (0o600, b"k" * 33)])
def test_a_key_that_others_read_or_that_is_none_is_refused(tmp_path, mode, data):
    path = tmp_path / "git-fhir" / "session.key"
    path.parent.mkdir()
    path.write_bytes(data)
    path.chmod(mode)

    with pytest.raises(RepositoryRefused, match=r"session\.key"):
        session_key(str(tmp_path))


# The form


def test_the_page_is_a_form_that_works_without_a_script(client):
    """A label for what is to be typed in, a language, a title; nothing from elsewhere."""
    response = client.simulate_get("/login?next=/fhir/Patient")
    page = html.fromstring(response.text)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert page.get("lang") == "en"
    [field] = page.xpath("//input[@type='password']")
    assert page.xpath(f"//label[@for='{field.get('id')}']")
    assert page.xpath(f"//*[@id='{field.get('aria-describedby')}']")
    assert page.xpath("//input[@name='next']/@value") == ["/fhir/Patient"]
    assert page.xpath("//form/@action") == ["/login"]
    assert not page.xpath("//script | //link | //img | //@src | //@href | //@style | //@onclick")


def test_the_policy_lets_nothing_work_but_the_style_of_the_page(client):
    """https://www.w3.org/TR/CSP3/; and Origin must not become `null`, which no-referrer would make of it."""
    response = client.simulate_get("/login")
    [style] = html.fromstring(response.text).xpath("//style/text()")
    directives = dict(
        each.strip().split(" ", 1) for each in response.headers["Content-Security-Policy"].split(";")
    )

    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert "prefers-color-scheme: dark" in style


def test_who_is_logged_in_sees_so_and_can_leave(client, token):
    sent = cookie(log_in(client, token[0]))
    page = client.simulate_get("/login", headers={"Cookie": sent})
    assert "Logged in as Ada &amp; Co" in page.text
    assert html.fromstring(page.text).xpath("//form/@action") == ["/logout"]

    response = client.simulate_post("/logout", headers={**OWN, "Cookie": sent})

    assert (response.status_code, response.headers["Location"]) == (303, "/login")
    assert response.headers["Set-Cookie"] == "git-fhir=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


def test_a_cookie_that_is_over_leads_to_the_form(client):
    page = client.simulate_get("/login", headers={"Cookie": "git-fhir=wrong"})

    assert html.fromstring(page.text).xpath("//form/@action") == ["/login"]


def test_wrong_tokens_are_all_told_the_same(client, home, clock, caplog):
    """Unknown, expired, revoked, of an identity provider, none: one page, one status. Why stands in the log."""
    caplog.set_level("INFO")
    expired, _ = new_token(home, expires=(NOW + 1) * 1_000_000)
    revoked, known = new_token(home)
    Tokens(home).revoke(known.id, clock())
    clock.forward(2)

    answers = [log_in(client, each, "/fhir") for each in (expired, revoked, "gf_typo", "a.b.c", "", "ä")]

    assert {each.status_code for each in answers} == {401}
    assert len({each.text for each in answers}) == 1
    assert all("Set-Cookie" not in each.headers for each in answers)
    page = html.fromstring(answers[0].text)
    assert page.xpath("//*[@role='alert']/text()") == ["This token is unknown, expired or revoked."]
    assert page.xpath("//input[@name='next']/@value") == ["/fhir"]
    assert "is expired" in caplog.text
    assert "is revoked" in caplog.text
    assert expired not in caplog.text


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}, {"Origin": "https://evil.example"}]
)
def test_a_form_elsewhere_can_not_log_anybody_in_or_out(client, token, path, headers):
    """A reader who is logged in under a foreign name writes what is theirs into a foreign record."""
    sent = {"Content-Type": OWN["Content-Type"], **headers}

    response = client.simulate_post(path, body=urlencode({"token": token[0]}), headers=sent)

    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"token=%FF", OWN["Content-Type"], 401),
        (b"\xff\xfe", OWN["Content-Type"], 400),
        (b"token=" + b"x" * 20_000, OWN["Content-Type"], 413),
        (b'{"token": "x"}', "application/json", 415),
        (b"", OWN["Content-Type"], 401),
        (b"&=&;", OWN["Content-Type"] + "; charset=UTF-8", 401),
    ],
)
def test_forms_that_are_none(client, body, kind, status):
    response = client.simulate_post("/login", body=body, headers={**OWN, "Content-Type": kind})

    assert response.status_code == status


@pytest.mark.parametrize("path", ["/login", "/logout", "/.well-known/smart-configuration"])
def test_other_methods_are_told_which_there_are(client, path):
    response = client.simulate_delete(path)

    assert response.status_code == 405
    assert response.headers["Allow"] == client.simulate_options(path).headers["Allow"]


# Where it leads


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
        "/ä",
        "/x" * 2000,
    ],
)
def test_nobody_is_sent_to_another_site(client, token, place):
    """https://cwe.mitre.org/data/definitions/601.html"""
    response = log_in(client, token[0], place)

    assert (response.status_code, response.headers["Location"]) == (303, "/login")
    shown = client.simulate_get("/login", params={"next": place})
    assert html.fromstring(shown.text).xpath("//input[@name='next']/@value") == [""]


@settings(deadline=None)
@given(st.text(st.sampled_from("/\\.:@?#%\t\n e2F"), max_size=12) | st.text(max_size=20))
def test_a_place_within_this_site_stays_there(text):
    """As browsers resolve it: a backslash is a slash to them, and tabs and line ends are nothing."""
    found = safe_place(text)

    if found is not None:
        seen = re.sub(r"[\t\r\n]", "", found).replace("\\", "/")
        assert urlsplit(urljoin("https://fhir.example.org/login", seen))[:2] == ("https", "fhir.example.org")
        assert "\n" not in found


@pytest.mark.parametrize("path", ["/fhir", "/fhir/Patient?name=ada&_sort=-birthdate", "/fhir/%C3%A4"])
def test_a_person_without_credentials_is_sent_to_the_form_and_comes_back(client, token, path):
    path, _, query = path.partition("?")
    response = client.simulate_get(path, query_string=query, headers={"Accept": CHROME})

    assert response.status_code == 303
    form = urlsplit(response.headers["Location"])
    assert form.path == "/login"
    [wanted] = parse_qs(form.query)["next"]
    assert log_in(client, token[0], wanted).headers["Location"] == (f"{path}?{query}" if query else path)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/fhir", {}),
        ("GET", "/fhir", {"Accept": "application/fhir+json"}),
        ("GET", "/fhir", {"Accept": "*/*"}),
        ("POST", "/fhir", {"Accept": CHROME}),
        ("GET", "/fhir", {"Accept": CHROME, "Authorization": "Bearer gf_wrong"}),
        ("GET", "/fhir.git/info", {"Accept": CHROME}),
    ],
)
def test_programs_are_told_401(client, method, path, headers):
    assert client.simulate_request(method, path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROME, True),
        ("text/html", True),
        ("text/html;q=0.9, application/fhir+json", False),
        ("application/fhir+json, text/html;q=0.1", False),
        ("text/html;q=0", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_who_prefers_html(accept, expected):
    assert prefers_html(accept) is expected


def test_behind_a_proxy_that_takes_a_part_of_the_path_away(make, token):
    client = make("https://example.org/records/a/fhir")

    response = client.simulate_get("/fhir", headers={"Accept": CHROME})
    assert response.headers["Location"] == f"/records/a/login?next={quote('/records/a/fhir')}"
    page = html.fromstring(client.simulate_get("/login").text)
    assert page.xpath("//form/@action") == ["/records/a/login"]
    assert log_in(client, token[0]).headers["Location"] == "/records/a/login"


# What apps are told


@pytest.mark.parametrize(
    "path", ["/.well-known/smart-configuration", "/fhir/.well-known/smart-configuration"]
)
def test_apps_find_out_how_to_log_in(client, path):
    """https://hl7.org/fhir/smart-app-launch/conformance.html#using-well-known"""
    response = client.simulate_get(path, headers={"Accept": "text/html"})

    assert response.headers["Content-Type"] == "application/json"
    assert response.json == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/keys",
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt", "tls_client_auth"],
        "capabilities": [
            "client-confidential-asymmetric",
            "client-public",
            "permission-patient",
            "permission-user",
            "permission-v1",
            "permission-v2",
        ],
    }


def test_without_an_issuer_there_is_nothing_to_tell(make):
    response = make(settings=Settings()).simulate_get("/.well-known/smart-configuration")

    assert response.status_code == 404


def test_while_the_provider_is_down_apps_are_told_to_come_back(client, provider, clock, caplog):
    provider.down = True
    assert client.simulate_get("/.well-known/smart-configuration").status_code == 503

    provider.down = False
    clock.forward(10)
    assert client.simulate_get("/.well-known/smart-configuration").status_code == 200


def statement(**more: object) -> dict:
    data = capabilities.statement(BASE, frozenset({"read"}), (), **more).data
    return capabilities.json.loads_trusted(data)["rest"][0]["security"]


def test_the_capability_statement_says_where_tokens_come_from(home, clock, provider):
    """http://hl7.org/fhir/smart-app-launch/1.0.0/conformance/index.html"""
    provider.metadata["revocation_endpoint"] = f"{ISSUER}/revoke"
    credentials = Credentials(home, CONFIGURED, clock, fetch=provider)

    security = statement(authentication=True, cors=True, oauth=oauth_uris(credentials.jwts))

    assert security["cors"] is True
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert "Bearer" in security["description"]
    [extension] = security["extension"]
    assert extension["url"] == "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
    assert extension["extension"] == [
        {"url": "authorize", "valueUri": f"{ISSUER}/authorize"},
        {"url": "token", "valueUri": f"{ISSUER}/token"},
        {"url": "revoke", "valueUri": f"{ISSUER}/revoke"},
    ]


def test_the_capability_statement_claims_no_more_than_there_is(home, clock, provider, caplog):
    assert statement() == {"cors": False, "description": "No credentials are needed."}
    assert set(statement(authentication=True)) == {"cors", "description"}

    provider.down = True
    assert oauth_uris(Credentials(home, CONFIGURED, clock, fetch=provider).jwts) is None
    assert oauth_uris(Credentials(home, Settings(), clock).jwts) is None
    del provider.metadata["authorization_endpoint"]
    provider.down = False
    assert oauth_uris(Credentials(home, CONFIGURED, clock, fetch=provider).jwts) is None
