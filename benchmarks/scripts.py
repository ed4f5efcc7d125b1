"""What the clients of benchmarks/server.py ask for, and the resources that are there before they do."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any

from benchmarks.load import Ask, MakeScript, Script
from benchmarks.store import resource as observation

TYPES = ("Patient", "Observation", "Condition", "Encounter", "MedicationRequest")
VARIANTS = 20
"""Different bodies of each type. No two versions are the same bytes: they tell their version and instant."""

_LOINC, _SNOMED = "http://loinc.org", "http://snomed.info/sct"
_PLACE = "here-stands-the-id"
_HOST = b"Host: 127.0.0.1\r\nAccept: application/fhir+json\r\n"


def name(number: int) -> tuple[str, str]:
    """Type and id of one of the resources that are there from the beginning: the types take turns."""
    return TYPES[number % len(TYPES)], f"r-{number}"


def content(number: int, id: str | None, people: int) -> dict[str, Any]:
    """A resource of 0.7 to 1.4 KB as the store prints it; all but Patients are about one of the first `people` of them."""
    type = TYPES[number % len(TYPES)]
    chance = random.Random(number)
    body = _CONTENT[type](number, chance)
    if type != "Patient":
        body["subject"] = {"reference": f"Patient/r-{chance.randrange(people) * len(TYPES)}"}
    body.pop("id", None)
    return {"resourceType": type} | ({} if id is None else {"id": id}) | body


def _patient(number: int, chance: random.Random) -> dict[str, Any]:
    return {
        "identifier": [{"system": "http://hospital.example/mrn", "value": f"{number:08}"}],
        "active": True,
        "name": [{"use": "official", "family": f"Family {number}", "given": ["Ada", "Grace"]}],
        "telecom": [{"system": "phone", "value": f"+49 40 {number:07}", "use": "home"}],
        "gender": chance.choice(["female", "male"]),
        "birthDate": f"19{chance.randrange(40, 99)}-0{chance.randrange(1, 9)}-11",
        "address": [{"line": [f"{number} Main Street"], "city": "Hamburg", "postalCode": "20095"}],
    }


def _condition(_: int, chance: random.Random) -> dict[str, Any]:
    status = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    code = chance.choice(["195662009", "38341003", "44054006", "40055000"])
    return {
        "clinicalStatus": {"coding": [{"system": status, "code": chance.choice(["active", "resolved"])}]},
        "code": {"coding": [{"system": _SNOMED, "code": code}], "text": "What the doctor calls it"},
        "onsetDateTime": f"20{chance.randrange(10, 26)}-0{chance.randrange(1, 9)}-11T08:30:00Z",
        "note": [{"text": f"{chance.random():.16f} " * 20}],
    }


def _encounter(_: int, chance: random.Random) -> dict[str, Any]:
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"}
    year = chance.randrange(10, 26)
    return {
        "status": chance.choice(["finished", "planned"]),
        "class": kind,
        "type": [{"coding": [{"system": _SNOMED, "code": "185349003"}], "text": "Encounter for check up"}],
        "period": {"start": f"20{year}-05-11T08:30:00Z", "end": f"20{year}-05-11T08:45:00Z"},
    }


def _medication_request(_: int, chance: random.Random) -> dict[str, Any]:
    drug = {
        "system": "http://www.nlm.nih.gov/research/umls/rxnorm",
        "code": f"{chance.randrange(300000, 300040)}",
    }
    return {
        "status": chance.choice(["active", "stopped"]),
        "intent": "order",
        "medicationCodeableConcept": {"coding": [drug], "text": "A tablet"},
        "authoredOn": f"20{chance.randrange(10, 26)}-05-11T08:30:00Z",
        "dosageInstruction": [{"sequence": 1, "text": "one in the morning, one in the evening"}],
    }


_CONTENT: Mapping[str, Callable[[int, random.Random], dict[str, Any]]] = {
    "Patient": _patient,
    "Observation": lambda number, _: observation(number),
    "Condition": _condition,
    "Encounter": _encounter,
    "MedicationRequest": _medication_request,
}


# Requests


def get(path: str, more: str = "") -> bytes:
    return b"GET /fhir/%b HTTP/1.1\r\n%b%b\r\n" % (path.encode(), _HOST, more.encode())


def sent(method: str, path: str, body: bytes, more: bytes = b"") -> bytes:
    head = f"{method} /fhir/{path} HTTP/1.1\r\nContent-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + _HOST + more + b"\r\n" + body


@dataclass(frozen=True)
class Record:
    """A record with so many resources, and how many clients share them out."""

    size: int
    clients: int

    @property
    def people(self) -> int:
        return max(1, self.size // len(TYPES))

    def own(self, client: int) -> list[int]:
        """The resources that one client alone updates: of every other handful, so that half of all stay as they are."""
        changing = [number for number in range(self.size) if number // len(TYPES) % 2 == 0]
        return changing[client :: self.clients] or changing[:1]

    def still(self) -> list[int]:
        """The resources that nobody updates: they are at version 1."""
        return [number for number in range(self.size) if number // len(TYPES) % 2]

    def creates(self) -> list[bytes]:
        """POSTs of all types."""
        bodies = [content(number, None, self.people) for number in range(VARIANTS * len(TYPES))]
        return [sent("POST", body["resourceType"], json.dumps(body).encode()) for body in bodies]

    def contents(self) -> list[list[tuple[bytes, bytes]]]:
        """Bodies by the number of their type, in two pieces: the id stands between them."""
        found: list[list[tuple[bytes, bytes]]] = []
        for kind in range(len(TYPES)):
            numbers = range(kind, kind + VARIANTS * len(TYPES), len(TYPES))
            bodies = [json.dumps(content(number, _PLACE, self.people)).encode() for number in numbers]
            pieces = [body.partition(_PLACE.encode()) for body in bodies]
            found.append([(before, after) for before, _, after in pieces])
        return found


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header in an answer."""
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


