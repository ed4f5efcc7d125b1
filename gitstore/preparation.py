"""Everything about a unit of work that needs no lock: targets, references, patches, validation, printing, extraction.

What depends on the state (criteria, the version that a patch starts from) is asked of a snapshot, and noted as an
assumption. Under the writer's lock the assumptions are looked at again; where one has failed, the unit is prepared
anew there. So the work is done once and outside of the lock nearly always, and always right.
https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitstore import attestation, restoration
from gitstore.access import FULL_ACCESS, Access
from gitstore.aims import DONE, ORDER, Aim, Aiming, Rules
from gitstore.assumptions import Asked, Assumption
from gitstore.errors import (
    Forbidden,
    Invalid,
    Issue,
    MultipleMatches,
    StoreError,
    TooLarge,
)
from gitstore.fhir import Resource, json, version_specific
from gitstore.fhir.bundle import resolver
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.conformance import without_replaced
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId, ids_of, is_id
from gitstore.fhir.packed import unpacked
from gitstore.fhir.references import references, rewrite
from gitstore.fhir.stored import template
from gitstore.fhir.validation import refusal
from gitstore.fhir.version_specific import resolve_versions
from gitstore.git.message import INTERACTIONS, safe_author, safe_line, safe_request_id, safe_words
from gitstore.interactions import (
    Ask,
    Attest,
    Create,
    Delete,
    Interaction,
    Patch,
    Restore,
    Revert,
    Unit,
    Update,
    VersionTags,
)
from gitstore.search.extract import extract
from gitstore.shelf import Printed, Shelf
from gitstore.snapshot import Select, Snapshot
from gitstore.version import Author, Idempotency, Verb, Version
from gitstore.writes import Write

MAX_STORED = 64 * 1024**2
"""Bytes of one file. Indentation can make deeply nested JSON 40 times larger than it was sent."""

VERBS: dict[type, Verb] = {
    Create: "POST",
    Update: "PUT",
    Patch: "PUT",
    Restore: "PUT",
    Delete: "DELETE",
    Attest: "POST",
}
_NAMES = {
    Create: "create",
    Update: "update",
    Patch: "patch",
    Delete: "delete",
    Restore: "restore",
    Revert: "restore",
}


class Prepared(Struct, frozen=True):
    """A unit of work with everything done that needs no lock. `size` is in bytes.

    `left` are the entries that come to no write, with the resource that is there instead, None where none is.
    `adopts` is the foreign tip that the unit takes into the record. `seen` is the commit whose state was asked.
    """

    entries: int
    writes: tuple[Write, ...]
    questions: tuple[tuple[int, Ask], ...]
    interaction: str
    author: Author
    request_id: str | None
    words: str
    size: int
    adopts: str | None = None
    left: tuple[tuple[int, ResourceId | None], ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    seen: str | None = None
    unit: Unit | None = None
    attested: int | None = None
    """The entry that is a Provenance of the others."""

    @property
    def access(self) -> Access:
        """What whoever asks may do and see."""
        return self.unit.access if self.unit is not None else FULL_ACCESS

    @property
    def agent(self) -> str | None:
        return safe_line(self.unit.agent) if self.unit is not None and self.unit.agent else None

    @property
    def idempotency(self) -> Idempotency | None:
        return self.unit.idempotency if self.unit is not None else None

    def blamed(self, write: Write) -> int | None:
        """The entry of a transaction that is at fault for a write: what only came along with it is no entry."""
        return write.entry if self.interaction == "transaction" and write.entry != self.attested else None

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether what was assumed of the state is still so."""
        return self.seen == snapshot.commit.id or all(
            assumption.holds(snapshot) for assumption in self.assumptions
        )


def prepare(unit: Unit, rules: Rules, state: Callable[[], Snapshot] | None = None) -> Prepared:
    """Check, assign ids, rewrite references, validate, print and extract what is searched.

    `state` gives a snapshot that can be searched, and is called only for what needs one.
    Raises StoreError; in a transaction with the entry at fault.
    """
    return prepare_asking(unit, rules, Asked(state))


def prepare_asking(unit: Unit, rules: Rules, asked: Asked) -> Prepared:
    """The same, for who wants to know what was asked also where it is refused."""
    if unit.interaction not in (None, *INTERACTIONS):
        raise ValueError(f"{unit.interaction} is no interaction of the format")
    restoration.check_alone(unit.interactions)
    if unit.seed is not None:
        rules = replace(rules, new_id=ids_of(unit.seed))
    return _Preparation(unit, rules, asked).run()


