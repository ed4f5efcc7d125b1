"""The settings of a repository: `git config fhir.…`, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Settings:
    """One field for each `fhir.camelCase` variable of git's configuration; docs/operations.md has the table.

    Sizes are in bytes, times in seconds. `durability` "off" skips every fsync: for throw-away test data.
    """

    durability: Literal["full", "off"] = "full"
    unchanged_update: Literal["version", "skip"] = "version"
    foreign_commits: Literal["refuse", "adopt"] = "refuse"
    validation: Literal["off", "structure", "full"] = "full"
    conditional_delete: Literal["single", "multiple"] = "single"
    patch_narrative: Literal["drop", "keep", "reject"] = "drop"
    referential_integrity: Literal["off", "enforce"] = "off"
    history_bundles: Literal["refuse", "accept"] = "refuse"
    search: Literal["on", "off"] = "on"
    search_limit: int = 50_000_000
    search_handling: Literal["lenient", "strict"] = "lenient"
    max_chain: int = 5
    max_body: int = 16 * MIB
    max_bundle: int = 128 * MIB
    max_entries: int = 20_000
    lock_timeout: float = 10.0
    maintenance: Literal["auto", "off"] = "auto"
    host_name: tuple[str, ...] = ()
    base_url: str | None = None
    cors_origin: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    min_free: int = 256 * MIB
    receive_timeout: float = 30.0
    issuer: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    anonymous_scope: str | None = None
    withhold: tuple[str, ...] = ()
    access_journal: Literal["on", "off"] = "on"
    max_in_flight: int = 24
    audit_events: Literal["off", "on"] = "off"
    as_of_cache: int = 4
    signing_key: str | None = None
    max_clones: int = 2
    clone_timeout: float = 3600.0
    hub: str | None = None
    replication: Literal["async", "sync"] = "async"
    hub_timeout: float = 10.0
    poll_interval: float = 1.0
    replica: tuple[str, ...] = ()
    primary: str | None = None
    etcd: tuple[str, ...] = ()
    lease_ttl: float = 5.0
    node_url: str | None = None