class InTurn:
    """One request after the other, and all over again."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self._asks = cycle(asks)

    def next(self) -> Ask:
        return next(self._asks)


class Once:
    """Each request once, whichever of its clients comes to it. They have to be in one process."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self._asks = iter(asks)

    def next(self) -> Ask | None:
        return next(self._asks, None)


def in_turn(asks: Sequence[Ask]) -> MakeScript:
    """Each client begins at another place."""

    def make(client: int) -> Script:
        start = client * 7919 % len(asks)
        return InTurn([*asks[start:], *asks[:start]])

    return make


def reads(record: Record) -> MakeScript:
    return in_turn([Ask("read", get("/".join(name(number)))) for number in record.still()])


def vreads(record: Record) -> MakeScript:
    paths = ("/".join(name(number)) for number in record.still())
    return in_turn([Ask("vread", get(f"{path}/_history/1")) for path in paths])


def not_modified(record: Record) -> MakeScript:
    paths = ("/".join(name(number)) for number in record.still())
    return in_turn([Ask("304", get(path, 'If-None-Match: W/"1"\r\n'), b"304") for path in paths])


def fixed(_: Record) -> MakeScript:
    return in_turn([Ask("read", get("Patient/example"))])


def creates(record: Record) -> MakeScript:
    return in_turn([Ask("create", request, b"201") for request in record.creates()])


def histories(record: Record) -> MakeScript:
    paths = ("/".join(name(number)) for number in record.own(0)[:50])
    pages = [Ask("history of one", get(f"{path}/_history?_count=10")) for path in paths]
    whole = [Ask("history of a type", get(f"{type}/_history?_count=10")) for type in TYPES]
    return in_turn([ask for pair in zip(pages, cycle(whole), strict=False) for ask in pair])


def searches(record: Record) -> MakeScript:
    """Shapes in turns, about other patients each time."""
    shapes = {
        "by id": "Patient?_id=r-{number}",
        "by name": "Patient?family=Family%20{number}",
        "of a patient": "Observation?patient=r-{number}&_sort=-date&_count=10",
        "by code and status": f"Condition?code={_SNOMED}|38341003&clinical-status=active&_count=10&_total=none",
        "with include": "MedicationRequest?patient=r-{number}&_include=MedicationRequest:subject&_count=10",
        "newest first": "Encounter?status=finished&_sort=-date&_count=10&_total=none",
        "count": "Observation?code=8480-6&_summary=count",
    }
    people = range(0, min(record.size, 500), len(TYPES))
    return in_turn(
        [
            Ask(f"search {shape}", get(query.format(number=number)))
            for number in people
            for shape, query in shapes.items()
        ]
    )


