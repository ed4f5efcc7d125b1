"""Signed commits: what git makes of them, which keys sign, whose signatures count. docs/security.md, "Signatures" """

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from signing_keys import KINDS, key_file, private_key, public_line

from gitstore import (
    AllowedSigners,
    Author,
    Delete,
    Invalid,
    Replica,
    ReplicaVersion,
    Restore,
    Settings,
    Store,
    Update,
    check_signatures,
    init,
    parse_allowed_signers,
    path_of,
    read_settings,
)
from gitstore.fhir.dates import SECOND
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.commits import add_signature, format_commit, parse_commit, split_signature, unsigned
from gitstore.git.signing import signer
from gitstore.git.sshsig import is_signed, parse_signature, public_key_of, sign
from gitstore.signatures import judge
from gitstore.version import SERVER
from tests.conftest import START, Clock

ADA = Author("Ada Lovelace", "ada@clinic.example")
PATIENT = ResourceId("Patient", "p")
COMMIT = format_commit(bytes(20), "ab" * 20, ADA, SERVER, START, "update Patient/p\n\nWhy.\n\nFHIR-X: y\n")
Git = Callable[..., str]

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None,
    reason="ssh-keygen, with which git checks signatures, is not installed",
)


def signed(data: bytes, kind: str = "ed25519", number: int = 0) -> bytes:
    key = private_key(kind, number)
    return add_signature(data, sign(key, public_key_of(key), data))


def allowing(*lines: str) -> AllowedSigners:
    return parse_allowed_signers("\n".join(lines), "signers")


def put(**content: object) -> Update:
    return Update(PATIENT, {"resourceType": "Patient", "id": "p", **content})


@pytest.fixture
def signing(record: str, clock: Clock, tmp_path: Path) -> Iterator[Store]:
    """A store that signs, of a record whose first commit isn't signed."""
    options = Settings(durability="off", validation="off", signing_key=str(key_file(tmp_path)))
    with Store.open(record, options, clock=clock) as store:
        yield store


# Signing


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_is_that_of_its_commit_and_no_other(kind):
    payload, text = split_signature(signed(COMMIT, kind))
    signature = parse_signature(text or b"")

    assert payload == COMMIT
    assert str(signature.key) == public_line(kind)
    assert signature.namespace == "git"
    assert is_signed(signature, COMMIT)
    assert not is_signed(signature, COMMIT + b"x")


@given(st.binary(max_size=200), st.binary(max_size=200))
@example(b"tree\nauthor", b"")
def test_splitting_a_signature_off_undoes_adding_it(head: bytes, message: bytes):
    """docs/format.md: the signature is the last of the headers, and what is signed is all but that header."""
    data = b"tree " + head.replace(b"\n\n", b"").replace(b"\ngpgsig ", b"").strip(b"\n") + b"\n\n" + message
    text = parse_text()

    assert split_signature(add_signature(data, text)) == (data, text)


def parse_text() -> bytes:
    _, text = split_signature(signed(COMMIT))
    assert text is not None
    return text


def test_a_signed_commit_reads_as_the_same_commit():
    assert parse_commit(signed(COMMIT)) == parse_commit(COMMIT)
    assert unsigned(COMMIT) == COMMIT


@needs_ssh_keygen
@pytest.mark.parametrize("kind", KINDS)
def test_git_verifies_what_the_store_signs(record, clock, tmp_path, git, kind):
    """https://git-scm.com/docs/git-verify-commit with gpg.ssh.allowedSignersFile."""
    options = Settings(durability="off", validation="off", signing_key=str(key_file(tmp_path, kind)))
    with Store.open(record, options, clock=clock) as store:
        store.commit([put()], ADA, message="Ünïcode.\n\n-----BEGIN SSH SIGNATURE-----")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"git-fhir@fhir.invalid {public_line(kind)}\n")

    git("-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", "main")
    git("fsck", "--strict", "--no-dangling")
    allowed.write_text(f"git-fhir@fhir.invalid {public_line(kind, 1)}\n")
    with pytest.raises(AssertionError, match="verify-commit"):
        git("-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", "main")


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "nistp256"])
def test_what_git_signs_is_understood(tmp_path, git, record, kind):
    """`git commit -S` with ssh-keygen writes the same form."""
    git(
        *("-c", "gpg.format=ssh", "-c", f"user.signingKey={key_file(tmp_path, kind)}"),
        *("commit-tree", "-S", "main^{tree}", "-m", "x"),
    )
    id = git(
        *("-c", "gpg.format=ssh", "-c", f"user.signingKey={key_file(tmp_path, kind)}"),
        *("commit-tree", "-S", "main^{tree}", "-m", "x"),
    )

    data = (git("cat-file", "commit", id) + "\n").encode()

    assert judge(id, data, allowing(f"eve {public_line(kind)}")) is None


