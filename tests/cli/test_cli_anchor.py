"""`git fhir anchor`, `verify --signatures` and `init --signing-key`. docs/security.md, "Signatures", "Anchors" """

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cli.main import main
from gitstore import Anchor, Invalid, Journal, JournalEntry, Update, parse_anchor
from gitstore.fhir import json as fhir_json
from tests.cli.conftest import ADA, PATIENT, git, ndjson, open_store, patient

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "id"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    path = tmp_path / "allowed"
    path.write_text(f'# whose\ngit-fhir@fhir.invalid namespaces="git" {PUBLIC}\n')
    return path


# Anchors


def test_an_anchor_tells_where_the_record_is(clinic, git_fhir):
    """Commit, tree, number, date and counts; nothing of what is in it."""
    result = git_fhir("anchor")

    assert result.stdout.splitlines() == [
        f"commit {git(clinic, 'rev-parse', 'main').strip()}",
        f"tree {git(clinic, 'rev-parse', 'main^{tree}').strip()}",
        "sequence 6",
        "lastUpdated 2026-01-01T00:05:00.000000Z",
        "resources 3",
        "versions 6",
    ]


def test_an_anchor_as_json(clinic, git_fhir):
    [facts] = ndjson(git_fhir("anchor", "--json"))

    assert list(facts) == ["commit", "tree", "sequence", "lastUpdated", "resources", "versions"]
    assert facts["sequence"] == 6


def test_the_end_of_the_access_journal_is_anchored(clinic, git_fhir, tmp_path):
    """Its head, as `git fhir accesses --head` shows it; unless that isn't wanted."""
    journal = Journal.open(str(clinic), durable=False)
    journal.record(JournalEntry("Ada Lovelace", "read", 200, "r-1"))
    journal.close()
    head = git_fhir("accesses", "--head").stdout.strip()

    result = git_fhir("anchor")

    assert result.stdout.splitlines()[-1] == f"journal {head}"
    number, hash = head.split(" ")
    [facts] = ndjson(git_fhir("anchor", "--json"))
    assert facts["journal"] == {"number": int(number), "hash": hash}
    assert "journal" not in git_fhir("anchor", "--no-journal").stdout
    kept = tmp_path / "kept"
    kept.write_text(result.stdout)
    assert git_fhir("anchor", "--check", kept).exit_code == 0
    shutil.rmtree(clinic / "git-fhir" / "journal")
    gone = git_fhir("anchor", "--check", kept)
    assert gone.exit_code == 1
    assert gone.stdout == f"journal line {number}: it is not here, and had the hash {hash}\n"
    assert git_fhir("anchor", "--check", kept, "--no-journal").exit_code == 0


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_record_goes_on_from_its_anchors(clinic, git_fhir, tmp_path, arguments):
    kept = tmp_path / "kept"
    kept.write_text(git_fhir("anchor", *arguments).stdout)
    with open_store(clinic) as store:
        store._clock = lambda: 1_800_000_000_000_000
        store.commit([Update(PATIENT, patient(active=True))], ADA)

    result = git_fhir("anchor", "--check", kept)

    assert (result.exit_code, result.stdout) == (0, "the record goes on from it: 1 commits since\n")
    assert git_fhir("anchor", "--check", kept, "--json").stdout == ""
    assert git_fhir("anchor", "--check", "-", input=kept.read_text()).exit_code == 0


def test_a_past_that_was_changed_is_found(clinic, git_fhir, tmp_path):
    """The commit of the anchor is no longer there."""
    kept = git_fhir("anchor").stdout
    commit = kept.split()[1]
    git(clinic, "update-ref", "refs/heads/main", "main~1")
    git_fhir("reindex")

    result = git_fhir("anchor", "--check", "-", input=kept)

    assert result.exit_code == 1
    assert result.stdout == f"anchor {commit}: it is no longer on main, which has 5 commits\n"
    [facts] = ndjson(git_fhir("anchor", "--check", "-", "--json", input=kept))
    assert facts == {
        "kind": "anchor",
        "where": commit,
        "text": "it is no longer on main, which has 5 commits",
    }


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("sequence 6", "sequence 5", "it is commit number 6, and was 5"),
        ("resources 3", "resources 4", "it has `resources 3`, and had `resources 4`"),
        ("versions 6", "versions 7", "it has `versions 6`, and had `versions 7`"),
        ("00:05:00.000000Z", "00:05:00.000001Z", "and had `lastUpdated 2026-01-01T00:05:00.000001Z`"),
        ("tree ", "tree 0000", "and had `tree 0000"),
    ],
)
def test_an_anchor_that_says_something_else_is_found(clinic, git_fhir, old, new, text):
    """Each fact of it counts."""
    kept = git_fhir("anchor").stdout
    tree = kept.split()[3]
    changed = (
        kept.replace(f"tree {tree}", f"tree 0000{tree[4:]}") if old == "tree " else kept.replace(old, new)
    )

    result = git_fhir("anchor", "--check", "-", input=changed)

    assert result.exit_code == 1
    assert text in result.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its `commit` is missing"),
        ("{}", "its `commit` is missing"),
        ("{", ""),
        ("hello", "`hello` is none of its facts"),
        ("commit x\ncommit y", "`commit` stands twice"),
        ("commit main", "its `commit` is `main`"),
        (f"commit {'0' * 40}\ntree {'0' * 40}\nsequence -1", "its `sequence` is `-1`"),
    ],
)
def test_what_is_no_anchor_is_refused(clinic, git_fhir, text, reason):
    result = git_fhir("anchor", "--check", "-", input=text)

    assert result.exit_code == 1
    assert result.stderr.startswith("git-fhir: ")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


