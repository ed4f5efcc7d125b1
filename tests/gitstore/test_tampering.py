"""Kinds of tampering with a signed record and its journal, and what tells of each: verify, signatures, or an anchor.

The forger has no key, unless a test says so: signatures stay as they were. docs/security.md, "Signatures"
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from signing_keys import key_file, public_line

from gitstore import (
    AllowedSigners,
    Author,
    Create,
    Delete,
    Journal,
    JournalEntry,
    Settings,
    Store,
    Update,
    check_anchor,
    check_signatures,
    init,
    parse_allowed_signers,
    path_of,
    take_anchor,
)
from gitstore.fhir.ids import ResourceId
from gitstore.git.commits import add_signature, split_signature
from gitstore.git.layout import FIRST_FILES
from gitstore.git.repository import Repository
from gitstore.git.signing import signer
from gitstore.journal.lines import FOLDER
from tests.conftest import START, Clock, copy_record
from tests.gitstore.tampering import ADA, PATH, PATIENT, Edit, Forger, Git, check_index, verified

OTHER = ResourceId("Observation", "o")
OTHER_PATH = path_of(OTHER)
OPTIONS = Settings(durability="off", validation="off")
DELETED, REVIVED, TRANSACTION, LAST = 8, 9, 10, 20
"""Sequences: version n of the patient is made by commit n + 1 up to here, and then again by each from 11 on."""


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record of 20 signed commits with a journal of 5 lines."""
    folder = tmp_path_factory.mktemp("told")
    key = str(key_file(folder))
    record = init(folder / "record.git", clock=lambda: START, signing_key=key)
    settings = Settings(durability="off", validation="off", signing_key=key)
    with Store.open(record, settings, clock=Clock(), new_id=lambda: "id-1") as store:
        for number in range(2, LAST + 1):
            store.commit(*_unit(number), agent="https://id.example ada app" if number == 3 else None)
    with closing(Journal.open(record, durable=False, clock=Clock())) as journal:
        for number in range(4):
            journal.record(JournalEntry("Ada Lovelace", "read", 200, f"r-{number}", type="Patient", id="p"))
    return record


def _unit(number: int) -> tuple[list[Update | Delete | Create], Author]:
    update = Update(PATIENT, {"resourceType": "Patient", "id": "p", "language": f"x-{number}"})
    if number == DELETED:
        return [Delete(PATIENT)], ADA
    if number == TRANSACTION:
        return [update, Update(OTHER, {"resourceType": "Observation", "id": "o"})], ADA
    return [update], ADA


@pytest.fixture
def record(told: str, tmp_path: Path) -> str:
    return str(copy_record(told, tmp_path / "record.git"))


@pytest.fixture
def store(record: str) -> Iterator[Store]:
    with Store.open(record, OPTIONS, clock=Clock(START + 1_000_000_000)) as opened:
        yield opened


@pytest.fixture
def allowed() -> AllowedSigners:
    return parse_allowed_signers(f"git-fhir@fhir.invalid {public_line('ed25519')}", "signers")


@pytest.fixture
def forger(git: Git, record: str) -> Forger:
    return Forger(git, record)


def test_the_record_is_sound_and_signed_before(store, allowed):
    assert verified(store) == []
    assert list(check_signatures(store.git_dir, allowed)) == []
    assert store.snapshot().commit.sequence == LAST


def test_a_forger_who_changes_nothing_changes_nothing(store, forger):
    """The tool of these tests by itself makes no finding."""
    forger.remake(2)

    assert forger.git("rev-list", "--reverse", "main").split("\n") == forger.ids


def language(old: str, new: str) -> Edit:
    return lambda text: text.replace(f'"x-{old}"', f'"x-{new}"')


Forge = Callable[[Forger], str]
"""Returns the id of the commit that it made."""


def swap(forger: Forger) -> str:
    third = forger.file(3)
    made = forger.remake(3, tree=forger.put(PATH, forger.file(4)))
    forger.ids = forger.git("rev-list", "--reverse", "main").split("\n")
    forger.remake(4, tree=forger.put(PATH, third))
    return made


