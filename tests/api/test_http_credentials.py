"""From a request's headers to who asks: what is believed, what is refused, and what the refusal says."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from falcon.testing import Result, TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from identity import AUDIENCE, ISSUER, NOW, Clock, IdentityProvider, guarded

from api.credentials import Credentials
from gitstore import ROLES, Invalid, Settings, Token, Tokens

SCOPE = "user/*.cruds git-fhir/clone"
CONFIGURED = Settings(issuer=(ISSUER,), audience=(AUDIENCE,))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, settings: Settings, empty_record: Path) -> str:
    """A git directory for the whole file: its tokens are only added to."""
    return str(shutil.copytree(empty_record, tmp_path_factory.mktemp("home") / "record.git", symlinks=True))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture
def make(home: str, clock: Clock, provider: IdentityProvider) -> Callable[..., Credentials]:
    def make(settings: Settings = CONFIGURED, *, anonymous: bool = False) -> Credentials:
        return Credentials(home, settings, clock, allow_anonymous=anonymous, fetch=provider)

    return make


@pytest.fixture
def client(make: Callable[..., Credentials]) -> TestClient:
    return guarded(make())


def new_token(home: str, scope: str = SCOPE, expires: int | None = None) -> tuple[str, Token]:
    return Tokens(home).create(
        name="Ada", email="ada@clinic.example", scope=scope, now=NOW * 1_000_000, expires=expires
    )


@pytest.fixture
def token(home: str) -> tuple[str, Token]:
    return new_token(home)


def basic(password: str, user: str = "ada") -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def ask(
    client: TestClient,
    authorization: str | None = None,
    method: str = "GET",
    path: str = "/fhir",
    **headers: str,
) -> Result:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if authorization is not None:
        sent["Authorization"] = authorization
    return client.simulate_request(method, path, headers=sent)


def outcome(response: Result) -> tuple[int, str]:
    """Status and issue code."""
    return response.status_code, response.json["issue"][0]["code"]


# Who it is


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_a_token_of_ours_as_bearer(client, token, scheme):
    """https://www.rfc-editor.org/rfc/rfc6750#section-2.1; the scheme's case says nothing."""
    secret, known = token

    assert ask(client, f"{scheme} {secret}").json == {
        "author": ["Ada", "ada@clinic.example"],
        "agent": f"token {known.id}",
        "key": f"token {known.id}",
        "kind": "bearer",
        "roles": ["clone"],
        "full": False,
    }


@pytest.mark.parametrize("user", ["ada", "", "x-token", "josé"])
def test_a_token_of_ours_as_password(client, token, user):
    """For git and for browsers; the user name says nothing. https://www.rfc-editor.org/rfc/rfc7617"""
    found = ask(client, basic(token[0], user)).json

    assert (found["kind"], found["author"][0]) == ("basic", "Ada")


def test_all_roles_and_everything_are_full_access(client, home):
    secret, _ = new_token(home, "system/*.cruds git-fhir/*")

    found = ask(client, f"Bearer {secret}").json

    assert found["full"]
    assert found["roles"] == sorted(ROLES)


def test_a_token_of_an_identity_provider(client, provider):
    text = provider.token(name="Ada Lovelace", email="ada@clinic.example", scope="user/*.rs git-fhir/audit")

    found = ask(client, f"Bearer {text}").json

    assert found["author"] == ["Ada Lovelace", "ada@clinic.example"]
    assert found["agent"] == found["key"] == f"{ISSUER} ada growth-chart"
    assert found["roles"] == ["audit"]


def test_a_revoked_token_opens_nothing_from_the_next_request_on(client, home, clock):
    secret, known = new_token(home)
    assert ask(client, f"Bearer {secret}").status_code == 200

    Tokens(home).revoke(known.id, clock())

    assert outcome(ask(client, f"Bearer {secret}")) == (401, "unknown")


# What is refused


def test_without_credentials_there_is_a_challenge_and_no_error(client):
    """https://www.rfc-editor.org/rfc/rfc6750#section-3.1"""
    response = ask(client)

    assert outcome(response) == (401, "login")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="git-fhir"'


