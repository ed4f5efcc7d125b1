"""History Bundles: how they tell of a version, and of which commits one of them tells.

https://hl7.org/fhir/R4/http.html#history
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitstore.errors import Conflict, Invalid, Issue, Unprocessable
from gitstore.fhir import Resource
from gitstore.fhir.conditions import format_etag
from gitstore.fhir.dates import format_instant, parse_instant
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, VersionId, check_id, parse_version_id
from gitstore.preparation import at_entry
from gitstore.replication import Replica, ReplicaVersion
from gitstore.version import Author, Commit, Idempotency, Verb, Version

_EXTENSION = "https://git-fhir.dev/StructureDefinition/"
COMMIT_URL = f"{_EXTENSION}commit"
AUTHOR_URL = f"{_EXTENSION}author"
INTERACTION_URL = f"{_EXTENSION}interaction"
MESSAGE_URL = f"{_EXTENSION}message"
REQUEST_ID_URL = f"{_EXTENSION}request-id"
IDEMPOTENCY_URL = f"{_EXTENSION}idempotency-key"
"""Extensions of entry.response, each a string: what the commit says of which this version is."""

_VERBS: dict[str, Verb] = {"POST": "POST", "PUT": "PUT", "PATCH": "PUT", "DELETE": "DELETE"}
_AUTHOR = re.compile(r"(?P<name>[^<>]*) <(?P<email>[^<>]*)>")
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')
_NEIGHBOURS = {"next", "previous", "prev"}


# Telling


def history_entry(base: str, version: Version, resource: Any | None) -> dict[str, Any]:
    """One version; `resource` is what is shown of it, None for a deletion.

    The author and the commit are extensions of its response: how the record answered that request.
    """
    author = version.commit.author
    entry: dict[str, Any] = {"fullUrl": f"{base}/{version.resource_id}"}
    if resource is not None:
        entry["resource"] = resource
    created = version.verb == "POST"
    entry["request"] = {
        "method": version.verb,
        "url": version.resource_id.type if created else str(version.resource_id),
    }
    status = "204 No Content" if version.deleted else "201 Created" if version.created else "200 OK"
    entry["response"] = {
        "extension": [
            _extension(COMMIT_URL, version.commit.id),
            _extension(AUTHOR_URL, f"{author.name} <{author.email}>"),
        ],
        "status": status,
        "etag": format_etag(version.version_id),
        "lastModified": format_instant(version.last_updated),
    }
    return entry


def commit_extensions(commit: Commit, words: str) -> list[dict[str, str]]:
    """What else a commit says that another record needs to make it again; `words` are its author's."""
    told = {
        INTERACTION_URL: commit.interaction,
        MESSAGE_URL: words,
        REQUEST_ID_URL: commit.request_id,
        IDEMPOTENCY_URL: str(commit.idempotency) if commit.idempotency else None,
    }
    return [_extension(url, value) for url, value in told.items() if value]


def _extension(url: str, value: str) -> dict[str, str]:
    return {"url": url, "valueString": value}


# Understanding


class _Told(Struct, frozen=True):
    """An entry: a version, and what it says of its commit. `commit` is that one's name, where it has one."""

    version: ReplicaVersion
    commit: str | None
    about: Replica


def replicas_of(bundle: Resource, caller: Author, bases: Collection[str] = ()) -> list[Replica]:
    """The commits that a history Bundle tells of, oldest first; the author is the caller where it names none.

    Entries that share our commit extension are one commit, every other one is a commit of its own. `bases` are URLs
    under which this server may be named. Raises Invalid, Unprocessable, Conflict, with the entry at fault.
    """
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise Invalid(Issue("error", "invalid", "`Bundle.entry` must be a list.", "Bundle.entry"))
    commits: list[list[_Told]] = []
    seen: set[str] = set()
    for number in reversed(range(len(entries))):
        with at_entry(number):
            told = _told(_object(entries[number], "The entry"), number, caller, bases)
            if told.commit is None or not commits or commits[-1][0].commit != told.commit:
                _check_first(told, seen)
                commits.append([])
            elif told.about != commits[-1][0].about:
                raise Invalid(
                    f"The entries of the commit `{told.commit}` differ in what they say of it: date, author and so on."
                )
            commits[-1].append(told)
    if seen:
        _check_whole(bundle)
    return [replace(each[0].about, versions=tuple(told.version for told in each)) for each in commits]


def _check_first(told: _Told, seen: set[str]) -> None:
    if told.commit is not None and told.commit in seen:
        raise Invalid(f"The entries of the commit `{told.commit}` don't stand side by side.")
    if told.commit is not None:
        seen.add(told.commit)


