"""`git clone` over HTTP: real git against a real server, and those who get nothing. docs/audit.md, "Clone" """

from __future__ import annotations

import gzip
import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from falcon.testing import TestClient

from api.app import create_app
from api.clone import protocol
from api.credentials import Credentials
from gitstore import ANONYMOUS, Journal, JournalEntry, Settings, StorageFull, Store
from tests.api.cloning import (
    ASKING,
    MAY,
    PULL,
    REFS,
    SCOPES,
    Served,
    children,
    eventually,
    fhir,
    patient,
    serve,
)
from tests.api.test_http_server import stop

VERSIONS = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = serve(tmp_path_factory.mktemp("clone"))
    with Store.open(found.record, Settings(durability="off")) as store:
        for number in range(VERSIONS):
            store.commit([patient("a", language=f"x-{number}"), patient(f"p{number}")], ANONYMOUS)
    yield found
    assert stop(found.running) == 0


# What git gets


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_clone_is_the_record(served, tmp_path, version):
    """Commit for commit, by every version of git's protocol. https://git-scm.com/docs/gitprotocol-http"""
    clone = tmp_path / "clone.git"
    served.git(
        "-c", f"protocol.version={version}", "clone", "--bare", served.url(served.secrets["mirror"]), clone
    )

    assert served.git("rev-parse", "HEAD", folder=clone) == served.head()
    assert served.git("symbolic-ref", "HEAD", folder=clone) == "refs/heads/main"
    assert served.git("rev-list", "--count", "main", folder=clone) == str(VERSIONS + 1)


def test_a_clone_can_be_verified_by_itself(served, tmp_path):
    clone = served.clone(into=tmp_path / "clone")

    assert fhir(clone, "verify").startswith("clean")
    assert len(list((clone / "Patient").rglob("*.json"))) == VERSIONS + 1


def test_the_end_of_the_record_is_enough_for_some(served, tmp_path):
    """https://git-scm.com/docs/git-clone#Documentation/git-clone.txt---depthdepth"""
    clone = served.clone("--depth", "1", into=tmp_path / "clone")
    assert served.git("rev-list", "--count", "main", folder=clone) == "1"

    served.git("fetch", "--quiet", "--unshallow", folder=clone)
    assert served.git("rev-list", "--count", "main", folder=clone) == str(VERSIONS + 1)


def test_the_contents_can_come_when_they_are_needed(served, tmp_path):
    """https://git-scm.com/docs/partial-clone"""
    clone = served.clone("--no-checkout", "--filter=blob:none", into=tmp_path / "clone")
    missing = served.git("rev-list", "--objects", "--all", "--missing=print", folder=clone)
    assert len(re.findall(r"(?m)^\?", missing)) >= VERSIONS

    served.git("checkout", "--quiet", folder=clone)

    assert len(list((clone / "Patient").rglob("*.json"))) == VERSIONS + 1


def test_a_fetch_brings_what_is_new(served, tmp_path):
    """And a token may come as Bearer, too."""
    header = f"http.extraHeader=Authorization: Bearer {served.secrets['writer']}"
    clone = tmp_path / "clone.git"
    served.git("-c", header, "clone", "--quiet", "--mirror", served.url(), clone)
    before = len(list(clone.glob("objects/pack/*.pack")))
    with Store.open(served.record, Settings(durability="off")) as store:
        store.commit([patient("fetched")], ANONYMOUS)

    served.git("-c", header, "-c", "fetch.unpackLimit=1", "fetch", "--quiet", folder=clone)

    assert served.git("rev-parse", "main", folder=clone) == served.head()
    [_, new] = sorted(clone.glob("objects/pack/*.pack"), key=lambda path: path.stat().st_mtime_ns)
    assert before == 1
    assert int.from_bytes(new.read_bytes()[8:12], "big") < 10, "objects of the pack"


def test_main_and_tags_are_all_there_is(served):
    served.git("tag", "v1", "main", folder=served.record)
    served.git("update-ref", "refs/git-fhir/mark", "main", folder=served.record)

    listed = served.git("ls-remote", served.url(served.secrets["mirror"]))

    assert {each.split("\t")[1] for each in listed.splitlines()} == {
        "HEAD",
        "refs/heads/main",
        "refs/tags/v1",
    }