def test_a_token_that_does_not_count_says_so_without_saying_why(client, home, clock, provider, caplog):
    """Unknown, expired and revoked look alike; why stands in the log."""
    caplog.set_level("INFO")
    unknown, _ = Tokens(home, new_random=lambda: b"x" * 32)._new_secret()
    expired, _ = new_token(home, expires=(NOW + 1) * 1_000_000)
    clock.forward(2)
    answers = [
        ask(client, f"Bearer {each}") for each in (unknown, expired, "gf_typo", provider.token(aud="x"))
    ]

    assert {outcome(each) for each in answers} == {(401, "unknown")}
    assert len({each.text for each in answers}) == 1
    for each in answers:
        assert each.headers["WWW-Authenticate"].startswith('Bearer realm="git-fhir", error="invalid_token", ')
    for reason in ("is unknown", "is expired", "is malformed", "fhir.audience"):
        assert reason in caplog.text
    assert not any(each in caplog.text for each in (unknown, expired))


def test_an_expired_jwt_says_so(client, provider):
    response = ask(client, f"Bearer {provider.token(exp=NOW - 100)}")

    assert outcome(response) == (401, "expired")
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a, Bearer b",
        "Bearer ä",
        "Basic",
        "Basic !",
        "Basic YWRh",
        "Basic /w==",
        "Digest username=ada",
        "Negotiate",
        "gf_x",
        basic("secret"),
        basic(""),
    ],
)
def test_malformed_and_foreign_credentials_are_refused(client, header):
    assert outcome(ask(client, header)) == (401, "unknown")


def test_two_authorization_headers_are_refused(client, token):
    """WSGI joins them with a comma, which no token holds."""
    assert ask(client, f"Bearer {token[0]}, Bearer {token[0]}").status_code == 401


def test_a_jwt_without_an_issuer_is_refused(make, provider):
    assert outcome(ask(guarded(make(Settings())), f"Bearer {provider.token()}")) == (401, "unknown")


def test_a_provider_that_is_down_is_no_fault_of_the_token(client, provider, caplog):
    """503: an app that is told 401 would throw a good token away."""
    provider.down = True

    response = ask(client, f"Bearer {provider.token()}")

    assert outcome(response) == (503, "transient")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("path", ["/fhir.git", "/fhir.git/info"])
def test_who_clones_is_asked_for_a_password_too(client, path):
    """git and browsers send one only where they are asked."""
    challenge = ask(client, path=path).headers["WWW-Authenticate"]

    assert challenge == 'Basic realm="git-fhir", charset="UTF-8", Bearer realm="git-fhir"'


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.text(st.characters(max_codepoint=255), max_size=80)
    | st.builds(
        "{} {}".format,
        st.sampled_from(["Bearer", "Basic", "bearer gf_"]),
        st.text(st.characters(max_codepoint=255), max_size=80),
    )
)
def test_no_header_makes_the_server_fail(client, header):
    response = client.simulate_get("/fhir", extras={"HTTP_AUTHORIZATION": header})

    assert outcome(response) == (401, "unknown")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), colon=st.sampled_from([b"", b":", b":gf_", b"ada:gf_"]))
def test_no_basic_credential_makes_the_server_fail(client, data, colon):
    header = f"Basic {base64.b64encode(colon + data).decode()}"

    assert outcome(ask(client, header)) == (401, "unknown")


# Anonymous


def test_where_anyone_may_come_no_credentials_are_needed(make):
    found = ask(guarded(make(Settings(), anonymous=True))).json

    assert (found["kind"], found["full"], found["agent"]) == ("anonymous", True, None)
    assert found["roles"] == sorted(ROLES)


def test_what_anyone_may_do_is_a_setting(make):
    found = ask(guarded(make(Settings(anonymous_scope="user/*.rs"), anonymous=True))).json

    assert (found["kind"], found["full"], found["roles"]) == ("anonymous", False, [])


