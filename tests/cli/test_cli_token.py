"""git fhir token."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gitstore import Refused, Tokens
from gitstore.fhir.dates import parse_instant
from tests.cli.conftest import GitFhir, command

ADA = ("--name", "Ada Lovelace", "--email", "ada@clinic.example")
DAY = 86_400_000_000
SECRET = re.compile(r"gf_[A-Za-z0-9_-]{49}\n")


def create(git_fhir: GitFhir, *more: str, scope: str = "user/*.rs") -> str:
    """The secret of a new token."""
    made = git_fhir("token", "create", *ADA, "--scope", scope, *more)
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def listed(git_fhir: GitFhir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in git_fhir("token", "list", "--json").stdout.splitlines()]


def test_the_secret_stands_alone_on_stdout(repository: Path, git_fhir: GitFhir) -> None:
    """So it can be piped to where it is to be kept; the words around it are on stderr, and don't hold it."""
    made = git_fhir("token", "create", *ADA, "--scope", "user/*.rs git-fhir/history")

    assert made.exit_code == 0
    assert SECRET.fullmatch(made.stdout)
    assert "Ada Lovelace <ada@clinic.example>" in made.stderr
    assert "user/*.rs git-fhir/history" in made.stderr
    assert made.stdout.strip() not in made.stderr
    token = Tokens(str(repository)).find(made.stdout.strip(), 0)
    assert token is not None
    assert token.id in made.stderr


def test_options_come_from_the_environment(repository: Path, git_fhir: GitFhir) -> None:
    """Several scopes too, with spaces between them."""
    made = git_fhir("token", "create", *ADA, GIT_FHIR_TOKEN_CREATE_SCOPE="user/*.rs git-fhir/history")  # noqa: S106 - a scope

    assert made.exit_code == 0, made.output
    assert [facts["scope"] for facts in listed(git_fhir)] == ["user/*.rs git-fhir/history"]


def test_a_token_as_it_was_made_is_listed(repository: Path, git_fhir: GitFhir) -> None:
    create(
        git_fhir,
        *("--scope", "user/Patient.r", "--patient", "p1", "--expires", "9999-12-31", "--note", "the portal"),
        scope="patient/*.rs",
    )

    [facts] = listed(git_fhir)

    assert parse_instant(facts.pop("created")) > 0
    assert re.fullmatch("[0-9a-f]{12}", facts.pop("id"))
    assert facts == {
        "state": "valid",
        "author": {"name": "Ada Lovelace", "email": "ada@clinic.example"},
        "scope": "patient/*.rs user/Patient.r",
        "patient": "p1",
        "note": "the portal",
        "expires": "9999-12-31T00:00:00.000000Z",
        "revoked": None,
    }


def test_the_list_is_for_people_too(repository: Path, git_fhir: GitFhir) -> None:
    """One line for each, oldest first, and never a secret."""
    secrets = [
        create(git_fhir),
        create(git_fhir, "--patient", "p1", "--expires", "never", scope="patient/*.r"),
    ]
    first, second = listed(git_fhir)
    git_fhir("token", "revoke", second["id"])

    lines = git_fhir("token", "list").stdout.splitlines()

    assert len(lines) == 2
    assert lines[0].startswith(f"{first['id']}  valid ")
    assert f"expires {first['expires'][:19]}Z" in lines[0]
    assert lines[1].startswith(f"{second['id']}  revoked  {second['created'][:19]}Z  never expires ")
    assert lines[1].endswith("Ada Lovelace <ada@clinic.example>  patient/*.r (Patient/p1)")
    for output in ("\n".join(lines), git_fhir("token", "list", "--json").stdout):
        assert not any(secret[3:] in output for secret in secrets)


def test_without_tokens_the_list_is_empty(repository: Path, git_fhir: GitFhir) -> None:
    result = git_fhir("token", "list")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("expires", "days"), [([], 90), (["--expires", "1d"], 1), (["--expires", "365d"], 365)]
)
def test_a_token_expires_after_90_days_unless_otherwise_said(
    repository: Path, git_fhir: GitFhir, expires: list[str], days: int
) -> None:
    create(git_fhir, *expires)

    [facts] = listed(git_fhir)
    assert parse_instant(facts["expires"]) - parse_instant(facts["created"]) == days * DAY


def test_never_must_be_said(repository: Path, git_fhir: GitFhir) -> None:
    create(git_fhir, "--expires", "never")

    assert [facts["expires"] for facts in listed(git_fhir)] == [None]


