"""FHIR resources in a git repository. This is the front door: `api` and `cli` come in here.

A FHIR transaction is a git commit is a unit of work.
"""

from gitstore.access import FULL_ACCESS, Access, Grant
from gitstore.adoption import Adoption
from gitstore.ahead import Ahead, hand_over
from gitstore.anchors import Anchor, check_anchor, parse_anchor, take_anchor
from gitstore.blame import Blamed, blame
from gitstore.changes import ChangesPage, Net, changes
from gitstore.cluster.cluster import Cluster
from gitstore.cluster.cluster import Status as ClusterStatus
from gitstore.cluster.diverged import Diverged, Obstacle, apply_diverged, diverged, settle_diverged
from gitstore.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    Forbidden,
    ForeignCommit,
    Gone,
    HubUnreachable,
    Invalid,
    Issue,
    Locked,
    MultipleMatches,
    NotAllowed,
    NotConfirmed,
    NotFound,
    NotReplicated,
    NotSupported,
    Outdated,
    Preparing,
    Problem,
    ReadOnly,
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
from gitstore.founding import init, now
from gitstore.git.layout import path as path_of
from gitstore.git.repository import CACHE_BYTES, discover, read_settings
from gitstore.git.signers import AllowedSigners, parse_allowed_signers
from gitstore.git.upload_pack import Upload
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
    Restore,
    Revert,
    Unit,
    Update,
    VersionTags,
)
from gitstore.journal.appending import Journal
from gitstore.journal.lines import Entry as JournalEntry
from gitstore.journal.lines import Head as JournalHead
from gitstore.journal.lines import Recorded
from gitstore.journal.patients import patients_in, patients_of
from gitstore.journal.reading import at as access_at
from gitstore.journal.reading import entries as accesses
from gitstore.journal.reading import head as journal_head
from gitstore.journal.reading import newest as newest_accesses
from gitstore.maintenance import Maintained
from gitstore.observing import UNOBSERVED, Observer
from gitstore.past import PATIENCE, Past
from gitstore.points import commit_at
from gitstore.purgeable import Selection
from gitstore.purgeable import Target as Purgeable
from gitstore.purging import Erased
from gitstore.replication import Replica, ReplicaVersion, is_held
from gitstore.scopes import ROLES, Scopes, check_scopes, parse_scopes
from gitstore.search.described import Indexed
from gitstore.search.select import Match
from gitstore.search.versions import Cursor
from gitstore.searching import SearchPage
from gitstore.settings import Settings
from gitstore.signatures import check_signatures
from gitstore.snapshot import HistoryPage, Snapshot
from gitstore.statistics import Statistics
from gitstore.store import Store
from gitstore.tags import state_at, tag
from gitstore.tokens import Refused, Token, Tokens
from gitstore.transaction import patching, relabelling, write_of
from gitstore.verify import Finding
from gitstore.version import ANONYMOUS, Author, Commit, Idempotency, Verb, Version
from gitstore.view import View
from gitstore.vitals import Sizes
from gitstore.writes import Write

__all__ = [
    "ANONYMOUS",
    "ANY_VERSION",
    "CACHE_BYTES",
    "FULL_ACCESS",
    "PATIENCE",
    "ROLES",
    "UNOBSERVED",
    "Access",
    "Adoption",
    "Ahead",
    "AllowedSigners",
    "AlreadyExists",
    "Anchor",
    "Ask",
    "Attest",
    "Author",
    "Blamed",
    "ChangesPage",
    "Cluster",
    "ClusterStatus",
    "Commit",
    "Conflict",
    "Create",
    "Criteria",
    "Cursor",
    "Delete",
    "Diverged",
    "Erased",
    "Everything",
    "Fenced",
    "Finding",
    "Forbidden",
    "ForeignCommit",
    "Gone",
    "Grant",
    "HistoryPage",
    "HubUnreachable",
    "Idempotency",
    "Indexed",
    "Interaction",
    "Invalid",
    "Issue",
    "Journal",
    "JournalEntry",
    "JournalHead",
    "Locked",
    "Maintained",
    "Match",
    "MultipleMatches",
    "Net",
    "NotAllowed",
    "NotConfirmed",
    "NotFound",
    "NotReplicated",
    "NotSupported",
    "Observer",
    "Obstacle",
    "Outcome",
    "Outdated",
    "Past",
    "Patch",
    "Preparing",
    "Problem",
    "Purgeable",
    "ReadOnly",
    "Recorded",
    "Refused",
    "Replica",
    "ReplicaVersion",
    "RepositoryDamaged",
    "RepositoryRefused",
    "Restore",
    "Revert",
    "Scopes",
    "SearchPage",
    "Selection",
    "Settings",
    "Sizes",
    "Snapshot",
    "Statistics",
    "StorageFailed",
    "StorageFull",
    "Store",
    "StoreError",
    "Token",
    "Tokens",
    "TooCostly",
    "TooLarge",
    "Unavailable",
    "Unit",
    "Unprocessable",
    "Update",
    "Upload",
    "Verb",
    "Version",
    "VersionMismatch",
    "VersionTags",
    "View",
    "Write",
    "access_at",
    "accesses",
    "apply_diverged",
    "blame",
    "changes",
    "check_anchor",
    "check_keys",
    "check_scopes",
    "check_signatures",
    "commit_at",
    "commit_extensions",
    "discover",
    "diverged",
    "everything_about",
    "hand_over",
    "history_entry",
    "init",
    "is_held",
    "journal_head",
    "newest_accesses",
    "now",
    "parse_allowed_signers",
    "parse_anchor",
    "parse_scopes",
    "patching",
    "path_of",
    "patients_in",
    "patients_of",
    "read_settings",
    "relabelling",
    "replicas_of",
    "settle_diverged",
    "state_at",
    "tag",
    "take_anchor",
    "write_of",
]