def swap_commits(forger: Forger) -> str:
    third, fourth = (forger.git("log", "-1", "--format=%B", forger.ids[at]) for at in (2, 3))
    return forger.remake(3, lambda text: text.replace(third.strip(), fourth.strip()))


def odd_mode(forger: Forger) -> str:
    folder = PATH.rpartition("/")[0]
    change = lambda data: data.replace(b"100644 p.json", b"100664 p.json")  # noqa: E731 - it is said once
    return forger.remake(LAST, tree=lambda tree: forger.entries(folder, change, tree))


def empty_folder(forger: Forger) -> str:
    empty = bytes.fromhex(forger.write(b"", "tree"))
    return forger.remake(
        LAST, tree=lambda tree: forger.entries("", lambda data: data + b"40000 Secret\x00" + empty, tree)
    )


def wrong_folder(forger: Forger) -> str:
    content = forger.file(LAST, OTHER_PATH)
    moved = forger.put("Observation/0/0/0/o.json", content)
    gone = forger.put(OTHER_PATH, None)
    return forger.remake(LAST, tree=lambda tree: gone(moved(tree)))


IN_GIT: dict[str, tuple[Forge, str, str]] = {
    "a file is edited in a new commit without trailers": (
        lambda f: f.add("Fix a typo\n", f.put(PATH, language("20", "21")(f.file(LAST)))),
        "foreign",
        "doesn't end in FHIR trailers",
    ),
    "a file is edited in a new commit with the trailers of another": (
        lambda f: f.add(f.git("log", "-1", "--format=%B", "main"), f.put(PATH, f.file(3))),
        "foreign",
        "not later than that of the commit before it",
    ),
    "a file is edited by hand": (
        lambda f: f.remake(5, tree=f.put(PATH, f.file(5).replace('"x-5"', '"x-55" '))),
        "file",
        "not in the stored form",
    ),
    "a trailer names another resource": (
        lambda f: f.remake(5, lambda t: t.replace("PUT Patient/p/", "PUT Patient/q/")),
        "foreign",
        "its trailers and its tree differ",
    ),
    "a trailer says a create": (
        lambda f: f.remake(5, lambda t: t.replace("PUT Patient/p/", "POST Patient/p/")),
        "verb",
        "does not fit what was there before",
    ),
    "the words below a trailer": (
        lambda f: f.remake(5, lambda t: t + "FHIR-Approved: yes\n"),
        "trailer",
        "unknown to this version",
    ),
    "a commit is dropped": (lambda f: f.remake(5, drop=True), "counter", "so 4 was expected"),
    "a deletion is dropped": (lambda f: f.remake(DELETED, drop=True), "counter", "so 7 was expected"),
    "two versions are swapped": (swap, "meta", "the file says Patient/p version"),
    "two commits say each other's words": (swap_commits, "foreign", "not later than"),
    "a version number is repeated": (
        lambda f: f.remake(5, lambda t: t.replace("_history/4", "_history/3")),
        "counter",
        "the version before it is 3, so 4 was expected",
    ),
    "a version number is left out": (
        lambda f: f.remake(5, lambda t: t.replace("_history/4", "_history/5")),
        "counter",
        "the version before it is 3, so 4 was expected",
    ),
    "lastUpdated of a file": (
        lambda f: f.remake(5, tree=f.put(PATH, f.file(5).replace("12:00:04.000000Z", "12:00:04.000001Z"))),
        "file",
        "its lastUpdated is not the commit's",
    ),
    "lastUpdated of a trailer": (
        lambda f: f.remake(5, lambda t: t.replace("12:00:04.000000Z", "12:00:04.000001Z")),
        "file",
        "its lastUpdated is not the commit's",
    ),
    "the author's time": (
        lambda f: f.remake(
            5, lambda t: t.replace("ada@clinic.example> 1767268804", "ada@clinic.example> 1767268805")
        ),
        "date",
        "not that of its FHIR-Last-Updated",
    ),
    "the committer's time": (
        lambda f: f.remake(5, lambda t: t.replace("fhir.invalid> 1767268804", "fhir.invalid> 1767268805")),
        "header",
        "it has `committer git-fhir <git-fhir@fhir.invalid> 1767268805 +0000`",
    ),
    "the time zone": (
        lambda f: f.remake(5, lambda t: t.replace("1767268804 +0000", "1767268804 +0200", 1)),
        "header",
        "+0200",
    ),
    "the committer": (
        lambda f: f.remake(5, lambda t: t.replace("committer git-fhir <git-fhir@", "committer Eve <eve@")),
        "header",
        "committer Eve",
    ),
    "a header that nobody shows": (
        lambda f: f.remake(5, lambda t: t.replace("\n\n", "\nsecret diagnosis\n\n", 1)),
        "header",
        "it has `secret diagnosis`",
    ),
    "a file in the wrong folder": (wrong_folder, "foreign", "its trailers and its tree differ"),
    "an extra file": (
        lambda f: f.remake(LAST, tree=f.put("notes.txt", "hidden")),
        "foreign",
        "differ at notes.txt",
    ),
    "an extra resource": (
        lambda f: f.remake(LAST, tree=f.put(path_of(ResourceId("Patient", "q")), "{}\n")),
        "foreign",
        "its trailers and its tree differ",
    ),
    "an executable bit": (
        lambda f: f.remake(LAST, tree=f.put(PATH, f.file(LAST), "100755")),
        "foreign",
        "a link or executable",
    ),
    "a symbolic link": (
        lambda f: f.remake(LAST, tree=f.put(PATH, "/etc/passwd", "120000")),
        "foreign",
        "a link or executable",
    ),
    "a submodule": (
        lambda f: f.remake(LAST, tree=f.put("Patient/sub", "ab" * 20, "160000")),
        "foreign",
        "differ at Patient/sub",
    ),
    "a mode that git shows as another": (odd_mode, "tree", "it has the mode 100664"),
    "a folder without a file": (empty_folder, "tree", "it is a folder without a file"),
    "a file is gone without a trailer": (
        lambda f: f.remake(LAST, tree=f.put(OTHER_PATH, None)),
        "foreign",
        "its trailers and its tree differ",
    ),
    "the attributes of the first commit": (
        lambda f: f.remake(1, tree=f.put(".gitattributes", "*.json filter=evil\n"), until=LAST),
        "file",
        "the content that each record begins with",
    ),
    "the form of the first commit's format": (
        lambda f: f.remake(
            1, tree=f.put("git-fhir.json", FIRST_FILES["git-fhir.json"].replace(" ", "")), until=LAST
        ),
        "file",
        "the content that each record begins with",
    ),
}


