"""The tokens that `git fhir token` gives away, in `git-fhir/tokens` of the git directory. docs/security.md, "Tokens"

A secret has 256 random bits, so its SHA-256 can be kept without salt or stretching: nobody finds it by trying.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gitstore.durable import replace_file, storage_error, sync_folder
from gitstore.errors import (
    Invalid,
    Issue,
    NotConfirmed,
    NotFound,
    RepositoryDamaged,
    RepositoryRefused,
    StorageFailed,
)
from gitstore.fhir.dates import format_instant, parse_instant
from gitstore.git import layout
from gitstore.git.repository import Repository
from gitstore.scopes import check_scopes
from gitstore.version import Author

_From = TypeVar("_From")
_To = TypeVar("_To")

FORMAT: Final = 1
ID_LENGTH: Final = 12
_PREFIX: Final = "gf_"
_SECRET = re.compile(r"gf_(?P<random>[A-Za-z0-9_-]{43})(?P<checksum>[A-Za-z0-9_-]{6})", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_LINE = 200


class Token(Struct, frozen=True):
    """What is known of a token, but for its secret. Instants are in microseconds since 1970 UTC.

    It works until it `expires` (None: for ever) or was `revoked`. `patient` is the id of the Patient that its
    `patient/` scopes are about.
    """

    id: str
    name: str
    email: str
    scope: str
    patient: str | None
    created: int
    expires: int | None
    revoked: int | None = None
    note: str | None = None

    @property
    def author(self) -> Author:
        """Who writes with it."""
        return Author(self.name, self.email)

    def refused(self, now: int) -> Refused | None:
        """Why it doesn't work at an instant; None where it does."""
        if self.revoked is not None:
            return Refused.REVOKED
        return Refused.EXPIRED if self.expires is not None and self.expires <= now else None


