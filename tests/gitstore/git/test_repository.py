"""Finding a record, refusing what is none, its settings, and reading objects while packs come and go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gitstore.errors import Invalid, NotFound, RepositoryDamaged, RepositoryRefused
from gitstore.git import layout
from gitstore.git.commits import format_commit
from gitstore.git.pack import BLOB, COMMIT, Pack
from gitstore.git.repository import Repository, create, discover, read_settings
from gitstore.git.trees import Trees, nest
from gitstore.settings import Settings
from gitstore.version import Author

EVE = Author("Eve", "eve@example.org")


def commit_files(git, record, files: dict[str, bytes]) -> None:
    """Put main at a commit that holds just these files."""
    git("read-tree", "--empty")
    lines = "".join(
        f"100644 {git('hash-object', '-w', '--stdin', input=data)}\t{path}\0" for path, data in files.items()
    )
    git("update-index", "-z", "--index-info", input=lines)
    git("update-ref", "refs/heads/main", git("commit-tree", git("write-tree"), "-m", "x"))


def refusal(record: str) -> str:
    with pytest.raises(RepositoryRefused) as refused:
        Repository(record).check_format()
    text = str(refused.value)
    assert "\n" not in text
    assert record in text
    return text


REFUSED = {
    b"": "can't be read",
    b"{": "can't be read",
    b"\xff": "can't be read",
    b"[]": "of format None",
    b"null": "of format None",
    b'"format"': "of format None",
    b"{}": "of format None",
    b'{"format": 2, "fhirVersion": "4.0.1"}': "of format 2 for FHIR '4.0.1'",
    b'{"format": "1", "fhirVersion": "4.0.1"}': "of format '1'",
    b'{"format": 1, "fhirVersion": "5.0.0"}': "for FHIR '5.0.0'",
    b'{"format": 1}': "for FHIR None",
    b'{"format": 1, "fhirVersion": ["4.0.1"]}': "for FHIR ['4.0.1']",
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.items())
def test_an_unknown_format_is_refused_in_one_line(record, git, text, expected):
    """docs/format.md: a reader that doesn't know the format refuses."""
    commit_files(git, record, {layout.FORMAT_FILE: text})

    assert expected in refusal(record)


def test_a_repository_without_the_format_file_is_refused(record, git):
    commit_files(git, record, {"README.md": b"hello"})

    assert "holds no git-fhir record" in refusal(record)


def test_a_folder_of_the_name_of_the_format_file_is_refused(record, git):
    commit_files(git, record, {f"{layout.FORMAT_FILE}/x": b"{}"})

    assert "holds no git-fhir record" in refusal(record)


def test_a_repository_without_main_is_refused(tmp_path, git_in):
    git_in(tmp_path)("init", "--quiet", "--bare")

    assert "no branch main" in refusal(str(tmp_path))


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    assert "can't be opened" in refusal(str(tmp_path))


def test_a_shallow_clone_is_refused(record, git_in, tmp_path):
    """It has no beginning, so versions can't be counted."""
    git = git_in(record)
    git("update-ref", "refs/heads/main", git("commit-tree", "main^{tree}", "-p", "main", "-m", "x"))
    git("clone", "--quiet", "--bare", "--depth=1", f"file://{record}", str(tmp_path / "shallow.git"))

    assert "shallow" in refusal(str(tmp_path / "shallow.git"))


def test_later_members_of_the_format_file_are_ignored(record, git):
    text = b'{"format": 1, "fhirVersion": "4.0.1", "later": true}'
    commit_files(git, record, {layout.FORMAT_FILE: text})

    Repository(record).check_format()


# Finding


def test_a_record_is_found_from_any_folder_within(record, git_in, tmp_path):
    """As git finds it: the folder itself, or one below, of a bare repository or a work tree."""
    git_in(tmp_path)("clone", "--quiet", record, "clone")
    below = tmp_path / "clone" / "a" / "b"
    below.mkdir(parents=True)

    assert discover(record) == os.path.realpath(record)
    assert discover(Path(record) / "objects") == os.path.realpath(record)
    assert discover(below) == os.path.realpath(tmp_path / "clone" / ".git")


