"""What asks the server during a soak: clients that do a bit of everything.

Each client writes resources of its own, so it knows what must be there; a few resources are everybody's, for If-Match
to have something to refuse. What was acknowledged, refused or broken off stands in the client's ledger.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import select
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.soak_resources import MARK, SCOPED, SHARED, SYSTEM, TRIPLE, condition, observation, patient

JSON = "application/fhir+json"

REQUESTS = 25
"""Of one connection."""

PAUSE = 0.1
"""Seconds after a 5xx."""

PER_PATIENT = 30
"""Writes after which a client begins with another patient, so that what there is of one stays small."""


class Gone(Exception):
    """The connection broke before the answer was there."""


class Acknowledged(NamedTuple):
    """A write that was answered with success. No mark: it was a deletion."""

    resource: str
    version: int
    mark: str | None


class Broken(NamedTuple):
    """A connection that broke: when it last was sound, and when it was seen. Seconds of the monotonic clock."""

    kind: str
    sound: float
    seen: float
    text: str


class Refused(NamedTuple):
    """An answer that nobody wants, but for which there may have been reason."""

    kind: str
    status: int
    begun: float
    ended: float
    retry_after: str | None
    text: str


@dataclass
class Ledger:
    """What one client saw."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: list[Acknowledged] = field(default_factory=list)
    triples: list[str] = field(default_factory=list)
    """Marks of transactions that were sent, whatever became of them."""
    undone: set[str] = field(default_factory=set)
    """Marks of writes that were refused: they must not have happened."""
    broken: list[Broken] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What no circumstance excuses."""
    is_full: bool = False
    """Whether a 507 was among the answers."""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def version(self) -> int:
        """Of the ETag."""
        return int(re.sub(r"\D", "", self.headers["ETag"]))

    def marks(self) -> list[str]:
        return [mark.decode() for mark in MARK.findall(self.body)]


@dataclass
class Own:
    """A resource that one client alone writes: the last version that was acknowledged, and what it may have become."""

    resource: str
    version: int = 0
    mark: str = ""
    attempted: set[str] = field(default_factory=set)
    is_unsure: bool = False
    """Whether a write broke off whose commit may be there: readers see it once the next writer has found it."""


class Line:
    """One connection at a time, with one token."""

    def __init__(self, port: int, secret: str, ledger: Ledger) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._sound = 0.0
        self._left = 0
        self._ledger = ledger

    def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        body: Any = None,
        expected: tuple[int, ...] = (200,),
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Raises Gone. An answer with another status than expected goes into the ledger, too."""
        begun = time.monotonic()
        self._hang_up_at_times()
        if self._connection.sock is None:
            self._sound = begun
        given = self._headers | ({"Content-Type": JSON} if body is not None else {}) | (headers or {})
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, given)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._ledger.broken.append(Broken(kind, self._sound, time.monotonic(), repr(error)))
            raise Gone from error
        ended = self._sound = time.monotonic()
        self._ledger.statuses[kind, response.status] += 1
        self._ledger.seconds[kind].append(ended - begun)
        self._ledger.is_full |= response.status == 507
        if response.status not in expected:
            text = f"{method} {path}: {content[:300].decode(errors='replace')}"
            again = response.headers["Retry-After"]
            self._ledger.refused.append(Refused(kind, response.status, begun, ended, again, text))
        return Answer(response.status, response.headers, content)

    def close(self) -> None:
        self._connection.close()

    def _hang_up_at_times(self) -> None:
        """A server may close a connection that is idle: whoever keeps one looks before using it again.

        And each has its end: or a worker that takes the place of a dead one would get none.
        """
        self._left -= 1
        sock = self._connection.sock
        if sock is not None and (self._left <= 0 or select.select([sock], [], [], 0)[0]):
            self._connection.close()
        if self._connection.sock is None:
            self._left = REQUESTS


