"""Access tokens of identity providers: which count, what they say, and how their keys are come by."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identity import AUDIENCE, ISSUER, NOW, Clock, IdentityProvider, base64url, encoded
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, RSAKey

from api import providers
from api.jwts import Claims, Jwts
from api.principal import Rejected
from api.providers import Fetched, FetchFailed, ProviderDown
from gitstore import Invalid

MICRO = 1_000_000
ELSEWHERE = "https://elsewhere.example.org"
HOUR, DAY = 3600, 24 * 3600


GOOD = IdentityProvider()
"""For tests with many examples: a key takes time to make."""
GOOD_TOKEN = GOOD.token()


@pytest.fixture(scope="module")
def rsa() -> RSAKey:
    return RSAKey.generate_key(2048)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> IdentityProvider:
    return IdentityProvider()


@pytest.fixture
def jwts(provider: IdentityProvider, clock: Clock) -> Jwts:
    return Jwts([provider.issuer], [AUDIENCE], clock, provider)


def refusal(jwts: Jwts, text: str, clock: Clock | None = None) -> str:
    with pytest.raises(Rejected) as caught:
        jwts.claims(text, (clock or Clock())())
    return caught.value.reason


# What counts


def test_a_good_token_says_who_asks_and_for_what(jwts, provider, clock):
    """https://www.rfc-editor.org/rfc/rfc9068#section-2.2, SMART's launch context and fhirUser."""
    text = provider.token(
        name="Ada Lovelace",
        email="ada@clinic.example",
        patient="example",
        fhirUser="Practitioner/ada",
        preferred_username="al",
    )

    assert jwts.claims(text, clock()) == Claims(
        issuer=ISSUER,
        subject="ada",
        client="growth-chart",
        name="Ada Lovelace",
        email="ada@clinic.example",
        scope="openid user/*.rs",
        patient="example",
        expires=(NOW + 300) * MICRO,
        fhir_user="Practitioner/ada",
    )


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "ES256", "ES384"])
def test_four_algorithms_count(jwts, provider, clock, rsa, algorithm):
    keys = {"R": rsa, "E": ECKey.generate_key("P-384" if algorithm == "ES384" else "P-256")}
    provider.add("two", keys[algorithm[0]], alg=algorithm, use="sig")

    assert jwts.claims(provider.token("two", {"alg": algorithm}), clock()).subject == "ada"


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"preferred_username": "al"}, "name", "al"),
        ({"name": " "}, "name", "ada"),
        ({"email": "ada@clinic.example", "email_verified": False}, "email", "ada@login.example.org"),
        ({"email": "ada@clinic.example", "email_verified": True}, "email", "ada@clinic.example"),
        ({"email": "a b@clinic.example"}, "email", "ada@login.example.org"),
        ({"sub": "auth0|<5>\n"}, "email", "auth0-5@login.example.org"),
        ({"sub": "…"}, "email", "unknown@login.example.org"),
        ({"sub": None}, "subject", "growth-chart"),
        ({"azp": None, "client_id": "cron"}, "client", "cron"),
        ({"azp": None}, "client", None),
        ({"scope": ["user/*.r", "openid"]}, "scope", "user/*.r openid"),
        ({"scope": None, "scp": "user/*.r"}, "scope", "user/*.r"),
        ({"scope": None, "scp": ["user/*.r", "x"]}, "scope", "user/*.r x"),
        ({"scope": None}, "scope", ""),
        ({"aud": ["account", AUDIENCE]}, "subject", "ada"),
        ({"exp": NOW + 0.5}, "expires", NOW * MICRO),
        ({"nonce": "n"}, "subject", "ada"),
        ({"typ": "Bearer"}, "subject", "ada"),
    ],
)
def test_what_providers_write_in_several_ways(jwts, provider, clock, changes, field, expected):
    assert getattr(jwts.claims(provider.token(**changes), clock()), field) == expected