@pytest.mark.parametrize("expires", ["", "0d", "-1d", "90", "90 d", "soon", "2026-13", "999999d", "٩d"])
def test_an_expiry_that_is_none_is_refused(repository: Path, git_fhir: GitFhir, expires: str) -> None:
    result = git_fhir("token", "create", *ADA, "--scope", "user/*.r", "--expires", expires)

    assert result.exit_code == 2
    assert f"`{expires}` is neither a number of days" in result.stderr
    assert listed(git_fhir) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--scope", "user/*.sr"], "in that order"),
        (["--scope", "user/*.r user/Nobody.r"], "`Nobody` is no resource type"),
        (["--scope", "patient/*.r"], "of which Patient"),
        (["--scope", "user/Patient.r?category=a"], "not known for Patient"),
        (["--scope", "git-fhir/everything"], "the roles are audit, clone,"),
        (["--scope", "openid"], "allow nothing"),
        (["--scope", "user/*.r", "--expires", "2020"], "is past"),
        (["--scope", "user/*.r", "--patient", "a/b"], "no id of a Patient"),
        (["--scope", "user/*.r", "--note", "a\nb"], "one line"),
        (["--scope", "user/*.r", "--name", "<>"], "author of a commit"),
    ],
)
def test_what_can_not_be_is_refused_with_the_reason_and_nothing_changed(
    repository: Path, git_fhir: GitFhir, arguments: list[str], reason: str
) -> None:
    create(git_fhir)
    before = (repository / "git-fhir" / "tokens").read_bytes()

    result = git_fhir("token", "create", *ADA, *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (repository / "git-fhir" / "tokens").read_bytes() == before


@pytest.mark.parametrize("missing", ["--name", "--email", "--scope"])
def test_whose_and_what_for_must_be_said(repository: Path, git_fhir: GitFhir, missing: str) -> None:
    arguments = [*ADA, "--scope", "user/*.r"]
    place = arguments.index(missing)
    del arguments[place : place + 2]

    result = git_fhir("token", "create", *arguments)

    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.stderr


def test_revoke_names_what_it_did(repository: Path, git_fhir: GitFhir) -> None:
    """And says the same again the second time: whoever revokes wants it to be revoked."""
    secret = create(git_fhir)
    [facts] = listed(git_fhir)

    first, second = git_fhir("token", "revoke", facts["id"]), git_fhir("token", "revoke", facts["id"])

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == second.stdout
    assert first.stdout.startswith(f"Token {facts['id']} of Ada Lovelace <ada@clinic.example>: revoked 20")
    assert Tokens(str(repository)).judge(secret, 0) is Refused.REVOKED
    assert [facts["state"] for facts in listed(git_fhir)] == ["revoked"]


def test_revoking_what_is_not_there_is_exit_3(repository: Path, git_fhir: GitFhir) -> None:
    result = git_fhir("token", "revoke", "unknown")

    assert result.exit_code == 3
    assert result.stderr == "git-fhir: There is no token `unknown`.\n"


@pytest.mark.parametrize(
    "arguments",
    [["create", *ADA, "--scope", "user/*.r"], ["revoke", "0" * 12]],
)
def test_only_the_owner_may(
    repository: Path, git_fhir: GitFhir, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    result = git_fhir("token", *arguments)

    assert result.exit_code == 1
    assert "belongs to another user; only its owner may give or revoke tokens." in result.stderr
    assert not (repository / "git-fhir" / "tokens").exists()


def test_a_file_that_others_can_read_is_told_by_list(repository: Path, git_fhir: GitFhir) -> None:
    """On stderr, so that programs that read the list are not in the way."""
    create(git_fhir)
    (repository / "git-fhir" / "tokens").chmod(0o644)

    result = git_fhir("token", "list", "--json")

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith("git-fhir: warning: ")
    assert "its mode is 0644, expected 0600." in result.stderr


def test_a_change_makes_the_file_private_again(repository: Path, git_fhir: GitFhir) -> None:
    create(git_fhir)
    file = repository / "git-fhir" / "tokens"
    file.chmod(0o644)

    create(git_fhir)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_serve_tells_it_too(repository: Path, git_fhir: GitFhir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it turns into the server."""
    create(git_fhir)
    (repository / "git-fhir" / "tokens").chmod(0o640)
    monkeypatch.setattr(os, "execv", lambda *arguments: None)

    result = git_fhir("serve")

    assert "git-fhir: warning: " in result.stderr
    assert "its mode is 0640" in result.stderr


def test_a_file_of_another_format_is_one_line(repository: Path, git_fhir: GitFhir) -> None:
    file = repository / "git-fhir" / "tokens"
    file.write_text('{"format": 2, "tokens": []}')
    file.chmod(0o600)

    result = git_fhir("token", "list")

    assert result.exit_code == 128
    assert result.stderr.endswith("is of format 2; this git-fhir knows format 1.\n")
    assert len(result.stderr.splitlines()) == 1


def test_what_others_wrote_does_not_steer_the_terminal(repository: Path, git_fhir: GitFhir) -> None:
    """A file that was edited by hand could hold anything."""
    create(git_fhir)
    file = repository / "git-fhir" / "tokens"
    file.write_text(file.read_text().replace("Ada Lovelace", "Ada\\u001b[2J"))

    assert "\x1b" not in git_fhir("token", "list").stdout


def test_a_token_can_be_piped_to_a_file(repository: Path, tmp_path: Path) -> None:
    """`git fhir token create … > secret`, as a process of its own."""
    with (tmp_path / "secret").open("w") as out:
        subprocess.run(
            command("-C", repository, "token", "create", *ADA, "--scope", "user/*.r"),
            stdout=out,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    assert SECRET.fullmatch((tmp_path / "secret").read_text())
