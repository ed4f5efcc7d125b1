"""Paths beside FHIR's interface: those to get in, which are open to everybody, and those of git, which are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import falcon

from api.request import Request


class Door:
    """One path that is none of FHIR's. `methods` are what it answers, besides OPTIONS."""

    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD")
    name: ClassVar[str]
    """For logs and metrics."""

    @classmethod
    def allow(cls) -> str:
        """The value of an Allow header."""
        return ", ".join(sorted({*cls.methods, "OPTIONS"}))

    @classmethod
    def interaction(cls, _method: str, _path: Mapping[str, object]) -> str:
        return cls.name

    @classmethod
    def writes(cls, _method: str) -> bool:
        """Whether a method changes the record: none does here."""
        return False

    def on_options(self, _req: Request, resp: falcon.Response) -> None:
        resp.status = 204
        resp.set_header("Allow", self.allow())
