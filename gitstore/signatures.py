"""Checking the signature of every commit of a record against those who may sign.

docs/security.md, "Signatures"
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gitstore.errors import Invalid, RepositoryDamaged
from gitstore.git import layout
from gitstore.git.commits import add_signature, split_signature
from gitstore.git.history import chain
from gitstore.git.repository import Repository
from gitstore.git.signers import AllowedSigners
from gitstore.git.sshsig import NAMESPACE, is_signed, parse_signature
from gitstore.git.writer import read_main
from gitstore.replay import OnProgress
from gitstore.verify import Finding

_COMMITTED = re.compile(rb"\ncommitter [^\n]*> (\d{1,12}) [+-]\d{4}\n")
_EVERY = 1000


def check_signatures(
    git_dir: str, allowed: AllowedSigners, progress: OnProgress | None = None
) -> Iterator[Finding]:
    """What is wrong with the signatures of main's first-parent chain; nothing where all are good and of allowed keys.

    Of kind "unsigned", once for commits in a row, "signature" where it isn't that of the commit, and "signer" where
    its key may not sign. Neither index nor trailers are looked at: `verify` does. Raises RepositoryRefused.
    """
    repository = Repository(git_dir)
    main = read_main(git_dir)
    ids = chain(repository, main) if main is not None else []
    unsigned: list[str] = []
    for done, id in enumerate(ids, 1):
        if progress is not None and done % _EVERY == 0:
            progress(done, len(ids))
        try:
            found = judge(id, repository.object(id), allowed)
        except RepositoryDamaged as error:
            found = Finding("damaged", id, str(error))
        if found is not None and found.kind == "unsigned":
            unsigned.append(id)
            continue
        yield from _together(unsigned)
        unsigned.clear()
        if found is not None:
            yield found
    yield from _together(unsigned)
    if main is None:
        yield Finding("branch", layout.REFERENCE, "there is no such branch")


def _together(ids: list[str]) -> Iterator[Finding]:
    """One finding for unsigned commits in a row: those before signing began are many."""
    if len(ids) == 1:
        yield _unsigned(ids[0])
    elif ids:
        text = f"it and the {len(ids) - 1:,} before it, from {ids[0]} on, have no signature"
        yield Finding("unsigned", ids[-1], text)


def _unsigned(id: str) -> Finding:
    return Finding("unsigned", id, "it has no signature")


def judge(id: str, data: bytes, allowed: AllowedSigners) -> Finding | None:
    """What is wrong with the signature of a commit, by the bytes of its object; None where it is good."""
    payload, text = split_signature(data)
    if text is None:
        return _unsigned(id)
    try:
        signature = parse_signature(text)
    except Invalid as error:
        return Finding("signature", id, str(error))
    committed = _COMMITTED.search(payload)
    wrong = None
    if add_signature(payload, text) != data:
        wrong = "its signature is not the last of its headers"
    elif signature.namespace != NAMESPACE:
        wrong = f"its signature is for `{signature.namespace[:60]}` and not `{NAMESPACE}`"
    elif committed is None:
        wrong = "it has no date for which its signature could be checked"
    elif not is_signed(signature, payload):
        wrong = "its signature is not that of this commit: it was changed after it was signed"
    elif (refusal := allowed.refusal(signature.key, int(committed[1]))) is not None:
        return Finding("signer", id, f"the key {signature.key.fingerprint} {refusal}")
    return None if wrong is None else Finding("signature", id, wrong)
