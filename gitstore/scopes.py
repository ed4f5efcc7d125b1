"""What a token may do, as text: the scopes of SMART App Launch, in version 2 and 1, and our roles.

```
user/Observation.rs                    read and search Observations
patient/*.cruds                        everything within the compartment of the token's patient
system/Observation.r?category=vital-signs
                                       read those Observations that this search would find
user/*.read                            version 1 for `user/*.rs`; `.write` is `.cud`, `.*` is `.cruds`
git-fhir/history                       a role; `git-fhir/*` is all of them
```
Scopes of other kinds (`openid`, `launch/patient`) mean nothing here.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote_plus

from msgspec import Struct

from gitstore.access import Grant
from gitstore.errors import Invalid, Issue
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import is_id
from gitstore.search.asking import shown
from gitstore.search.criteria import parse_filter
from gitstore.search.escapes import split
from gitstore.search.parameters import Registry

ROLES: Final = frozenset(
    {"history", "replication", "clone", "restore", "purge", "maintenance", "audit", "metrics", "withheld"}
)
"""What a principal may do besides reading and writing resources."""

LETTERS: Final = "cruds"
"""Create, read, update, delete, search: in this order SMART wants them."""

COMMON: Final = frozenset({"_id", "_lastUpdated", "_profile", "_security", "_source", "_tag"})
"""The search parameters of every resource that tell something of the resource itself."""

_VERSION_1: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_ROLE: Final = "git-fhir/"
_WORD = re.compile(
    r"[\x21\x23-\x5b\x5d-\x7e]+"
)  # scope-token, https://www.rfc-editor.org/rfc/rfc6749#section-3.3
_SMART = re.compile(r"(?P<level>patient|user|system)/(?P<type>[^.?]*)\.(?P<may>[^?]*)(?P<query>\?.*)?")
_OURS = re.compile(r"(patient|user|system|git-fhir)/")
_ORDERED = re.compile("(?=.)c?r?u?d?s?")
_NAME = re.compile(r"(?P<code>[A-Za-z0-9_-]{1,64})(:[A-Za-z-]{1,40})?")
_BROKEN_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOREIGN = re.compile(
    r"openid|fhirUser|profile|email|(offline|online)_access|launch(/.+)?|smart/.+|[a-z][a-z0-9+.-]*:.+"
)
"""Scopes of OpenID Connect and SMART that say nothing about resources, and those that others define by a URI."""
_MAX_PAIRS = 20


class Scopes(Struct, frozen=True):
    """What scopes allow, without repetition; `str()` writes them in version 2, at the level `user` or `patient`."""

    grants: tuple[Grant, ...]
    roles: frozenset[str]

    def __str__(self) -> str:
        return " ".join([*map(_written, self.grants), *(_ROLE + role for role in sorted(self.roles))])


def parse_scopes(text: str, patient: str | None) -> Scopes:
    """What scopes with spaces between them allow, `patient/` ones for the Patient with this id.

    Never raises: what is malformed or of another kind allows nothing, and so does `patient/` without an id. Which
    search parameters there are is not looked at: whoever applies a grant has to take one that the record doesn't know,
    or whose value can't be, for one that selects nothing.
    """
    grants: dict[Grant, None] = {}
    roles: set[str] = set()
    for word in text.split(" "):
        try:
            if isinstance(found := _read(word, patient), Grant):
                grants[found] = None
            else:
                roles |= found
        except _MalformedError:
            continue
    return Scopes(tuple(grants), frozenset(roles))


def check_scopes(text: str, patient: str | None) -> Scopes:
    """The same for scopes that are about to be given away: all must be understood, and something be allowed.

    Search parameters must be those of R4, with values that can be searched for.
    Raises Invalid (code value) with an issue for each word.
    """
    issues = [] if patient is None or is_id(patient) else [_issue(f"{shown(patient)} is no id of a Patient.")]
    for word in text.split():
        try:
            _check(word, patient)
        except (_MalformedError, Invalid) as error:
            issues.append(_issue(f"The scope {shown(word)} can't be given: {str(error).rstrip('.')}"))
    scopes = parse_scopes(" ".join(text.split()), patient)
    if not issues and not scopes.grants and not scopes.roles:
        issues.append(_issue("These scopes allow nothing."))
    if issues:
        raise Invalid(*issues)
    return scopes


class _MalformedError(Exception):
    """A scope of ours that can't be understood; the text says why."""


def _issue(text: str) -> Issue:
    return Issue("error", "value", text)


