"""What monitors ask: does it live, is it ready, what has it counted. Nothing here tells what is in the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import falcon

from api import log
from api.endpoints import Endpoint, House
from api.metrics import CONTENT_TYPE
from api.request import Request
from gitstore import Cluster, RepositoryDamaged, StoreError
from gitstore.fhir import json
from gitstore.fhir.dates import SECOND

UNPUSHED = 60.0
"""Seconds for which the hub may lack a commit: pushes take less than a second, restarts of a git server less than a minute.
Async writes don't wait for it; but they are lost with this node.
"""

UNSEEN = 10
"""Looks at the hub that a replica may miss, and as many seconds at least: what it answers is that much older."""

CLOCK_TOLERANCE = 5 * 60 * SECOND
"""How far lastUpdated may run ahead of the clock before the server stops calling itself healthy."""


class HealthEndpoint(Endpoint):
    """For whoever starts a server anew that fails: can the record be read, is the clock right?"""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "health"
    open: ClassVar = True

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        try:
            trouble = clock(self.house)
        except StoreError as error:
            raise falcon.HTTPServiceUnavailable(description=f"The record can't be read: {error}") from error
        if trouble is not None:
            raise falcon.HTTPServiceUnavailable(description=trouble)
        resp.content_type = "application/json"
        resp.data = b'{"status":"pass"}'

    on_head = on_get


class ReadyEndpoint(Endpoint):
    """For load balancers: should requests come here? Why not is a matter for the log."""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "ready"
    open: ClassVar = True

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self._said: dict[str, str] = {}

    def on_get(self, _req: Request, resp: falcon.Response) -> None:
        found = checks(self.house)
        failed = {name: trouble for name, trouble in found.items() if trouble is not None}
        self._say(failed)
        resp.status = 503 if failed else 200
        resp.content_type = "application/json"
        states = {name: "unavailable" if name in failed else "ok" for name in found}
        answer = {"status": "unavailable" if failed else "ok", **self._role(), "checks": states}
        resp.data = json.dumps(answer)

    on_head = on_get

    def _role(self) -> dict[str, str]:
        """Where there are other nodes, which of them this is."""
        cluster = self.house.store.cluster
        try:
            return {} if cluster is None else {"role": cluster.role}
        except RepositoryDamaged:  # which the check of replication tells
            return {}

    def _say(self, failed: dict[str, str]) -> None:
        """Put the reasons into the log, when other checks fail than before."""
        before, self._said = self._said, failed
        if failed and failed.keys() != before.keys():
            log.SERVER.warning("not ready", extra={"fields": {"checks": failed}})
        elif before and not failed:
            log.SERVER.info("ready again")


class MetricsEndpoint(Endpoint):
    """For Prometheus: the numbers of all workers of this server."""

    interactions: ClassVar = {"GET": ()}
    name: ClassVar = "metrics"

    def on_get(self, req: Request, resp: falcon.Response) -> None:
        req.principal.check_role("metrics")
        found = checks(self.house)
        sizes = standing = None
        if found["record"] is None:
            try:
                sizes = self.house.store.vitals.sizes()
                cluster = self.house.store.cluster
                standing = cluster.status() if cluster is not None else None
            except StoreError as error:
                found["record"] = str(error)
        resp.data = self.house.metrics.text(sizes, found, standing)
        resp.content_type = CONTENT_TYPE

    on_head = on_get


def clock(house: House) -> str | None:
    """What is wrong with the last commit's time; None where nothing is. Raises StoreError."""
    ahead = house.store.snapshot().commit.last_updated - house.clock()
    if ahead <= CLOCK_TOLERANCE:
        return None
    return f"The last commit is {ahead // SECOND} s ahead of this machine's clock."


def replication(cluster: Cluster, poll_interval: float) -> str | None:
    """What keeps this node from its part among the others; None where nothing does. Raises StoreError."""
    status = cluster.status()
    said = f" ({status.error})" if status.error else ""
    if status.role == "replica":
        if status.seen is None:
            return f"This replica has not seen the hub yet{said}."
        late = status.seconds > max(UNSEEN * poll_interval, UNSEEN)
        return f"This replica has not seen the hub for {status.seconds:.0f} s{said}." if late else None
    if status.suspended is not None:
        return f"This node may not write for now: {status.suspended}"
    late = status.seconds > UNPUSHED or (cluster.is_sync and status.error is not None)
    if status.pending and late:
        return f"The hub lacks {status.pending} commits, the oldest for {status.seconds:.0f} s{said}."
    return None


def checks(house: House) -> dict[str, str | None]:
    """Each check by its name, with what is wrong; None where nothing is."""
    try:
        house.store.snapshot()
    except StoreError as error:
        return {"record": str(error)}
    found: dict[str, str | None] = {"record": None}
    vitals = house.store.vitals
    named: dict[str, Callable[[], str | None]] = {
        "clock": partial(clock, house),
        "index": vitals.index,
        "disk": vitals.disk,
        "maintenance": vitals.maintenance,
        "writer": vitals.writer,
    }
    if house.store.cluster is not None:
        named["replication"] = partial(replication, house.store.cluster, house.settings.poll_interval)
    for name, check in named.items():
        try:
            found[name] = check()
        except StoreError as error:
            found[name] = str(error)
    return found