@pytest.mark.parametrize("what", IN_GIT)
def test_tampering_with_git_is_found_by_verify_and_by_signatures(store, forger, allowed, what):
    forge, kind, text = IN_GIT[what]
    made = forge(forger)

    [first, *_] = check_signatures(store.git_dir, allowed)
    found = verified(store)

    assert any(each.kind == kind and text in each.text for each in found), found
    assert first.where == made
    assert first.kind == ("unsigned" if "in a new commit" in what else "signature")


CONSISTENT: dict[str, Forge] = {
    "another author": lambda f: f.remake(
        5, lambda t: t.replace("author Ada Lovelace <ada@", "author Eve <eve@")
    ),
    "another agent": lambda f: f.remake(3, lambda t: t.replace("ada app", "eve app")),
    "other words of the author": lambda f: f.remake(
        5, lambda t: t.replace("\n\nFHIR", "\n\nSorry.\n\nFHIR", 1)
    ),
    "a file that says something else, in the stored form": lambda f: f.remake(
        5, tree=f.put(PATH, language("5", "55")(f.file(5)))
    ),
    "another moment, in file and trailer": lambda f: f.remake(
        5,
        lambda t: t.replace("12:00:04.000000Z", "12:00:04.500000Z"),
        tree=f.put(PATH, f.file(5).replace("12:00:04.000000Z", "12:00:04.500000Z")),
    ),
}


