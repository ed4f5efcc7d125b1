"""FHIR resources in a git repository. This is the front door: `api` and `cli` come in here.

A FHIR transaction is a git commit is a unit of work.
"""

from gitstore.adoption import Adoption
from gitstore.errors import (
    AlreadyExists,
    Conflict,
    ForeignCommit,
    Gone,
    Invalid,
    Issue,
    Locked,
    MultipleMatches,
    NotAllowed,
    NotConfirmed,
    NotFound,
    NotSupported,
    Problem,
    RepositoryDamaged,
    RepositoryRefused,
    StorageFailed,
    StorageFull,
    StoreError,
    TooCostly,
    TooLarge,
    Unavailable,
    Unprocessable,
    VersionMismatch,
)
from gitstore.everything import Everything, everything_about
from gitstore.fhir.conditions import Criteria
from gitstore.git.layout import path as path_of
from gitstore.git.repository import discover, read_settings
from gitstore.histories import commit_extensions, history_entry, replicas_of
from gitstore.idempotency import check_keys
from gitstore.interactions import (
    ANY_VERSION,
    Ask,
    Attest,
    Create,
    Delete,
    Interaction,
    Outcome,
    Patch,
    Unit,
    Update,
    VersionTags,
)
from gitstore.maintenance import Maintained
from gitstore.replication import Replica, ReplicaVersion, is_held
from gitstore.search.described import Indexed
from gitstore.search.select import Match
from gitstore.search.versions import Cursor
from gitstore.searching import SearchPage
from gitstore.settings import Settings
from gitstore.snapshot import HistoryPage, Snapshot
from gitstore.statistics import Statistics
from gitstore.store import Store, init
from gitstore.transaction import patching, write_of
from gitstore.verify import Finding
from gitstore.version import ANONYMOUS, Author, Commit, Idempotency, Verb, Version
from gitstore.writes import Write

__all__ = [
    "ANONYMOUS",
    "ANY_VERSION",
    "Adoption",
    "AlreadyExists",
    "Ask",
    "Attest",
    "Author",
    "Commit",
    "Conflict",
    "Create",
    "Criteria",
    "Cursor",
    "Delete",
    "Everything",
    "Finding",
    "ForeignCommit",
    "Gone",
    "HistoryPage",
    "Idempotency",
    "Indexed",
    "Interaction",
    "Invalid",
    "Issue",
    "Locked",
    "Maintained",
    "Match",
    "MultipleMatches",
    "NotAllowed",
    "NotConfirmed",
    "NotFound",
    "NotSupported",
    "Outcome",
    "Patch",
    "Problem",
    "Replica",
    "ReplicaVersion",
    "RepositoryDamaged",
    "RepositoryRefused",
    "SearchPage",
    "Settings",
    "Snapshot",
    "Statistics",
    "StorageFailed",
    "StorageFull",
    "Store",
    "StoreError",
    "TooCostly",
    "TooLarge",
    "Unavailable",
    "Unit",
    "Unprocessable",
    "Update",
    "Verb",
    "Version",
    "VersionMismatch",
    "VersionTags",
    "Write",
    "check_keys",
    "commit_extensions",
    "discover",
    "everything_about",
    "history_entry",
    "init",
    "is_held",
    "patching",
    "path_of",
    "read_settings",
    "replicas_of",
    "write_of",
]
