"""What a FHIR server must answer to any story of single interactions, batches and transactions, by a plain dictionary."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BASE = "http://localhost:8080/fhir"
SYSTEM = "urn:mrn"

TYPES = ("Patient", "Practitioner")
IDS = ("a", "b", "c")
NUMBERS = ("1", "2", "3")
FAMILIES = ("Byron", "Hopper")
ORDER = ("DELETE", "POST", "PUT", "PATCH", "GET")
"""https://hl7.org/fhir/R4/http.html#trules"""

Content = dict[str, Any]


class Name(NamedTuple):
    type: str
    id: str


@dataclass(frozen=True)
class Step:
    """One interaction, on `id`, or where that is None on what has the identifier `where` (a create: unless there is one).

    `tag` is what If-Match says (If-None-Match of a read), the number of a version or `*`. `given` is the id in a body.
    """

    kind: str
    type: str
    id: str | None = None
    where: str | None = None
    number: str = "1"
    family: str = "Byron"
    active: bool | None = None
    given: str | None = None
    tag: str | None = None
    fresh: bool = False
    """Of an update: If-None-Match: *."""

    @property
    def method(self) -> str:
        return {"create": "POST", "update": "PUT", "delete": "DELETE"}.get(
            self.kind, "PATCH" if self.kind in PATCHES else "GET"
        )

    @property
    def content(self) -> Content:
        content: Content = {
            "resourceType": self.type,
            "identifier": [{"system": SYSTEM, "value": self.number}],
            "name": [{"family": self.family}],
        }
        if self.active is not None:
            content["active"] = self.active
        given = self.given if self.id is None else self.id
        return content if given is None else {**content, "id": given}

    @property
    def url(self) -> str:
        if self.kind == "search":
            return f"{self.type}?identifier={SYSTEM}|{self.number}&family={self.family}"
        if self.kind == "create":
            return self.type
        if self.id is None:
            return f"{self.type}?{self.criteria}"
        past = {"vread": f"/_history/{self.number}", "history": "/_history"}.get(self.kind, "")
        return f"{self.type}/{self.id}{past}"

    @property
    def criteria(self) -> str:
        return f"identifier={SYSTEM}|{self.where}"


# Patches: what they are, and what becomes of a content; None where they must be refused


