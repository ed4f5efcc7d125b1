"""AuditEvents of what the access journal holds: the search for them, and reading one (docs/audit-journal.md).

They are made when they are asked for, and only where `fhir.auditEvents` is on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import falcon
from msgspec import Struct

from api import media
from api.audited import INTERACTIONS, REST, action, event, id_of, number_of, outcome, references, subtypes
from api.request import Request, http_date
from gitstore import Invalid, Issue, NotFound, Recorded, access_at, newest_accesses
from gitstore.fhir import json
from gitstore.fhir.conditions import format_etag
from gitstore.fhir.dates import interval
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, is_id

TYPE = "AuditEvent"
PAGE = "_page"
"""The one parameter of ours, made by the server and opaque: the number of the line that ended the page before."""

DEFAULT_COUNT = 50
MAX_COUNT = 1000

_SHAPING = ("_format", "_pretty")

Test: TypeAlias = Callable[[Recorded], bool]


class Question(Struct, frozen=True):
    """What is asked of the journal: of instants [since, until), what passes all tests, newest first.

    `patient` is the id of the one that must be concerned, where there is just one. `before` is where the page before
    ended; `given` is what the links repeat.
    """

    since: int | None
    until: int | None
    patient: str | None
    tests: tuple[Test, ...]
    count: int
    before: int | None
    given: Sequence[tuple[str, str]]


class Page(Struct, frozen=True):
    """What was found, newest first; `older` asks for the next page, None where this is the last."""

    found: list[Recorded]
    older: int | None


# From parameters to a question


def question(pairs: Sequence[tuple[str, str]], base: str) -> Question:
    """Raises Invalid for a parameter or value that isn't known: an audit must not show more than was asked for."""
    given = [(name, value) for name, value in pairs if name not in (PAGE, *_SHAPING) and value]
    since: list[int] = []
    until: list[int] = []
    patients: list[list[str]] = []
    tests: list[Test] = []
    for name, value in given:
        if name == "date":
            first, end = _bounds(value)
            since += [] if first is None else [first]
            until += [] if end is None else [end]
        elif name == "patient":
            patients.append([_patient(each, base) for each in _values(value)])
        elif name in _TESTS:
            tests.append(_any([_TESTS[name](each, base) for each in _values(value)]))
        elif name != "_count" and (name, value) != ("_sort", "-date"):
            raise _unknown(name, value)
    single = next((ids[0] for ids in patients if len(ids) == 1), None)
    tests += [_any([_about(id) for id in ids]) for ids in patients]
    return Question(
        max(since, default=None),
        min(until, default=None),
        single,
        tuple(tests),
        _count(dict(given).get("_count", str(DEFAULT_COUNT))),
        _before([value for name, value in pairs if name == PAGE]),
        given,
    )


def _values(text: str) -> list[str]:
    """The alternatives of a value. https://hl7.org/fhir/R4/search.html#escaping"""
    return [re.sub(r"\\([\\,|$])", r"\1", each) for each in re.findall(r"(?:\\.|[^,\\])+", text)]


def _unknown(name: str, value: str) -> Invalid:
    known = ", ".join(f"`{each}`" for each in ("patient", "date", *_TESTS, "_count"))
    text = f"The access journal can't be asked for `{name[:80]}={value[:80]}`, only for {known}."
    return Invalid(Issue("error", "not-supported", text))


def _bounds(text: str) -> tuple[int | None, int | None]:
    """The half-open interval of instants for a date with a prefix. https://hl7.org/fhir/R4/search.html#prefix"""
    prefix, date = (text[:2], text[2:]) if text[:2].isalpha() else ("eq", text)
    start, end = interval(date.replace(" ", "+"))
    bounds = {
        "eq": (start, end),
        "ge": (start, None),
        "gt": (end, None),
        "le": (None, end),
        "lt": (None, start),
    }
    if prefix not in bounds:
        raise Invalid(
            Issue("error", "value", f"`date={text[:80]}`: the prefix can be eq, ge, gt, le or lt here.")
        )
    return bounds[prefix]


def _patient(text: str, base: str) -> str:
    """The id of a Patient, also given by a reference. Raises Invalid."""
    type, _, id = _reference(text if "/" in text else f"Patient/{text}", base).partition("/")
    if type != "Patient":
        raise Invalid(Issue("error", "value", f"`patient={text[:80]}` is no Patient."))
    return id


def _reference(text: str, base: str) -> str:
    """`Type/id`, of a reference that may be absolute or name a version. Raises Invalid."""
    relative = text.removeprefix(f"{base}/")
    type, _, id = relative.partition("/_history/")[0].partition("/")
    if not is_resource_type(type) or not is_id(id):
        raise Invalid(Issue("error", "value", f"`{text[:80]}` is no reference to a resource of this server."))
    return f"{type}/{id}"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Invalid(Issue("error", "value", f"`_count={text[:80]}` is not a number of entries."))
    return min(int(text), MAX_COUNT)


def _before(texts: Sequence[str]) -> int | None:
    if not texts:
        return None
    text = texts[0]
    if len(texts) > 1 or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid(
            Issue("error", "value", f"`{PAGE}={text[:80]}` is no page: follow the links as they are.")
        )
    return int(text)