@pytest.mark.parametrize("forge", CONSISTENT.values(), ids=CONSISTENT)
def test_a_forgery_that_tells_one_story_is_found_by_signatures_alone(store, forger, allowed, forge):
    """Nothing contradicts itself; but who forged it can't sign it, nor any commit after it."""
    made = forge(forger)

    assert made != forger.ids[4]
    assert verified(store) == []
    found = list(check_signatures(store.git_dir, allowed))
    assert (found[0].kind, found[0].where) == ("signature", made)
    assert {each.kind for each in found} == {"signature"}
    assert "changed after it was signed" in found[0].text


def test_a_commit_under_a_forged_name_without_a_signature_is_found(store, forger, allowed):
    """It is just as the server would have made it, but for the signature."""
    made = forger.remake(
        LAST, lambda t: t.replace("author Ada Lovelace <ada@", "author Grace <grace@"), sign=lambda data: data
    )

    assert verified(store) == []
    found = list(check_signatures(store.git_dir, allowed))
    assert [(each.kind, each.where) for each in found] == [("unsigned", made)]


def test_a_commit_that_is_signed_with_another_key_is_found(store, forger, allowed, tmp_path):
    """A good signature, of somebody who may not sign."""
    made = forger.remake(LAST, sign=signer(str(key_file(tmp_path, number=1))))

    assert verified(store) == []
    [found] = check_signatures(store.git_dir, allowed)
    assert (found.kind, found.where) == ("signer", made)
    assert "is unknown" in found.text


def test_a_signature_of_another_commit_is_found(store, forger, allowed):
    """A true one, of the key that may sign."""
    _, other = split_signature(Repository(store.git_dir).object(forger.ids[10]))
    made = forger.remake(LAST, sign=lambda data: add_signature(data, other or b""))

    [found] = check_signatures(store.git_dir, allowed)
    assert (found.kind, found.where) == ("signature", made)


def test_a_secret_purge_by_the_holder_of_the_key_is_found_by_an_anchor_alone(
    store, forger, allowed, tmp_path
):
    """Who has the key can write the whole past anew: only what is kept elsewhere knows better."""
    anchor = take_anchor(store.git_dir, store.snapshot())
    gone = forger.put(OTHER_PATH, None)
    forger.remake(
        TRANSACTION,
        lambda t: (
            t.replace("FHIR-Version: PUT Observation/o/_history/1\n", "")
            .replace("transaction 1 Patient, 1 Observation", "update Patient/p")
            .replace("FHIR-Interaction: transaction", "FHIR-Interaction: update")
        ),
        tree=gone,
        until=LAST,
        sign=signer(str(key_file(tmp_path))),
    )

    assert verified(store) == []
    assert list(check_signatures(store.git_dir, allowed)) == []
    [found] = check_anchor(store.git_dir, store.snapshot(), anchor)
    assert (found.kind, found.where) == ("anchor", forger.ids[-1])
    assert "no longer on main" in found.text


def test_commits_that_are_cut_off_at_the_end_are_found_by_the_index_or_an_anchor(store, forger, allowed, git):
    """What is left is sound and signed."""
    anchor = take_anchor(store.git_dir, store.snapshot())
    git("update-ref", "refs/heads/main", forger.ids[-3])

    assert [(each.kind, each.where) for each in store.verify()] == [("index", forger.ids[-1])]
    assert verified(store) == []
    assert list(check_signatures(store.git_dir, allowed)) == []
    [found] = check_anchor(store.git_dir, store.snapshot(), anchor)
    assert found.text == "it is no longer on main, which has 18 commits"


def test_git_can_be_told_of_no_other_past(store, forger, git):
    """Grafts and replacements show another history than the commits hold; neither is believed."""
    git("replace", forger.ids[5], forger.ids[4])
    assert verified(store) == []

    Path(store.git_dir, "info").mkdir(exist_ok=True)
    Path(store.git_dir, "info", "grafts").write_text(f"{forger.ids[5]} {forger.ids[3]}\n")
    found = list(store.verify())
    assert ("foreign", forger.ids[5]) in {(each.kind, each.where) for each in found}


def test_a_tag_that_was_moved_is_not_found(store, forger, git):
    """docs/format.md: tags are no part of the record. An anchor is what a tag would like to be."""
    git("tag", "v1", forger.ids[4])
    git("tag", "--force", "v1", forger.ids[6])

    assert verified(store) == []