def test_every_commit_of_a_store_is_signed(signing, record, git, clock, tmp_path):
    """Updates, deletions, restores, transactions, and what it adopts."""
    signing.commit([put()], ADA)
    signing.commit([put(active=True)], ADA)
    signing.commit([Restore(PATIENT, VersionId(1))], ADA)
    signing.commit([Delete(PATIENT)], ADA)
    signing.commit([put(), Delete(PATIENT.__class__("Patient", "q"))], ADA, interaction="transaction")
    blob = git(
        "hash-object", "-w", "--stdin", input='{"resourceType": "Patient", "id": "p", "gender": "other"}'
    )
    git("read-tree", "main")
    git("update-index", "--cacheinfo", f"100644,{blob},{path_of(PATIENT)}")
    foreign = git("commit-tree", "-p", "main", git("write-tree"), "-m", "by hand")
    git("update-ref", "refs/heads/main", foreign)
    adopted = signing.adopt()

    assert adopted is not None
    found = list(check_signatures(record, allowing(f"server {public_line('ed25519')}")))
    first = git("rev-list", "--max-parents=0", "main")
    assert [(each.kind, each.where) for each in found] == [("unsigned", first)]
    assert list(signing.verify()) == []


def test_what_is_replicated_is_signed_by_who_takes_it_over(signing, record):
    """Also the first commit, which is made anew for a history that is older than the record."""
    version = ReplicaVersion("PUT", PATIENT, VersionId(1), {"resourceType": "Patient", "id": "p"})
    signing.replicate([Replica((version,), ADA, START - 60 * SECOND)])

    assert list(check_signatures(record, allowing(f"server {public_line('ed25519')}"))) == []
    assert signing.snapshot().commit.sequence == 2
    assert list(signing.verify()) == []


def test_a_record_that_is_made_with_a_key_is_signed_from_its_first_commit_on(tmp_path, clock):
    """The key is noted in its configuration."""
    key = str(key_file(tmp_path))
    record = init(tmp_path / "signed.git", clock=lambda: START, signing_key=key)

    assert read_settings(record).signing_key == key
    with Store.open(record, Settings(durability="off", signing_key=key), clock=clock) as store:
        store.commit([put()], ADA)
        assert list(store.verify()) == []
    assert list(check_signatures(record, allowing(f"server {public_line('ed25519')}"))) == []


def test_a_group_of_units_is_signed_each(signing, record):
    from gitstore import Unit

    units = [Unit([put(active=number % 2 == 0)], ADA) for number in range(10)]
    signing.commit_each(units)

    [finding] = check_signatures(record, allowing(f"server {public_line('ed25519')}"))
    assert finding.kind == "unsigned"
    assert signing.snapshot().commit.sequence == 11


# The key


def test_a_relative_path_begins_at_the_git_directory(record, clock):
    key_file(Path(record))
    options = Settings(durability="off", validation="off", signing_key="id_ed25519_0")

    with Store.open(record, options, clock=clock) as store:
        store.commit([put()], ADA)

    assert [each.kind for each in check_signatures(record, allowing(f"a {public_line('ed25519')}"))] == [
        "unsigned"
    ]


def test_the_users_folder_may_stand_before_it(record, git, monkeypatch):
    """As in git's own settings of paths."""
    monkeypatch.setenv("HOME", "/home/ada")
    git("config", "fhir.signingKey", "~/keys/id")

    assert read_settings(record).signing_key == "/home/ada/keys/id"


