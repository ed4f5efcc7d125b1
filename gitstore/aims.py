"""What each entry of a unit of work comes to: which resources it is about, and their new content.

Here it is decided what whoever asks may do with them, before anything is said of what there is.
https://hl7.org/fhir/R4/http.html#trules
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from gitstore import restoration
from gitstore.access import Access
from gitstore.assumptions import Asked, check_if_match, listed
from gitstore.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Issue,
    MultipleMatches,
    NotFound,
    VersionMismatch,
)
from gitstore.fhir import Resource
from gitstore.fhir.conditions import Criteria
from gitstore.fhir.drawers import Drawers
from gitstore.fhir.ids import ResourceId, check_id
from gitstore.fhir.packed import Packed, pack, unpacked
from gitstore.interactions import (
    Ask,
    Attest,
    Create,
    Delete,
    Interaction,
    Patch,
    Restore,
    Revert,
    Update,
    Validate,
)
from gitstore.search.parameters import Registry
from gitstore.targets import checked_target, checked_type, other_type
from gitstore.version import Version

ORDER = (Delete, Create, Update, Patch, Restore, Revert, Ask, Attest)
"""In which criteria are looked at: what is deleted is no match for a create. https://hl7.org/fhir/R4/http.html#trules"""
DONE = {"c": "create", "u": "change", "d": "delete"}


class Rules(Struct, frozen=True):
    """What a store does the same way with each unit. `max_deletes` is how many one conditional delete may take."""

    new_id: Callable[[], str]
    validate: Validate | None = None
    registry: Registry | None = None
    skip_unchanged: bool = False
    max_deletes: int = 1


class Aim(Struct, frozen=True):
    """What an entry comes to: resources to write, with the new content; or a resource that is left as it is.

    `letter` is that of "cruds" by which whoever asks must be allowed to write the content. `sources` are, for each of
    the targets, the version that it gets back, None where it is to be deleted.
    """

    targets: tuple[ResourceId, ...] = ()
    resource: Resource | Packed | None = None
    left: ResourceId | None = None
    issues: tuple[Issue, ...] = ()
    letter: str = "u"
    sources: tuple[Version | None, ...] = ()