@pytest.mark.parametrize("what", [f"main~5:{PATH}", "main~5^{tree}", "main~5:Patient", "main~5"])
def test_an_object_that_was_deleted_is_found(store, git, record, what):
    id = git("rev-parse", what)
    packs = list(Path(record, "objects", "pack").iterdir())
    contents = [path.read_bytes() for path in packs if path.suffix == ".pack"]
    for path in packs:
        path.unlink()
    for content in contents:
        git("unpack-objects", "-q", input=content)
    Path(record, "objects", id[:2], id[2:]).unlink()

    found = list(store.verify())

    assert {each.kind for each in found} & {"damaged", "file"}
    assert any(id in each.text or "an object is missing" in each.text for each in found), found


def test_an_object_that_was_replaced_by_another_is_found(store, git, record):
    """A file under an id that isn't that of its bytes."""
    id, other = git("rev-parse", f"main:{PATH}"), git("hash-object", "-w", "--stdin", input="{}")
    packs = list(Path(record, "objects", "pack").iterdir())
    contents = [path.read_bytes() for path in packs if path.suffix == ".pack"]
    for path in packs:
        path.unlink()
    for content in contents:
        git("unpack-objects", "-q", input=content)
    place = Path(record, "objects", id[:2], id[2:])
    place.chmod(0o644)
    place.write_bytes(Path(record, "objects", other[:2], other[2:]).read_bytes())

    [found] = store.verify()

    assert (found.kind, found.where) == ("file", "PUT Patient/p/_history/19")


INDEX = {
    "a version": "UPDATE versions SET version = version + 100 WHERE sequence = 5",
    "a version's file": "UPDATE versions SET blob = (SELECT blob FROM versions WHERE sequence = 6) WHERE sequence = 5",
    "an author": "UPDATE authors SET email = 'eve@clinic.example' WHERE name LIKE 'Ada%'",
    "what a search finds": "DELETE FROM tokens WHERE resource = (SELECT key FROM resources WHERE id = 'p')",
    "a commit that never was": "INSERT INTO commits SELECT 21, zeroblob(20), last_updated + 9, interaction, author, NULL,"
    " NULL, versions FROM commits WHERE sequence = 20",
}


@pytest.mark.parametrize("change", INDEX.values(), ids=INDEX)
def test_tampering_with_the_index_is_found_and_undone_by_reindex(store, change):
    """git has the truth: docs/format.md."""
    check_index(store, change)


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace('"request":"r-1"', '"request":"r-9"'))


def without_a_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))


def truncated(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


JOURNAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "a line is edited": (edited, "it doesn't follow the line before it"),
    "a line is removed": (without_a_line, "it doesn't follow the line before it"),
    "the end is cut off": (truncated, "and the journal ends with 4"),
    "the file is gone": (lambda path: path.unlink(), "and the journal ends with 0"),
    "its head is gone": (lambda path: (path.parent / "head").unlink(), "it is missing or damaged"),
}


@pytest.mark.parametrize(("change", "text"), JOURNAL.values(), ids=JOURNAL)
def test_tampering_with_the_journal_is_found(store, change, text):
    """docs/audit-journal.md, "The chain"."""
    [path] = Path(store.git_dir, FOLDER).glob("*.ndjson")
    change(path)

    found = verified(store)

    assert {each.kind for each in found} == {"journal"}
    assert any(text in each.text for each in found), found


def test_a_journal_that_was_written_anew_is_found_by_an_anchor(store):
    """Its chain is sound, and its head fits."""
    anchor = take_anchor(store.git_dir, store.snapshot())
    shutil.rmtree(Path(store.git_dir, FOLDER))
    with closing(Journal.open(store.git_dir, durable=False, clock=Clock())) as journal:
        for number in range(4):
            journal.record(JournalEntry("Nobody", "read", 200, f"r-{number}"))

    assert verified(store) == []
    [found] = check_anchor(store.git_dir, store.snapshot(), anchor)
    assert (found.kind, found.where) == ("journal", "line 5")
    assert list(check_anchor(store.git_dir, store.snapshot(), anchor, journal=False)) == []