def unreadable(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def encrypted(path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen, which encrypts keys, is not installed")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(path)], check=True, capture_output=True
    )


def other(path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (unreadable, r"it can't be read \(No such file or directory\)"),
    "a folder": (folder, "it is no file"),
    "a pipe that nobody writes to": (pipe, "it is no file"),
    "readable by the group": (
        lambda path: path.chmod(0o640),
        r"others than its owner may use it \(mode 0640\)",
    ),
    "readable by all": (lambda path: path.chmod(0o604), r"\(mode 0604\): `chmod 600` it"),
    "empty": (lambda path: path.write_text(""), "it is no private key of OpenSSH"),
    "the public half": (
        lambda path: path.write_text(public_line("ed25519")),
        "it is no private key of OpenSSH",
    ),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:200]), "it is no private key of OpenSSH"),
    "encrypted": (encrypted, "the key is encrypted"),
    "of RSA": (other, "of another type than ssh-ed25519, ecdsa-sha2-nistp256"),
}


@pytest.mark.parametrize(("spoil", "text"), KEYS.values(), ids=KEYS)
def test_a_key_that_cannot_be_used_refuses_to_open(record, tmp_path, spoil, text):
    """One line that names the file: a server that isn't able to sign must not begin to write."""
    path = key_file(tmp_path)
    spoil(path)

    with pytest.raises(Invalid, match=text) as caught:
        Store.open(record, Settings(durability="off", signing_key=str(path)))

    assert str(caught.value).startswith(f"fhir.signingKey is `{path}`: ")
    assert "\n" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_a_key_that_cannot_be_used_makes_no_record(tmp_path):
    with pytest.raises(Invalid):
        init(tmp_path / "new.git", signing_key=str(tmp_path / "none"))

    assert not (tmp_path / "new.git").exists()


def test_the_key_is_read_once(signing, record, tmp_path):
    """A worker goes on with the key it began with."""
    (tmp_path / "id_ed25519_0").unlink()
    signing.commit([put()], ADA)

    [finding] = check_signatures(record, allowing(f"server {public_line('ed25519')}"))
    assert finding.kind == "unsigned"


# Checking


def test_every_flipped_bit_of_a_signed_commit_is_found():
    """There is one way to write each signature, and each byte of the commit is signed or part of the signature."""
    data = signed(COMMIT)
    allowed = allowing(f"server {public_line('ed25519')}")
    assert judge("id", data, allowed) is None
    missed = []

    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        if judge("id", bytes(changed), allowed) is None:
            missed.append(bit)

    assert missed == []


@given(st.integers(0, 10**6), st.integers(0, 7), st.sampled_from(KINDS), st.binary(max_size=300))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_flipped_bit_is_found_whatever_the_key_and_the_message(place, bit, kind, message):
    """A signature of ECDSA has two numbers, with lengths of their own."""
    commit = signed(COMMIT + message, kind)
    allowed = allowing(f"server {public_line(kind)}")
    assert judge("id", commit, allowed) is None
    changed = bytearray(commit)
    # Signatures of ECDSA are random, and their length is, too.
    changed[place % len(commit)] ^= 1 << bit

    found = judge("id", bytes(changed), allowed)

    assert found is not None
    assert found.kind in ("unsigned", "signature", "signer")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.replace(b"BEGIN SSH", b"BEGIN PGP"), "not in the form of SSH signatures"),
        (lambda d: d.replace(b"=\n -----END", b"=\n \n -----END"), "not in the form of SSH signatures"),
        (lambda d: d.replace(b"\n U1NIU0lH", b"\n U1NI\n U0lH"), "not in the form of SSH signatures"),
        (lambda d: d.replace(b"Why.", b"Because."), "changed after it was signed"),
        (lambda d: d.replace(b"ada@clinic", b"eve@clinic"), "changed after it was signed"),
        (lambda d: d.replace(b"\n\nupdate", b"\nencoding latin-1\n\nupdate"), "not the last of its headers"),
    ],
)
def test_a_signature_that_does_not_fit_is_found(change, text):
    data = change(signed(COMMIT))
    assert data != signed(COMMIT)

    found = judge("id", data, allowing(f"server {public_line('ed25519')}"))

    assert found is not None
    assert found.kind == "signature"
    assert text in found.text