@pytest.mark.parametrize("type", ["JWT", "jwt", "at+jwt", "application/at+JWT", None])
def test_types_of_access_tokens(jwts, provider, clock, type):
    """https://www.rfc-editor.org/rfc/rfc9068#section-4"""
    assert jwts.claims(provider.token(header={"typ": type}), clock()).subject == "ada"


@pytest.mark.parametrize(("name", "at"), [("exp", -59), ("nbf", 60), ("iat", 60)])
def test_a_minute_of_difference_between_clocks_is_tolerated(jwts, provider, clock, name, at):
    assert jwts.claims(provider.token(**{name: NOW + at}), clock()).subject == "ada"


# What doesn't


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": None}, "fhir.issuer"),
        ({"iss": f"{ISSUER}/"}, "fhir.issuer"),
        ({"iss": ISSUER.upper()}, "fhir.issuer"),
        ({"iss": [ISSUER]}, "fhir.issuer"),
        ({"aud": None}, "fhir.audience"),
        ({"aud": "https://fhir.example.org"}, "fhir.audience"),
        ({"aud": ["account"]}, "fhir.audience"),
        ({"aud": {AUDIENCE: 1}}, "fhir.audience"),
        ({"aud": [[AUDIENCE]]}, "fhir.audience"),
        ({"exp": None}, "no end"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": str(NOW + 300)}, "exp is no number"),
        ({"exp": True}, "exp is no number"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"iat": NOW + 61}, "not valid yet"),
        ({"iat": "yesterday"}, "iat is no number"),
        ({"sub": None, "azp": None}, "names nobody"),
        ({"sub": 5}, "sub is no text"),
        ({"patient": "Patient/example"}, "patient"),
        ({"patient": ["example"]}, "patient"),
        ({"scope": 5}, "scope"),
        ({"scope": [1]}, "scope"),
        ({"scope": None, "nonce": "n"}, "no access token"),
        ({"scope": None, "at_hash": "n"}, "no access token"),
        ({"typ": "ID"}, "no access token"),
        ({"typ": "Refresh"}, "no access token"),
        ({"padding": "x" * 16_384}, "longer"),
    ],
)
def test_claims_that_are_refused(jwts, provider, changes, reason):
    assert reason in refusal(jwts, provider.token(**changes))


def test_an_expired_token_is_told_from_a_wrong_one(jwts, provider):
    """issue-type `expired`, so that an app knows to get another one."""
    with pytest.raises(Rejected) as caught:
        jwts.claims(provider.token(exp=NOW - 60), NOW * MICRO)

    assert caught.value.code == "expired"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": 5}, "type"),
        ({"jku": "https://evil.example/keys"}, "jku"),
        ({"x5u": "https://evil.example/key"}, "x5u"),
        ({"x5c": ["MIIB"]}, "x5c"),
        ({"crit": ["exp"], "exp": 1}, "crit"),
        ({"b64": True}, "b64"),
        ({"kid": "three"}, "no such key"),
    ],
)
def test_headers_that_are_refused(jwts, provider, header, reason):
    """https://www.rfc-editor.org/rfc/rfc8725#section-3.10"""
    assert reason in refusal(jwts, provider.token(header=header))


def test_a_key_that_a_token_brings_along_is_not_looked_at(jwts, provider):
    stranger = ECKey.generate_key("P-256")
    provider.keys["one"] = stranger

    text = provider.token(header={"jwk": stranger.as_dict(private=False)})

    assert "jwk" in refusal(jwts, text)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", None, "ES512", "PS256", "EdDSA", ["ES256"], {}]
)
@pytest.mark.parametrize("signature", ["AA", ""])
def test_other_algorithms_and_none_are_refused(jwts, provider, algorithm, signature):
    """https://www.rfc-editor.org/rfc/rfc8725#section-2.1"""
    text = f"{encoded({'alg': algorithm, 'kid': 'one'})}.{encoded(provider.claims())}.{signature}"

    assert refusal(jwts, text)


