"""Who a request comes from, and what it may do: the result of authentication."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gitstore import ANONYMOUS, FULL_ACCESS, ROLES, Access, Author, Forbidden

Kind = Literal["anonymous", "bearer", "basic", "session"]


class Rejected(Exception):
    """Credentials that don't count. `reason` is for the log and holds no secret; `code` is of the value set issue-type.

    https://hl7.org/fhir/R4/valueset-issue-type.html
    """

    def __init__(self, reason: str, code: Literal["unknown", "expired"] = "unknown") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Principal(Struct, frozen=True):
    """Who asks. `author` is who commits name; `agent` is the FHIR-Agent trailer, at most 200 visible characters.

    `access` is what may be done with resources, `roles` what besides. `key` says whose limits a request counts against.
    """

    author: Author
    access: Access
    roles: frozenset[str]
    agent: str | None
    key: str
    kind: Kind

    def check_role(self, name: str) -> None:
        """Raises Forbidden without the role."""
        if name not in self.roles:
            raise Forbidden(f"This needs the scope `git-fhir/{name}`.")


ANONYMOUS_PRINCIPAL = Principal(ANONYMOUS, FULL_ACCESS, ROLES, None, "anonymous", "anonymous")
"""Whoever reaches a server that asks for no credentials: may do everything."""