def test_a_signature_of_another_namespace_does_not_count(tmp_path):
    """What somebody signed as a file must not pass for a commit. PROTOCOL.sshsig"""
    text = parse_text()
    forged = add_signature(COMMIT, text)
    assert judge("id", forged, allowing(f"a {public_line('ed25519')}")) is None
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen, which signs for other namespaces, is not installed")
    (tmp_path / "message").write_bytes(COMMIT)
    command = [
        "ssh-keygen",
        "-q",
        "-Y",
        "sign",
        "-n",
        "file",
        "-f",
        str(key_file(tmp_path)),
        str(tmp_path / "message"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    filed = add_signature(COMMIT, (tmp_path / "message.sig").read_bytes())

    found = judge("id", filed, allowing(f"a {public_line('ed25519')}"))

    assert found is not None
    assert "is for `file` and not `git`" in found.text


def test_unsigned_commits_in_a_row_are_one_finding(record, clock, tmp_path):
    """Before signing began there may be many."""
    with Store.open(record, Settings(durability="off", validation="off"), clock=clock) as store:
        for _ in range(3):
            store.commit([put()], ADA)
        last = store.snapshot().commit.id

    found = list(check_signatures(record, allowing()))

    assert [(each.kind, each.where) for each in found] == [("unsigned", last)]
    assert found[0].text.startswith("it and the 3 before it, from ")


def test_progress_of_signatures_is_told(signing, record, monkeypatch):
    monkeypatch.setattr("gitstore.signatures._EVERY", 2)
    for _ in range(3):
        signing.commit([put()], ADA)
    seen: list[tuple[int, int]] = []

    list(check_signatures(record, allowing(), lambda done, of: seen.append((done, of))))

    assert seen == [(2, 4), (4, 4)]


# Allowed signers

NOON = START // SECOND
"""2026-01-01T12:00:00Z"""

ALLOWED: dict[str, tuple[str, str | None]] = {
    "the key": ("a@b {}", None),
    "with a comment": ("a@b {} the server's", None),
    "with tabs": ("a@b\t {}", None),
    "several principals": ("a@b,c@d {}", None),
    "a pattern": ("*@clinic.example,server-? {}", None),
    "in quotes": ('"a@b" {}', None),
    "for git": ('a namespaces="git" {}', None),
    "for git among others": ('a namespaces="file,g?t" {}', None),
    "for others": ('a namespaces="file" {}', "is not allowed to sign for `git`"),
    "for all but git": ('a namespaces="*,!git" {}', "is not allowed to sign for `git`"),
    "for nothing": ('a namespaces="" {}', "is not allowed to sign for `git`"),
    "in upper case": ('a NAMESPACES="git" {}', None),
    "from noon": ('a valid-after="20260101120000Z" {}', None),
    "from a second after noon": ('a valid-after="20260101120001Z" {}', "was not allowed yet"),
    "until noon": ('a valid-before="202601011200Z" {}', None),
    "until a second before noon": ('a valid-before="20260101115959Z" {}', "was no longer allowed"),
    "of the day before": ('a valid-before="20260101Z",namespaces="git" {}', "was no longer allowed"),
    "within": ('a valid-after="20260101Z",valid-before="20260102Z" {}', None),
    "another key": ("a " + "{other}", "is unknown"),
    "nobody's": ("!a {}", "is of nobody"),
    "excluded": ("!*,a {}", "is of nobody"),
    "a comment alone": ("# a {}", "is unknown"),
    "two lines, the second good": ('a namespaces="file" {}\na {}', None),
    "two principals, one of the time": ('a valid-before="20250101Z" {}\nb {}', None),
    "two principals, the first for others": (
        'a namespaces="file" {}\nb {}',
        "is not allowed to sign for `git`",
    ),
}


def line(text: str) -> str:
    return text.replace("{other}", public_line("ed25519", 1)).replace("{}", public_line("ed25519"))


@pytest.mark.parametrize(("text", "refusal"), ALLOWED.values(), ids=ALLOWED)
def test_a_file_of_allowed_signers_says_whose_signatures_count(text, refusal):
    """https://man.openbsd.org/ssh-keygen.1#ALLOWED_SIGNERS"""
    found = allowing(line(text)).refusal(public_key_of(private_key("ed25519")), NOON)

    if refusal is None:
        assert found is None
    else:
        assert found is not None
        assert refusal in found


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "{}",
        "a cert-authority {}",
        'a namespaces="git",cert-authority {}',
        'a namespaces="git",namespaces="git" {}',
        'a namespaces="git", {}',
        "a namespaces=git {}",
        'a namespaces="git {}',
        'a namespaces="g\\"it" {}',
        'a valid-after="2026-01-01" {}',
        'a valid-after="20260231Z" {}',
        'a valid-after="" {}',
        'a valid-before="20260101UTC" {}',
        'a valid-after="20260102Z",valid-before="20260101Z" {}',
        "a no-touch-required {}",
        "a ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ",
        "a sk-ssh-ed25519@openssh.com AAAA",
        "a ssh-ed25519",
        "a ssh-ed25519 AAAA",
        "a ssh-ed25519 !!!!",
        "a ecdsa-sha2-nistp256 {}",
        'a"b" {}',
    ],
)
def test_what_is_not_understood_is_refused(text):
    """With the number of the line: no line may count for more than its author meant."""
    with pytest.raises(Invalid, match=r"^signers:2: "):
        allowing(
            "# whose",
            line(text.replace("ecdsa-sha2-nistp256 {}", f"ecdsa-sha2-nistp256 {line('{}').split()[1]}")),
        )


