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
    TooLarge,
    Unavailable,
    Unprocessable,
    VersionMismatch,
)
from gitstore.git.layout import path as path_of
from gitstore.git.repository import discover, read_settings
from gitstore.interactions import (
    ANY_VERSION,
    Ask,
    Create,
    Delete,
    Interaction,
    Outcome,
    Unit,
    Update,
    VersionTags,
)
from gitstore.maintenance import Maintained
from gitstore.search.versions import Cursor
from gitstore.settings import Settings
from gitstore.snapshot import HistoryPage, Snapshot
from gitstore.statistics import Statistics
from gitstore.store import Store, init
from gitstore.transaction import write_of
from gitstore.verify import Finding
from gitstore.version import ANONYMOUS, Author, Commit, Verb, Version

__all__ = [
    "ANONYMOUS",
    "ANY_VERSION",
    "Adoption",
    "AlreadyExists",
    "Ask",
    "Author",
    "Commit",
    "Conflict",
    "Create",
    "Cursor",
    "Delete",
    "Finding",
    "ForeignCommit",
    "Gone",
    "HistoryPage",
    "Interaction",
    "Invalid",
    "Issue",
    "Locked",
    "Maintained",
    "MultipleMatches",
    "NotAllowed",
    "NotConfirmed",
    "NotFound",
    "NotSupported",
    "Outcome",
    "Problem",
    "RepositoryDamaged",
    "RepositoryRefused",
    "Settings",
    "Snapshot",
    "Statistics",
    "StorageFailed",
    "StorageFull",
    "Store",
    "StoreError",
    "TooLarge",
    "Unavailable",
    "Unit",
    "Unprocessable",
    "Update",
    "Verb",
    "Version",
    "VersionMismatch",
    "VersionTags",
    "discover",
    "init",
    "path_of",
    "read_settings",
    "write_of",
]