@pytest.mark.parametrize("scope", ["", "user/Patient.sr", "everything", "patient/*.rs"])
def test_an_anonymous_scope_that_can_not_be_meant_is_refused(make, scope):
    with pytest.raises(Invalid, match=r"fhir\.anonymousScope"):
        make(Settings(anonymous_scope=scope), anonymous=True)


def test_where_anyone_may_come_a_wrong_token_is_still_wrong(make, home, clock):
    """Who believes to be logged in does not write as nobody."""
    client = guarded(make(CONFIGURED, anonymous=True))

    for header in ("Bearer gf_typo", basic("gf_typo"), "Bearer a.b.c"):
        assert outcome(ask(client, header)) == (401, "unknown")


def test_where_anyone_may_come_credentials_for_a_proxy_are_not_looked_at(make, provider):
    """A proxy that asks for passwords of its own hands them on."""
    client = guarded(make(Settings(), anonymous=True))

    for header in (basic("secret"), f"Bearer {provider.token()}", "Negotiate YII"):
        assert ask(client, header).json["kind"] == "anonymous"


# Pages elsewhere


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Sec_Fetch_Site": ""}, 403),
        ({"Origin": "http://localhost:8080"}, 200),
        ({"Origin": "https://localhost:8080"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8080", "Sec_Fetch_Site": "cross-site"}, 403),
        ({"Referer": "http://localhost:8080/"}, 403),
    ],
)
def test_with_basic_only_a_page_of_this_server_may_change_something(client, token, method, headers, status):
    """Browsers add Basic credentials to whatever page asks. https://owasp.org/www-community/attacks/csrf"""
    response = ask(client, basic(token[0]), method, **headers)

    assert response.status_code == status
    if status == 403:
        assert outcome(response) == (403, "forbidden")
        assert "Bearer" in response.json["issue"][0]["details"]["text"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_bearer_token_is_enough_to_change_something(client, token, method):
    """No browser sends it unasked."""
    assert ask(client, f"Bearer {token[0]}", method, Sec_Fetch_Site="cross-site").status_code == 200


def test_to_read_basic_is_enough(client, token):
    assert ask(client, basic(token[0])).status_code == 200


def test_git_fetches_by_post(client, token):
    """It sends neither header; nothing is changed by it."""
    assert ask(client, basic(token[0]), "POST", "/fhir.git/git-upload-pack").status_code == 200
    assert ask(client, basic(token[0]), "POST", "/fhir.git/git-receive-pack").status_code == 403


@pytest.mark.parametrize(
    ("base", "origin", "status"),
    [
        ("https://fhir.example.org/fhir", "https://fhir.example.org", 200),
        ("https://fhir.example.org:443/fhir", "https://fhir.example.org", 200),
        ("http://FHIR.example.org:80/fhir", "http://fhir.example.org", 200),
        ("https://example.org/a/fhir", "https://example.org", 200),
        ("https://fhir.example.org:8443/fhir", "https://fhir.example.org", 403),
        ("https://fhir.example.org/fhir", "http://fhir.example.org", 403),
        ("https://fhir.example.org/fhir", "https://fhir.example.org.evil.example", 403),
    ],
)
def test_the_own_origin_is_that_of_the_base(make, token, base, origin, status):
    """Behind a proxy, too."""
    client = guarded(make(), base)

    assert ask(client, basic(token[0]), "PUT", Origin=origin).status_code == status


# A real git


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(client: TestClient) -> Iterator[str]:
    with make_server("127.0.0.1", 0, client.app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_git_answers_the_challenge_with_the_token(served, token, caplog):
    """It sends the password after the 401 only; that what it then gets is no repository is not the point."""
    caplog.set_level("INFO")
    environment = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": "/usr/bin:/bin"}

    def listing(password: str) -> str:
        return subprocess.run(
            ["git", "ls-remote", f"http://git:{password}@{served}/fhir.git"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=30,
        ).stderr

    assert "Authentication failed" in listing("gf_wrong")
    assert "Authentication failed" not in listing(token[0])
