"""A repository that holds a record: finding it, making it, reading its objects and settings."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import pygit2
from pygit2.enums import ObjectType, RepositoryOpenFlag

from gitstore.errors import (
    Invalid,
    NotFound,
    RepositoryDamaged,
    RepositoryRefused,
    StorageFailed,
    StoreError,
    Unavailable,
)
from gitstore.git import layout, rewritten
from gitstore.git.commits import CommitObject, parse_commit
from gitstore.git.pack import Pack
from gitstore.settings import Settings
from gitstore.version import Author

_T = TypeVar("_T")
_FAILURES = (KeyError, ValueError, OSError, pygit2.GitError)
"""What pygit2 raises where an object isn't found; OSError for one in a pack that was there a moment ago."""
_REOPEN_AFTER_PACKS = 64
CACHE_BYTES = 64 * 1024**2
"""What a repository keeps in memory, unless it is told otherwise."""

_PLACE = 500
"""Bytes that a cached blob takes besides its own: its id, and its place."""


def discover(path: str | os.PathLike[str]) -> str:
    """The git directory of the repository at or above `path`. Raises RepositoryRefused where there is none."""
    try:
        found = pygit2.discover_repository(os.fspath(path))
    except (KeyError, pygit2.GitError) as error:
        raise RepositoryRefused(f"No git repository at or above {os.fspath(path)}: {error}") from error
    if found is None:
        raise RepositoryRefused(f"No git repository at or above {os.fspath(path)}.")
    return os.path.realpath(found)


def create(path: str | os.PathLike[str]) -> str:
    """Make a bare repository for a record, without any commit yet; returns its git directory.

    Raises RepositoryRefused where the folder exists and is not empty.
    """
    folder = Path(path)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise RepositoryRefused(f"{folder} is not empty.")
        # --template= leaves out hooks and examples of the machine's git.
        run_git(
            ["init", "--quiet", "--bare", "--template=", "--object-format=sha1", os.fspath(folder.absolute())]
        )
        git_dir = os.path.realpath(folder)
        run_git(["--git-dir", git_dir, "symbolic-ref", "HEAD", layout.REFERENCE])
        for name, value in {
            "gc.auto": "0",
            "maintenance.auto": "false",
            "receive.denyNonFastForwards": "true",
            "receive.fsckObjects": "true",
            "receive.denyDeletes": "true",
            "core.logAllRefUpdates": "false",
        }.items():
            run_git(["--git-dir", git_dir, "config", name, value])
        (folder / layout.LOCAL).mkdir()
    except OSError as error:
        raise RepositoryRefused(f"Can't make a repository at {folder}: {error.strerror}.") from error
    return git_dir


def run_git(arguments: Sequence[str]) -> str:
    """What the git command prints. Raises RepositoryRefused with its first line where it fails."""
    try:
        result = subprocess.run(
            ["git", *arguments], check=False, capture_output=True, env=git_environment(), text=True
        )
    except FileNotFoundError as error:
        raise RepositoryRefused("The git command is not installed.") from error
    if result.returncode:
        raise RepositoryRefused((result.stderr.strip().splitlines() or ["git failed"])[0])
    return result.stdout


