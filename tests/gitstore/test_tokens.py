"""The tokens of a repository. docs/security.md, "Tokens" """

from __future__ import annotations

import base64
import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import stat
import string
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore import (
    ROLES,
    Author,
    Invalid,
    NotConfirmed,
    NotFound,
    Refused,
    RepositoryDamaged,
    RepositoryRefused,
    StorageFailed,
    Token,
    Tokens,
)

NOW = 1_767_268_800_000_000
"""2026-01-01T12:00:00Z"""
DAY = 86_400_000_000
ADA: dict[str, Any] = {"name": "Ada Lovelace", "email": "ada@clinic.example", "scope": "user/*.rs"}


@pytest.fixture
def tokens(record: str) -> Tokens:
    """Their secrets are those of the bytes 1, 1, 1, …, then 2, 2, 2, …"""
    numbers = itertools.count(1)
    return Tokens(record, new_random=lambda: bytes([next(numbers)]) * 32)


@pytest.fixture
def file(record: str) -> Path:
    return Path(record, "git-fhir", "tokens")


def make(tokens: Tokens, **changed: Any) -> tuple[str, Token]:
    return tokens.create(**(ADA | {"now": NOW, "expires": NOW + DAY} | changed))


# Secrets


def test_a_secret_opens_what_it_was_made_for(tokens: Tokens) -> None:
    secret, token = make(
        tokens, scope="patient/*.rs  user/Patient.r", patient="p1", note="the portal", expires=None
    )

    assert tokens.find(secret, NOW) == token
    assert token == Token(
        token.id,
        "Ada Lovelace",
        "ada@clinic.example",
        "patient/*.rs user/Patient.r",
        "p1",
        NOW,
        None,
        None,
        "the portal",
    )
    assert token.author == Author("Ada Lovelace", "ada@clinic.example")


def test_the_form_of_a_secret(tokens: Tokens) -> None:
    """`gf_`, 43 characters of base64url for 32 bytes, and six for their CRC-32."""
    secret, token = make(tokens)

    random, checksum = secret[3:46], secret[46:]
    assert secret.startswith("gf_")
    assert base64.urlsafe_b64decode(random + "=") == b"\1" * 32
    assert base64.urlsafe_b64decode(checksum + "==") == zlib.crc32(random.encode()).to_bytes(4, "big")
    assert token.id == hashlib.sha256(secret.encode()).hexdigest()[:12]


def test_secrets_are_not_alike(record: str) -> None:
    """32 bytes of the system's random numbers each."""
    tokens = Tokens(record)

    assert len({make(tokens)[0] for _ in range(3)}) == 3


def test_the_file_holds_no_secret(tokens: Tokens, file: Path) -> None:
    secret, _ = make(tokens)

    text = file.read_text()
    assert secret not in text
    assert secret[3:46] not in text
    assert hashlib.sha256(secret.encode()).hexdigest() in text


def test_garbage_is_refused_without_a_look_at_the_file(tokens: Tokens, file: Path) -> None:
    """The checksum: a server that is sent rubbish does no work for it, and its log says what it was."""
    secret, _ = make(tokens)
    file.write_text("not tokens")

    for other in (
        "",
        "gf_",
        secret[:-1],
        secret + "A",
        secret.upper(),
        f" {secret}",
        f"{secret}\n",
        secret.replace("AQEB", "AQEC", 1),
        secret.replace("gf_", "gh_"),
        secret[:-1] + "é",
        "\ud800" * 52,
        "x" * 100_000,
    ):
        assert tokens.judge(other, NOW) is Refused.MALFORMED
        assert tokens.find(other, NOW) is None


@given(st.text(), st.integers(3, 51), st.sampled_from(string.printable))
def test_one_wrong_character_is_noticed(text: str, place: int, character: str) -> None:
    """CRC-32 finds every error of one character; nothing raises."""
    tokens = Tokens("/nowhere")
    random = "a" * 43
    checksum = base64.urlsafe_b64encode(zlib.crc32(random.encode()).to_bytes(4, "big")).decode()[:6]
    good = f"gf_{random}{checksum}"
    assert tokens.judge(good, NOW) is Refused.UNKNOWN

    typed = good[:place] + character + good[place + 1 :]

    assert tokens.judge(text, NOW) is Refused.MALFORMED
    assert (tokens.judge(typed, NOW) is Refused.MALFORMED) == (typed != good)