@pytest.mark.parametrize("folder", ["", "not/there"])
def test_where_no_repository_is_none_is_found(tmp_path, folder):
    with pytest.raises(RepositoryRefused, match="No git repository at or above"):
        discover(tmp_path / folder)


# Making


def test_a_new_repository_is_bare_and_as_the_format_says(tmp_path, git_in):
    """Branch main, SHA-1, files backend, whatever the machine's git is configured to do."""
    (tmp_path / "config").write_text("[init]\n\tdefaultBranch = other\n\tdefaultObjectFormat = sha256\n")
    os.environ["GIT_CONFIG_GLOBAL"] = str(tmp_path / "config")  # put back by the fixture that set it

    git = git_in(create(tmp_path / "new.git"))

    assert git("rev-parse", "--is-bare-repository", "--show-object-format") == "true\nsha1"
    assert git("symbolic-ref", "HEAD") == "refs/heads/main"
    found = git("config", "--local", "--list").split("\n")
    assert {"gc.auto=0", "receive.denynonfastforwards=true", "receive.denydeletes=true"} <= set(found)
    assert not (tmp_path / "new.git" / "hooks").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")

    with pytest.raises(RepositoryRefused, match="is not empty"):
        create(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_can_not_be_made_a_repository(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(RepositoryRefused, match="file"):
        create(tmp_path / "file")


# Settings

GOOD = [
    ("durability", "off", "durability", "off"),
    ("unchangedUpdate", "skip", "unchanged_update", "skip"),
    ("conditionalDelete", "multiple", "conditional_delete", "multiple"),
    ("patchNarrative", "reject", "patch_narrative", "reject"),
    ("maxBody", "1000", "max_body", 1000),
    ("maxBody", "2k", "max_body", 2048),
    ("maxBundle", "1G", "max_bundle", 1024**3),
    ("maxEntries", " 7 ", "max_entries", 7),
    ("lockTimeout", "0.5", "lock_timeout", 0.5),
    ("hostName", "fhir.example.org", "host_name", ("fhir.example.org",)),
    ("baseUrl", "https://example.org/fhir", "base_url", "https://example.org/fhir"),
    ("corsOrigin", "https://app.example.org", "cors_origin", ("https://app.example.org",)),
    ("trustedProxy", "10.0.0.0/8", "trusted_proxy", ("10.0.0.0/8",)),
    ("maxInFlight", "4", "max_in_flight", 4),
    ("maxInFlight", "0", "max_in_flight", 0),
    ("issuer", "https://login.example.org", "issuer", ("https://login.example.org",)),
    ("audience", "https://fhir.example.org/fhir", "audience", ("https://fhir.example.org/fhir",)),
    ("anonymousScope", "user/*.rs", "anonymous_scope", "user/*.rs"),
]


@pytest.mark.parametrize(("variable", "value", "field", "expected"), GOOD)
def test_settings_are_gits_configuration(record, git, variable, value, field, expected):
    """docs/operations.md, "Settings"."""
    git("config", f"fhir.{variable}", value)

    assert read_settings(record) == Settings(**{field: expected})


def test_the_last_value_counts_and_host_names_add_up(record, git):
    git("config", "--add", "fhir.maxEntries", "1")
    git("config", "--add", "fhir.maxEntries", "2")
    git("config", "--add", "fhir.hostName", "a.example")
    git("config", "--add", "fhir.hostname", "b.example")

    assert read_settings(record) == Settings(max_entries=2, host_name=("a.example", "b.example"))


def test_without_settings_there_are_the_defaults(record):
    assert read_settings(record) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("durability", "maybe"),
        ("durability", "Full"),
        ("conditionalDelete", "all"),
        ("patchNarrative", "remove"),
        ("unchangedUpdate", ""),
        ("maxBody", "much"),
        ("maxBody", ""),
        ("maxBody", "0"),
        ("maxBody", "-1"),
        ("maxBody", "1.5"),
        ("maxBody", "5t"),
        ("maxBody", "k"),
        ("maxBundle", "99999999999999999999"),
        ("maxEntries", "inf"),
        ("maxInFlight", "-1"),
        ("maxInFlight", "many"),
        ("lockTimeout", "inf"),
        ("lockTimeout", "nan"),
        ("lockTimeout", "0"),
        ("lockTimeout", "soon"),
    ],
)
def test_a_setting_that_can_not_be_understood_is_refused_by_name(record, git, variable, value):
    """Better no start than a start with another meaning."""
    git("config", f"fhir.{variable}", value)

    with pytest.raises(Invalid, match=f"fhir.{variable} is"):
        read_settings(record)