def test_a_public_key_is_no_shared_secret(jwts, provider, rsa):
    """HS256 with the published key as secret. https://www.rfc-editor.org/rfc/rfc8725#section-2.1"""
    provider.add("two", rsa)
    signed = f"{encoded({'alg': 'HS256', 'kid': 'two'})}.{encoded(provider.claims())}"
    secret = rsa.as_pem(private=False)

    text = f"{signed}.{base64url(hmac.digest(secret, signed.encode(), 'sha256'))}"

    assert "algorithm" in refusal(jwts, text)


def test_a_shared_secret_that_is_published_is_no_key(jwts, provider):
    provider.add("two", OctKey.import_key("secret" * 8))
    provider.published["two"]["k"] = "c2VjcmV0"

    assert "algorithm" in refusal(jwts, provider.token("two", {"alg": "HS256"}))


def test_key_and_algorithm_must_agree(jwts, provider, rsa):
    """An RSA key for ES256, a curve for the other one, and an algorithm that the key is not published for."""
    provider.add("rsa", rsa)
    provider.add("wide", ECKey.generate_key("P-384"))
    provider.add("only-384", rsa, alg="RS384")
    for id, algorithm in (("rsa", "ES256"), ("wide", "ES256"), ("only-384", "RS256"), ("one", "RS256")):
        text = f"{encoded({'alg': algorithm, 'kid': id})}.{encoded(provider.claims())}.{'A' * 86}"

        assert "no such key" in refusal(jwts, text)


def test_a_stranger_with_the_same_key_id_is_refused(jwts, provider):
    provider.keys["one"] = ECKey.generate_key("P-256")

    assert "signature" in refusal(jwts, provider.token())


def test_claims_can_not_be_exchanged(jwts, provider):
    header, _, signature = provider.token().split(".")

    text = f"{header}.{encoded(provider.claims(sub='eve'))}.{signature}"

    assert "signature" in refusal(jwts, text)


