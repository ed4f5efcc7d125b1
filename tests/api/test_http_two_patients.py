"""A client that may see one patient tries everything to learn of another: nothing comes back, and nothing can be told.

Every request that names something of the other patient is sent a second time with ids that never were: the two answers
have to be the same. GIT_FHIR_TWO_PATIENTS=100000 makes so many requests instead of the usual number, GIT_FHIR_FUZZ_SEED
other ones.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import Result, TestClient

from api.app import create_app
from api.credentials import Credentials
from gitstore import ANONYMOUS, Delete, Settings, Store, Tokens, Update
from gitstore.fhir.ids import ResourceId
from tests.api.conftest import START
from tests.conftest import copy_record

REQUESTS = int(os.environ.get("GIT_FHIR_TWO_PATIENTS", "600"))
SEED = int(os.environ.get("GIT_FHIR_FUZZ_SEED", "1"))

SECRET = "qzjxk"  # noqa: S105 - no password
"""Stands in every text of the other patient's, and nowhere else."""

GUESS = "vwpfq"
"""Stands in the other patient's codes and numbers, and the client guesses it."""

OWN, OTHER = "own", "other"


def resources(who: str) -> list[dict[str, Any]]:
    """All there is of one patient, in every text a word by which it would be recognised."""
    word, code = (SECRET, GUESS) if who == OTHER else ("plain", "simple")
    subject = {"subject": {"reference": f"Patient/{who}-patient"}}
    patient = {"patient": {"reference": f"Patient/{who}-patient"}}

    def concept(text: str) -> dict[str, Any]:
        return {
            "text": f"{word} {text}",
            "coding": [{"system": "urn:s", "code": f"{code}-{text}", "display": word}],
        }

    return [
        {
            "resourceType": "Patient",
            "id": f"{who}-patient",
            "identifier": [{"system": "urn:mrn", "value": f"{code}-1"}],
            "name": [{"family": word, "given": [f"{word}a"]}],
            "birthDate": "1970-01-01",
            "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{word}</div>'},
            "meta": {"tag": [{"system": "urn:tag", "code": f"{code}-tag"}]},
            "generalPractitioner": [{"reference": "Practitioner/dr"}],
        },
        {
            "resourceType": "Observation",
            "id": f"{who}-observation",
            "status": "final",
            "code": concept("code"),
            "valueQuantity": {"value": 7, "unit": word},
            "effectiveDateTime": "2020-02-03",
            "performer": [{"reference": "Practitioner/dr"}],
            "note": [{"text": word}],
            **subject,
        },
        {
            "resourceType": "Observation",
            "id": f"{who}-panel",
            "status": "final",
            "code": concept("panel"),
            "hasMember": [
                {"reference": f"Observation/{who}-observation"},
                {"reference": "Observation/own-observation"},
            ],
            "derivedFrom": [{"reference": "Observation/own-observation/_history/1"}],
            **subject,
        },
        {
            "resourceType": "MedicationRequest",
            "id": f"{who}-order",
            "status": "active",
            "intent": "order",
            "medicationReference": {"reference": "#m"},
            "contained": [{"resourceType": "Medication", "id": "m", "code": concept("drug")}],
            **subject,
        },
        {
            "resourceType": "Encounter",
            "id": f"{who}-encounter",
            "status": "finished",
            "class": {"code": code, "display": word},
            **subject,
        },
        {"resourceType": "AllergyIntolerance", "id": f"{who}-allergy", "code": concept("nut"), **patient},
        {
            "resourceType": "List",
            "id": f"{who}-list",
            "status": "current",
            "mode": "working",
            "title": word,
            "entry": [{"item": {"reference": f"Observation/{each}-observation"}} for each in (who, OWN)],
            **subject,
        },
        {
            "resourceType": "Provenance",
            "id": f"{who}-provenance",
            "target": [{"reference": f"Patient/{who}-patient"}],
            "recorded": "2020-01-01T00:00:00Z",
            "agent": [{"who": {"display": word, "reference": "Practitioner/dr"}}],
        },
    ]


SHARED = [
    {"resourceType": "Practitioner", "id": "dr", "name": [{"family": "House"}]},
    {"resourceType": "ValueSet", "id": "vs", "status": "active", "url": "urn:vs"},
]
TYPES = sorted({each["resourceType"] for each in resources(OWN)} | {"Practitioner", "Medication"})
THINGS = [(each["resourceType"], each["id"].partition("-")[2]) for each in resources(OWN)] + [
    ("Observation", "gone"),
    ("Observation", "moved"),
]