def _fhirpath(step: Step) -> Content:
    named = {"type": "replace", "path": f"{step.type}.name[0].family", "value": step.family}
    parts = [
        {"name": name, ("valueCode" if name == "type" else "valueString"): value}
        for name, value in named.items()
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


def _json_patch(step: Step) -> list[Content]:
    return [
        {"op": "test", "path": "/active", "value": step.active},
        {"op": "replace", "path": "/name/0/family", "value": step.family},
    ]


PATCHES: dict[str, tuple[str, Callable[[Step], Any]]] = {
    "fhirpath": ("application/fhir+json", _fhirpath),
    "json-patch": ("application/json-patch+json", _json_patch),
    "merge-patch": ("application/merge-patch+json", lambda step: {"active": step.active}),
}


def patched(step: Step, before: Content) -> Content | None:
    after = copy.deepcopy(before)
    if step.kind == "merge-patch":
        after["active"] = step.active
        return {key: value for key, value in after.items() if value is not None}
    if step.kind == "json-patch" and (step.active is None or before.get("active") is not step.active):
        return None
    after["name"][0]["family"] = step.family
    return after


# What is sent, and what comes back


def request(step: Step) -> tuple[dict[str, str], Any]:
    """Headers and body."""
    headers = {}
    if step.tag is not None:
        tag = step.tag if step.tag == "*" else f'W/"{step.tag}"'
        headers["If_None_Match" if step.method == "GET" else "If_Match"] = tag
    if step.fresh:
        headers["If_None_Match"] = "*"
    if step.kind == "create" and step.where is not None:
        headers["If_None_Exist"] = step.criteria
    if step.kind in PATCHES:
        headers["Content_Type"], document = PATCHES[step.kind]
        return headers, document(step)
    return headers, step.content if step.kind in ("create", "update") else None


def entry(step: Step) -> Content:
    """The same as an entry of a Bundle."""
    headers, body = request(step)
    kind = headers.pop("Content_Type", None)
    asked = {"method": step.method, "url": step.url}
    for header, value in headers.items():
        first, *rest = header.split("_")
        asked[first.lower() + "".join(rest)] = value
    if kind not in (None, "application/fhir+json"):
        data = base64.b64encode(json.dumps(body).encode()).decode()
        body = {"resourceType": "Binary", "contentType": kind, "data": data}
    return {"request": asked} if body is None else {"request": asked, "resource": body}


@dataclass(frozen=True)
class Answer:
    """A response, or what stands for one in a Bundle."""

    status: int
    etag: str | None
    location: str | None
    resource: Content | None

    @property
    def made(self) -> str:
        """The id that the server gave."""
        return self.location.removeprefix(f"{BASE}/").split("/")[1] if self.location else "nobody"


def answer_of(response: Any) -> Answer:
    headers = response.headers
    return Answer(
        response.status_code,
        headers.get("ETag"),
        headers.get("Location"),
        response.json if response.content else None,
    )


def answer_in(entry: Content) -> Answer:
    response = entry["response"]
    resource = entry.get("resource") or response.get("outcome")
    return Answer(int(response["status"][:3]), response.get("etag"), response.get("location"), resource)


# The model


class RefusedError(Exception):
    """A status that is none of success."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Expected:
    """The version that an answer is about, or a list of them."""

    status: int
    name: Name | None = None
    number: int = 0
    listed: list[tuple[Name, int]] | None = None


@dataclass
class Model:
    """What the record must hold: the contents of each resource's versions, None for a deletion, and what was done."""

    versions: dict[Name, list[Content | None]] = field(default_factory=dict)
    history: list[tuple[Name, int, str]] = field(default_factory=list)

    def number(self, name: Name) -> int:
        return len(self.versions.get(name, ()))

    def newest(self, name: Name) -> Content | None:
        return self.versions[name][-1] if name in self.versions else None

    def content(self, name: Name, number: int) -> Content | None:
        return self.versions[name][number - 1]

    def having(self, type: str, number: str | None) -> list[Name]:
        return [
            name
            for name in self.versions
            if name.type == type
            and (content := self.newest(name)) is not None
            and content["identifier"][0]["value"] == number
        ]

    def add(self, name: Name, content: Content | None, method: str) -> int:
        self.versions.setdefault(name, []).append(None if content is None else {**content, "id": name.id})
        self.history.append((name, self.number(name), method))
        return self.number(name)

    # Which resource a step is about

    def target(self, step: Step, made: str, without: Sequence[Name] = ()) -> Name | None:
        """None where criteria select nothing and nothing is to be made. Raises RefusedError."""
        if step.kind == "create" and step.where is None:
            return Name(step.type, made)
        if step.id is not None:
            return Name(step.type, step.id)
        found = [name for name in self.having(step.type, step.where) if name not in without]
        if len(found) > 1:
            raise RefusedError(412)
        if found:
            if step.kind == "update" and step.given not in (None, found[0].id):
                raise RefusedError(400)
            return found[0]
        if step.kind == "update":
            given = Name(step.type, step.given or made)
            if self.newest(given) is not None:
                raise RefusedError(409)
            return given
        return Name(step.type, made) if step.kind == "create" else None

    # What becomes of it

    def write(self, step: Step, name: Name | None) -> Expected:
        """Raises RefusedError where nothing is written."""
        if name is None:
            status = 404 if step.kind in PATCHES else 412 if step.tag is not None else 204
            if status == 204:
                return Expected(204)
            raise RefusedError(status)
        newest, number = self.newest(name), self.number(name)
        if step.kind == "create":
            if newest is not None:
                return Expected(200, name, number)
            return Expected(201, name, self.add(name, step.content, "POST"))
        if step.kind in PATCHES and newest is None:
            raise RefusedError(410 if number else 404)
        if step.tag is not None and step.tag != str(number or None) and (step.tag != "*" or newest is None):
            raise RefusedError(412)
        if step.kind == "update":
            if step.fresh and newest is not None:
                raise RefusedError(412)
            return Expected(200 if newest else 201, name, self.add(name, step.content, "PUT"))
        if step.kind == "delete":
            if newest is not None:
                number = self.add(name, None, "DELETE")
            return Expected(204, name if number else None, number)
        assert newest is not None
        after = patched(step, newest)
        if after is None:
            raise RefusedError(422)
        return Expected(200, name, self.add(name, after, "PUT"))

    def read(self, step: Step) -> Expected:
        name = Name(step.type, step.id or "")
        if step.kind == "search":
            found = [
                (name, self.number(name))
                for name in self.having(step.type, step.number)
                if self.newest(name)["name"][0]["family"] == step.family  # type: ignore[index]  # `having` knows
            ]
            return Expected(200, listed=sorted(found))
        if self.number(name) == 0:
            raise RefusedError(404)
        if step.kind == "history":
            return Expected(200, listed=[(name, number) for number in range(self.number(name), 0, -1)])
        number = int(step.number) if step.kind == "vread" else self.number(name)
        if number > self.number(name):
            raise RefusedError(404)
        if self.content(name, number) is None:
            raise RefusedError(410)
        return Expected(304 if step.tag in ("*", str(number)) else 200, name, number)

    def run(self, step: Step, made: str) -> Expected:
        return self.read(step) if step.method == "GET" else self.write(step, self.target(step, made))

    def transaction(self, steps: Sequence[Step], made: Sequence[str]) -> list[Expected | RefusedError]:
        """Criteria select in the state before; what the transaction deletes is no match for a create.

        A refusal among what comes back refuses all of it, and then nothing of it holds.
        """
        in_order = sorted(range(len(steps)), key=lambda place: ORDER.index(steps[place].method))
        found: dict[int, Expected | RefusedError] = {}
        targets: dict[int, Name | None] = {}
        deleted: list[Name] = []
        created: dict[tuple[str, str | None], Name] = {}
        for place in in_order:
            step = steps[place]
            if step.method == "GET":
                continue
            key = (step.type, step.where if step.id is None and step.kind in ("create", "update") else None)
            try:
                target = self._made_here(step, created.get(key)) or self.target(
                    step, made[place], deleted if step.kind == "create" else ()
                )
            except RefusedError as error:
                found[place] = error
                continue
            if step.kind == "delete" and target is not None:
                deleted.append(target)
            if key[1] is not None and target is not None:
                created[key] = target
            targets[place] = target
        for place in targets:
            found[place] = self._once(steps, targets, place)
        for place, target in targets.items():
            # What was found for a create may be changed by another entry: its version is the one at the end.
            if found[place].status == 200 and steps[place].kind == "create" and target is not None:
                found[place] = Expected(200, target, self.number(target))
        for place in in_order:
            if steps[place].method == "GET":
                found[place] = attempt(self.read, steps[place])
        return [found[place] for place in range(len(steps))]

    def _made_here(self, step: Step, name: Name | None) -> Name | None:
        """What an entry with the same criteria comes to."""
        if name is not None and step.kind == "update" and step.given not in (None, name.id):
            raise RefusedError(400)
        return name

    def _once(
        self, steps: Sequence[Step], targets: dict[int, Name | None], place: int
    ) -> Expected | RefusedError:
        """What becomes of one write of a transaction, which may not write twice to a resource."""
        step, target = steps[place], targets[place]
        if step.kind == "create" and target is not None and target in self.versions:
            return Expected(200, target, self.number(target))
        others = [each for each in targets if targets[each] == target and steps[each].kind != "create"]
        if target is not None and others not in ([], [place]):
            return RefusedError(400)
        return attempt(self.write, step, target)


def attempt(do: Callable[..., Expected], *arguments: Any) -> Expected | RefusedError:
    try:
        return do(*arguments)
    except RefusedError as error:
        return error


def refused_before(before: Model, step: Step, answer: Answer) -> bool:
    """Whether an entry of a batch is refused for what was so before the batch.

    No entry may count on another one: where its content or its aim depends on the state, both states are good enough.
    https://hl7.org/fhir/R4/http.html#brules
    """
    if answer.status < 400 or not (step.where is not None or step.kind in PATCHES):
        return False
    expected = attempt(copy.deepcopy(before).run, step, answer.made)
    return isinstance(expected, RefusedError) and expected.status == answer.status
