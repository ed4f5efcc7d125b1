"""One run of git upload-pack: what it shows, what it refuses, and that nothing of it is left. docs/audit.md, "Clone" """

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest

from gitstore import StorageFailed, Update, Upload
from gitstore.fhir.ids import ResourceId
from gitstore.git.upload_pack import POLITENESS

PATIENT = ResourceId("Patient", "p")
PATIENCE = 20.0
FLUSH, DELIMITER = b"0000", b"0001"

Git = Callable[..., str]


def line(text: str) -> bytes:
    """A pkt-line. https://git-scm.com/docs/gitprotocol-common#_pkt_line_format"""
    return f"{len(text) + 5:04x}{text}\n".encode()


def wanting(*ids: str) -> bytes:
    """A request for commits, in version 0 of the protocol."""
    first, *others = ids
    lines = [f"want {first} side-band-64k", *(f"want {each}" for each in others)]
    return b"".join(map(line, lines)) + FLUSH + line("done")


def said(record: str, request: bytes | None, version: int = 0) -> tuple[bytes, bool]:
    """All that comes, and whether git gave up."""
    upload = Upload(record, request, timeout=PATIENCE, version=version)
    try:
        return b"".join(upload), upload.failed
    finally:
        upload.close()


@pytest.fixture
def large(git: Git, store, ada) -> str:
    """The id of a commit whose pack is larger than any pipe."""
    store.commit([Update(PATIENT, {"resourceType": "Patient", "id": "p"})], ada)
    blob = git("hash-object", "-w", "--stdin", input=os.urandom(1 << 20))
    tree = git("mktree", input=f"100644 blob {blob}\tlarge\n")
    commit = git("commit-tree", "-m", "large", tree)
    git("update-ref", "refs/tags/large", commit)
    return commit


REFS = ("refs/heads/main", "refs/tags/v1")
HIDDEN = ("refs/heads/other", "refs/git-fhir/mark", "refs/notes/fhir", "refs/tags-not/x", "refs/heads/mainly")


@pytest.fixture
def many_refs(record: str, git: Git) -> str:
    for name in (*REFS, *HIDDEN):
        git("update-ref", name, "main")
    # As somebody may have set it for other ways in.
    git("config", "transfer.hideRefs", "refs/tags")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    git("config", "uploadpack.hideRefs", "!refs/heads/other")
    return record


@pytest.mark.parametrize("version", [0, 1])
def test_it_tells_of_main_and_the_tags(many_refs, version):
    """https://git-scm.com/docs/gitprotocol-http#_smart_clients"""
    told, failed = said(many_refs, None, version)

    assert not failed
    assert told.startswith(line("version 1")) == (version == 1)
    names = {each.split(b"\0")[0].rpartition(b" ")[2].decode() for each in told.splitlines()}
    assert {name for name in names if "/" in name} == set(REFS)
    assert b"filter" in told
    assert b"allow-tip-sha1-in-want" not in told
    assert b"allow-reachable-sha1-in-want" not in told


def test_in_version_2_it_tells_what_it_can_and_then_the_same_refs(many_refs):
    """https://git-scm.com/docs/gitprotocol-v2#_ls_refs"""
    told, _ = said(many_refs, None, 2)
    refs, failed = said(many_refs, line("command=ls-refs") + DELIMITER + FLUSH, 2)

    assert told.startswith(line("version 2"))
    assert b"fetch=shallow wait-for-done filter" in told
    assert not failed
    assert {each.rpartition(b" ")[2].decode() for each in refs.splitlines() if each != FLUSH} == {
        "HEAD",
        *REFS,
    }


def test_what_a_hidden_ref_leads_to_is_not_given(record, git, large):
    git("update-ref", "-d", "refs/tags/large")
    git("update-ref", "refs/git-fhir/large", large)

    told, failed = said(record, wanting(large))

    assert failed
    assert b"not our ref" in told


def test_what_is_asked_for_comes_in_pieces(record, large):
    upload = Upload(record, wanting(large), timeout=PATIENCE)
    pieces = list(upload)

    assert sum(map(len, pieces)) > 1 << 20
    assert max(map(len, pieces)) <= 1 << 16
    assert min(map(len, pieces)) > 0
    assert not upload.failed
    upload.close()


def group(leader: int) -> set[int]:
    """The processes of a group that still run, or have run and nobody has asked how that ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == leader:
            found.add(int(path.parent.name))
    return found


def ended(process: int) -> bool:
    """Whether it ends while this waits. https://man7.org/linux/man-pages/man2/pidfd_open.2.html"""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        done = bool(selector.select(PATIENCE))
    os.close(descriptor)
    return done


def test_closed_early_nothing_of_it_runs_on(record, large):
    """Nor what it has started: git pack-objects stands at a full pipe."""
    upload = Upload(record, wanting(large), timeout=PATIENCE)
    next(upload)
    processes = group(upload.process)
    assert upload.process in processes

    upload.close()
    upload.close()

    assert all(map(ended, processes))
    assert upload.process not in group(upload.process)


def test_it_is_nicer_than_whoever_asks(record, large):
    """Requests go before clones."""
    upload = Upload(record, wanting(large), timeout=PATIENCE)
    next(upload)

    nice = {os.getpriority(os.PRIO_PROCESS, process) for process in group(upload.process)}

    assert nice == {min(os.getpriority(os.PRIO_PROCESS, 0) + POLITENESS, 19)}
    upload.close()


def test_a_deadline_cuts_it(record, large):
    clock = chain([0.0, 1.0, 9.0], repeat(10.0))
    upload = Upload(record, wanting(large), timeout=9.5, clock=lambda: next(clock))

    with pytest.raises(TimeoutError):
        list(upload)

    upload.close()
    assert upload.process not in group(upload.process)


def test_what_is_no_request_of_git_fails_and_says_why(record):
    upload = Upload(record, b"zzzz", timeout=PATIENCE)

    assert list(upload) == []

    assert upload.failed
    assert upload.said == "fatal: protocol error: bad line length character: zzzz"
    upload.close()


def test_many_haves_don_t_make_it_wait_for_its_reader(record, git, large):
    """It answers each batch of them while more are on their way: with pipes on both sides each would wait for the other."""
    main = git("rev-parse", "main")
    haves = b"".join(line(f"have {main}") + line(f"have {'1' * 40}") for _ in range(4000))
    want = line(f"want {large} multi_ack_detailed side-band-64k") + FLUSH

    told, failed = said(record, want + haves + FLUSH)

    assert not failed
    assert told.count(b"ACK") > 4000 // 32


def test_where_git_is_missing_it_says_so(record, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StorageFailed, match="git can't be run"):
        Upload(record, None, timeout=PATIENCE)


def test_a_folder_that_is_no_repository_fails(tmp_path):
    (tmp_path / "empty").mkdir()

    assert said(str(tmp_path / "empty"), None) == (b"", True)


def test_the_callers_repository_is_not_meant(record, git, monkeypatch, tmp_path):
    """https://git-scm.com/docs/git#_environment_variables"""
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "other"], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))

    assert git("rev-parse", "main").encode() in said(record, None)[0]
