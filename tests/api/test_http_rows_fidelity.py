"""Rows of the checklist on what is stored: exactly what was sent, or nothing. https://hl7.org/fhir/R4/json.html"""

from __future__ import annotations

import json

import pytest

from gitstore import Settings, Store
from tests.api.conftest import START
from tests.api.ward import client_of
from tests.conftest import copy_record

DIGITS = ["1.00", "0.010", "100.0", "1E+2", "123456789012345678", "0.123456789012345678", "-0.0", "1e-7"]
JSON_PATCH = "application/json-patch+json"
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'

MASKED = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"}


@pytest.fixture(scope="module")
def strict(empty_record, tmp_path_factory):
    """A client of a server with the settings that it has by default, but for fsync. All tests share its record."""
    settings = Settings(durability="off")
    path = copy_record(empty_record, tmp_path_factory.mktemp("strict") / "record.git")
    with Store.open(path, settings, clock=lambda: START) as store:
        yield client_of(store, settings)


def observation(number):
    return (
        '{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},'
        f'"valueQuantity":{{"value":{number}}}}}'
    )


def digits_in(text):
    """Every number of a JSON text, as it is written."""
    found: list[str] = []
    json.loads(text, parse_float=found.append, parse_int=found.append)
    return found


@pytest.mark.parametrize("digits", DIGITS)
def test_digits_survive_every_way_out(strict, digits):
    """17.1: read, vread, search, history, and a patch of another element."""
    strict.put("Observation/o", observation(digits))
    patched = strict.request(
        "PATCH",
        "Observation/o",
        [{"op": "replace", "path": "/status", "value": "amended"}],
        Content_Type=JSON_PATCH,
    )
    assert patched.status_code == 200

    version = patched.json["meta"]["versionId"]
    for url in (
        "Observation/o",
        f"Observation/o/_history/{int(version) - 1}",
        "Observation?_id=o",
        "Observation/o/_history?_count=1",
    ):
        assert digits in digits_in(strict.get(url).text), url


REFUSED = {
    # row: parts of a Patient that is not FHIR's JSON
    "17.2 a number as text": '"multipleBirthInteger": "1"',
    "17.2 a text as number": '"language": 1',
    "17.2 a boolean as text": '"active": "true"',
    "17.2 nothing after the point": '"multipleBirthInteger": 1.',
    "17.2 a leading zero": '"multipleBirthInteger": 01',
    "17.2 not a number": '"multipleBirthInteger": NaN',
    "17.3 null": '"active": null',
    "17.3 an empty text": '"language": ""',
    "17.3 an empty array": '"name": []',
    "17.3 an empty object": '"name": [{}]',
    "17.3 null for an object": '"name": [null]',
    "17.4 more siblings than values": '"name": [{"given": ["a"], "_given": [null, {"id": "b"}, {"id": "c"}]}]',
    "17.5 a comment": '"active": true /* yes */',
    "17.5 a name twice": '"active": true, "active": false',
    "17.7 an unknown element": '"banana": 1',
    "17.7 an unknown element below": '"name": [{"banana": 1}]',
    "17.10 a control character": '"name": [{"family": "a\\u0001"}]',
    "17.10 half a character": '"name": [{"family": "\\ud83d"}]',
}


@pytest.mark.parametrize("part", REFUSED.values(), ids=REFUSED)
def test_what_is_not_fhirs_json_is_refused(strict, issue, part):
    """17.2, 17.3, 17.4, 17.5, 17.7, 17.10: 400, and nothing is stored or left out."""
    response = strict.put("Patient/refused", f'{{"resourceType": "Patient", "id": "refused", {part}}}')

    assert response.status_code == 400, response.text
    assert issue(response)[0] == "error"
    assert strict.get("Patient/refused").status_code == 404