def test_a_large_question_comes_packed(served):
    """git packs what is longer than 1,024 bytes. https://git-scm.com/docs/gitprotocol-http#_smart_service_git_upload_pack"""
    have = b"".join(b"0032have %040x\n" % number for number in range(100))
    question = b"0032want %s\n0000%s0009done\n" % (served.head().encode(), have)

    packed = served.ask("POST", PULL, body=gzip.compress(question), Content_Encoding="gzip", **content())
    plain = served.ask("POST", PULL, body=question, **content())

    assert packed[0] == plain[0] == 200
    assert packed[1]["Content-Type"] == "application/x-git-upload-pack-result"
    assert packed[2].startswith(b"0008NAK\nPACK")
    assert packed[2] == plain[2]


def content() -> dict[str, str]:
    return {"Content_Type": ASKING["Content-Type"]}


def test_the_log_tells_who_cloned_how_much_and_for_how_long(served):
    """As they count for metrics and limits, too."""
    status, headers, body = served.ask("GET", REFS)

    assert status == 200
    assert headers["Content-Type"] == "application/x-git-upload-pack-advertisement"
    assert headers["Cache-Control"] == "private, no-cache"
    [line] = [each for each in served.running.lines() if each.get("requestId") == headers["X-Request-Id"]]
    assert (line["author"], line["interaction"], line["status"]) == ("Ada Lovelace", "clone", 200)
    assert line["bytes"] == len(body)
    assert line["milliseconds"] > 0


def test_the_access_journal_says_that_no_patient_was_left_out(served):
    """A clone gives out everybody's data; nobody counts them."""
    _, headers, _ = served.ask("POST", PULL, body=b"0000", **content())

    def of_this_request() -> list[dict[str, Any]]:
        texts = [path.read_text() for path in served.record.glob("git-fhir/journal/*.ndjson")]
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        return [line for line in lines if line.get("request") == headers["X-Request-Id"]]

    # Lines reach the files a little after their answers.
    eventually(of_this_request)
    [line] = of_this_request()
    assert (line["principal"], line["interaction"], line["status"]) == ("Ada Lovelace", "clone", 200)
    assert line["more"] is True


# Who gets nothing


@pytest.mark.parametrize("kind", sorted(set(SCOPES) - set(MAY)))
def test_who_may_not_see_everything_gets_nothing(served, kind):
    """A clone can't leave anything out: 403, and git shows why."""
    for method, path, body in (("GET", REFS, None), ("POST", PULL, b"0000")):
        status, headers, text = served.ask(method, path, kind, body, **content())
        assert status == 403
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert b"git-fhir/clone" in text

    said = served.git("clone", served.url(served.secrets[kind]), "never", fails=True)

    assert "remote: A clone holds every version of every resource." in said