@pytest.fixture(scope="module")
def house(
    empty_record: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Store]]:
    home = copy_record(empty_record, tmp_path_factory.mktemp("two") / "record.git")
    configured = Settings(
        durability="off",
        validation="off",
        max_in_flight=0,
        conditional_delete="multiple",
        search_limit=20_000_000,
    )
    with Store.open(home, configured) as store:

        def put(resource: dict[str, Any]) -> None:
            store.commit([Update(ResourceId(resource["resourceType"], resource["id"]), resource)], ANONYMOUS)

        for resource in [*SHARED, *resources(OWN), *resources(OTHER)]:
            put(resource)
        _, observation, *_ = resources(OTHER)
        put({**observation, "id": "other-gone"})
        store.commit([Delete(ResourceId("Observation", "other-gone"))], ANONYMOUS)
        # Filed under the wrong patient at first.
        put({**observation, "id": "other-moved", "subject": {"reference": "Patient/own-patient"}})
        put({**observation, "id": "other-moved"})
        put({**observation, "valueQuantity": {"value": 8, "unit": SECRET}})
        secret, _ = Tokens(str(home)).create(
            name="App",
            email="app@clinic.example",
            scope="patient/*.cruds git-fhir/history git-fhir/restore",
            patient="own-patient",
            now=START,
            expires=None,
        )
        credentials = Credentials(str(home), configured, lambda: START + 1)
        app = create_app(store, configured, credentials=credentials, new_request_id=lambda: "request")
        headers = {"Host": "localhost:8080", "Authorization": f"Bearer {secret}"}
        yield TestClient(app, headers=headers), store