def _check_whole(bundle: Resource) -> None:
    """That it is no page of several: the first or last commit of a page may go on in the next one."""
    links = bundle.get("link", [])
    relations = {
        link.get("relation")
        for link in (links if isinstance(links, list) else ())
        if isinstance(link, dict) and isinstance(link.get("relation"), str)
    }
    if relations & _NEIGHBOURS:
        raise Unprocessable(
            Issue(
                "error",
                "business-rule",
                "The Bundle is one page of several, whose ends may cut a commit in two: join the pages to one Bundle without"
                " links, or take the Bundles of `git fhir export --history`.",
                "Bundle.link",
            )
        )


def _told(entry: Resource, number: int, caller: Author, bases: Collection[str]) -> _Told:
    request = _object(entry.get("request"), "`request`")
    response = _object(entry.get("response", {}), "`response`")
    method, resource = request.get("method"), entry.get("resource")
    verb = _VERBS.get(method) if isinstance(method, str) else None
    if verb is None:
        raise Invalid(f"`request.method` is `{str(method)[:80]}`; expected one of {', '.join(_VERBS)}.")
    if (resource is None) != (verb == "DELETE"):
        held = "no resource" if resource is None else "a resource"
        raise Invalid(f"The entry of a {method} has {held}; only a deletion has none.")
    if resource is not None:
        _object(resource, "`resource`")
    resource_id = _named(request.get("url"), resource, bases)
    meta = _object(resource.get("meta", {}), "`meta`") if resource is not None else {}
    version = ReplicaVersion(verb, resource_id, _version_id(response, meta), resource, number)
    said = dict(_extensions(response))
    interaction = said.get(INTERACTION_URL) or ("patch" if method == "PATCH" else None)
    about = Replica(
        (),
        _author(said[AUTHOR_URL]) if AUTHOR_URL in said else caller,
        _last_updated(response, meta),
        interaction,
        said.get(MESSAGE_URL),
        said.get(REQUEST_ID_URL),
        Idempotency.parse(said[IDEMPOTENCY_URL]) if IDEMPOTENCY_URL in said else None,
    )
    return _Told(version, said.get(COMMIT_URL), about)


def _named(url: object, resource: Resource | None, bases: Collection[str]) -> ResourceId:
    """Which resource an entry is of: its own type and id say so, for a deletion its url. The two must agree."""
    text = url if isinstance(url, str) else ""
    for base in bases:
        text = text.removeprefix(base.rstrip("/") + "/")
    type, _, rest = text.removeprefix("/").partition("/")
    id = rest.partition("/_history/")[0]
    if resource is not None:
        found, own = resource.get("resourceType"), resource.get("id")
        if type != found or id not in ("", own):
            raise Invalid(
                f"`request.url` is `{text[:80]}`; the resource is `{str(found)[:80]}/{str(own)[:80]}`."
            )
        id = check_id(own, f"{type}.id")
    if not is_resource_type(type):
        raise Invalid(f"`request.url` is `{text[:80]}`, which names no resource type of R4.")
    return ResourceId(type, check_id(id))


def _version_id(response: Resource, meta: Resource) -> VersionId:
    """Raises Conflict for one that can't be the next of any resource here."""
    etag, own = response.get("etag"), meta.get("versionId")
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    if etag is not None and match is None:
        raise Invalid(f'`response.etag` is `{str(etag)[:80]}`; expected one such as `W/"1"`.')
    text = match[1] if match is not None else own
    if not isinstance(text, str):
        raise Invalid(
            "The entry doesn't say which version it is: expected `response.etag` or `meta.versionId`."
        )
    if own is not None and own != text:
        raise Invalid(f"`response.etag` names version `{text[:80]}`, and `meta.versionId` `{str(own)[:80]}`.")
    version_id = parse_version_id(text)
    if version_id is None:
        raise Conflict(f"`{text[:80]}` is no version id of this server, which counts the versions from 1.")
    return version_id


def _last_updated(response: Resource, meta: Resource) -> int:
    given = [each for each in (response.get("lastModified"), meta.get("lastUpdated")) if each is not None]
    if not given:
        raise Invalid("The entry has no date: expected `response.lastModified` or `meta.lastUpdated`.")
    instants = {parse_instant(text) if isinstance(text, str) else None for text in given}
    if None in instants or len(instants) > 1:
        raise Invalid(
            f"The dates of the entry are no instants, or differ: {', '.join(map(str, given))[:160]}."
        )
    return instants.pop() or 0


def _extensions(response: Resource) -> Iterator[tuple[str, str]]:
    """Our extensions by their URLs; others are none of our business."""
    given = response.get("extension", [])
    for extension in given if isinstance(given, list) else ():
        url = extension.get("url") if isinstance(extension, dict) else None
        if isinstance(url, str) and url.startswith(_EXTENSION):
            value = extension.get("valueString")
            if not isinstance(value, str):
                raise Invalid(f"The extension `{url[:120]}` must have a valueString.")
            yield url, value


def _author(text: str) -> Author:
    match = _AUTHOR.fullmatch(text)
    if match is None:
        raise Invalid(f"The author is `{text[:80]}`; expected one such as `Ada Lovelace <ada@example.org>`.")
    return Author(match["name"], match["email"])


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be a JSON object.")
    return value