def _read(word: str, patient: str | None) -> Grant | frozenset[str]:
    """What one scope allows: a grant, or roles, none for a scope of another kind. Raises _MalformedError."""
    if not _OURS.match(word):
        return frozenset()
    if not _WORD.fullmatch(word):
        raise _MalformedError("it has characters that no scope may have")
    if word.startswith(_ROLE):
        return _roles(word.removeprefix(_ROLE))
    match = _SMART.fullmatch(word)
    if match is None:
        raise _MalformedError("expected a resource type or `*`, a dot, and what may be done")
    if match["type"] != "*" and not is_resource_type(match["type"]):
        raise _MalformedError(f"{shown(match['type'])} is no resource type of FHIR R4")
    query = tuple(_pairs(match["query"][1:])) if match["query"] is not None else ()
    return Grant(
        None if match["type"] == "*" else match["type"],
        _letters(match["may"], is_plain=not query),
        _of(patient) if match["level"] == "patient" else None,
        query,
    )


def _roles(name: str) -> frozenset[str]:
    if name == "*":
        return ROLES
    if name not in ROLES:
        raise _MalformedError(f"the roles are {', '.join(sorted(ROLES))}, and `*` for all of them")
    return frozenset({name})


def _of(patient: str | None) -> str:
    if patient is None or not is_id(patient):
        raise _MalformedError("it needs to be said of which Patient")
    return patient


def _letters(text: str, *, is_plain: bool) -> frozenset[str]:
    if text in _VERSION_1:
        if not is_plain:
            raise _MalformedError(
                f"search parameters need the letters of version 2, here `{_VERSION_1[text]}`"
            )
        text = _VERSION_1[text]
    if not _ORDERED.fullmatch(text):
        raise _MalformedError(
            f"{shown(text)} is none of read, write and `*`, nor some of the letters {LETTERS} in that order"
        )
    return frozenset(text)


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Names and values, decoded as in the query of a URL. What would select everything is malformed."""
    parts = query.split("&")
    if len(parts) > _MAX_PAIRS:
        raise _MalformedError(f"it has more than {_MAX_PAIRS} search parameters")
    for part in parts:
        name, _, value = (_decoded(side) for side in part.partition("="))
        match = _NAME.fullmatch(name)
        if match is None:
            raise _MalformedError(f"{shown(name)} can't be the name of a search parameter in a scope")
        if name.startswith("_") and match["code"] not in COMMON:
            raise _MalformedError(f"{shown(name)} doesn't tell resources apart by what is in them")
        if not any(split(value, ",")):
            raise _MalformedError(f"{shown(name)} has no value")
        yield name, value


def _decoded(text: str) -> str:
    try:
        decoded = unquote_plus(text, errors="strict")
    except UnicodeDecodeError as error:
        raise _MalformedError("what is percent-encoded is no UTF-8") from error
    if _BROKEN_PERCENT.search(text) or _CONTROL.search(decoded):
        raise _MalformedError("what is percent-encoded are no characters of a search")
    return decoded


def _check(word: str, patient: str | None) -> None:
    """That one scope means something, here or elsewhere, and can be applied. Raises _MalformedError, Invalid."""
    found = _read(word, patient)
    if isinstance(found, Grant):
        _check_query(found)
    elif not found and not _FOREIGN.fullmatch(word):
        raise _MalformedError("a scope is such as user/Observation.rs, patient/*.r or git-fhir/history")


def _check_query(grant: Grant) -> None:
    """That each parameter of its query is one of R4 and selects. Raises _MalformedError, Invalid."""
    for name, value in grant.query:
        if grant.type is None and name.partition(":")[0] not in COMMON:
            raise _MalformedError(f"only the parameters {', '.join(sorted(COMMON))} are those of all types")
        # One by one: a parameter that selects nothing would hide behind one that does.
        parse_filter(_registry(), grant.type or "Basic", [(name, value)], now=0)


@functools.cache
def _registry() -> Registry:
    """R4's alone: what the record defines may change after a token was made."""
    return Registry()


def _written(grant: Grant) -> str:
    level = "user" if grant.patient is None else "patient"
    letters = "".join(letter for letter in LETTERS if letter in grant.letters)
    return f"{level}/{grant.type or '*'}.{letters}{_query(grant.query)}"


def _query(pairs: Iterable[tuple[str, str]]) -> str:
    parts = [f"{quote(name, safe=':')}={quote(value, safe=':/|,$')}" for name, value in pairs]
    return f"?{'&'.join(parts)}" if parts else ""
