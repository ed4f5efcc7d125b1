"""Which repository a command works on and who gives it: the environment and git's configuration are read here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cli.errors import Failure
from gitstore import Author, Settings, Store, discover, read_settings


def git_directory() -> str:
    """The absolute git directory of GIT_DIR or of the current folder. Raises RepositoryRefused."""
    return os.path.abspath(discover(os.environ.get("GIT_DIR") or "."))


@contextmanager
def open_store(more_objects: Sequence[str] = ()) -> Iterator[Store]:
    """The store of that repository. Raises RepositoryRefused; Invalid for a bad setting."""
    with Store.open(
        git_directory(), settings(), cache_folder=_cache_folder(), more_objects=more_objects
    ) as store:
        yield store


def pushed_objects() -> list[str]:
    """The object folders that git names to a hook: a push stays in one of its own until it is accepted.

    https://git-scm.com/docs/git#Documentation/git.txt-GITQUARANTINEPATH
    """
    named = [os.environ.get(name) for name in ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY")]
    named += os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "").split(os.pathsep)
    return [os.path.abspath(folder) for folder in dict.fromkeys(named) if folder and os.path.isdir(folder)]


def _cache_folder() -> str:
    """Where the index of a clone lies that we may only read. https://specifications.freedesktop.org/basedir-spec/"""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "git-fhir")


def settings() -> Settings:
    """What git's configuration says about that repository. Raises RepositoryRefused; Invalid for a bad setting."""
    return read_settings(git_directory())


def configured_file(name: str, *, here: bool = True) -> str | None:
    """The path that a variable of git's configuration has; None where it isn't set.

    Not `here`, no repository's own configuration counts, but only the user's and the machine's.
    """
    environment = {**os.environ, "GIT_DIR": git_directory() if here else os.devnull}
    command = ["git", "config", "--type=path", "--get", name]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return answer.stdout.removesuffix("\n") or None


def configured_author() -> Author:
    """Who git says commits here: GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL, user.name and user.email.

    Raises Failure where git doesn't know. https://git-scm.com/docs/git-var
    """
    answer = subprocess.run(
        ["git", "var", "GIT_AUTHOR_IDENT"],
        capture_output=True,
        text=True,
        check=False,
        # The explicit folder keeps git from asking a second time whose repository this is.
        env={**os.environ, "GIT_DIR": git_directory()},
    )
    name, _, rest = answer.stdout.rpartition(" <")
    email, _, _ = rest.partition("> ")
    if answer.returncode != 0 or not email:
        raise Failure(
            "git doesn't know who you are: set `git config user.name` and `git config user.email`, "
            'or say --author "Name <mail>".'
        )
    return Author(name, email)