def git_environment() -> dict[str, str]:
    """The environment for git children: whichever repository the caller's variables name is not meant.

    Nor are replacements (`git replace`), which show this clone another record than the commits hold.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH"):
        if name in os.environ:
            kept[name] = os.environ[name]
    return kept | {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1"}


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """The fhir.* settings of the repository at `path`, from git's configuration at every level.

    Raises Invalid where one can't be understood, RepositoryRefused where there is no repository, or no sense in what
    git's configuration says.
    """
    git_dir = discover(path)
    try:
        config = pygit2.Repository(git_dir).config
    except pygit2.GitError as error:
        raise RepositoryRefused(f"The configuration of {git_dir} can't be read: {error}") from error
    found: dict[str, Any] = {}
    for field in fields(Settings):
        first, *rest = field.name.split("_")
        variable = f"fhir.{first}{''.join(word.title() for word in rest)}"
        values = [value or "" for value in config.get_multivar(variable)]
        if values:
            found[field.name] = _setting(variable, values, field.default, _CHOICES.get(field.name, ()))
    return replace(Settings(), **found)


_CHOICES = {
    name: get_args(hint) for name, hint in get_type_hints(Settings).items() if get_origin(hint) is Literal
}
"""The values that a setting can have, where they are words."""
_MAY_BE_0 = frozenset({"fhir.maxInFlight"})
_PATHS = frozenset({"fhir.signingKey"})
"""Files: as in git's own settings, `~` is the user's folder."""

_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def _setting(variable: str, values: list[str], default: object, choices: tuple[str, ...]) -> object:
    value = values[-1].strip()
    if choices and value not in choices:
        raise Invalid(f"{variable} is `{value}`; expected one of {', '.join(choices)}.")
    if isinstance(default, tuple):
        return tuple(values)
    if variable in _PATHS:
        return os.path.expanduser(value)
    if isinstance(default, int | float):
        number, unit = (
            (value[:-1], _UNITS[value[-1:].lower()]) if value[-1:].lower() in _UNITS else (value, 1)
        )
        try:
            parsed = type(default)(number) * unit
        except ValueError as error:
            raise Invalid(f"{variable} is `{value}`; expected a number.") from error
        if not 0 <= parsed < 2**62 or (parsed == 0 and variable not in _MAY_BE_0):
            least = "of 0 or more" if variable in _MAY_BE_0 else "above 0"
            raise Invalid(f"{variable} is `{value}`; expected a number {least}.")
        return parsed
    return value


class Repository:
    """Reads objects of a record. Any thread may call.

    libgit2 keeps each pack that it has opened, so that a long-lived process runs out of descriptors: the
    repository is opened anew when 64 packs have come or any has gone.
    """

    def __init__(
        self, git_dir: str, more_objects: Sequence[str] = (), cache_bytes: int = CACHE_BYTES
    ) -> None:
        """Raises RepositoryRefused where git_dir is no repository that libgit2 can read.

        `more_objects` are other object folders to read from, such as the one where git keeps a push until its hooks
        have accepted it. https://git-scm.com/docs/git-receive-pack#_quarantine_environment
        `cache_bytes` of blobs are kept in memory, and for who writes about as many of trees.
        """
        self.git_dir = git_dir
        self.cache_bytes = cache_bytes
        self._more_objects = more_objects
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._rewritten = rewritten.mark(git_dir)
        self.unwritten: Pack | None = None
        """What is on its way to disk: its blobs can be read already."""
        self._open()
        if self._git.references.get(layout.REFERENCE) is None:
            raise RepositoryRefused(f"{git_dir} holds no git-fhir record: it has no branch {layout.BRANCH}.")

    def _open(self) -> None:
        try:
            self._git = pygit2.Repository(self.git_dir, RepositoryOpenFlag.NO_SEARCH)
        except (KeyError, pygit2.GitError) as error:
            raise RepositoryRefused(f"{self.git_dir} can't be opened: {error}") from error
        for folder in self._more_objects:
            self._git.odb.add_disk_alternate(folder)
        self._changed, self._packs = self._pack_folder()

    def _reopen(self) -> None:
        # A pygit2.Repository refers to itself, so it would keep its packs open until the garbage collector comes by,
        # and a new one that finds them open keeps them too.
        self._git.free()
        self._open()

    @property
    def is_bare(self) -> bool:
        return self._git.is_bare

    @property
    def environment(self) -> dict[str, str]:
        """The environment for git children that read this repository."""
        if not self._more_objects:
            return git_environment()
        # In quotes a folder's name may hold what separates the folders.
        quoted = ['"{}"'.format(re.sub(r'(["\\\\])', r"\\\1", folder)) for folder in self._more_objects]
        return git_environment() | {"GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(quoted)}

    def check_format(self) -> None:
        """Raises RepositoryRefused, in one line, where the record is not of a format this version knows."""
        try:
            entry = self._git.revparse_single(f"{layout.REFERENCE}:{layout.FORMAT_FILE}")
            data: object = msgspec.json.decode(entry.read_raw())
        except (KeyError, msgspec.DecodeError) as error:
            raise RepositoryRefused(
                f"{self.git_dir} holds no git-fhir record: {layout.FORMAT_FILE} can't be read."
            ) from error
        form = data.get("format") if isinstance(data, dict) else None
        fhir_version = data.get("fhirVersion") if isinstance(data, dict) else None
        if form != layout.FORMAT or fhir_version != layout.FHIR_VERSION:
            raise RepositoryRefused(
                f"{self.git_dir} is a record of format {form!r} for FHIR {fhir_version!r}; this git-fhir knows "
                f"format {layout.FORMAT} for FHIR {layout.FHIR_VERSION}."
            )
        if self._git.is_shallow:
            raise RepositoryRefused(
                f"{self.git_dir} is a shallow clone, which lacks the beginning of the record: `git fetch --unshallow`."
            )

    def object(self, id: str) -> bytes:
        """The bytes of any object. Raises RepositoryDamaged where it is missing or broken."""
        try:
            return self._twice(lambda: self._read(id))
        except _FAILURES as error:
            raise self._lost(f"The object {id} is missing or broken in {self.git_dir}: {error}") from error

    def _lost(self, text: str) -> StoreError:
        """The error for an object that should be there. One who has been here since before a purge may just have read
        that it is: whether it is damaged or gone for good can then not be told."""
        if rewritten.mark(self.git_dir) == self._rewritten:
            return RepositoryDamaged(text)
        return Unavailable("The record was rewritten by a purge while this was read. Ask again.")

    def forget(self) -> None:
        """Keep nothing in memory, and no pack open: what was read before may have been purged."""
        with self._lock:
            self._cache.clear()
            self._cached = 0
            self._reopen()

    def close(self) -> None:
        """Keep nothing in memory, and no file open; the garbage collector would see to it at some time."""
        with self._lock:
            self._cache.clear()
            self._cached = 0
            self._git.free()

    def _twice(self, look: Callable[[], _T]) -> _T:
        """What `look` finds, once more where it fails: packs may have been merged under the open handle, and a fresh
        one sees what there is."""
        try:
            return look()
        except _FAILURES:
            with self._lock:
                self._reopen()
        return look()

    def _read(self, id: str) -> bytes:
        data: bytes = self._git.odb.read(pygit2.Oid(hex=id))[1]
        return data

    def size(self, id: str) -> int:
        """The bytes of an object, counted without reading it. Raises RepositoryDamaged where it is missing."""
        try:
            header: tuple[int, int] = self._twice(lambda: self._git.odb.read_header(pygit2.Oid(hex=id)))
        except _FAILURES as error:
            raise self._lost(f"The object {id} is missing in {self.git_dir}: {error}") from error
        return header[1]

    def blob(self, id: str) -> bytes:
        """The bytes of a blob, from memory where it was used before: a blob never changes."""
        with self._lock:
            data = self._cache.get(id)
            if data is not None:
                self._cache.move_to_end(id)
                return data
        pack = self.unwritten
        data = pack.data(bytes.fromhex(id)) if pack is not None else None
        if data is not None:
            return data
        self._look_for_packs()
        data = self.object(id)
        self.remember(id, data)
        return data

    def remember(self, id: str, data: bytes) -> None:
        """Keep a blob's bytes in memory, up to a bound on all that is kept."""
        if len(data) > self.cache_bytes // 16:
            return
        with self._lock:
            if id in self._cache:
                return
            self._cache[id] = data
            self._cached += len(data) + _PLACE
            while self._cached > self.cache_bytes:
                self._cached -= len(self._cache.popitem(last=False)[1]) + _PLACE

    def commit(self, id: str) -> CommitObject:
        """A commit object by its id. Raises RepositoryDamaged."""
        self._look_for_packs()
        return parse_commit(self.object(id))

    def resolve(self, revision: str) -> str:
        """The commit that a git revision names. Raises NotFound."""
        try:
            return self._twice(lambda: str(self._git.revparse_single(revision).peel(pygit2.Commit).id))
        except _FAILURES as error:
            raise NotFound(f"`{revision}` names no commit.") from error

    def add_tag(self, name: str, commit: str, author: Author, message: str, instant: int) -> bool:
        """An annotated tag; False, and nothing is done, where there is one of this name.

        Raises StorageFailed where git can't write it, Invalid for an author that git doesn't take.
        """
        try:
            tagger = pygit2.Signature(author.name, author.email, instant // 1_000_000, 0)
            self._git.create_tag(name, pygit2.Oid(hex=commit), ObjectType.COMMIT, tagger, f"{message}\n")
        except pygit2.AlreadyExistsError:
            return False
        except ValueError as error:
            raise Invalid(
                f"git takes no tag `{name}` of `{author.name} <{author.email}>`: {error}"
            ) from error
        except (OSError, pygit2.GitError) as error:
            raise StorageFailed(f"The tag `{name}` can't be written: {error}") from error
        return True

    def contains(self, ancestor: str, commit: str) -> bool:
        """Whether `ancestor` is `commit` or among what it builds on."""
        if ancestor == commit:
            return True
        try:
            return self._twice(
                lambda: self._git.descendant_of(pygit2.Oid(hex=commit), pygit2.Oid(hex=ancestor))
            )
        except _FAILURES:
            return False

    def _look_for_packs(self) -> None:
        if os.stat(self._objects_pack).st_mtime_ns == self._changed:
            return
        with self._lock:
            changed, packs = self._pack_folder()
            if self._packs - packs or len(packs - self._packs) >= _REOPEN_AFTER_PACKS:
                self._reopen()
            else:
                self._changed = changed

    @property
    def _objects_pack(self) -> str:
        return os.path.join(self.git_dir, "objects", "pack")

    def _pack_folder(self) -> tuple[int, frozenset[str]]:
        return (
            os.stat(self._objects_pack).st_mtime_ns,
            frozenset(name for name in os.listdir(self._objects_pack) if name.endswith(".pack")),
        )


OnProgress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""