class Client(threading.Thread):
    """Does one thing after the other, by chance, until stopped."""

    def __init__(
        self, number: int, port: int, secret: str, scoped: str, running: threading.Event, seed: int
    ) -> None:
        """`scoped` is the secret of the token for the Patient SCOPED alone."""
        super().__init__(name=f"client {number}")
        self.ledger = Ledger()
        self._number = number
        self._running = running
        self._chance = random.Random(f"{seed}.{number}")
        self._line = Line(port, secret, self.ledger)
        self._scoped = Line(port, scoped, self.ledger)
        self._turn = 0
        self._patient: Own | None = None
        self._written = 0
        self._observations: list[Own] = []
        choices: list[tuple[int, Callable[[], None]]] = [
            (20, self._read),
            (5, self._vread),
            (14, self._search),
            (8, self._history),
            (12, self._create),
            (14, self._update),
            (3, self._patch),
            (4, self._shared),
            (4, self._delete),
            (7, self._transaction),
            (2, self._batch),
            (3, self._everything),
            (5, self._as_patient),
            (1, self._health),
        ]
        self._weights, self._actions = zip(*choices, strict=True)

    def run(self) -> None:
        try:
            while self._running.is_set():
                self._turn += 1
                [action] = self._chance.choices(self._actions, self._weights)
                known = len(self.ledger.refused)
                with suppress(Gone):
                    action()
                if any(each.status >= 500 for each in self.ledger.refused[known:]):
                    time.sleep(PAUSE)
        except BaseException as error:
            self.ledger.faults.append(f"{self.name} came to an end: {error!r}")
            raise
        finally:
            self._line.close()
            self._scoped.close()

    # Writing

    def _create(self) -> None:
        if self._patient is None or self._written >= PER_PATIENT:
            self._patient, self._written = None, 0
            self._patient = self._created("Patient", patient)
            return
        about = self._patient.resource
        made = self._created("Observation", lambda mark: observation(mark, about))
        self._written += 1
        if made is not None:
            self._observations = [*self._observations[-40:], made]

    def _created(
        self, type: str, body: Callable[[str], dict[str, Any]], line: Line | None = None
    ) -> Own | None:
        mark = self._mark()
        answer = (line or self._line).send(
            "create", "POST", f"/fhir/{type}", body=body(mark), expected=(201,)
        )
        if answer.status != 201:
            self.ledger.undone.add(mark)
            return None
        path = answer.headers["Location"].partition("/fhir/")[2]
        resource, _, version = path.partition("/_history/")
        self.ledger.acknowledged.append(Acknowledged(resource, int(version), mark))
        return Own(resource, int(version), mark)

    def _update(self) -> None:
        own = self._any()
        if own is None:
            return
        mark = self._mark()
        condition = {}
        if self._chance.random() < 0.8:
            if not self._sees(own):
                return
            condition = {"If-Match": f'W/"{own.version}"'}
        body = patient(mark) if own.resource.startswith("Patient") else observation(mark, self._subject())
        body["id"] = own.resource.partition("/")[2]
        kind = "update, If-Match" if condition else "update"
        self._write(kind, "PUT", own, mark, body=body, headers=condition)

    def _patch(self) -> None:
        own = self._any()
        if own is not None:
            mark = self._mark()
            operation = [{"op": "replace", "path": "/identifier/0/value", "value": mark}]
            self._write(
                "patch",
                "PATCH",
                own,
                mark,
                body=operation,
                headers={"Content-Type": "application/json-patch+json"},
            )

    def _write(self, kind: str, method: str, own: Own, mark: str, **more: Any) -> None:
        own.attempted.add(mark)
        was_unsure, own.is_unsure = own.is_unsure, True
        answer = self._line.send(
            kind, method, f"/fhir/{own.resource}", expected=(200, 412) if was_unsure else (200,), **more
        )
        if answer.status == 200:
            if answer.version <= own.version:
                self.ledger.faults.append(f"{own.resource}: version {answer.version} after {own.version}")
            own.version, own.mark, own.is_unsure = answer.version, mark, False
            self.ledger.acknowledged.append(Acknowledged(own.resource, own.version, mark))
        else:
            own.is_unsure = was_unsure
            own.attempted.discard(mark)
            self.ledger.undone.add(mark)

    def _shared(self) -> None:
        path = f"Patient/{self._chance.choice(SHARED)}"
        read = self._line.send("read", "GET", f"/fhir/{path}")
        if read.status != 200:
            return
        mark = self._mark()
        body = patient(mark) | {"id": path.partition("/")[2]}
        answer = self._line.send(
            "update, If-Match of many",
            "PUT",
            f"/fhir/{path}",
            body=body,
            expected=(200, 412),
            headers={"If-Match": f'W/"{read.version}"'},
        )
        if answer.status != 200:
            self.ledger.undone.add(mark)
        elif answer.version != read.version + 1:
            self.ledger.faults.append(f"{path}: If-Match {read.version} made version {answer.version}")
        else:
            self.ledger.acknowledged.append(Acknowledged(path, answer.version, mark))

    def _delete(self) -> None:
        if len(self._observations) < 3:
            return
        own = self._observations.pop(self._chance.randrange(len(self._observations)))
        answer = self._line.send("delete", "DELETE", f"/fhir/{own.resource}", expected=(204,))
        if answer.status != 204:
            return
        self.ledger.acknowledged.append(Acknowledged(own.resource, answer.version, None))
        self._line.send("read, deleted", "GET", f"/fhir/{own.resource}", expected=(410,))

    def _transaction(self) -> None:
        """Three resources with one mark, which no search may find apart."""
        mark, id = self._mark(), f"triple-{self._number}"
        bodies = (patient(mark), observation(mark, f"Patient/{id}"), condition(mark, f"Patient/{id}"))
        entries = [
            {
                "resource": body | {"id": id},
                "request": {"method": "PUT", "url": f"{body['resourceType']}/{id}"},
            }
            for body in bodies
        ]
        self.ledger.triples.append(mark)
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = self._line.send("transaction", "POST", "/fhir", body=bundle)
        if answer.status != 200:
            self.ledger.undone.add(mark)
            return
        for type, entry in zip(TRIPLE, json.loads(answer.body)["entry"], strict=True):
            version = int(re.sub(r"\D", "", entry["response"]["etag"]))
            self.ledger.acknowledged.append(Acknowledged(f"{type}/{id}", version, mark))
        found = self._line.send(
            "search, _include",
            "GET",
            f"/fhir/Observation?_id=triple-{self._chance.randrange(self._number + 1)}&_include=Observation:subject",
        )
        if found.status == 200 and len(set(found.marks())) > 1:
            self.ledger.faults.append(f"a search saw half a transaction: {found.marks()}")

    def _batch(self) -> None:
        own = self._any()
        if own is not None:
            urls = (own.resource, "Patient?_count=2", f"{own.resource}/_history?_count=2")
            entries = [{"request": {"method": "GET", "url": url}} for url in urls]
            self._line.send(
                "batch", "POST", "/fhir", body={"resourceType": "Bundle", "type": "batch", "entry": entries}
            )

    # Reading

    def _read(self) -> None:
        own = self._any()
        if own is not None:
            self._sees(own)

    def _sees(self, own: Own) -> bool:
        """Read a resource of ours, and compare: it may be what was acknowledged, or tried later, and nothing else."""
        answer = self._line.send("read", "GET", f"/fhir/{own.resource}")
        if answer.status != 200:
            return False
        [mark], version = answer.marks(), answer.version
        is_it = mark == own.mark if version == own.version else mark in own.attempted
        if version < own.version or not is_it:
            text = f"{own.resource} was version {own.version} ({own.mark}), and then {version} ({mark})"
            self.ledger.faults.append(text)
        own.version, own.mark = version, mark
        return True

    def _vread(self) -> None:
        if self.ledger.acknowledged:
            known = self._chance.choice(self.ledger.acknowledged[-500:])
            path = f"/fhir/{known.resource}/_history/{known.version}"
            answer = self._line.send("vread", "GET", path, expected=(200,) if known.mark else (410,))
            if answer.status == 200 and answer.marks() != [known.mark]:
                self.ledger.faults.append(f"{path} should be {known.mark}, and is {answer.marks()}")

    def _search(self) -> None:
        own = self._any()
        if own is None:
            return
        type, _, id = own.resource.partition("/")
        question, has_it = self._chance.choice(
            [
                (f"{type}?identifier={SYSTEM}|{own.mark}", False),
                (f"{type}?_id={id}", True),
                ("Patient?name=soak&birthdate=ge1970&_sort=-_lastUpdated&_count=10", False),
                (f"Observation?subject={self._subject()}&_sort=-date&_count=20", False),
                ("Observation?value-quantity=gt50&_count=10&_total=none", False),
                ("Patient?_has:Observation:subject:code=soak&_count=5", False),
                ("Condition?code=soak&_include=Condition:subject&_count=10", False),
            ]
        )
        answer = self._line.send("search", "GET", f"/fhir/{question}")
        if has_it and answer.status == 200 and id.encode() not in answer.body:
            self.ledger.faults.append(f"{question} doesn't find {own.resource}, version {own.version}")

    def _history(self) -> None:
        own = self._any()
        if own is None:
            return
        whose = self._chance.choice(["/Patient", "/Observation", "", f"/{own.resource}", f"/{own.resource}"])
        answer = self._line.send("history", "GET", f"/fhir{whose}/_history?_count=20")
        if answer.status != 200:
            return
        links = json.loads(answer.body)["link"]
        following = next((link["url"] for link in links if link["relation"] == "next"), None)
        if following is not None:
            self._line.send("history", "GET", f"/fhir{following.partition('/fhir')[2]}")

    def _everything(self) -> None:
        if self._patient is not None:
            self._line.send("$everything", "GET", f"/fhir/{self._patient.resource}/$everything?_count=50")

    def _as_patient(self) -> None:
        """What a patient's own token may do, and that it finds nothing of others."""
        line, own = self._scoped, f"Patient/{SCOPED}"
        choice = self._chance.randrange(5)
        if choice == 0:
            self._created("Observation", lambda mark: observation(mark, own), line)
        elif choice == 1:
            line.send("patient: read", "GET", f"/fhir/{own}")
        elif choice == 2:
            line.send("patient: $everything", "GET", f"/fhir/{own}/$everything?_count=20")
        elif (other := self._any()) is not None:
            line.send("patient: another's", "GET", f"/fhir/{other.resource}", expected=(404,))
            question = f"/fhir/Observation?subject={self._subject()}"
            found = line.send("patient: search", "GET", question)
            if found.status == 200 and found.marks():
                self.ledger.faults.append(f"the patient's token finds {found.marks()} by {question}")

    def _health(self) -> None:
        self._line.send("health", "GET", "/health")

    # Chance

    def _mark(self) -> str:
        self._turn += 1
        return f"w{self._number}-{self._turn}"

    def _any(self) -> Own | None:
        there = [*self._observations, *([self._patient] * 3 if self._patient else [])]
        return self._chance.choice(there) if there else None

    def _subject(self) -> str:
        return self._patient.resource if self._patient else f"Patient/{SHARED[0]}"
