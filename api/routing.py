"""Finding the endpoint for a path, as Falcon does it, but compiled once for all applications that have the same routes.

Where many repositories are served, an application is made each time that one is opened; this was the larger part of it.
https://falcon.readthedocs.io/en/stable/api/routing.html#custom-routers
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import falcon
from falcon.routing import CompiledRouter, map_http_methods, set_default_responders


class Router(CompiledRouter):
    """The routes of one application. Those that have been added are found from the next request on."""

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: dict[str, tuple[object, dict[str, Any]]] = {}
        self._finder: CompiledRouter | None = None

    def add_route(self, uri_template: str, resource: object, **_options: Any) -> None:
        responders: dict[str, Any] = map_http_methods(resource)
        set_default_responders(responders)
        self._endpoints[uri_template] = resource, responders
        self._finder = None

    def find(
        self, uri: str, req: falcon.Request | None = None
    ) -> tuple[object, dict[str, Any], dict[str, Any], str | None] | None:
        """The endpoint, its responders by method, what the path names, and the template; None where there is no route."""
        finder = self._finder
        if finder is None:
            finder = self._finder = _finder(tuple(self._endpoints))
        found = finder.find(uri, req)
        if found is None:
            return None
        _, _, named, template = found
        assert template is not None
        return *self._endpoints[template], named, template


@lru_cache(maxsize=16)
def _finder(templates: tuple[str, ...]) -> CompiledRouter:
    """Any thread may use it; whichever is first compiles it."""
    finder = CompiledRouter()
    for template in templates:
        finder.add_route(template, object())
    return finder