class Mix:
    """10 creates, 60 reads, 25 updates and 5 deletions in a hundred; what it deletes it has created."""

    def __init__(self, record: Record, creates: Sequence[bytes], contents: Any, client: int) -> None:
        self._chance = random.Random(client)
        self._creates, self._contents = creates, contents
        self._reads = [get("/".join(name(number))) for number in record.still()]
        self._own = record.own(client)
        self._made: list[bytes] = []

    def next(self) -> Ask:
        chance = self._chance
        drawn = chance.random()
        if drawn < 0.60:
            return Ask("read", chance.choice(self._reads))
        if drawn < 0.85:
            number = chance.choice(self._own)
            type, id = name(number)
            before, after = chance.choice(self._contents[number % len(TYPES)])
            return Ask("update", sent("PUT", f"{type}/{id}", before + id.encode() + after))
        if drawn < 0.95 or not self._made:
            return Ask("create", chance.choice(self._creates), b"201", self._created)
        path = self._made.pop().decode()
        return Ask("delete", f"DELETE /fhir/{path} HTTP/1.1\r\n".encode() + _HOST + b"\r\n", b"204")

    def _created(self, head: bytes) -> None:
        self._made.append(header(head, b"Location").partition(b"/fhir/")[2].partition(b"/_history")[0])


def mixes(record: Record) -> MakeScript:
    creates, contents = record.creates(), record.contents()
    return lambda client: Mix(record, creates, contents, client)


class Updates:
    """Updates of the client's own resources with If-Match, each of the version that the last answer told."""

    def __init__(self, record: Record, contents: Any, client: int) -> None:
        self._contents, self._numbers = contents, cycle(record.own(client)[:5])
        self._tags: dict[int, bytes] = {}
        self._number = 0
        self._turn = count()

    def next(self) -> Ask:
        self._number = number = next(self._numbers)
        type, id = name(number)
        tag = self._tags.get(number)
        if tag is None:
            return Ask("read before the first", get(f"{type}/{id}"), b"200", self._learn)
        before, after = self._contents[number % len(TYPES)][next(self._turn) % VARIANTS]
        body = before + id.encode() + after
        request = sent("PUT", f"{type}/{id}", body, b"If-Match: " + tag + b"\r\n")
        return Ask("update with If-Match", request, b"200", self._learn)

    def _learn(self, head: bytes) -> None:
        self._tags[self._number] = header(head, b"Etag")  # as waitress spells it


def updates(record: Record) -> MakeScript:
    contents = record.contents()
    return lambda client: Updates(record, contents, client)


def hot(record: Record) -> MakeScript:
    """All clients update one resource, without a condition."""
    type, id = name(0)
    bodies = [before + id.encode() + after for before, after in record.contents()[0]]
    return in_turn([Ask("update", sent("PUT", f"{type}/{id}", body)) for body in bodies])


# Synthea


def bundles(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Synthea's bundles: what all refer to, and the transactions about patients, the smallest first."""
    shared: list[bytes] = []
    patients: list[bytes] = []
    for path in sorted(folder.rglob("*.json*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (patients if json.loads(text)["type"] == "transaction" else shared).append(text)
    return shared, sorted(patients, key=len)


def entries(bundle: bytes) -> int:
    return len(json.loads(bundle)["entry"])


def transactions(patients: Sequence[bytes]) -> MakeScript:
    return in_turn([Ask(f"transaction of {entries(each)}", sent("POST", "", each)) for each in patients])


def initial(size: int) -> Iterator[dict[str, Any]]:
    """The resources that are there from the beginning."""
    for number in range(size):
        yield content(number, name(number)[1], Record(size, 1).people)