def test_a_time_without_a_zone_is_that_of_this_machine(monkeypatch):
    """As ssh-keygen takes it."""
    import time

    monkeypatch.setenv("TZ", "UTC+2")
    time.tzset()
    try:
        allowed = allowing(line('a valid-after="20260101103000" {}'))
    finally:
        monkeypatch.undo()
        time.tzset()

    key = public_key_of(private_key("ed25519"))
    assert allowed.refusal(key, NOON) == "was not allowed yet"
    assert allowed.refusal(key, NOON + 1800) is None


ENTRIES = st.tuples(
    st.lists(st.sampled_from(["a", "b", "!a", "!b", "*", "?", "a*"]), min_size=1, max_size=3),
    st.sampled_from(["", 'namespaces="git"', 'namespaces="file"', 'namespaces="*,!file"']),
    st.sampled_from(
        [
            "",
            'valid-after="20260101120001Z"',
            'valid-after="20260101Z"',
            'valid-before="20260101115959Z"',
            'valid-before="202601011200Z"',
            'valid-after="20260101Z",valid-before="202601011200Z"',
        ]
    ),
    st.sampled_from([0, 0, 1]),
)


@needs_ssh_keygen
@given(st.lists(ENTRIES, min_size=1, max_size=4))
@settings(max_examples=40)
def test_whose_signatures_count_is_what_git_and_ssh_keygen_say(tmp_path_factory, entries):
    """As gpg-interface.c of git asks: for the principals of the key, then for each of them."""
    place = tmp_path_factory.mktemp("signers")
    lines = []
    for principals, namespaces, times, number in entries:
        options = ",".join(filter(None, (namespaces, times)))
        lines.append(" ".join(filter(None, (",".join(principals), options, public_line("ed25519", number)))))
    (place / "allowed").write_text("\n".join(lines) + "\n")
    (place / "sig").write_bytes(parse_text())
    when = datetime.fromtimestamp(NOON, UTC).astimezone().strftime("-Overify-time=%Y%m%d%H%M%S")
    files = ["-f", str(place / "allowed"), "-s", str(place / "sig"), when]
    named = subprocess.run(
        ["ssh-keygen", "-Y", "find-principals", *files], capture_output=True, text=True, check=False
    )

    def is_good(principal: str) -> bool:
        command = ["ssh-keygen", "-Y", "verify", "-n", "git", "-I", principal, *files]
        return subprocess.run(command, input=COMMIT, capture_output=True, check=False).returncode == 0

    good = named.returncode == 0 and any(map(is_good, filter(None, named.stdout.split("\n"))))

    assert (judge("id", signed(COMMIT), allowing(*lines)) is None) == good


def test_signing_a_commit_is_far_below_a_millisecond(tmp_path):
    """It happens under the writer's lock. The best of many: how busy the machine is says nothing of the code."""
    import time

    sign_commit = signer(str(key_file(tmp_path)))
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        sign_commit(COMMIT)
        times.append(time.perf_counter() - begun)

    assert min(times) < 0.0005
