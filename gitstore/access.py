"""What a request may do with resources: grants, each a SMART scope compiled.

https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from msgspec import Struct


class Grant(Struct, frozen=True):
    """What may be done with some resources: `letters` of "cruds" (create, read, update, delete, search).

    `type` None stands for all types. With `patient`, an id, only what is in the compartment of that Patient; with
    `query`, only what these search parameters select.
    """

    type: str | None
    letters: frozenset[str]
    patient: str | None = None
    query: tuple[tuple[str, str], ...] = ()

    @property
    def is_limited(self) -> bool:
        """Whether it is for some resources of its type only."""
        return self.patient is not None or bool(self.query)


class Access(Struct, frozen=True, dict=True):
    """What a principal may do: all that any of the grants allows, and nothing else.

    `withheld` are security labels, `system|code`: what bears one of them is not there for this principal. `history`
    says whether past versions are.
    """

    grants: tuple[Grant, ...]
    withheld: tuple[str, ...] = ()
    history: bool = True

    def of(self, letter: str, type: str) -> Iterator[Grant]:
        """The grants that say something about this letter for this type."""
        return (grant for grant in self.grants if letter in grant.letters and grant.type in (None, type))

    def may(self, letter: str, type: str) -> bool:
        """Whether there are resources of the type that this may be done with."""
        return any(self.of(letter, type))

    def is_limited(self, letter: str, type: str) -> bool:
        """Whether which resource it is makes a difference."""
        return bool(self.withheld) or all(grant.is_limited for grant in self.of(letter, type))

    @cached_property
    def is_full(self) -> bool:
        """Whether everything may be done with every resource."""
        return self._may_everywhere("cruds")

    @cached_property
    def sees_all(self) -> bool:
        """Whether every version of every resource may be read and found."""
        return self._may_everywhere("rs")

    def _may_everywhere(self, letters: str) -> bool:
        free = [grant for grant in self.grants if grant.type is None and not grant.is_limited]
        return (
            self.history
            and not self.withheld
            and {*letters} <= {each for one in free for each in one.letters}
        )


FULL_ACCESS = Access((Grant(None, frozenset("cruds")),))