_CONDITIONAL = re.compile(rb'"reference":"[A-Za-z]+\?')
_VERSION_SPECIFIC = json.dumps(version_specific.URL)

_FEW = 64
"""Of more interactions, what is done for each is packed until it is wanted."""


@dataclass
class _Preparation:
    unit: Unit
    rules: Rules
    asked: Asked
    urls: dict[str, str] = field(default_factory=dict)
    """What the fullUrl of each entry is called here."""
    conditional: dict[str, str] = field(default_factory=dict)
    """What each conditional reference comes to."""
    named: dict[ResourceId, int] = field(default_factory=dict)
    """The entry that writes a resource."""
    own: dict[str, set[ResourceId]] = field(default_factory=dict)
    """What is written, by type."""
    aims: list[Aim] = field(default_factory=list)
    pinned: set[ResourceId] = field(default_factory=set)
    """What a reference names with the version that is made here."""
    warnings: dict[tuple[Issue, ...], tuple[Issue, ...]] = field(default_factory=dict)
    """Those of the writes: mostly the same ones."""
    shelf: Shelf = field(default_factory=Shelf)
    _own: dict[str, Select] = field(default_factory=dict)

    def run(self) -> Prepared:
        unit = self.unit
        in_order = sorted(self._entries(), key=lambda each: ORDER.index(type(each[1])))
        aiming = Aiming(self.asked, self.rules, unit.access, is_large=self._is_large)
        found = {entry: self._at(entry, aiming.aim, interaction) for entry, interaction in in_order}
        aims = self.aims = [found[entry] for entry in range(len(unit.interactions))]
        for (entry, interaction), aim in zip(self._entries(), aims, strict=True):
            self._at(entry, self._name, entry, interaction, aim)
        writes = [
            write
            for (entry, interaction), aim in zip(self._entries(), aims, strict=True)
            for write in self._at(entry, self._writes, entry, interaction, aim)
        ]
        writes += self._attestations(writes)
        kinds = [
            type(interaction) for interaction in unit.interactions if not isinstance(interaction, Attest)
        ]
        single = _NAMES.get(kinds[0], "") if len(kinds) == 1 else "transaction"
        return Prepared(
            len(unit.interactions),
            tuple(map(self._pinned, writes)),
            tuple((entry, each) for entry, each in self._entries() if isinstance(each, Ask)),
            unit.interaction or single,
            safe_author(unit.author),
            safe_request_id(unit.request_id),
            safe_words(restoration.words(unit.message or self._reason(), unit.interactions)),
            sum(256 if (kept := write.template) is None else len(kept.tail) + 256 for write in writes),
            left=tuple(
                (entry, aim.left)
                for (entry, interaction), aim in zip(self._entries(), aims, strict=True)
                if not aim.targets and not isinstance(interaction, Ask | Attest)
            ),
            assumptions=tuple(self.asked.assumptions),
            seen=self.asked.commit,
            unit=unit,
            attested=next((entry for entry, each in self._entries() if isinstance(each, Attest)), None),
        )

    def _entries(self) -> Iterator[tuple[int, Interaction]]:
        return iter(enumerate(self.unit.interactions))

    @property
    def _is_transaction(self) -> bool:
        return self.unit.interaction == "transaction"

    @property
    def _is_large(self) -> bool:
        return len(self.unit.interactions) > _FEW or sum(len(aim.targets) for aim in self.aims) > _FEW

    def _at(self, entry: int, step: Callable[..., Any], *arguments: Any) -> Any:
        """One step for one entry, whose errors are those of the entry."""
        with at_entry(entry if self._is_transaction else None):
            return step(*arguments)

    # Second: what they are called

    def _name(self, entry: int, interaction: Interaction, aim: Aim) -> None:
        for target in aim.targets:
            if target in self.named:
                raise Invalid(
                    f"`{target}` is also named by entry {self.named[target]}: a resource may stand here once."
                )
            self.named[target] = entry
            self.own.setdefault(target.type, set()).add(target)
        full_url = _full_url(interaction)
        if full_url is not None:
            self.urls[full_url] = str(aim.targets[0] if aim.targets else aim.left)

    # Third: what is written

    def _writes(self, entry: int, interaction: Interaction, aim: Aim) -> list[Write]:
        if isinstance(interaction, Ask | Attest):
            return []
        if aim.sources:
            if_match = interaction.if_match if isinstance(interaction, Restore) else None
            pairs = zip(aim.targets, aim.sources, strict=True)
            return [self._restored(entry, target, version, if_match) for target, version in pairs]
        verb = VERBS[type(interaction)]
        if isinstance(interaction, Delete):
            return [
                Write(entry, verb, target, None, interaction.if_match, None, False) for target in aim.targets
            ]
        if aim.resource is None:
            return []
        [target] = aim.targets
        resource = unpacked(aim.resource)
        if self._is_transaction and not self.unit.accepted:
            resource = self._resolved(resource, _full_url(interaction))
        issues = aim.issues + self._validated(resource, target, entry)
        issues = self.warnings.setdefault(issues, issues)
        if_match, if_none_match, skip = None, None, False
        if isinstance(interaction, Update | Patch):
            if_match, skip = interaction.if_match, self.rules.skip_unchanged and not self.unit.accepted
        if isinstance(interaction, Update):
            if_none_match, skip = interaction.if_none_match, skip or interaction.skip_unchanged
        printed = Write(entry, verb, target, None, if_match, if_none_match, skip, issues)
        return [self._printed(printed, resource, aim.letter)]

    def _restored(
        self, entry: int, target: ResourceId, source: Version | None, if_match: VersionTags | None
    ) -> Write:
        """The content of an earlier version once more, or none. It makes a version also where it changes nothing."""
        if source is None:
            return Write(entry, "DELETE", target, None, if_match, None, skip_unchanged=False)
        resource = self.asked.content(source)
        try:
            issues = self._validated(resource, target, entry)
        except Invalid as error:
            # Of the resources that a commit is undone for, it has to be told which one.
            found = [replace(issue, text=f"`{source}` is not valid: {issue.text}") for issue in error.issues]
            raise type(error)(*found) from error
        write = Write(entry, "PUT", target, None, if_match, None, skip_unchanged=False, issues=issues)
        return self._printed(replace(write, restores=source.version_id), resource, "u")

    def _printed(self, write: Write, resource: Resource, letter: str) -> Write:
        """The write with the resource in its stored form, and what it will be found by. Raises TooLarge, Forbidden."""
        printed = template(write.resource_id, resource)
        if len(printed.tail) > MAX_STORED:
            raise TooLarge(
                f"`{write.resource_id}` is larger than {MAX_STORED} bytes in its stored form, which is indented."
            )
        registry = self.rules.registry
        contents = extract(registry, resource) if registry is not None else None
        permitted = self.unit.access.is_full or self.asked.permits_content(
            letter, write.resource_id, contents
        )
        if not permitted:
            raise Forbidden(
                f"To {DONE[letter]} such a {write.resource_id.type} is not allowed with these scopes."
            )
        kept = Printed(printed, contents)
        return replace(write, printed=self.shelf.put(kept) if self._is_large else kept, registry=registry)

    # Last: the Provenance of it all

    def _attestations(self, writes: list[Write]) -> list[Write]:
        """The Provenance that comes with the unit, where there is one and the unit changes anything."""
        return [
            made
            for entry, interaction in self._entries()
            if isinstance(interaction, Attest)
            for made in self._attested(entry, interaction.resource, writes)
        ]

    def _attested(self, entry: int, resource: Resource, writes: list[Write]) -> list[Write]:
        attestation.check(resource)
        if self._is_transaction:
            resource = self._resolved(resource, None)
        targets = [
            (write.resource_id, version)
            for write in map(self._pinned, writes)
            if (version := write.version_after(self._before(write))) is not None
        ]
        if not targets:
            return []
        target = ResourceId("Provenance", self.rules.new_id())
        resource = attestation.attested(resource, targets)
        issues = self._validated(resource, target, None)
        write = Write(entry, "POST", target, None, None, None, skip_unchanged=False, issues=issues)
        return [self._printed(write, resource, "c")]

    def _before(self, write: Write) -> Version | None:
        """The newest version of what is written, which has to be so still when the unit is made."""
        return None if write.verb == "POST" else self.asked.newest(write.resource_id)

    def _pinned(self, write: Write) -> Write:
        return replace(write, skip_unchanged=False) if write.resource_id in self.pinned else write

    def _reason(self) -> str | None:
        """Why the unit is done, as the Provenance that comes with it says."""
        last = self.unit.interactions[-1] if self.unit.interactions else None
        return attestation.reason(last.resource) if isinstance(last, Attest) else None

    def _validated(self, resource: Resource, target: ResourceId, entry: int | None) -> tuple[Issue, ...]:
        """Warnings. Raises Invalid or Unprocessable for anything worse."""
        if self.rules.validate is None or self.unit.accepted:
            return ()
        found = self.rules.validate(without_replaced(resource, target.id))
        error = refusal(found)
        if error is None:
            return tuple(found)
        if self._is_transaction and entry is not None:
            # Not left to at_entry, which can't tell a Bundle that is to be stored from the one that was posted.
            error.issues = [_in_entry(issue, entry) for issue in error.issues]
        raise error

    def _resolved(self, resource: Resource, full_url: str | None) -> Resource:
        """With references to other entries, and conditional ones, replaced by what they mean."""
        here = resolver(self.urls, full_url)
        # Printing is so quick that it pays to look there first, for what most resources have not.
        printed = json.dumps(resource)
        for expression, text in references(resource) if _CONDITIONAL.search(printed) else ():
            type, found, query = text.partition("?")
            if found and is_resource_type(type) and text not in self.conditional:
                with _about(expression):
                    self.conditional[text] = str(self._referred(Criteria.parse(type, query)))
        resource = rewrite(resource, lambda text: here(text) or self.conditional.get(text))
        return resolve_versions(resource, self._versioned) if _VERSION_SPECIFIC in printed else resource

    def _versioned(self, text: str, expression: str) -> str | None:
        """The reference with the version that its resource has once this unit is done."""
        type, _, id = text.partition("/")
        if not is_resource_type(type) or not is_id(id):
            return text if "/_history/" in text else None
        target = ResourceId(type, id)
        entry = self.named.get(target)
        interaction = self.unit.interactions[entry] if entry is not None else None
        newest = None if isinstance(interaction, Create) else self.asked.newest(target)
        if entry is None and self.unit.access.is_limited("r", type) and not self.asked.permits("r", target):
            newest = None
        if entry is None and newest is not None and not newest.deleted:
            return f"{text}/_history/{newest.version_id}"
        if entry is None or isinstance(interaction, Delete):
            fault = f"`{text}` is to be named with its version, and is not there."
            raise Invalid(Issue("error", "not-found", fault, expression))
        self.pinned.add(target)
        return f"{text}/_history/{newest.version_id + 1 if newest is not None else 1}"

    def _referred(self, criteria: Criteria) -> ResourceId:
        """What a conditional reference means once all entries are written. https://hl7.org/fhir/R4/http.html#trules"""
        own = self.own.get(criteria.type, set())
        if self.named and not criteria.is_plain:
            text = f"The conditional reference `{criteria}` asks for other resources, which the transaction may write."
            raise Invalid(Issue("error", "not-supported", text))
        found = {each for each in self.asked.matching(criteria, 2 + len(own)) if each not in own}
        found |= set(self._own_matching(criteria)) if own else set()
        if len(found) == 1:
            return found.pop()
        if found:
            raise MultipleMatches(f"The conditional reference `{criteria}` selects more than one resource.")
        raise Invalid(
            Issue("error", "not-found", f"The conditional reference `{criteria}` selects no resource.")
        )

    def _own_matching(self, criteria: Criteria) -> list[ResourceId]:
        """Which of the resources that this unit writes the criteria select."""
        registry = self.rules.registry
        if criteria.type not in self._own and registry is not None:
            contents = [
                (
                    target,
                    extract(
                        registry,
                        rewrite(unpacked(aim.resource), resolver(self.urls, _full_url(interaction))),
                    ),
                )
                for interaction, aim in zip(self.unit.interactions, self.aims, strict=True)
                for target in aim.targets
                if target.type == criteria.type and aim.resource is not None
            ]
            self._own[criteria.type] = self.asked.among(contents)
        return self._own[criteria.type](criteria, 2)


def _full_url(interaction: Interaction) -> str | None:
    return interaction.full_url if isinstance(interaction, Create | Update) else None


@contextmanager
def at_entry(entry: int | None) -> Iterator[None]:
    """Errors inside the block are those of this entry of the Bundle."""
    try:
        yield
    except StoreError as error:
        if entry is not None:
            error.at_entry(entry)
        raise


@contextmanager
def _about(expression: str) -> Iterator[None]:
    """Errors inside the block are those of this element of the resource."""
    try:
        yield
    except StoreError as error:
        error.issues = [replace(issue, expression=expression) for issue in error.issues]
        raise


def _in_entry(issue: Issue, entry: int) -> Issue:
    _, dot, path = (issue.expression or "").partition(".")
    return replace(issue, expression=f"Bundle.entry[{entry}].resource{dot}{path}")