def test_what_two_readers_could_read_differently_is_refused(jwts, provider):
    """A name that stands twice."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","alg":"ES256","kid":"one"}').rstrip(b"=").decode()

    assert "JSON" in refusal(jwts, f"{header}.{encoded(provider.claims())}.AAAA")


def test_keys_for_encryption_and_weak_or_broken_ones_are_passed_over(jwts, provider, clock, caplog):
    provider.published["enc"] = {**provider.published["one"], "kid": "enc", "use": "enc"}
    provider.published["wrap"] = {**provider.published["one"], "kid": "wrap", "key_ops": ["wrapKey"]}
    provider.published["broken"] = {**provider.published["one"], "kid": "broken", "x": "AAAA"}
    provider.published["untyped"] = {"kid": "untyped"}
    provider.published["number"] = {**provider.published["one"], "kid": 5}
    with pytest.warns(SecurityWarning):
        provider.add("weak", RSAKey.generate_key(1024))

    assert jwts.claims(provider.token(), clock()).subject == "ada"
    for id in ("enc", "wrap", "broken"):
        provider.keys[id] = provider.keys["one"]
        assert "no such key" in refusal(jwts, provider.token(id))
    assert "no such key" in refusal(jwts, provider.token("weak", {"alg": "RS256"}))


def test_without_a_key_id_there_must_be_one_key_only(jwts, provider, clock):
    assert jwts.claims(provider.token(header={"kid": None}), clock()).subject == "ada"

    provider.add("two", ECKey.generate_key("P-256"))
    clock.forward(HOUR)

    assert "names no key" in refusal(jwts, provider.token(header={"kid": None}, exp=NOW + DAY), clock)


@settings(deadline=None)
@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True))
def test_garbage_is_refused_and_nothing_else_happens(text):
    refusal(Jwts([ISSUER], [AUDIENCE], Clock(), GOOD), text)


@settings(deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "x"]), st.none() | st.text() | st.lists(st.text())
    ),
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "nbf", "sub", "scope"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    ),
)
def test_json_of_every_shape_is_refused_and_nothing_else_happens(header, claims):
    jwts = Jwts([ISSUER], [AUDIENCE], Clock(), GOOD)
    whole_header = {"alg": "ES256", "kid": "one", **header}
    whole = {**GOOD.claims(), **claims}

    refusal(jwts, f"{encoded(whole_header)}.{encoded(whole)}.AAAA")


@settings(deadline=None)
@given(place=st.integers(0, len(GOOD_TOKEN) - 1), character=st.sampled_from("ABCDwxyz0129-_.="))
def test_a_token_with_another_character_anywhere_is_refused(place, character):
    """Also in the last one, of which not all bits count."""
    text = GOOD_TOKEN[:place] + character + GOOD_TOKEN[place + 1 :]
    jwts = Jwts([ISSUER], [AUDIENCE], Clock(), GOOD)

    if text != GOOD_TOKEN:
        refusal(jwts, text)
    assert jwts.claims(GOOD_TOKEN, NOW * MICRO).subject == "ada"


@settings(deadline=None)
@given(*[st.text(min_size=1, max_size=300)] * 2, st.none() | st.text(min_size=1, max_size=300))
def test_an_agent_is_one_line_that_fits_a_trailer(subject, other, client):
    """At most 200 visible characters, and never those of somebody else."""

    def agent(subject: str) -> str:
        return Claims(ISSUER, subject, client, "n", "e", "", None, 0).agent

    for text in (agent(subject), agent(other)):
        assert 0 < len(text) <= 200
        assert text.isascii()
        assert text.isprintable()
    assert (agent(subject) == agent(other)) == (subject == other)


def test_long_subjects_that_begin_alike_are_different_agents():
    agents = {Claims(ISSUER, "x" * 300 + last, None, "n", "e", "", None, 0).agent for last in "ab"}

    assert len(agents) == 2


# Settings


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "login.example.org",
        "http://login.example.org",
        "https://",
        "https://login.example.org?x=1",
        "https://login.example.org#x",
        "https://me@login.example.org",
        "https://login example.org",
        "https://[::1",
        "file:///etc/passwd",
        "ftp://login.example.org",
    ],
)
def test_issuers_that_can_not_be_meant_are_refused(issuer):
    with pytest.raises(Invalid, match=r"fhir\.issuer"):
        Jwts([issuer], [AUDIENCE], Clock())


@pytest.mark.parametrize("issuer", ["http://localhost:8081/r", "http://127.0.0.1:1", "http://[::1]:1"])
def test_an_issuer_on_this_machine_may_do_without_tls(issuer):
    assert list(Jwts([issuer], [AUDIENCE], Clock()).providers) == [issuer]


def test_an_issuer_needs_an_audience():
    """Else each token that it makes, for whatever service, would count."""
    with pytest.raises(Invalid, match=r"fhir\.audience"):
        Jwts([ISSUER], [], Clock())


def test_several_issuers_each_sign_for_themselves(provider, clock):
    other = IdentityProvider(f"{ELSEWHERE}/")
    documents = {**provider.documents(), **other.documents()}
    jwts = Jwts(
        [provider.issuer, other.issuer],
        ["x", AUDIENCE],
        clock,
        lambda url: Fetched(json.dumps(documents[url]).encode()),
    )

    assert jwts.claims(provider.token(), clock()).issuer == ISSUER
    assert jwts.claims(other.token(), clock()).issuer == f"{ELSEWHERE}/"
    assert "signature" in refusal(jwts, other.token(iss=ISSUER))


# Keys, kept and fetched


def test_keys_are_kept(jwts, provider, clock):
    for _ in range(3):
        jwts.claims(provider.token(), clock())

    assert provider.looks == 1


@pytest.mark.parametrize(
    ("max_age", "kept"), [(0, 300), (10, 300), (HOUR, HOUR), (DAY, DAY), (1000 * DAY, DAY)]
)
def test_keys_are_kept_for_as_long_as_the_provider_says_within_reason(jwts, provider, clock, max_age, kept):
    """Cache-Control: max-age, between five minutes and a day."""
    provider.max_age = max_age
    token = provider.token(exp=NOW + 2 * DAY)
    jwts.claims(token, clock())

    clock.forward(kept - 1)
    jwts.claims(token, clock())
    assert provider.looks == 1

    clock.forward(1)
    jwts.claims(token, clock())
    assert provider.looks == 2


def test_a_new_key_is_found_at_once_and_one_that_is_gone_no_longer_counts(jwts, provider, clock):
    """Rotation: an unknown key id makes us look."""
    old = provider.token(exp=NOW + HOUR)
    jwts.claims(old, clock())
    clock.forward(61)
    provider.add("two", ECKey.generate_key("P-256"))
    del provider.published["one"]

    assert jwts.claims(provider.token("two"), clock()).subject == "ada"
    assert "no such key" in refusal(jwts, old, clock)


def test_made_up_key_ids_make_us_look_once_a_minute_only(jwts, provider, clock):
    jwts.claims(provider.token(), clock())
    for number in range(50):
        clock.forward(2)
        refusal(jwts, provider.token(header={"kid": f"no-{number}"}), clock)

    assert provider.looks == 2


def test_tokens_that_can_not_count_make_us_look_never(jwts, provider, clock):
    for changes in ({"aud": "x"}, {"exp": 5}, {"iss": ELSEWHERE}):
        refusal(jwts, provider.token(**changes))

    assert provider.asked == []


def test_the_last_good_keys_serve_while_the_provider_is_down(jwts, provider, clock, caplog):
    token = provider.token(exp=NOW + 9 * DAY)
    jwts.claims(token, clock())
    provider.down = True
    clock.forward(HOUR)

    for _ in range(3):
        assert jwts.claims(token, clock()).subject == "ada"
    assert len(provider.asked) == 3, "asked once, and not again within the minute"
    assert "connection refused" in caplog.text

    clock.forward(DAY)
    with pytest.raises(ProviderDown):
        jwts.claims(token, clock())
    provider.down = False
    clock.forward(60)
    assert jwts.claims(token, clock()).subject == "ada"


def test_a_provider_that_never_answered_is_asked_again_soon(jwts, provider, clock):
    """Who has a good token is not told that it is bad: that is not known."""
    provider.down = True
    for _ in range(2):
        with pytest.raises(ProviderDown, match=ISSUER):
            jwts.claims(provider.token(), clock())
    assert len(provider.asked) == 1

    provider.down = False
    clock.forward(10)

    assert jwts.claims(provider.token(), clock()).subject == "ada"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": f"{ISSUER}/"},
        {"issuer": ELSEWHERE},
        {"issuer": None},
        {"jwks_uri": "http://login.example.org/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": ["https://login.example.org/keys"]},
    ],
)
def test_a_discovery_document_that_does_not_fit_is_not_followed(jwts, provider, clock, metadata, caplog):
    """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationValidation"""
    token = provider.token()
    provider.metadata.update(metadata)
    provider.documents = lambda: {f"{ISSUER}/.well-known/openid-configuration": provider.metadata}

    with pytest.raises(ProviderDown):
        jwts.claims(token, clock())
    assert len(provider.asked) == 1


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"keys": {}}', b'{"keys": [5, {}]}', b"\xff", b'{"keys": []}']
)
def test_documents_that_are_none_leave_things_as_they_were(provider, clock, data, caplog):
    sent = {"bad": False}

    def fetch(url: str) -> Fetched:
        return Fetched(data) if sent["bad"] else provider(url)

    jwts = Jwts([ISSUER], [AUDIENCE], clock, fetch)
    token = provider.token(exp=NOW + DAY)
    jwts.claims(token, clock())
    sent["bad"] = True
    clock.forward(HOUR)

    assert jwts.claims(token, clock()).subject == "ada"


def test_of_many_threads_one_asks_and_the_others_wait_for_it(provider, clock):
    started, go_on = threading.Event(), threading.Event()

    def fetch(url: str) -> Fetched:
        started.set()
        assert go_on.wait(10)
        return provider(url)

    jwts = Jwts([ISSUER], [AUDIENCE], clock, fetch)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(jwts.claims, provider.token(), clock()) for _ in range(8)]
        assert started.wait(10)
        go_on.set()
        assert {each.result().subject for each in answers} == {"ada"}
    assert provider.looks == 1


def test_who_has_a_known_key_does_not_wait_for_a_slow_provider(provider, clock):
    started, go_on, slow = threading.Event(), threading.Event(), threading.Event()

    def fetch(url: str) -> Fetched:
        if slow.is_set():
            started.set()
            assert go_on.wait(10)
        return provider(url)

    jwts = Jwts([ISSUER], [AUDIENCE], clock, fetch)
    jwts.claims(provider.token(), clock())
    slow.set()
    clock.forward(300)
    token = provider.token(exp=NOW + DAY)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(jwts.claims, token, clock())
        assert started.wait(10)

        assert jwts.claims(token, clock()).subject == "ada", "while the first one still waits"

        go_on.set()
        assert first.result().subject == "ada"


# Over a real connection


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


class LoopbackServer(ThreadingHTTPServer):
    """Answers by path: (status, headers, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        status, headers, body = self.answers.get(handler.path, (404, {}, b""))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def http() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_provider_over_http(http, clock):
    """Discovery, keys and Cache-Control, with nothing injected."""
    provider = IdentityProvider(http.url)
    for url, document in provider.documents().items():
        headers = {"Cache-Control": "public, max-age=7200, must-revalidate"}
        http.answers[url.removeprefix(http.url)] = (200, headers, json.dumps(document).encode())
    jwts = Jwts([http.url], [AUDIENCE], clock)

    assert jwts.claims(provider.token(), clock()).issuer == http.url

    http.answers.clear()
    clock.forward(7199)
    assert jwts.claims(provider.token(exp=NOW + DAY), clock()).issuer == http.url


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("max-age=600", 600),
        ('MAX-AGE="600"', 600),
        ("public,max-age=600", 600),
        ("no-store, max-age=600", 0),
        ("no-cache", 0),
        ("s-maxage=600", 0),
        ("max-age=soon", 0),
        ("", 0),
    ],
)
def test_what_cache_control_says(http, header, seconds):
    http.answers["/x"] = (200, {"Cache-Control": header}, b"{}")

    assert providers.fetch(f"{http.url}/x") == Fetched(b"{}", seconds)


