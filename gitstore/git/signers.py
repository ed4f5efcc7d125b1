"""Whose signatures count, and when: git's gpg.ssh.allowedSignersFile.

https://man.openbsd.org/ssh-keygen.1#ALLOWED_SIGNERS. What is understood means what it means to ssh-keygen; anything else
is refused, so that no line counts for more than its author meant.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from datetime import datetime
from functools import lru_cache

from msgspec import Struct

from gitstore.errors import Invalid
from gitstore.git.sshsig import KEY_TYPES, NAMESPACE, PublicKey, parse_public_key

_LINE = re.compile(r'(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))[ \t]+(?P<rest>.+)')
_OPTIONS = re.compile(r'(?P<options>(?:[^\s"]|"[^"\\]*")+)[ \t]+(?P<rest>.+)')
_OPTION = re.compile(r'(?P<name>[A-Za-z-]+)="(?P<value>[^"\\]*)"(?:,(?=.)|$)')
_TIME = re.compile(r"(?P<digits>[0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?)(?P<utc>Z?)")
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class AllowedSigner(Struct, frozen=True):
    """One line. `after` and `before` are in seconds since 1970 UTC, and both belong to the time."""

    principals: str
    key: PublicKey
    namespaces: str | None = None
    after: int | None = None
    before: int | None = None

    def is_for_git(self) -> bool:
        """Whether the key may sign what git asks it to."""
        return self.namespaces is None or matches(NAMESPACE, self.namespaces)

    def untimely(self, instant: int) -> str | None:
        """Why it doesn't count at an instant (seconds); None where it does."""
        if self.after is not None and instant < self.after:
            return "was not allowed yet"
        if self.before is not None and instant > self.before:
            return "was no longer allowed"
        return None


class AllowedSigners(Struct, frozen=True):
    """The lines of a file, in their order."""

    lines: tuple[AllowedSigner, ...]

    def refusal(self, key: PublicKey, instant: int) -> str | None:
        """Why a key may not sign a commit of an instant (seconds), as words that follow its name; None where it may.

        As git asks ssh-keygen: the principals are those of the first line that has the key and is of the time, and one
        of them must be allowed to sign for git by some line.
        """
        ours = [line for line in self.lines if line.key == key]
        timely = [line for line in ours if line.untimely(instant) is None]
        if not timely:
            return ours[-1].untimely(instant) if ours else "is unknown"
        principals = timely[0].principals.split(",")
        named = [line for line in timely if any(matches(each, line.principals) for each in principals)]
        if not named:
            return "is of nobody: its principals exclude one another"
        is_allowed = any(line.is_for_git() for line in named)
        return None if is_allowed else f"is not allowed to sign for `{NAMESPACE}`"


def parse_allowed_signers(text: str, name: str) -> AllowedSigners:
    """Read a file; `name` is what messages call it. Raises Invalid with the number of the first line not understood."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            try:
                lines.append(_line(stripped))
            except Invalid as error:
                raise Invalid(f"{name}:{number}: {error}.") from error
    return AllowedSigners(tuple(lines))


def _line(line: str) -> AllowedSigner:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Invalid("it has not the form `PRINCIPALS [OPTIONS] TYPE KEY`")
    principals, rest = match["quoted"] or match["plain"] or "", match["rest"]
    options: dict[str, str] = {}
    if rest.split()[0] not in KEY_TYPES:
        match = _OPTIONS.fullmatch(rest)
        if match is None or match["rest"].split()[0] not in KEY_TYPES:
            raise Invalid(f"no key of a type that is understood: {', '.join(KEY_TYPES)}")
        options, rest = _options(match["options"]), match["rest"]
    after, before = (_instant(options.get(f"valid-{side}")) for side in ("after", "before"))
    if after is not None and before is not None and after >= before:
        raise Invalid("valid-before is not later than valid-after")
    return AllowedSigner(principals, _key(rest), options.get("namespaces"), after, before)


def _options(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _OPTION.match(text, at)
        name = match["name"].lower() if match else ""
        if match is None or name not in ("namespaces", "valid-after", "valid-before") or name in found:
            raise Invalid(f"the option `{text[at:][:60]}` is not understood, or stands twice")
        found[name] = match["value"]
        at = match.end()
    return found


def _instant(text: str | None) -> int | None:
    """`20260131`, `202601312359` or `20260131235959` in the time of this machine, or with a Z in UTC."""
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise Invalid(f"the time `{text[:60]}` is not understood")
        parsed = datetime.strptime(f"{match['digits']}+0000", f"{_TIMES[len(match['digits'])]}%z")
        if match["utc"]:
            return int(parsed.timestamp())
        return int(time.mktime((*parsed.timetuple()[:8], -1)))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"the time `{text[:60]}` is not understood") from error


def _key(text: str) -> PublicKey:
    type, *rest = text.split()
    try:
        key = parse_public_key(base64.b64decode(rest[0], validate=True)) if rest else None
    except binascii.Error as error:
        raise Invalid("the key can't be read") from error
    if key is None or key.type != type or str(key) != f"{type} {rest[0]}":
        raise Invalid("the key can't be read")
    return key


def matches(text: str, patterns: str) -> bool:
    """Whether one of the patterns, with commas between them, fits, and none with a `!` before it. `*` and `?` are wild."""
    found = False
    for pattern in patterns.split(","):
        if _pattern(pattern.removeprefix("!")).fullmatch(text):
            if pattern.startswith("!"):
                return False
            found = True
    return found


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(each, re.escape(each)) for each in pattern), re.DOTALL)