def test_a_configuration_that_git_can_not_read_is_refused(record):
    """With the words of git, and no traceback."""
    Path(record, "config").write_text("[core\n")

    with pytest.raises(RepositoryRefused, match=r"The configuration of .* can't be read: .*section"):
        read_settings(record)


# Reading


def publish_by_hand(record: str, files: dict[str, str]) -> list[str]:
    """Put a pack with these files, and a commit of them, into the record; returns the ids of the commit and the blobs."""
    pack = Pack()
    blobs = {path: pack.add(BLOB, text.encode()) for path, text in files.items()}
    tree = Trees(lambda _: b"").edit(None, nest(dict(blobs)), pack)
    assert tree is not None
    commit = pack.add(COMMIT, format_commit(tree, None, EVE, EVE, 0, "x\n"))
    name, pieces, index_bytes = pack.files()
    folder = Path(record, "objects", "pack")
    (folder / f"pack-{name}.pack").write_bytes(b"".join(pieces))
    (folder / f"pack-{name}.idx").write_bytes(index_bytes)
    return [commit.hex(), *(blob.hex() for blob in blobs.values())]


def test_an_object_is_read_byte_for_byte(record, git):
    id = git("hash-object", "-w", "--stdin", input=b"\x00\xff\r\n")
    repository = Repository(record)

    assert repository.object(id) == repository.blob(id) == b"\x00\xff\r\n"


@pytest.mark.parametrize("id", ["1" * 40, "", "x", "g" * 40])
def test_an_object_that_is_not_there_is_damage_that_names_it(record, id):
    with pytest.raises(RepositoryDamaged, match=f"The object {id} is missing or broken"):
        Repository(record).object(id)


def test_an_object_with_flipped_bits_is_damage(record, git):
    id = git("hash-object", "-w", "--stdin", input="x" * 100)
    path = Path(record, "objects", id[:2], id[2:])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))

    with pytest.raises(RepositoryDamaged):
        Repository(record).blob(id)


def test_objects_are_read_on_after_a_repack_has_removed_their_packs(record, git):
    """Whoever has the repository open finds the objects where they are now."""
    ids = [publish_by_hand(record, {"x": f"text {number}"})[1] for number in range(5)]
    git("update-ref", "refs/heads/kept", git("commit-tree", "main^{tree}", "-m", "x"))
    repository = Repository(record)
    assert repository.object(ids[0]) == b"text 0"
    for id in ids:
        git("update-ref", f"refs/keep/{id}", id)

    git("repack", "-ad", "--quiet")

    assert [repository.object(id) for id in ids] == [f"text {n}".encode() for n in range(5)]
    assert [repository.blob(id) for id in ids] == [f"text {n}".encode() for n in range(5)]


def test_a_pack_that_vanishes_while_it_is_looked_at_is_looked_for_anew(record, git, monkeypatch):
    """libgit2 tells of that as an error of the operating system, and not as an object that is missing."""
    id = publish_by_hand(record, {"x": "text"})[1]
    repository = Repository(record)
    read, errors = repository._read, [OSError("invalid packfile")]

    def fails_once(id: str) -> bytes:
        if errors:
            raise errors.pop()
        return read(id)

    monkeypatch.setattr(repository, "_read", fails_once)

    assert repository.object(id) == b"text"
    errors += [OSError("invalid packfile")] * 2
    with pytest.raises(RepositoryDamaged, match="invalid packfile"):
        repository.object(id)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors in /proc")