class Refused(Enum):
    """Why a secret opens nothing: for the log, never for who sent it."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Tokens:
    """The tokens of a repository. Any thread may call, in any number of processes."""

    def __init__(
        self, git_dir: str, *, new_random: Callable[[], bytes] = lambda: secrets.token_bytes(32)
    ) -> None:
        """`new_random` gives the 32 bytes of a new secret."""
        self._git_dir = git_dir
        self._folder = os.path.join(git_dir, layout.LOCAL)
        self.path = os.path.join(self._folder, "tokens")
        self._new_random = new_random
        self._held: _Held = (None, {})

    # Asking

    def find(self, secret: str, now: int) -> Token | None:
        """The token of a secret that works at this instant. Raises what `judge` raises."""
        found = self.judge(secret, now)
        return found if isinstance(found, Token) else None

    def judge(self, secret: str, now: int) -> Token | Refused:
        """The token of a secret, or why that one opens nothing. A change of the file holds from the next call on.

        Raises RepositoryRefused, RepositoryDamaged and StorageFailed where the file can't be read.
        """
        # What has no checksum was never ours. To say so quicker than no to others tells nothing about those.
        match = _SECRET.fullmatch(secret)
        if match is None or match["checksum"] != _checksum(match["random"]):
            return Refused.MALFORMED
        # Which digests are known can be timed at most, and no one can choose a secret with a given digest.
        token = self._current().get(_digest(secret))
        return Refused.UNKNOWN if token is None else token.refused(now) or token

    def all(self) -> list[Token]:
        """All tokens ever made, in that order. Raises what `judge` raises."""
        return list(self._current().values())

    def exposure(self) -> str | None:
        """What is wrong about who may read or write the file, in a sentence; None for nothing."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        if status.st_mode & 0o077:
            mode = status.st_mode & 0o777
            return f"{self.path} can be used by others than its owner: its mode is {mode:04o}, expected 0600."
        if status.st_uid != os.stat(self._git_dir).st_uid:
            return f"{self.path} belongs to another user than the repository."
        return None

    # Changing

    def create(
        self,
        *,
        name: str,
        email: str,
        scope: str,
        now: int,
        expires: int | None,
        patient: str | None = None,
        note: str | None = None,
    ) -> tuple[str, Token]:
        """Make a token that works until `expires`; its secret is told here and never again.

        Raises Invalid where anything about it can't be; StorageFailed where the repository isn't ours to write to, or
        the disk fails; RepositoryRefused where there is no record.
        """
        self._check_ours()
        self._check_record()
        check_scopes(scope, patient)
        _check_words(name, email, note)
        if expires is not None and expires <= now:
            raise _bad(f"{format_instant(expires)} is past: the token would never work.")
        with self._locked():
            tokens = dict(self._read()[1])
            ids = {token.id for token in tokens.values()}
            secret, digest = self._new_secret()
            while digest[:ID_LENGTH] in ids:
                secret, digest = self._new_secret()
            token = Token(
                digest[:ID_LENGTH], name, email, " ".join(scope.split()), patient, now, expires, None, note
            )
            self._replace({**tokens, digest: token})
        return secret, token

    def revoke(self, id: str, now: int) -> Token:
        """Make a token useless, at once and for ever; the token as it is then. One that was revoked stays as it is.

        Raises NotFound where there is none with this id, and StorageFailed as `create` does.
        """
        self._check_ours()
        with self._locked():
            tokens = dict(self._read()[1])
            digest = next((digest for digest, token in tokens.items() if token.id == id), None)
            if digest is None:
                raise NotFound(f"There is no token {_shown(id)}.")
            token = tokens[digest]
            if token.revoked is None:
                token = tokens[digest] = replace(token, revoked=now)
                self._replace(tokens)
        return token

    def _new_secret(self) -> tuple[str, str]:
        random = base64.urlsafe_b64encode(self._new_random()).decode().rstrip("=")
        secret = f"{_PREFIX}{random}{_checksum(random)}"
        return secret, _digest(secret)

    def _check_ours(self) -> None:
        try:
            owner = os.stat(self._git_dir).st_uid
        except OSError as error:
            raise storage_error(error, "nothing was changed") from error
        if owner != os.geteuid():
            raise StorageFailed(
                f"{self._git_dir} belongs to another user; only its owner may give or revoke tokens."
            )

    def _check_record(self) -> None:
        Repository(self._git_dir).check_format()

    # The file

    def _current(self) -> Mapping[str, Token]:
        """The tokens by digest, read again if the file is another one than last time.

        A file is never written to once it is in place, and each that takes its place is longer, so that even one with
        the same inode within the same tick of the clock is told apart.
        """
        try:
            mark = _mark(os.stat(self.path))
        except FileNotFoundError:
            mark = None
        except OSError as error:
            raise storage_error(error, "the tokens can't be read") from error
        held = self._held
        if held[0] != mark:
            held = self._held = self._read()
        return held[1]

    def _read(self) -> _Held:
        try:
            with open(self.path, "rb") as file:
                return _mark(os.fstat(file.fileno())), _parse(file.read(), self.path)
        except FileNotFoundError:
            return None, {}
        except OSError as error:
            raise storage_error(error, "the tokens can't be read") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps out other threads and processes: the flock is on a description of our own."""
        try:
            os.makedirs(self._folder, exist_ok=True)
            lock = os.open(os.path.join(self._folder, "tokens.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, "nothing was changed") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, tokens: Mapping[str, Token]) -> None:
        try:
            replace_file(self.path, _format(tokens), 0o600)
        except OSError as error:
            raise storage_error(error, "the tokens are as they were") from error
        try:
            sync_folder(self._folder)
        except OSError as error:
            raise NotConfirmed(
                f"The tokens are changed, but the disk did not confirm it: {error.strerror}."
            ) from error


_Mark = tuple[int, int, int]
_Held = tuple[_Mark | None, Mapping[str, Token]]
"""What tells a file from the one before it, None for no file, and its tokens by digest."""


def _mark(status: os.stat_result) -> _Mark:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(random: str) -> str:
    """CRC-32, big-endian, in the six characters of base64url: for typing errors and scanners, no protection."""
    checksum = zlib.crc32(random.encode()).to_bytes(4, "big")
    return base64.urlsafe_b64encode(checksum).decode().rstrip("=")


def _check_words(name: str, email: str, note: str | None) -> None:
    """Raises Invalid where git could not store the author as written, or the note is no line of text."""
    for what, text, forbidden in (("name", name, "<>"), ("email", email, "<> ")):
        if not _is_line(text) or set(text) & set(forbidden) or not any(map(str.isalnum, text)):
            raise _bad(f"The {what} {_shown(text)} can't be that of an author of a commit.")
    if note is not None and not _is_line(note):
        raise _bad(f"The note must be one line of at most {_MAX_LINE} characters.")


def _is_line(text: str) -> bool:
    return text.isprintable() and len(text) <= _MAX_LINE and text == text.strip()


def _bad(text: str) -> Invalid:
    return Invalid(Issue("error", "value", text))


def _shown(text: str) -> str:
    return f"`{text[:80]}`"


# The format


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """One token as it stands in the file; instants as FHIR writes them."""

    id: str
    sha256: str
    name: str
    email: str
    scope: str
    patient: str | None
    created: str
    expires: str | None
    revoked: str | None
    note: str | None


def _format(tokens: Mapping[str, Token]) -> bytes:
    stored = [
        _Stored(
            token.id,
            digest,
            token.name,
            token.email,
            token.scope,
            token.patient,
            format_instant(token.created),
            _optional(format_instant, token.expires),
            _optional(format_instant, token.revoked),
            token.note,
        )
        for digest, token in tokens.items()
    ]
    data = msgspec.json.encode({"format": FORMAT, "tokens": stored})
    return msgspec.json.format(data, indent=2) + b"\n"


def _parse(data: bytes, path: str) -> dict[str, Token]:
    """Undoes _format. Raises RepositoryRefused for another format, RepositoryDamaged for what is none."""
    try:
        document: Any = msgspec.json.decode(data)
        known = document["format"]
        if type(known) is not int or known != FORMAT:
            raise RepositoryRefused(
                f"{path} is of format {str(known)[:80]}; this git-fhir knows format {FORMAT}."
            )
        stored = msgspec.convert(document["tokens"], list[_Stored])
        tokens = {each.sha256: _token(each) for each in stored}
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, Invalid) as error:
        raise RepositoryDamaged(f"{path} can't be read as tokens: {error}") from error
    if len(tokens) < len(stored) or len({token.id for token in tokens.values()}) < len(stored):
        raise RepositoryDamaged(f"{path} holds a token twice.")
    return tokens


def _token(stored: _Stored) -> Token:
    if not _HASH.fullmatch(stored.sha256) or stored.id != stored.sha256[:ID_LENGTH]:
        raise Invalid(f"{_shown(stored.id)} is not the beginning of a SHA-256 beside it")
    return Token(
        stored.id,
        stored.name,
        stored.email,
        stored.scope,
        stored.patient,
        parse_instant(stored.created),
        _optional(parse_instant, stored.expires),
        _optional(parse_instant, stored.revoked),
        stored.note,
    )


def _optional(convert: Callable[[_From], _To], value: _From | None) -> _To | None:
    return None if value is None else convert(value)
