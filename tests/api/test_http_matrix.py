"""Every route with every kind of credentials: a route that nobody has thought about fails here.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import Result, TestClient
from identity import AUDIENCE, ISSUER, NOW, Clock, IdentityProvider, encoded
from joserfc.jwk import OctKey

from api.app import ROUTES, create_app
from api.credentials import Credentials
from gitstore import ANONYMOUS, Settings, Store, Tokens, Update
from gitstore.fhir.ids import ResourceId
from tests.conftest import copy_record

OBSERVATION = {
    "resourceType": "Observation",
    "id": "a1",
    "status": "final",
    "code": {"text": "x"},
    "subject": {"reference": "Patient/ann"},
}
ALL_LETTERS = frozenset("cruds")
NEW = {key: value for key, value in OBSERVATION.items() if key != "id"}
LABEL = {"name": "meta", "valueMeta": {"tag": [{"system": "urn:x", "code": "y"}]}}
LABELS = {"resourceType": "Parameters", "parameter": [LABEL]}
PATCH = [{"op": "replace", "path": "/status", "value": "amended"}]
BATCH = {"resourceType": "Bundle", "type": "batch", "entry": []}


@dataclass(frozen=True)
class Row:
    """What one method of one route is tried with, and what it needs: a letter of a scope for Observations, the past, a role.

    Without any need it answers whoever has credentials; `open` rows answer without, too.
    """

    url: str
    letter: str | None = None
    body: Any = None
    past: bool = False
    role: str | None = None
    open: bool = False
    answers: tuple[int, ...] = (200, 201, 204)


ROWS: dict[tuple[str, str], Row] = {
    ("/health", "GET"): Row("/health", open=True),
    ("/ready", "GET"): Row("/ready", open=True, answers=(200, 503)),
    ("/metrics", "GET"): Row("/metrics", role="metrics"),
    ("/", "GET"): Row("/", answers=(404,)),  # to browsers alone it is something
    ("/at", "GET"): Row("/at?point=2026-01-05", answers=(303,)),
    ("/commits/{id}", "GET"): Row("/commits/1", answers=(406,)),  # as this
    ("/fhir", "GET"): Row("/fhir?_type=Observation", "s"),
    ("/fhir", "POST"): Row("/fhir", body=BATCH),
    ("/fhir/metadata", "GET"): Row("/fhir/metadata", open=True),
    ("/fhir/_history", "GET"): Row("/fhir/_history", "s", past=True),
    ("/fhir/_search", "POST"): Row("/fhir/_search?_type=Observation", "s", ""),
    ("/fhir/$meta", "GET"): Row("/fhir/$meta", "s"),
    ("/fhir/$meta", "POST"): Row("/fhir/$meta", "s", ""),
    ("/fhir/$diff", "GET"): Row(
        "/fhir/$diff?from=Observation/a1/_history/1&to=Observation/a1/_history/2", "r", past=True
    ),
    ("/fhir/$diff", "POST"): Row(
        "/fhir/$diff?from=Observation/a1/_history/1&to=Observation/a1/_history/2", "r", "", past=True
    ),
    ("/fhir/$changes", "GET"): Row("/fhir/$changes?from=2023-11-15", "s", past=True),
    ("/fhir/$changes", "POST"): Row("/fhir/$changes?from=2023-11-15", "s", "", past=True),
    ("/fhir/$revert", "POST"): Row(
        f"/fhir/$revert?commit={'0' * 40}", body="", role="restore", answers=(404,)
    ),
    ("/fhir/{type}", "GET"): Row("/fhir/Observation", "s"),
    ("/fhir/{type}", "POST"): Row("/fhir/Observation", "c", NEW),
    ("/fhir/{type}", "PUT"): Row("/fhir/Observation?_id=a1", "us", OBSERVATION),
    ("/fhir/{type}", "PATCH"): Row("/fhir/Observation?_id=a1", "us", PATCH),
    ("/fhir/{type}", "DELETE"): Row("/fhir/Observation?_id=gone", "ds"),
    ("/fhir/{type}/_history", "GET"): Row("/fhir/Observation/_history", "s", past=True),
    ("/fhir/{type}/_search", "POST"): Row("/fhir/Observation/_search", "s", ""),
    ("/fhir/{type}/$validate", "POST"): Row("/fhir/Observation/$validate", body=NEW),
    ("/fhir/{type}/$meta", "GET"): Row("/fhir/Observation/$meta", "s"),
    ("/fhir/{type}/$meta", "POST"): Row("/fhir/Observation/$meta", "s", ""),
    ("/fhir/{type}/{id}", "GET"): Row("/fhir/Observation/a1", "r"),
    ("/fhir/{type}/{id}", "PUT"): Row("/fhir/Observation/a1", "u", OBSERVATION),
    ("/fhir/{type}/{id}", "PATCH"): Row("/fhir/Observation/a1", "u", PATCH),
    ("/fhir/{type}/{id}", "DELETE"): Row("/fhir/Observation/gone", "d"),
    ("/fhir/{type}/{id}", "POST"): Row("/fhir/Observation/a1", body=NEW, answers=(405,)),
    ("/fhir/{type}/{id}/_history", "GET"): Row("/fhir/Observation/a1/_history", "r", past=True),
    ("/fhir/{type}/{id}/_history/{vid}", "GET"): Row("/fhir/Observation/a1/_history/1", "r", past=True),
    ("/fhir/{type}/{id}/_history/{vid}/$meta", "GET"): Row(
        "/fhir/Observation/a1/_history/1/$meta", "r", past=True
    ),
    ("/fhir/{type}/{id}/_history/{vid}/$meta", "POST"): Row(
        "/fhir/Observation/a1/_history/1/$meta", "r", "", past=True
    ),
    ("/fhir/{type}/{id}/_search", "POST"): Row("/fhir/Patient/ann/_search?_type=Observation", "s", ""),
    ("/fhir/{type}/{id}/$validate", "GET"): Row("/fhir/Observation/a1/$validate", "r"),
    ("/fhir/{type}/{id}/$validate", "POST"): Row("/fhir/Observation/a1/$validate", body=OBSERVATION),
    ("/fhir/{type}/{id}/$meta", "GET"): Row("/fhir/Observation/a1/$meta", "r"),
    ("/fhir/{type}/{id}/$meta", "POST"): Row("/fhir/Observation/a1/$meta", "r", ""),
    ("/fhir/{type}/{id}/$meta-add", "POST"): Row("/fhir/Observation/a1/$meta-add", "u", LABELS),
    ("/fhir/{type}/{id}/$meta-delete", "POST"): Row("/fhir/Observation/a1/$meta-delete", "u", LABELS),
    ("/fhir/{type}/{id}/$everything", "GET"): Row("/fhir/Patient/ann/$everything", "rs"),
    ("/fhir/{type}/{id}/$everything", "POST"): Row("/fhir/Patient/ann/$everything", "rs", ""),
    ("/fhir/{type}/{id}/$diff", "GET"): Row("/fhir/Observation/a1/$diff", "r", past=True),
    ("/fhir/{type}/{id}/$diff", "POST"): Row("/fhir/Observation/a1/$diff", "r", "", past=True),
    ("/fhir/{type}/{id}/$blame", "GET"): Row("/fhir/Observation/a1/$blame", "r", past=True),
    ("/fhir/{type}/{id}/$blame", "POST"): Row("/fhir/Observation/a1/$blame", "r", "", past=True),
    ("/fhir/{type}/{id}/$restore", "POST"): Row(
        "/fhir/Observation/a1/$restore?version=1", "ru", "", past=True, role="restore"
    ),
    ("/fhir/{type}/{id}/{name}", "GET"): Row("/fhir/Patient/ann/Observation", "s"),
    ("/fhir/{type}/{id}/{name}", "POST"): Row("/fhir/Patient/ann/Observation", body=NEW, answers=(405,)),
    ("/fhir/{type}/{id}/{name}/_search", "POST"): Row("/fhir/Patient/ann/Observation/_search", "s", ""),
    ("/login", "GET"): Row("/login", open=True),
    ("/login", "POST"): Row("/login", open=True, body="", answers=(303, 401, 403)),
    ("/logout", "POST"): Row("/logout", open=True, body="", answers=(303, 403)),
    ("/wake", "POST"): Row("/wake", open=True, body="", answers=(404,)),  # there are no other nodes
    ("/.well-known/smart-configuration", "GET"): Row("/.well-known/smart-configuration", open=True),
    ("/fhir/.well-known/smart-configuration", "GET"): Row("/fhir/.well-known/smart-configuration", open=True),
}

SCOPES = {
    "all": "user/*.cruds git-fhir/*",
    "all without roles": "user/*.cruds",
    "system": "system/*.cruds git-fhir/history",
    "version 1": "user/*.* git-fhir/history",
    "reader": "user/*.rs git-fhir/history",
    "only r": "user/*.r git-fhir/history",
    "only s": "user/*.s git-fhir/history",
    "writer": "user/*.cud git-fhir/history",
    "another type": "user/Questionnaire.cruds git-fhir/history",
    "what they select": "user/Observation.cruds?subject=Patient/ann user/Patient.cruds git-fhir/history",
    "ann": "patient/*.cruds git-fhir/history",
    "ben": "patient/*.cruds git-fhir/history",
    "nothing": "openid git-fhir/clone",
}
BAD = (
    "none",
    "garbage",
    "no base64",
    "expired",
    "revoked",
    "of another",
    "alg none",
    "confused",
    "expired JWT",
)


def letters(scopes: str) -> frozenset[str]:
    """Those that a scope has for Observations."""
    found = {"reader": "rs", "only r": "r", "only s": "s", "writer": "cud", "another type": "", "nothing": ""}
    return frozenset(found.get(scopes, "cruds"))


def expected(row: Row, scopes: str) -> tuple[int, ...]:
    """The statuses that may come. What is not seen is 404; what may not be done at all, or not to that, is 403."""
    if row.role is not None and scopes != "all":
        return (403,)
    if row.letter is None or row.open:
        return row.answers
    if row.past and scopes in ("all without roles", "nothing"):
        return (404,) if scopes != "nothing" else (403, 404)
    if not frozenset(row.letter) <= letters(scopes):
        # A search over all types finds those it may search.
        return (200,) if scopes == "another type" and row.url in EVERYWHERE else (403,)
    if scopes == "ben":
        return {"r": (404,), "rs": (404,), "s": (200,), "us": (403, 404), "ds": (204,)}.get(
            row.letter, (403,)
        )
    return row.answers


EVERYWHERE = ("/fhir/_history", "/fhir/$meta", "/fhir/$changes?from=2023-11-15")


@pytest.fixture(scope="module")
def house(
    empty_record: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """A server, and an Authorization header for each kind of credentials."""
    home = copy_record(empty_record, tmp_path_factory.mktemp("matrix") / "record.git")
    clock, provider = Clock(), IdentityProvider()
    configured = Settings(
        durability="off", validation="off", issuer=(ISSUER,), audience=(AUDIENCE,), max_in_flight=0
    )
    with Store.open(home, configured) as store:
        for id in ("ann", "ben"):
            patient = {"resourceType": "Patient", "id": id}
            store.commit([Update(ResourceId("Patient", id), patient)], ANONYMOUS)
        for id in ("a1", "a1", "gone"):
            store.commit([Update(ResourceId("Observation", id), {**OBSERVATION, "id": id})], ANONYMOUS)
        credentials = Credentials(str(home), configured, clock, fetch=provider)
        app = create_app(store, configured, credentials=credentials)
        yield TestClient(app, headers={"Host": "localhost:8080"}), keys(str(home), provider)


def keys(home: str, provider: IdentityProvider) -> dict[str, str]:
    tokens, now = Tokens(home), NOW * 1_000_000

    def made(scope: str, patient: str | None = None, expires: int | None = None) -> tuple[str, str]:
        secret, token = tokens.create(
            name="X", email="x@clinic.example", scope=scope, now=now - 10, expires=expires, patient=patient
        )
        return f"Bearer {secret}", token.id

    found = {
        name: made(scope, {"ann": "ann", "ben": "ben"}.get(name))[0]
        for name, scope in SCOPES.items()
        if name != "nothing"
    }
    # What grants nothing is refused as a token; an identity provider may send it.
    found["nothing"] = f"Bearer {provider.token(scope=SCOPES['nothing'])}"
    revoked, id = made(SCOPES["all"])
    tokens.revoke(id, now - 5)
    claims = encoded(provider.claims(scope=SCOPES["all"]))
    provider.keys["shared"] = OctKey.import_key(json.dumps(provider.published["one"]).encode())
    return found | {
        "garbage": "Bearer gf_garbage",
        "no base64": f"Basic {base64.b64encode(b'only').decode()}!",
        "expired": made(SCOPES["all"], expires=now - 1)[0],
        "revoked": revoked,
        "of another": f"Bearer {provider.token(aud='https://elsewhere.example')}",
        "alg none": f"Bearer {encoded({'alg': 'none', 'kid': 'one'})}.{claims}.",
        "confused": f"Bearer {provider.token('shared', {'alg': 'HS256', 'kid': 'one'}, scope=SCOPES['all'])}",
        "expired JWT": f"Bearer {provider.token(scope=SCOPES['all'], exp=NOW - 100)}",
    }


def ask(house: tuple[TestClient, dict[str, str]], method: str, row: Row, kind: str) -> Result:
    client, authorizations = house
    headers = {"Authorization": authorizations[kind]} if kind in authorizations else {}
    body = None if row.body is None else row.body if isinstance(row.body, str) else json.dumps(row.body)
    if body:
        patch = method == "PATCH"
        headers["Content-Type"] = "application/json-patch+json" if patch else "application/fhir+json"
    path, _, query = row.url.partition("?")
    return client.simulate_request(method, path, query_string=query, headers=headers, body=body)


def test_every_method_of_every_route_has_a_row() -> None:
    there = {
        (path, method)
        for path, kind in ROUTES
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if hasattr(kind, f"on_{method.lower()}")
    }
    beside = {key for key in ROWS if key[0] not in dict(ROUTES)}
    assert set(ROWS) - beside == there
    assert {path for path, _ in beside} == {
        "/login",
        "/logout",
        "/wake",
        "/.well-known/smart-configuration",
        "/fhir/.well-known/smart-configuration",
    }


@pytest.mark.parametrize(("path", "method"), ROWS)
def test_bad_credentials_open_nothing_but_what_is_open_anyway(
    house: tuple[TestClient, dict[str, str]], path: str, method: str
) -> None:
    row = ROWS[path, method]
    for kind in BAD:
        response = ask(house, method, row, kind)
        if row.open:
            assert response.status_code in row.answers, kind
        else:
            assert response.status_code == 401, kind
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="git-fhir"')
            assert response.json["resourceType"] == "OperationOutcome"
            assert "Git-Commit" not in response.headers


@pytest.mark.parametrize("scopes", SCOPES)
@pytest.mark.parametrize(("path", "method"), ROWS)
def test_good_credentials_open_what_their_scopes_say(
    house: tuple[TestClient, dict[str, str]], path: str, method: str, scopes: str
) -> None:
    row = ROWS[path, method]
    response = ask(house, method, row, scopes)
    assert response.status_code in expected(row, scopes), response.text
    if response.status_code in (403, 404):
        assert response.json["resourceType"] == "OperationOutcome"