# Tests of one access


def _any(tests: Sequence[Test]) -> Test:
    return lambda access: any(test(access) for test in tests)


def _about(id: str) -> Test:
    return lambda access: id in access.entry.patients


def _agent(text: str, _base: str) -> Test:
    """By what stands in agent.who: the identifier, or the name as a whole."""
    return lambda access: text in (access.entry.agent, access.entry.principal)


def _agent_name(text: str, _base: str) -> Test:
    """By the beginning of the name or of a word in it, whatever the case."""
    wanted = text.casefold()
    return lambda access: f" {access.entry.principal.casefold()}".find(f" {wanted}") >= 0


def _entity(text: str, base: str) -> Test:
    wanted = _reference(text, base)
    return lambda access: wanted in references(access.entry)


def _action(text: str, _base: str) -> Test:
    code = _code(text, "http://hl7.org/fhir/audit-event-action")
    return lambda access: action(access.entry) == code


def _type(text: str, _base: str) -> Test:
    is_ours = _code(text, REST) == "rest"
    return lambda _access: is_ours


def _subtype(text: str, _base: str) -> Test:
    code = _code(text, INTERACTIONS)
    return lambda access: code in subtypes(access.entry)


def _outcome(text: str, _base: str) -> Test:
    code = _code(text, "http://hl7.org/fhir/audit-event-outcome")
    return lambda access: outcome(access.entry) == code


def _address(text: str, _base: str) -> Test:
    return lambda access: (access.entry.remote or "").startswith(text)


def _id(text: str, _base: str) -> Test:
    return lambda access: id_of(access) == text


def _code(text: str, system: str) -> str | None:
    """The code of a token; None where it is of another system, so that nothing has it."""
    named, bar, code = text.rpartition("|")
    return code if not bar or named == system else None


_TESTS: dict[str, Callable[[str, str], Test]] = {
    "agent": _agent,
    "agent-name": _agent_name,
    "entity": _entity,
    "action": _action,
    "type": _type,
    "subtype": _subtype,
    "outcome": _outcome,
    "address": _address,
    "_id": _id,
}


# From a question to its answer


def page(git_dir: str, asked: Question) -> Page:
    """Raises TooCostly where there is too much to look through, StorageFailed."""
    if not asked.count:
        return Page([], None)
    found = newest_accesses(
        git_dir,
        lambda access: all(test(access) for test in asked.tests),
        since=asked.since,
        until=asked.until,
        patient=asked.patient,
        before=asked.before,
    )
    # One more than asked for shows whether there is another page.
    accesses = list(islice(found, asked.count + 1))
    more = len(accesses) > asked.count
    return Page(accesses[: asked.count], accesses[asked.count - 1].number if more else None)


def bundle(base: str, asked: Question, found: Page) -> bytes:
    """The page as a Bundle of type searchset. It has no total: to count would be to read the whole journal."""
    resource: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": _links(base, asked, found),
    }
    if found.found:
        resource["entry"] = [
            {
                "fullUrl": f"{base}/{TYPE}/{id_of(access)}",
                "resource": event(access, base),
                "search": {"mode": "match"},
            }
            for access in found.found
        ]
    return json.dumps(resource)


def _links(base: str, asked: Question, found: Page) -> list[dict[str, str]]:
    def link(relation: str, before: int | None) -> dict[str, str]:
        pairs = [*asked.given, *([(PAGE, str(before))] if before is not None else [])]
        query = urlencode(pairs, quote_via=quote, safe=":/,$*|")
        return {"relation": relation, "url": f"{base}/{TYPE}?{query}" if query else f"{base}/{TYPE}"}

    links = [link("self", asked.before), link("first", None)]
    return links if found.older is None else [*links, link("next", found.older)]


def read(git_dir: str, id: str) -> Recorded:
    """The access that an event was made of. Raises NotFound, StorageFailed."""
    number = number_of(id)
    found = None if number is None else access_at(git_dir, number)
    if found is None:
        raise NotFound(f"`{TYPE}/{id[:80]}` is not in the access journal.")
    return found


# Over HTTP


def is_access(resource_id: ResourceId) -> bool:
    """Whether this is the name of an access in the journal, and of nothing stored."""
    return resource_id.type == TYPE and number_of(resource_id.id) is not None


def send_search(req: Request, resp: falcon.Response, git_dir: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Answer a search; `pairs` are its parameters, of the URL and of a form. Raises Forbidden, and as above."""
    req.principal.check_role("audit")
    asked = question(pairs, req.base)
    media.send(req, resp, bundle(req.base, asked, page(git_dir, asked)))


def send_read(req: Request, resp: falcon.Response, git_dir: str, id: str) -> None:
    """Answer a read. Raises Forbidden, and as above."""
    req.principal.check_role("audit")
    found = read(git_dir, id)
    resp.set_header("ETag", format_etag(1))
    resp.set_header("Last-Modified", http_date(found.time))
    media.send(req, resp, json.dumps(event(found, req.base)))