def test_a_secret_that_nobody_made_is_unknown(tokens: Tokens, tmp_path: Path) -> None:
    """With or without a file."""
    other = Tokens(str(tmp_path / "elsewhere"))
    secret, _ = make(tokens)

    assert other.judge(secret, NOW) is Refused.UNKNOWN
    assert other.all() == []
    assert other.find(secret, NOW) is None


# The end of a token


@pytest.mark.parametrize(("after", "expected"), [(0, None), (DAY - 1, None), (DAY, Refused.EXPIRED)])
def test_a_token_works_until_it_expires(tokens: Tokens, after: int, expected: Refused | None) -> None:
    secret, token = make(tokens, expires=NOW + DAY)

    assert tokens.judge(secret, NOW + after) is (expected or tokens.judge(secret, NOW))
    assert tokens.find(secret, NOW + after) == (None if expected else token)


def test_a_token_that_never_expires(tokens: Tokens) -> None:
    secret, token = make(tokens, expires=None)

    assert tokens.find(secret, NOW + 100_000 * DAY) == token


def test_a_revoked_token_is_useless_at_once_and_for_ever(tokens: Tokens, record: str) -> None:
    """In every process: each look-up sees whether the file is another one."""
    secret, token = make(tokens)
    other, third = Tokens(record), make(tokens)
    assert other.find(secret, NOW) == token

    revoked = tokens.revoke(token.id, NOW + 1)

    assert revoked.revoked == NOW + 1
    for each in (tokens, other, Tokens(record)):
        assert each.judge(secret, NOW) is Refused.REVOKED
        assert each.find(secret, NOW) is None
        assert each.find(third[0], NOW) == third[1]
        assert each.all() == [revoked, third[1]]


def test_revoked_outweighs_expired(tokens: Tokens) -> None:
    secret, token = make(tokens)
    tokens.revoke(token.id, NOW)

    assert tokens.judge(secret, NOW + 2 * DAY) is Refused.REVOKED


def test_revoking_twice_keeps_the_first_instant(tokens: Tokens, file: Path) -> None:
    _, token = make(tokens)
    tokens.revoke(token.id, NOW + 1)
    before = file.stat()

    assert tokens.revoke(token.id, NOW + 2).revoked == NOW + 1
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("id", ["", "unknown", "0" * 12])
def test_revoking_what_is_not_there(tokens: Tokens, file: Path, id: str) -> None:
    make(tokens)
    before = file.read_bytes()

    with pytest.raises(NotFound, match="There is no token"):
        tokens.revoke(id, NOW)
    assert file.read_bytes() == before


# What can't be


@pytest.mark.parametrize(
    "changed",
    [
        {"scope": "user/*.sr"},
        {"scope": "patient/*.r"},
        {"scope": ""},
        {"patient": "Patient/p1"},
        {"name": ""},
        {"name": " Ada"},
        {"name": "Ada <ada"},
        {"name": "Ada\nFHIR-Interaction: purge"},
        {"name": "\u202eadA"},
        {"name": "..."},
        {"name": "a" * 201},
        {"email": ""},
        {"email": "ada lovelace@clinic.example"},
        {"email": "a>b@clinic.example"},
        {"email": "\x00@clinic.example"},
        {"note": "one\ntwo"},
        {"note": "a" * 201},
        {"expires": NOW},
        {"expires": NOW - 1},
    ],
)
def test_what_can_not_be_is_refused_and_nothing_changed(
    tokens: Tokens, file: Path, changed: dict[str, Any]
) -> None:
    make(tokens)
    before = file.read_bytes()

    with pytest.raises(Invalid):
        make(tokens, **changed)
    assert file.read_bytes() == before


