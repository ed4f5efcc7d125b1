"""Where a page leads: to what a reference names, where that is on this server."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from msgspec import Struct

from api.origin import prefix
from api.request import Request
from gitstore import Version
from gitstore.fhir.definitions import is_resource_type
from gitstore.fhir.ids import ResourceId

_REFERENCE = re.compile(
    r"([A-Za-z]+)/([A-Za-z0-9.-]{1,64})(/_history/[A-Za-z0-9.-]{1,64})?(#[A-Za-z0-9.-]{1,64})?"
)
_FRAGMENT = re.compile(r"#[A-Za-z0-9.-]{1,64}")
_WEB = re.compile(r"https?://[^\s\x00-\x20\"<>]+", re.IGNORECASE)
_SAFE = ":/,$*"


class Links(Struct, frozen=True):
    """The places of this server as its client sees them: `base` is the service base, `path` its path alone."""

    base: str
    path: str
    root: str

    @classmethod
    def of(cls, req: Request) -> Links:
        path = urlsplit(req.base).path
        return cls(req.base, path, prefix(req))

    def reference(self, text: str) -> str | None:
        """Where a Reference.reference leads on this server, or within the page; None for all else."""
        if _FRAGMENT.fullmatch(text):
            return f"#contained-{text[1:]}"
        match = _REFERENCE.fullmatch(text.removeprefix(self.base + "/"))
        if match is None or not is_resource_type(match[1]):
            return None
        return f"{self.path}/{match[1]}/{match[2]}{match[3] or ''}"

    def resource(self, resource_id: ResourceId) -> str:
        """A Binary would otherwise be its content."""
        form = "?_format=html" if resource_id.type == "Binary" else ""
        return f"{self.path}/{resource_id}{form}"

    def version(self, version: Version) -> str:
        form = "?_format=html" if version.resource_id.type == "Binary" else ""
        return f"{self.path}/{version}{form}"

    def history(self, resource_id: ResourceId) -> str:
        return f"{self.path}/{resource_id}/_history"

    def blame(self, version: Version) -> str:
        return f"{self.path}/{version.resource_id}/$blame?version={version.version_id}"

    def diff(self, resource_id: ResourceId, old: int, new: int) -> str:
        return f"{self.path}/{resource_id}/$diff?fromVersion={old}&toVersion={new}"

    def commit(self, id: str) -> str:
        return f"{self.root}/commits/{id}"

    def here(self, url: str) -> str:
        """A URL of this server without its origin."""
        return self.path + url[len(self.base) :] if url.startswith(self.base) else url


def web(text: str) -> str | None:
    """The text where it is a place of the web, None for everything else."""
    return text if _WEB.fullmatch(text) else None


def escaped(text: str) -> str:
    return quote(text, safe=_SAFE)