class Aiming:
    """Finds the aims of one unit's entries, in the ORDER of their interactions."""

    def __init__(self, asked: Asked, rules: Rules, access: Access, *, is_large: bool) -> None:
        """`is_large` units have new content packed until it is written."""
        self._asked = asked
        self._rules = rules
        self._access = access
        self._is_large = is_large
        self._created: dict[Criteria, ResourceId] = {}
        self._deleted: dict[str, set[ResourceId]] = {}
        self._changed = Drawers()

    def aim(self, interaction: Interaction) -> Aim:
        match interaction:
            case Create():
                return self._aim_of_create(interaction)
            case Update(ResourceId() as target, resource):
                self.check("u", checked_target(target, unpacked(resource)))
                return Aim((target,), resource)
            case Update(Criteria() as criteria, resource):
                return self._aim_of_update(criteria, unpacked(resource))
            case Delete(target):
                self.check_type("d", target.type)
                aim = self._aim_of_delete(interaction)
                for target in aim.targets:
                    self.check("d", target)
                    self._deleted.setdefault(target.type, set()).add(target)
                return aim
            case Patch():
                return self._aim_of_patch(interaction)
            case Restore(target):
                self.check("u", ResourceId(target.type, check_id(target.id)))
                return Aim((target,), sources=(restoration.source(self._asked, interaction),))
            case Revert(commit):
                undone = restoration.undone(self._asked, commit, self.check)
                return Aim(tuple(each[0] for each in undone), sources=tuple(each[1] for each in undone))
            case _:
                return Aim()

    def _aim_of_create(self, create: Create) -> Aim:
        """https://hl7.org/fhir/R4/http.html#ccreate"""
        type = checked_type(unpacked(create.resource))
        self.check_type("c", type)
        if create.unless is not None:
            found = self._asked.only(create.unless, self._deleted.get(type, ())) or self._created.get(
                create.unless
            )
            if found is not None:
                return Aim(left=found)
        target = ResourceId(type, create.id or self._rules.new_id())
        if create.unless is not None:
            # A second entry with the same criteria means the same resource.
            self._created[create.unless] = target
        return Aim((target,), create.resource, letter="c")

    def _aim_of_update(self, criteria: Criteria, resource: Resource) -> Aim:
        """https://hl7.org/fhir/R4/http.html#cond-update"""
        type = checked_type(resource)
        self.check_type("u", type)
        if type != criteria.type:
            raise Invalid(other_type(type, criteria.type), expression="resourceType")
        found, given = self._asked.only(criteria) or self._created.get(criteria), resource.get("id")
        if given is not None:
            check_id(given, f"{type}.id")
        if found is None:
            target = ResourceId(type, self._rules.new_id() if given is None else given)
            if given is None:
                self.check_type("c", type)
            else:
                self.check("u", target)
                newest = self._asked.newest(target)
                if newest is not None and not newest.deleted:
                    raise Conflict(
                        f"`{criteria}` selects nothing, and `{target}`, the id of the resource, is in use."
                    )
            # What two entries make under the same criteria would be one resource: _name refuses that.
            self._created[criteria] = target
        else:
            target = found
            self.check("u", target)
            if given not in (None, found.id):
                text = f"`{criteria}` selects `{found}`; the resource has the id `{given}`."
                raise Invalid(Issue("error", "value", text, f"{type}.id"))
        letter = "c" if found is None and given is None else "u"
        return Aim((target,), self._kept({**resource, "id": target.id}), letter=letter)

    def _aim_of_delete(self, delete: Delete) -> Aim:
        """https://hl7.org/fhir/R4/http.html#3.1.0.7.1"""
        criteria = delete.target
        if isinstance(criteria, ResourceId):
            return Aim((ResourceId(criteria.type, check_id(criteria.id)),))
        limit = self._rules.max_deletes
        found = self._asked.matching(criteria, limit + 1)
        if len(found) > limit:
            several = "more than one resource" if limit == 1 else f"more than {limit} resources"
            raise MultipleMatches(f"`{criteria}` selects {several}; nothing was deleted.")
        if delete.if_match is not None and not found:
            raise VersionMismatch(
                f"`{criteria}` selects nothing; If-Match asked for {listed(delete.if_match)}."
            )
        return Aim(found)

    def _aim_of_patch(self, patch: Patch) -> Aim:
        """https://hl7.org/fhir/R4/http.html#patch"""
        target = patch.target
        self.check_type("u", target.type)
        if isinstance(target, Criteria):
            found = self._asked.only(target)
            if found is None:
                raise NotFound(f"`{target}` selects no resource that could be patched.")
            target = found
        target = ResourceId(target.type, check_id(target.id))
        self.check("u", target)
        newest = self._asked.newest(target)
        if newest is None:
            raise NotFound(f"`{target}` is not known.")
        if newest.deleted:
            raise Gone(f"`{target}` was deleted.", newest.version_id, newest.last_updated)
        # Before the patch is tried: to one who has not seen this version, its refusal would say nothing.
        check_if_match(target, patch.if_match, newest)
        resource, issues = patch.change(self._asked.content(newest))
        return Aim((target,), self._kept(resource), issues=tuple(issues))

    def _kept(self, resource: Resource) -> Resource | Packed:
        """New content until it is written: a unit of many has it packed."""
        return pack(resource, self._changed) if self._is_large else resource

    def check(self, letter: str, target: ResourceId) -> None:
        """Raises Forbidden, before anything else is said of a resource.

        Where it matters which resource it is, one that isn't there is refused as well, and can't be told from others.
        """
        access = self._access
        self.check_type(letter, target.type)
        if access.is_limited(letter, target.type) and not self._asked.permits(letter, target):
            raise Forbidden(f"To {DONE[letter]} `{target}` is not allowed with these scopes.")

    def check_type(self, letter: str, type: str) -> None:
        if not self._access.may(letter, type):
            raise Forbidden(f"To {DONE[letter]} {type} is not allowed with these scopes.")