def test_packs_that_are_gone_are_let_go_of(record, git):
    """A file that is open keeps its room on the disk, also after it was removed."""
    old = publish_by_hand(record, {"x": "old"})[1]
    git("update-ref", "refs/keep/old", old)
    repository = Repository(record)
    assert repository.blob(old) == b"old"
    git("repack", "-ad", "--quiet")
    new = publish_by_hand(record, {"x": "new"})[1]

    assert repository.blob(new) == b"new"

    folder = Path("/proc/self/fd")
    open_files = [os.readlink(path) for path in folder.iterdir() if path.is_symlink()]
    assert [name for name in open_files if record in name and name.endswith("(deleted)")] == []


def test_what_is_remembered_is_bounded(record):
    """A cache by object id is always right; it must only not grow for ever."""
    repository = Repository(record, cache_bytes=9600)
    _, *ids = publish_by_hand(record, {str(number): "x" * 90 + str(number) for number in range(40)})
    _, large = publish_by_hand(record, {"large": "y" * 601})

    for _ in range(2):
        assert [repository.blob(id)[90:] for id in ids] == [str(number).encode() for number in range(40)]
    assert repository.blob(large) == b"y" * 601

    assert 0 < len(repository._cache) < 9600 // 500, "each has a place, which counts"
    assert repository._cached == sum(len(blob) + 500 for blob in repository._cache.values()) <= 9600
    assert large not in repository._cache


DESCRIPTORS = """
import os, resource, sys
from gitstore.git.repository import Repository
from tests_packs import publish_by_hand
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
repository = Repository(sys.argv[1])
for number in range(500):
    commit, blob = publish_by_hand(sys.argv[1], {"x": f"text {number}"})
    if sys.argv[2] == "blobs":
        assert repository.blob(blob) == f"text {number}".encode()
    else:
        assert repository.commit(commit).message == "x\\n"
print(len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
@pytest.mark.parametrize("read", ["blobs", "commits"])
def test_descriptors_do_not_grow_with_packs(record, tmp_path, read):
    """libgit2 never closes a pack: 500 new packs, all read, by a process that may open 200 files."""
    (tmp_path / "tests_packs.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])

    result = subprocess.run(
        [sys.executable, "-c", DESCRIPTORS, record, read],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 150


# Revisions


@pytest.mark.parametrize("revision", ["main", "HEAD", "main~0", "HEAD^{commit}"])
def test_a_revision_names_a_commit_as_in_git(record, git, revision):
    """https://git-scm.com/docs/gitrevisions"""
    assert Repository(record).resolve(revision) == git("rev-parse", revision)


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "nothing",
        "HEAD~1",
        "HEAD^{tree}",
        "HEAD..main",
        "0" * 40,
        "HEAD:README.md",
        "^HEAD",
        "\x00",
        "\ud800",
        "@{1",
    ],
)
def test_a_revision_that_names_no_commit_is_not_found(record, revision):
    with pytest.raises(NotFound, match="names no commit"):
        Repository(record).resolve(revision)


def test_a_prefix_of_an_id_and_a_tag_name_a_commit(record, git):
    git("tag", "-a", "v1", "-m", "x", "main")
    id = git("rev-parse", "main")
    repository = Repository(record)

    assert repository.resolve(id[:10]) == repository.resolve("v1") == id


def test_one_commit_builds_on_another(record, git):
    first = git("rev-parse", "main")
    second = git("commit-tree", "main^{tree}", "-p", "main", "-m", "x")
    repository = Repository(record)

    assert repository.contains(first, second)
    assert repository.contains(first, first)
    assert not repository.contains(second, first)
    assert not repository.contains("1" * 40, first)