def test_labels_that_are_withheld_withhold_the_clone(served):
    """fhir.withhold: what bears such a label is not there for those without the role, so no clone is."""
    settings = Settings(durability="off", withhold=("urn:x|secret",))
    credentials = Credentials(str(served.record), settings, lambda: time.time_ns() // 1000)
    with Store.open(served.record, settings) as store:
        client = TestClient(create_app(store, settings, credentials=credentials))
        header = {"Authorization": f"Bearer {served.secrets['mirror']}"}

        assert client.simulate_get(REFS, headers=header).status_code == 403


@pytest.mark.parametrize(
    ("scope", "status"), [(None, 200), ("user/*.rs git-fhir/*", 200), ("user/*.rs", 403)]
)
def test_who_brings_no_credentials_may_what_the_operator_says(served, scope, status):
    """fhir.anonymousScope; by default everything, clones too."""
    settings = Settings(durability="off", anonymous_scope=scope)
    credentials = Credentials(str(served.record), settings, lambda: 0, allow_anonymous=True)
    with Store.open(served.record, settings) as store:
        client = TestClient(create_app(store, settings, credentials=credentials))

        assert client.simulate_get(REFS, headers={"Host": "localhost"}).status_code == status


def test_where_the_journal_has_no_room_nothing_is_given_out(served):
    """And the place is free for the next one."""

    class Full(Journal):
        def __init__(self) -> None:
            pass

        def record(self, *entries: JournalEntry) -> None:
            raise StorageFull("no space left")

    settings = Settings(durability="off", max_clones=1)
    before = children(os.getpid())
    with Store.open(served.record, settings) as store:
        client = TestClient(create_app(store, settings, journal=Full()))
        for _ in range(3):
            response = client.simulate_get(REFS, headers={"Host": "localhost"})
            assert response.status_code == 507
            assert b"service=" not in response.content
    assert children(os.getpid()) == before


def test_git_is_asked_for_a_password(served):
    """401 with Basic, on whatever it asks for below /fhir.git. https://www.rfc-editor.org/rfc/rfc7617"""
    for path in (REFS, "/fhir.git/info/refs?service=git-receive-pack", "/fhir.git/HEAD"):
        status, headers, _ = served.running.request("GET", path)
        assert status == 401
        assert [
            each.split()[0] for each in headers.get_all("WWW-Authenticate")[0].split(", ") if " " in each
        ] == [
            "Basic",
            "Bearer",
        ]

    assert "could not read Username" in served.git("clone", served.url(), "never", fails=True)


def test_a_wrong_token_is_refused(served):
    said = served.git("clone", served.url("gf_wrong"), "never", fails=True)

    assert "remote: These credentials are unknown, expired or revoked." in said
    assert "Authentication failed" in said


def test_a_push_is_refused_and_told_the_way(served, tmp_path):
    clone = served.clone(kind="writer", into=tmp_path / "clone")
    served.git("commit", "--quiet", "--allow-empty", "-m", "by hand", folder=clone)

    said = served.git("push", folder=clone, fails=True)

    assert "remote: Nothing can be pushed here." in said
    assert f"http://127.0.0.1:{served.running.port}/fhir" in said
    assert served.ask("POST", "/fhir.git/git-receive-pack", "writer", b"0000")[0] == 403
    assert served.git("rev-parse", "main", folder=served.record) == served.head()


def test_the_dumb_protocol_is_refused(served):
    """One line that says why. https://git-scm.com/docs/gitprotocol-http#_dumb_clients"""
    status, _, text = served.ask("GET", "/fhir.git/info/refs")

    assert status == 403
    assert text.count(b"\n") == 1
    for path in ("HEAD", "objects/info/packs", "config", "git-fhir/tokens"):
        assert served.ask("GET", f"/fhir.git/{path}")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("HEAD", REFS, {}, None, 405),
        ("GET", PULL, {}, None, 405),
        ("POST", PULL, {"Content_Type": "text/plain"}, b"0000", 415),
        ("POST", PULL, {"Content_Encoding": "br"}, b"0000", 415),
        ("POST", PULL, {"Content_Encoding": "gzip"}, b"no gzip", 400),
        ("POST", PULL, {}, b"zzzz", 400),
        ("POST", PULL, {}, b"0011command=fetch", 400),
        ("POST", PULL, {}, b"0000", 200),
        ("POST", PULL, {}, b"", 400),
        ("OPTIONS", PULL, {}, None, 204),
    ],
)
def test_what_git_never_sends_is_the_clients_fault(served, method, path, headers, body, status):
    got, _, text = served.ask(method, path, "mirror", body, **{**content(), **headers})

    assert got == status, text


def test_a_bomb_for_git_is_not_unpacked(served):
    """413: 16 MiB are more than git ever asks with, and 40 MiB of nothing are some 40 KiB packed."""
    bomb = gzip.compress(bytes(40 * 1024**2))
    assert len(bomb) < 100_000

    status, _, text = served.ask("POST", PULL, body=bomb, Content_Encoding="gzip", **content())

    assert status == 413
    assert b"16777216" in text


@pytest.mark.parametrize(
    ("header", "version"),
    [
        ("", 0),
        ("version=2", 2),
        ("version=1", 1),
        ("key=1:version=2:version=1", 2),
        ("version=3", 0),
        ("version=22", 0),
    ],
)
def test_of_the_versions_that_a_client_speaks_the_highest_counts(header, version):
    """https://git-scm.com/docs/git#Documentation/git.txt-codeGITPROTOCOLcode"""
    assert protocol(header) == version