KEPT = {
    "17.3 null where a sibling stands": {
        "name": [{"given": ["a", None], "_given": [None, {"extension": [MASKED]}]}]
    },
    "17.4 a sibling alone": {
        "_birthDate": {"extension": [{"url": "http://x.example", "valueCode": "masked"}]}
    },
    "17.4 a value with its id": {"birthDate": "1815-12-10", "_birthDate": {"id": "b"}},
    "17.6 the order of properties": {"birthDate": "1815", "active": True, "gender": "female"},
    "17.7 an unknown extension": {"extension": [{"url": "http://x.example/e", "valueString": "kept"}]},
    "17.7 an unknown modifier": {"modifierExtension": [{"url": "http://x.example/m", "valueBoolean": True}]},
    "17.8 a narrative": {"text": {"status": "generated", "div": DIV.format("<b>Ada</b> &amp; <br/>co")}},
    "17.9 a year": {"birthDate": "1815"},
    "17.9 an offset": {"deceasedDateTime": "2013-02-02T12:02:47+00:00"},
    "17.9 UTC": {"deceasedDateTime": "2013-02-02T12:02:47Z"},
    "17.9 digits of a second": {"deceasedDateTime": "2013-02-02T12:02:47.100+11:00"},
    "17.10 beyond the first plane": {"name": [{"family": "😀𝒜"}]},
    "17.10 composed otherwise": {"name": [{"family": "e\u0301"}, {"family": "\u00e9"}]},
    "17.10 white space": {"name": [{"text": "a\tb\r\nc"}]},
}


@pytest.mark.parametrize("part", KEPT.values(), ids=KEPT)
def test_what_is_fhir_stays_as_it_is(strict, part):
    """17.3, 17.4, 17.6, 17.7, 17.8, 17.9, 17.10: each property with its value, in the order they came."""
    sent = {"resourceType": "Patient", "id": "p", **part}
    made = strict.put("Patient/p", sent)
    assert made.status_code in (200, 201), made.text

    for url in ("Patient/p", f"Patient/p/_history/{made.json['meta']['versionId']}"):
        found = strict.get(url).json
        del found["meta"]
        assert json.dumps(found) == json.dumps(sent), url


@pytest.mark.parametrize(
    "content", ["<script>alert(1)</script>", '<img src="x" onerror="x()"/>', "<style>x</style>"]
)
def test_a_narrative_runs_nothing(strict, content):
    """17.8: refused, not cleaned."""
    text = {"status": "generated", "div": DIV.format(content)}

    response = strict.put("Patient/refused", {"resourceType": "Patient", "id": "refused", "text": text})

    assert response.status_code in (400, 422)
    assert strict.get("Patient/refused").status_code == 404


def test_last_updated_only_grows(client, patient, clock):
    """17.9: an instant in UTC; later than that of the version before, even where the clock goes back."""
    times = []
    for seconds in (0, 0, -60):
        clock.forward(seconds)
        times.append(client.put("Patient/example", patient).json["meta"]["lastUpdated"])

    assert times == sorted(set(times))
    assert all(time.endswith("Z") for time in times)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 40_000,
        b'{"a":' * 9_000,
        b'{"resourceType":"Patient","extension":' + b'[{"extension":' * 3_000,
        b'{"resourceType":"Patient","multipleBirthInteger":' + b"1" * 40_000 + b"}",
    ],
)
def test_a_bomb_is_the_clients_fault(client, issue, body):
    """17.11: 400, never 500."""
    response = client.post("Patient", body)

    assert response.status_code == 400
    assert issue(response)[0] == "error"


def test_meta_keeps_what_is_not_the_servers(client, patient):
    """17.12: source, tags, labels, profiles and extensions; where there was none it is made."""
    meta = {
        "extension": [{"url": "http://x.example/e", "valueString": "kept"}],
        "source": "http://x.example/feed#1",
        "profile": ["http://x.example/p"],
        "security": [{"system": "http://x.example", "code": "R"}],
        "tag": [{"system": "http://x.example", "code": "t", "display": "T"}],
    }

    kept = client.put("Patient/example", patient | {"meta": meta}).json["meta"]
    made = client.put("Patient/example", patient).json["meta"]

    assert {name: kept[name] for name in meta} == meta
    assert set(kept) - set(meta) == set(made) == {"versionId", "lastUpdated"}
