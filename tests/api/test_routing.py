"""Routes that applications share: the same answers as from Falcon's own router, each to its own endpoints."""

from __future__ import annotations

from functools import cache

import falcon
from falcon.routing import CompiledRouter
from falcon.testing import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.app import ROUTES
from api.routing import Router, _finder

PARTS = [
    "fhir",
    "Patient",
    "example",
    "_history",
    "_search",
    "1",
    "$meta",
    "$diff",
    "at",
    "",
    "health",
    "x y",
    "%",
]


class Endpoint:
    def __init__(self, name: str) -> None:
        self.name = name

    def on_get(self, _req: falcon.Request, resp: falcon.Response, **named: str) -> None:
        resp.text = f"{self.name} {named}"


@cache
def routers() -> tuple[Router, CompiledRouter]:
    """Ours and Falcon's, with the same routes."""
    ours, theirs = Router(), CompiledRouter()
    for template, _ in ROUTES:
        endpoint = Endpoint(template)
        ours.add_route(template, endpoint)
        theirs.add_route(template, endpoint)
    return ours, theirs


@given(st.lists(st.sampled_from(PARTS), max_size=7).map(lambda parts: "/" + "/".join(parts)))
def test_it_finds_what_falcons_own_finds(path):
    """For every path the same template with the same names in it, or nothing."""
    found, expected = (router.find(path) for router in routers())

    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert (found[0], found[2:]) == (expected[0], expected[2:])
        assert found[1].keys() == expected[1].keys()
        assert found[1]["GET"] == expected[1]["GET"]


def test_applications_with_the_same_routes_have_their_own_endpoints():
    """The way to them is compiled once."""
    clients = []
    for name in ("one", "two"):
        app = falcon.App(router=Router())
        app.add_route("/a/{id}", Endpoint(name))
        clients.append(TestClient(app))

    assert [client.simulate_get("/a/7").text for client in clients] == ["one {'id': '7'}", "two {'id': '7'}"]
    assert _finder(("/a/{id}",)) is _finder(("/a/{id}",))
    assert clients[0].simulate_post("/a/7").status_code == 405
    assert clients[0].simulate_get("/b").status_code == 404


def test_a_route_may_come_later():
    router = Router()
    router.add_route("/a", Endpoint("a"))
    assert router.find("/b") is None

    router.add_route("/b", Endpoint("b"))

    found = router.find("/b")
    assert found is not None
    assert found[3] == "/b"