class Requests:
    """Requests at random. In `who`'s place stands the patient whose things they name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def any(self) -> tuple[str, str, Any, dict[str, str]]:
        """Method, URL below /fhir, body and headers, with {who} for the patient."""
        make = self.random.choice(
            [
                self.read,
                self.read,
                self.search,
                self.search,
                self.search,
                self.operation,
                self.write,
                self.bundle,
            ]
        )
        method, url, body, headers = make()
        if method == "GET" and self.random.random() < 0.3:
            headers = {**headers, "Accept": "text/html"}
        return method, url, body, headers

    def thing(self) -> str:
        type, name = self.random.choice(THINGS)
        return f"{type}/{{who}}-{name}"

    def read(self) -> tuple[str, str, Any, dict[str, str]]:
        random, thing = self.random, self.thing()
        type = thing.partition("/")[0]
        url = random.choice(
            [
                thing,
                f"{thing}/_history/1",
                f"{thing}/_history/2",
                f"{thing}/_history",
                f"{thing}/_history?_count=1",
                f"{type}/_history?_count={random.choice((1, 3, 50))}",
                f"_history?_count={random.choice((2, 50))}",
                "_history?_since=2000-01-01T00:00:00Z&_at=2026",
                f"{thing}/_history?_at=2026",
            ]
        )
        headers = random.choice(
            [
                {},
                {"If-None-Match": 'W/"1"'},
                {"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"},
                {"Accept": "application/fhir+xml"},
                {"Accept": "text/html"},
                {"Accept": "text/html"},
            ]
        )
        return random.choice(("GET", "GET", "HEAD")), self.at_times_as_of(url), None, headers

    def at_times_as_of(self, url: str) -> str:
        """The same URL, some times below the base of a state of the record."""
        return f"/at/2100-01-01/fhir/{url}" if self.random.random() < 0.2 else url

    def value(self) -> str:
        return self.random.choice(
            [
                "{who}-patient",
                "Patient/{who}-patient",
                "Observation/{who}-observation",
                "{who}-observation,own-observation",
                f"urn:s|{GUESS}-code",
                GUESS,
                "x",
                "ge2000",
                "7",
                "true",
                "false",
                "Practitioner/dr",
                f"urn:mrn|{GUESS}-1",
            ]
        )

    def name(self) -> str:
        return self.random.choice(
            [
                *("_id", "_lastUpdated", "_tag", "_list", "_source", "_security"),
                *(
                    "subject",
                    "patient",
                    "code",
                    "name",
                    "identifier",
                    "birthdate",
                    "date",
                    "value-quantity",
                    "item",
                ),
                *("code:text", "code:not", "subject:missing", "name:contains", "subject:identifier"),
                *(
                    "subject:Patient.name",
                    "patient.identifier",
                    "has-member.code",
                    "performer.name",
                    "medication.code",
                ),
                *("subject:Patient._has:Observation:subject:code", "derived-from.value-quantity"),
                *(
                    "_has:Observation:subject:code",
                    "_has:Observation:performer:code",
                    "_has:Observation:has-member:code",
                ),
                *("_has:List:item:title", "_has:Provenance:target:agent", "_has:Encounter:patient:status"),
                *("_has:Observation:subject:has-member.code", "hasMember", "encounter.class", "target"),
            ]
        )

    def search(self) -> tuple[str, str, Any, dict[str, str]]:
        random = self.random
        pairs = [f"{self.name()}={self.value()}" for _ in range(random.choice((0, 1, 1, 2)))]
        pairs += random.sample(
            [
                "_include=*",
                "_include:iterate=*",
                "_revinclude=*",
                "_revinclude=Observation:has-member",
                "_include=Observation:has-member",
                "_revinclude:iterate=Provenance:target",
                "_sort=-_lastUpdated",
                "_sort=code",
                "_count=1",
                "_count=0",
                "_total=accurate",
                "_summary=count",
                "_summary=true",
                "_elements=code,name",
                "_contained=true",
                "_contained=both&_containedType=contained",
                f'_filter=code eq "{GUESS}" or subject re Patient/{{who}}-patient',
                "_filter=given pr true",
                "_list={who}-list",
                f"_text={GUESS}",
                f"_content={SECRET[:3]}",
                "_type=Observation,Patient",
                "_format=xml",
            ],
            random.choice((0, 1, 1, 2, 3)),
        )
        type = random.choice(TYPES)
        path = random.choice(
            [type, type, type, "", f"Patient/{{who}}-patient/{type}", "Patient/{who}-patient/*"]
        )
        headers = {"Accept": "text/html"} if random.random() < 0.2 else {}
        return "GET", self.at_times_as_of(f"{path}?{'&'.join(pairs)}"), None, headers

    def operation(self) -> tuple[str, str, Any, dict[str, str]]:
        random, thing = self.random, self.thing()
        labels = {"name": "meta", "valueMeta": {"tag": [{"system": "urn:x", "code": "y"}]}}
        body = {"resourceType": "Parameters", "parameter": [labels]}
        return random.choice(
            [
                ("GET", "Patient/{who}-patient/$everything", None, {}),
                ("GET", "Patient/{who}-patient/$everything?_type=Observation&start=2000", None, {}),
                ("GET", "Encounter/{who}-encounter/$everything", None, {}),
                ("GET", f"{thing}/$meta", None, {}),
                ("GET", f"{thing}/_history/1/$meta", None, {}),
                ("GET", "Observation/$meta", None, {}),
                ("GET", "$meta", None, {}),
                ("GET", f"{thing}/$diff", None, {}),
                ("GET", f"{thing}/$diff?fromVersion=1&toVersion=2", None, {}),
                ("GET", f"$diff?from={thing}&to={thing}/_history/1", None, {}),
                ("GET", f"{thing}/$blame", None, {}),
                ("GET", "$changes?from=2023-11-15&to=2030-01-01", None, {}),
                ("POST", f"{thing}/$meta-add", body, {}),
                ("POST", f"{thing}/$meta-delete", body, {}),
                ("GET", f"{thing}/$validate?mode=delete", None, {}),
                ("POST", f"{thing}/$restore?version=1", "", {}),
                ("POST", f"{thing}/$restore", "", {}),
            ]
        )

    def written(self) -> dict[str, Any]:
        """What a client would write: about itself, about the other, or with references to what the other has."""
        random = self.random
        found = random.choice(resources(OWN))
        found = json.loads(json.dumps(found).replace("own-", random.choice(("own-", "{who}-"))))
        if random.random() < 0.3:
            found["note"] = [{"authorReference": {"reference": self.thing()}}]
        if random.random() < 0.2:
            found["subject"] = {"reference": f"Patient?identifier=urn:mrn|{GUESS}-1"}
        return found

    def write(self) -> tuple[str, str, Any, dict[str, str]]:
        random, resource = self.random, self.written()
        type = resource["resourceType"]
        headers = random.choice(
            [
                {},
                {"If-Match": 'W/"99"'},
                {"If-None-Match": "*"},
                {"If-Match": "*"},
                {"Prefer": "return=OperationOutcome"},
                {"Idempotency-Key": f"k{{who}}{random.random()}"},
            ]
        )
        criteria = f"{self.name()}={self.value()}"
        patch = [{"op": "test", "path": "/status", "value": "final"}]
        as_patch = {**headers, "Content-Type": "application/json-patch+json"}
        return random.choice(
            [
                ("PUT", f"{type}/{resource['id']}", resource, headers),
                ("DELETE", self.thing(), None, headers),
                ("PATCH", self.thing(), patch, as_patch),
                ("POST", type, {key: value for key, value in resource.items() if key != "id"}, headers),
                ("POST", type, resource, {"If-None-Exist": criteria}),
                ("PUT", f"{type}?{criteria}", resource, headers),
                ("PATCH", f"{type}?{criteria}", patch, as_patch),
                ("DELETE", f"{type}?{criteria}", None, {}),
            ]
        )

    def bundle(self) -> tuple[str, str, Any, dict[str, str]]:
        entries = []
        # Not both: what was written would be found, and the second time there is more of it.
        makes = self.random.choice(((self.read, self.search), (self.operation, self.write)))
        for _ in range(self.random.choice((1, 2, 3))):
            method, url, body, _ = self.random.choice(makes)()
            url = url.replace(" ", "%20").replace('"', "%22")
            request: dict[str, Any] = {"method": method, "url": url}
            if method == "POST" and not body:
                continue
            entry: dict[str, Any] = {"request": request}
            if isinstance(body, dict):
                entry["resource"] = body
            entries.append(entry)
        kind = self.random.choice(("batch", "transaction"))
        return "POST", "", {"resourceType": "Bundle", "type": kind, "entry": entries}, {}


def send(client: TestClient, request: tuple[str, str, Any, dict[str, str]], who: str) -> Result:
    method, url, body, headers = request
    path, _, query = url.replace("{who}", who).partition("?")
    text = body if body is None or isinstance(body, str) else json.dumps(body).replace("{who}", who)
    sent = {name: value.replace("{who}", who) for name, value in headers.items()}
    if text:
        sent.setdefault("Content-Type", "application/fhir+json")
    path = path if path.startswith("/") else f"/fhir/{path}"
    return client.simulate_request(
        method, path.rstrip("/"), query_string=query, headers=sent, body=text or None
    )


CHANGING = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{40}"
    r"|_page=[A-Za-z0-9%._~|-]+|/_history/[0-9]+|W/\\?\"[0-9]+\\?\"|\"versionId\": ?\"[0-9]+\""
)
"""What two equal requests may answer differently: instants, new ids, commits, versions of what they write."""


NAMED = re.compile(r"(other|n[0-9a-f]{4})-")


def told(response: Result) -> tuple[int, str, list[tuple[str, str]]]:
    """What an answer says, without the ids that this question or an earlier one named."""
    skipped = (
        "git-commit",
        "etag",
        "last-modified",
        "location",
        "content-location",
        "content-length",
        "date",
    )
    headers = sorted((name, value) for name, value in response.headers.items() if name.lower() not in skipped)
    return response.status_code, CHANGING.sub("~", NAMED.sub("WHO-", response.text)), headers


def difference(never: tuple[int, str, Any], other: tuple[int, str, Any]) -> list[str]:
    """What an answer tells of another patient, by lines."""
    texts = [
        f"{status}\n{headers}\n{text}".replace(",", ",\n").splitlines()
        for status, text, headers in (never, other)
    ]
    return list(difflib.unified_diff(*texts, lineterm="", n=1))


def names_another(request: tuple[str, str, Any, dict[str, str]]) -> bool:
    return "{who}" in json.dumps(request)


def test_no_byte_of_another_patient_comes_back_and_nothing_tells_that_there_is_one(
    house: tuple[TestClient, Store],
) -> None:
    client, store = house
    requests = Requests(SEED)
    before = {
        str(version): version.blob for version in store.snapshot().resources() if "other" in str(version)
    }
    statuses: dict[int, int] = {}
    for number in range(REQUESTS):
        request = requests.any()
        # Those that write on behalf of one who was never there go first: what they leave is nobody's.
        nobody = f"n{number:04x}"  # as long as the other: what is cut off is cut off at the same place
        state = store.snapshot().commit
        never = send(client, request, nobody) if names_another(request) else None
        if store.snapshot().commit != state:
            never = None  # the client changed something of its own: it finds that the second time
        other = send(client, request, OTHER)
        statuses[other.status_code] = statuses.get(other.status_code, 0) + 1
        shown = f"{other.text}{other.headers}"
        assert SECRET not in shown, (number, request, shown)
        assert other.status_code < 500 or other.status_code == 501, (number, request, shown)
        if never is not None:
            assert difference(told(never), told(other)) == [], (number, request, never.text, other.text)
    after = {str(version): version.blob for version in store.snapshot().resources() if str(version) in before}
    assert after == before
    assert {200, 403, 404} <= statuses.keys()