HEX = st.text("0123456789abcdef", min_size=40, max_size=40)


@given(
    st.builds(
        Anchor,
        HEX,
        HEX,
        st.integers(1, 10**12),
        st.integers(0, 4 * 10**15),
        st.integers(0, 10**12),
        st.integers(0, 10**12),
        st.none() | st.tuples(st.integers(0, 10**12), st.text("0123456789abcdef", min_size=64, max_size=64)),
    )
)
def test_reading_an_anchor_undoes_printing_it(anchor):
    assert parse_anchor("\n".join(anchor.lines()) + "\n") == anchor
    assert parse_anchor(fhir_json.dumps(anchor.facts()).decode()) == anchor


@given(st.text(max_size=80))
def test_any_text_is_an_anchor_or_refused(text):
    with pytest.raises(Invalid):
        parse_anchor(text)


# Signatures


def test_a_repository_made_with_a_key_is_signed_and_verified(tmp_path, key, allowed):
    """From the first commit on, by every command."""
    place = tmp_path / "signed.git"
    assert CliRunner().invoke(main, ["init", str(place), "--signing-key", str(key)]).exit_code == 0
    git(place, "config", "fhir.durability", "off")
    document = tmp_path / "p.json"
    document.write_text('{"resourceType": "Patient", "id": "p"}')
    assert CliRunner().invoke(main, ["-C", str(place), "import", str(document)]).exit_code == 0

    result = CliRunner().invoke(
        main, ["-C", str(place), "verify", "--signatures", "--allowed-signers", str(allowed)]
    )

    assert (result.exit_code, result.stdout) == (0, "clean: 2 commits, all signed\n")
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen, with which git checks signatures, is not installed")
    git(place, "-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", "main", "main~1")


def test_init_takes_the_key_that_the_users_configuration_names(tmp_path, key, monkeypatch):
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f"[fhir]\n\tsigningKey = {key}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))

    assert CliRunner().invoke(main, ["init", str(tmp_path / "new.git")]).exit_code == 0

    assert "\ngpgsig -----BEGIN SSH SIGNATURE-----\n" in git(tmp_path / "new.git", "cat-file", "-p", "main")


def test_a_key_that_cannot_be_used_is_one_line_for_every_command(clinic, git_fhir, key):
    """Whoever may write must be able to sign, and is told at once."""
    git(clinic, "config", "fhir.signingKey", str(key))
    key.chmod(0o644)

    result = git_fhir("log")

    assert result.exit_code == 1
    assert result.stderr == (
        f"git-fhir: fhir.signingKey is `{key}`: others than its owner may use it (mode 0644): `chmod 600` it.\n"
    )


def test_a_server_without_its_key_does_not_start(clinic, key):
    """One line, and not one of each worker."""
    git(clinic, "config", "fhir.signingKey", str(key.parent / "none"))
    from tests.cli.conftest import command

    result = subprocess.run(
        command("-C", clinic, "serve", "--port", "0", "--workers", "1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("git-fhir: ")] == [
        f"git-fhir: fhir.signingKey is `{key.parent / 'none'}`: it can't be read (No such file or directory)."
    ]


def test_unsigned_commits_are_found(clinic, git_fhir, allowed):
    result = git_fhir("verify", "--signatures", "--allowed-signers", allowed, "--json")

    [facts] = ndjson(result)
    assert result.exit_code == 1
    assert (facts["kind"], facts["where"]) == ("unsigned", git(clinic, "rev-parse", "main").strip())


def test_who_may_sign_is_read_from_gits_configuration(clinic, git_fhir, allowed):
    """gpg.ssh.allowedSignersFile, as for `git verify-commit`."""
    git(clinic, "config", "gpg.ssh.allowedSignersFile", str(allowed))

    assert git_fhir("verify", "--signatures").stdout.startswith("unsigned ")


def test_nobody_who_may_sign_is_refused(clinic, git_fhir, tmp_path):
    result = git_fhir("verify", "--signatures")

    assert result.exit_code == 1
    assert "nothing says who may sign" in result.stderr
    bad = tmp_path / "bad"
    bad.write_text("\na cert-authority ssh-ed25519 AAAA\n")
    result = git_fhir("verify", "--signatures", "--allowed-signers", bad)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"git-fhir: {bad}:2: ")
    assert git_fhir("verify", "--allowed-signers", bad).exit_code == 2


def test_verify_alone_does_not_ask_for_signatures(clinic, git_fhir):
    assert git_fhir("verify").stdout == "clean: 6 commits\n"


def test_the_facts_of_an_anchor_are_json(clinic, git_fhir):
    """For programs that keep it."""
    assert json.loads(git_fhir("anchor", "--json").stdout)["resources"] == 3