def test_only_the_owner_may(tokens: Tokens, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also root may not: the file would be root's, and the server could not read it."""
    _, token = make(tokens)
    before, owner = file.read_bytes(), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(StorageFailed, match="belongs to another user"):
        make(tokens)
    with pytest.raises(StorageFailed, match="belongs to another user"):
        tokens.revoke(token.id, NOW)
    assert file.read_bytes() == before


def test_no_tokens_for_what_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(RepositoryRefused):
        make(Tokens(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


# The file


def test_the_format_is_the_documented_one(tokens: Tokens, file: Path) -> None:
    """docs/security.md, "The file", shows the file with this token."""
    page = Path(__file__).parents[2].joinpath("docs", "security.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```json\n(.*?)```", page.partition("### The file")[2], re.DOTALL)

    make(tokens)

    assert file.read_text(encoding="utf-8") == shown


def test_roles_are_documented() -> None:
    """docs/security.md, "Scopes"."""
    page = Path(__file__).parents[2].joinpath("docs", "security.md").read_text(encoding="utf-8")
    [row] = re.findall(r"\| `git-fhir/ROLE` \| a role: (.*), or `\*`", page)

    assert re.findall("`(.*?)`", row) == sorted(ROLES)


texts = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
instants = st.integers(NOW + 1, NOW + 10**17)


@given(
    st.lists(
        st.tuples(texts, texts, instants | st.none(), texts | st.none(), instants | st.none()), max_size=5
    )
)
def test_another_process_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[Any, ...]]
) -> None:
    """Everything about a token survives the file."""
    git_dir = tmp_path_factory.mktemp("record")
    tokens = _Unchecked(str(git_dir))
    secrets = {}
    for name, email, expires, note, revoked in made:
        secret, token = make(tokens, name=name, email=email, expires=expires, note=note)
        secrets[secret] = token if revoked is None else tokens.revoke(token.id, revoked)

    other = Tokens(str(git_dir))

    assert other.all() == tokens.all() == list(secrets.values())
    for secret, token in secrets.items():
        assert other.judge(secret, NOW) == (token if token.revoked is None else Refused.REVOKED)


class _Unchecked(Tokens):
    """Of a folder that is no record: hundreds of records would take a minute."""

    def _check_record(self) -> None:
        """Anything will do."""


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ('{"format": 2, "tokens": []}', RepositoryRefused, "is of format 2; this git-fhir knows format 1"),
        ('{"format": 1.0, "tokens": []}', RepositoryRefused, "is of format 1.0"),
        ('{"format": true, "tokens": []}', RepositoryRefused, "is of format True"),
        ('{"format": 2}', RepositoryRefused, "is of format 2"),
        ("", RepositoryDamaged, "can't be read as tokens"),
        ("{}", RepositoryDamaged, "can't be read as tokens"),
        ("[]", RepositoryDamaged, "can't be read as tokens"),
        ('"format"', RepositoryDamaged, "can't be read as tokens"),
        ("null", RepositoryDamaged, "can't be read as tokens"),
        ('{"format": 1}', RepositoryDamaged, "can't be read as tokens"),
        ('{"format": 1, "tokens": [{}]}', RepositoryDamaged, "can't be read as tokens"),
        ('{"format": 1, "tokens": {}}', RepositoryDamaged, "can't be read as tokens"),
        ("\udcff", RepositoryDamaged, "can't be read as tokens"),
    ],
)
def test_a_file_that_is_not_understood_opens_nothing(
    tokens: Tokens, file: Path, data: str, error: type[Exception], text: str
) -> None:
    """It is refused in one line, and not overwritten."""
    secret, token = make(tokens)
    file.write_bytes(data.encode(errors="surrogateescape"))
    calls: list[Callable[[], object]] = [
        lambda: tokens.find(secret, NOW),
        tokens.all,
        lambda: make(tokens),
        lambda: tokens.revoke(token.id, NOW),
    ]

    for call in calls:
        with pytest.raises(error, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == data.encode(errors="surrogateescape")


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(sha256=one["sha256"].upper()),
        lambda one: one.update(sha256="0" * 64),
        lambda one: one.update(id="000000000000"),
        lambda one: one.update(expires="tomorrow"),
        lambda one: one.update(expires=0),
        lambda one: one.pop("revoked"),
        lambda one: one.update(uses=1),
    ],
)
def test_a_token_that_is_not_understood_opens_nothing(
    tokens: Tokens, file: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Better no token works than one beyond what its owner meant."""
    secret, _ = make(tokens)
    document = json.loads(file.read_text())
    change(document["tokens"][0])
    file.write_text(json.dumps(document))

    with pytest.raises(RepositoryDamaged, match="can't be read as tokens"):
        tokens.find(secret, NOW)


def test_the_same_token_twice_is_damage(tokens: Tokens, file: Path) -> None:
    """One of them could be revoked, the other one not."""
    secret, _ = make(tokens)
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"tokens": document["tokens"] * 2}))

    with pytest.raises(RepositoryDamaged, match="twice"):
        tokens.find(secret, NOW)


def test_only_the_owner_may_read_the_file(tokens: Tokens, file: Path) -> None:
    """Whatever the umask: 0600, after every change."""
    old = os.umask(0)
    try:
        _, token = make(tokens)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        tokens.revoke(token.id, NOW)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(old)
    assert tokens.exposure() is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o777])
def test_a_file_that_others_can_use_is_told(tokens: Tokens, file: Path, mode: int) -> None:
    assert tokens.exposure() is None
    make(tokens)
    file.chmod(mode)

    assert f"its mode is {mode:04o}, expected 0600." in (tokens.exposure() or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_owner_is_told(tokens: Tokens, file: Path) -> None:
    make(tokens)
    os.chown(file, 12345, -1)

    assert "another user than the repository" in (tokens.exposure() or "")


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_when_the_disk_fails_the_tokens_are_as_they_were(
    tokens: Tokens, file: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, token = make(tokens)
    before = file.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(StorageFailed, match="as they were"):
            tokens.revoke(token.id, NOW)

    assert file.read_bytes() == before
    assert tokens.find(secret, NOW) == token
    tokens.revoke(token.id, NOW)
    assert tokens.find(secret, NOW) is None


def test_when_only_the_folder_is_not_confirmed_that_is_said(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation holds for everyone who asks, though a power cut could undo it."""
    secret, token = make(tokens)
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(NotConfirmed, match="did not confirm"):
            tokens.revoke(token.id, NOW)
    assert tokens.judge(secret, NOW) is Refused.REVOKED


def test_leftovers_of_a_dead_process_are_in_nobodys_way(tokens: Tokens, file: Path) -> None:
    file.with_name("tokens.new").write_text('{"format": 1, "tok')

    secret, token = make(tokens)

    assert tokens.find(secret, NOW) == token
    assert not file.with_name("tokens.new").exists()


def test_the_file_is_synced_before_it_is_in_place(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its folder afterwards: a power cut leaves the old tokens or the new ones."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(old: str, new: str) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)

    make(tokens)

    assert steps == ["file", "rename", "folder"]


# Many at once


def test_an_unchanged_file_is_read_once(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, token = make(tokens)
    assert tokens.find(secret, NOW) == token
    monkeypatch.setattr(Tokens, "_read", lambda self: pytest.fail("read again"))

    assert tokens.find(secret, NOW) == token
    assert tokens.judge("gf_", NOW) is Refused.MALFORMED


def test_each_file_is_longer_than_the_one_before(tokens: Tokens, file: Path) -> None:
    """So a look-up tells them apart, even if they have the same inode and the clock stands still."""
    sizes = []
    for _ in range(3):
        _, token = make(tokens)
        sizes.append(file.stat().st_size)
        tokens.revoke(token.id, NOW)
        sizes.append(file.stat().st_size)

    assert sizes == sorted(set(sizes))


def test_two_tokens_never_have_the_same_id(record: str) -> None:
    """Where random numbers repeat, the next ones are taken."""
    numbers = iter([b"1" * 32, b"1" * 32, b"2" * 32])
    tokens = Tokens(record, new_random=lambda: next(numbers))

    assert make(tokens)[0] != make(tokens)[0]
    assert len({token.id for token in tokens.all()}) == 2


def test_a_change_waits_for_another_process(tokens: Tokens, record: str, file: Path) -> None:
    """The lock is a flock on git-fhir/tokens.lock."""
    make(tokens)
    before = file.read_bytes()
    with file.with_name("tokens.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=make, args=[tokens])
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert file.read_bytes() == before
    thread.join(10)

    assert len(tokens.all()) == 2


def _make_and_revoke(git_dir: str, count: int) -> None:
    tokens = Tokens(git_dir)
    for number in range(count):
        _, token = make(tokens, note=f"{os.getpid()} {number}")
        if number % 2:
            tokens.revoke(token.id, NOW)


def test_nothing_is_lost_between_processes_and_threads(record: str) -> None:
    """Three processes and two threads make and revoke at once, while others look up: no change goes missing."""
    secret, token = make(Tokens(record), note="first")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_make_and_revoke, args=(record, 6)) for _ in range(3)]
    threads = [threading.Thread(target=_make_and_revoke, args=(record, 6)) for _ in range(2)]
    reader, found = Tokens(record), []
    for each in (*workers, *threads):
        each.start()
    while any(each.is_alive() for each in (*workers, *threads)):
        found.append(reader.find(secret, NOW) == token)
    for each in (*workers, *threads):
        each.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert all(found)
    made = Tokens(record).all()
    assert len(made) == 31
    assert sum(each.revoked is not None for each in made) == 15
