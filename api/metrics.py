"""What this server counts and measures, for Prometheus. docs/operations.md, "Watching it", says what each number means.

Each worker counts in files of its own, in a folder that all share; whichever is asked adds them up. A worker has a number
that no other living one has. Who takes the place of a dead one counts on in its files, so nothing that was counted is
lost, and there are never more files than there were workers at one time.
https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from api.request import METHODS
from gitstore import ClusterStatus, Sizes
from gitstore.fhir.dates import SECOND

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format"""

OTHER = "other"
"""Stands for whatever a client made up: labels have a bounded number of values."""

MAX_REASONS = 40

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_REASON = re.compile(r"[a-z][a-z-]{0,39}")
_FAST = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SLOW = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_GROUPS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


def known_method(method: str) -> str:
    """A method as a label, and for the log."""
    return method if method in METHODS else OTHER


class Metrics:
    """What one process counts. It is the `Observer` of the process's store; any thread may call."""

    def __init__(self, folder: str | None = None) -> None:
        """Of this process alone; `shared` makes those that add up over several, in a folder."""
        # They would double the number of series, and files don't keep them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types
        self._folder = folder
        self._registry = CollectorRegistry()
        self._reasons: set[str] = set()
        self._behind = 0
        self._make_http(self._registry)
        self._make_store(self._registry)
        # To find the series of some labels costs more than to count.
        self._requests_of = lru_cache(maxsize=2048)(self._requests.labels)
        self._seconds_of = lru_cache(maxsize=256)(self._seconds.labels)

    @classmethod
    def shared(cls, folder: str, worker: int) -> Self:
        """Those of worker number `worker`, which goes on counting where the one with that number before it ended.

        Once in a process, before any other metrics: the client library has one way to keep values for all of them.
        """
        os.environ[_FOLDER] = folder  # where the library looks for it
        values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]  # has no types
        bury(folder, worker)
        return cls(folder)

    def _make_http(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "git_fhir_requests",
            "Requests that were answered.",
            ("interaction", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "git_fhir_request_seconds",
            "Time from the request's last byte to its answer.",
            ("interaction",),
            buckets=_FAST,
            registry=registry,
        )
        self._in_flight = Gauge(
            "git_fhir_requests_in_flight",
            "Requests that are being answered.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._sent = Counter("git_fhir_sent_bytes", "Bytes of the bodies of answers.", registry=registry)
        self._denied = Counter(
            "git_fhir_denied", "Requests that were refused for who sent them.", ("reason",), registry=registry
        )
        self._journal = Counter(
            "git_fhir_journal_lines", "Lines written to the access journal.", registry=registry
        )
        workers = Gauge(
            "git_fhir_workers", "Processes that serve.", multiprocess_mode="livesum", registry=registry
        )
        workers.set(1)

    def _make_store(self, registry: CollectorRegistry) -> None:
        self._commits = Counter("git_fhir_commits", "Commits that were made.", registry=registry)
        self._groups = Histogram(
            "git_fhir_group_commits",
            "Commits that shared one durable write.",
            buckets=_GROUPS,
            registry=registry,
        )
        self._publish = Histogram(
            "git_fhir_publish_seconds",
            "Time of one durable write: pack, branch, every fsync.",
            buckets=_FAST,
            registry=registry,
        )
        self._failures = Counter(
            "git_fhir_publish_failures", "Groups of writes that failed as a whole.", registry=registry
        )
        self._queue = Gauge(
            "git_fhir_queue_units",
            "Units of work that wait behind the one to be written next.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._lock_wait = Histogram(
            "git_fhir_lock_wait_seconds",
            "Time for which the writer's lock was waited for.",
            buckets=_FAST,
            registry=registry,
        )
        self._maintenance = Histogram(
            "git_fhir_maintenance_seconds", "Time of one maintenance.", buckets=_SLOW, registry=registry
        )
        self._maintenance_failures = Counter(
            "git_fhir_maintenance_failures", "Maintenance that failed.", registry=registry
        )
        self._too_costly = Counter(
            "git_fhir_searches_too_costly",
            "Searches that were broken off for the work they cause.",
            registry=registry,
        )

    # HTTP

    def begun(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def answered(self, interaction: str, method: str, status: int, seconds: float, size: int) -> None:
        """A request that had `begun` has its answer, of `size` bytes."""
        self._in_flight.dec()
        self.refused(interaction, method, status, size)
        self._seconds_of(interaction).observe(seconds)

    def refused(self, interaction: str, method: str, status: int, size: int) -> None:
        """A request was answered before it `begun`: what there was of it could be read no further."""
        self._requests_of(interaction, known_method(method), str(status)).inc()
        self._sent.inc(size)

    def denied(self, reason: str) -> None:
        """Somebody was refused: for a lack of credentials, for wrong ones, for what they don't allow, for a limit.

        `reason` is small letters and hyphens; what isn't, and what would be one too many, counts as `other`.
        """
        if reason not in self._reasons:
            if not _REASON.fullmatch(reason) or len(self._reasons) >= MAX_REASONS:
                reason = OTHER
            self._reasons.add(reason)
        self._denied.labels(reason).inc()

    def journaled(self, lines: int = 1) -> None:
        """The journal has so many lines more."""
        self._journal.inc(lines)

    # The store: see gitstore.observing

    def queued(self, units: int) -> None:
        """The first isn't counted: it is as good as taken, and most are alone."""
        behind = max(units - 1, 0)
        if behind != self._behind:
            self._queue.inc(behind - self._behind)
            self._behind = behind

    def waited(self, seconds: float) -> None:
        self._lock_wait.observe(seconds)

    def published(self, commits: int, seconds: float) -> None:
        self._commits.inc(commits)
        self._groups.observe(commits)
        self._publish.observe(seconds)

    def failed(self) -> None:
        self._failures.inc()

    def maintained(self, seconds: float, *, succeeded: bool) -> None:
        self._maintenance.observe(seconds)
        if not succeeded:
            self._maintenance_failures.inc()

    def refused_as_too_costly(self) -> None:
        self._too_costly.inc()

    # Telling

    def text(
        self,
        sizes: Sizes | None,
        checks: Mapping[str, str | None],
        standing: ClusterStatus | None = None,
    ) -> bytes:
        """All of it in Prometheus's text format, with the record's sizes and its place among the nodes, where they are
        known, and what /ready finds.
        """
        counted = self._registry
        if self._folder is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, self._folder)  # type: ignore[no-untyped-call]  # has no types
        return generate_latest(counted) + _looked_up(sizes, checks, standing)


class OfOne(Metrics):
    """For one of several records that this process serves: it counts in the same numbers as they all, but tells none of
    them, as they would tell of the others.
    """

    def __init__(self, whole: Metrics) -> None:
        vars(self).update(vars(whole))
        self._behind = 0

    def text(
        self,
        sizes: Sizes | None,
        checks: Mapping[str, str | None],
        standing: ClusterStatus | None = None,
    ) -> bytes:
        return _looked_up(sizes, checks, standing)


class ManyMetrics(Metrics):
    """What a process counts that serves many repositories; each of them is observed by an `OfOne`."""

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(folder)
        self._open = Gauge(
            "git_fhir_repositories_open",
            "Repositories that are open, one for each worker that has it.",
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        self._opening = Histogram(
            "git_fhir_repository_open_seconds",
            "Time to open a repository.",
            buckets=_FAST,
            registry=self._registry,
        )
        self._unopened = Counter(
            "git_fhir_repository_open_failures",
            "Repositories that could not be opened, each time.",
            registry=self._registry,
        )

    def repository_opened(self, seconds: float) -> None:
        """One more is open, and that took so long."""
        self._open.inc()
        self._opening.observe(seconds)

    def repository_closed(self) -> None:
        """One less is open."""
        self._open.dec()

    def repository_failed(self) -> None:
        """One could not be opened."""
        self._unopened.inc()


def bury(folder: str, worker: int) -> None:
    """Forget what only a living worker can say: how much it has in hand. What it counted stays."""
    mark_process_dead(worker, folder)  # type: ignore[no-untyped-call]  # has no types


def _looked_up(
    sizes: Sizes | None, checks: Mapping[str, str | None], standing: ClusterStatus | None
) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families([*_families(sizes, checks), *_replication(standing)]))
    return generate_latest(registry)


class _Families(Collector):
    """Numbers that are known already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(sizes: Sizes | None, checks: Mapping[str, str | None]) -> Iterator[Metric]:
    passed = GaugeMetricFamily(
        "git_fhir_check", "Whether a check of /ready passes: 1, or 0.", labels=("check",)
    )
    for name, trouble in checks.items():
        passed.add_metric((name,), float(trouble is None))
    yield passed
    if sizes is None:
        return
    for name, text, value in (
        ("record_commits", "Commits of the record.", sizes.last.sequence),
        ("record_versions", "Versions of all resources, deletions included.", sizes.versions),
        (
            "last_commit_timestamp_seconds",
            "When the last commit was made, since 1970.",
            sizes.last.last_updated / SECOND,
        ),
        ("index_lag_commits", "Commits on main that the search index doesn't hold.", sizes.lag),
        ("packs", "Packs of the object database.", sizes.packs),
        ("objects_bytes", "Bytes of all files below objects.", sizes.object_bytes),
        ("index_bytes", "Bytes of the search index.", sizes.index_bytes),
        ("disk_free_bytes", "Bytes that are free where the record lies.", sizes.free_bytes),
    ):
        yield GaugeMetricFamily(f"git_fhir_{name}", text, value)


def _replication(standing: ClusterStatus | None) -> Iterator[Metric]:
    """Nothing for a record that has one node only."""
    if standing is None:
        return
    role = GaugeMetricFamily(
        "git_fhir_replication_role", "1 for the role that this node has.", labels=("role",)
    )
    for name in ("primary", "replica"):
        role.add_metric((name,), float(standing.role == name))
    yield role
    for name, text, value in (
        ("pending_commits", "Commits of the primary that the hub is not known to have.", standing.pending),
        (
            "lag_seconds",
            "Since when the oldest of them waits; on a replica, since when it has not seen the hub.",
            standing.seconds,
        ),
        ("suspended", "Whether this node may not write for now.", standing.suspended is not None),
    ):
        yield GaugeMetricFamily(f"git_fhir_replication_{name}", text, float(value))