def test_a_redirect_within_the_host_is_followed(http):
    http.answers["/a"] = (302, {"Location": "/b"}, b"")
    http.answers["/b"] = (200, {}, b"{}")

    assert providers.fetch(f"{http.url}/a").data == b"{}"


@pytest.mark.parametrize(
    "place",
    [
        "http://localhost:{port}/b",
        "http://127.0.0.1:1/b",
        "file:///etc/passwd",
        "//evil.example/",
        "http://[::1",
    ],
)
def test_a_redirect_elsewhere_is_not(http, place):
    http.answers["/a"] = (302, {"Location": place.format(port=http.server_port)}, b"")
    http.answers["/b"] = (200, {}, b"{}")

    with pytest.raises(FetchFailed):
        providers.fetch(f"{http.url}/a")


def test_a_document_without_end_is_not_read_to_its_end(http):
    http.answers["/a"] = (200, {}, b" " * (providers.MAX_DOCUMENT + 1))

    with pytest.raises(FetchFailed, match="more than"):
        providers.fetch(f"{http.url}/a")


@pytest.mark.parametrize("status", [404, 500, 204])
def test_other_answers_are_no_documents(http, status, clock):
    http.answers["/.well-known/openid-configuration"] = (status, {}, b"")
    provider = IdentityProvider(http.url)

    with pytest.raises(ProviderDown):
        Jwts([http.url], [AUDIENCE], clock).claims(provider.token(), clock())


def test_nobody_there_is_told_apart():
    with pytest.raises(FetchFailed):
        providers.fetch("http://127.0.0.1:1/x")
