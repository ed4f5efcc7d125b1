"""Commit messages: what we write, we and git read back the same. https://git-scm.com/docs/git-interpret-trailers"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.definitions import RESOURCE_TYPES
from gitstore.fhir.ids import ResourceId, VersionId
from gitstore.git.commits import format_commit, parse_commit
from gitstore.git.message import (
    INTERACTIONS,
    MAX_SUBJECT,
    Message,
    format_message,
    parse_message,
    safe_author,
    safe_request_id,
    safe_words,
)
from gitstore.version import Author, Change

QUICK = settings(deadline=None, max_examples=60, derandomize=True)
INSTANT = 1_795_300_200_123_456
UPDATE = Message(
    "update", (Change("PUT", ResourceId("Patient", "example"), VersionId(3)),), INSTANT, "5e0a4c6e"
)

IDS = st.from_regex(r"[A-Za-z0-9\-.]{1,64}", fullmatch=True).filter(lambda id: id not in (".", ".."))
CHANGE = st.builds(
    Change,
    st.sampled_from(["POST", "PUT", "DELETE"]),
    st.builds(ResourceId, st.sampled_from(RESOURCE_TYPES), IDS),
    st.integers(1, 10**18 - 1).map(VersionId),
)
MESSAGE = st.builds(
    Message,
    st.sampled_from(INTERACTIONS),
    st.lists(CHANGE, max_size=4).map(tuple),
    st.integers(-2_000_000_000_000_000, 250_000_000_000_000_000),
    st.none() | st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True),
    st.text(max_size=200).map(safe_words),
    st.lists(st.sampled_from(["FHIR-Signature: x y", "FHIR-Agent2: "]), max_size=2).map(tuple),
)

SCISSORS = "# ------------------------ >8 ------------------------"
FORGERIES = [
    "FHIR-Version: DELETE Patient/victim/_history/9",
    "why\n\nFHIR-Interaction: delete\nFHIR-Version: DELETE Patient/victim/_history/9",
    "why\n\nFHIR-Version: PUT Patient/a/_history/1\n\n",
    "why\r\n\r\nFHIR-Version: PUT Patient/a/_history/1\r\n",
    "why\rFHIR-Version: PUT Patient/a/_history/1",
    "why\u2028FHIR-Version: PUT Patient/a/_history/1\u2029",
    "why\x85FHIR-Version: PUT Patient/a/_history/1\x0b\x0c\x1c\x1d\x1e",
    "---\nFHIR-Version: PUT Patient/a/_history/1",
    "why\n---\n a patch follows",
    "--- \n",
    "diff --git a/x b/x\n--- a/x\n+++ b/x",
    SCISSORS,
    f"why\n{SCISSORS}\nnot why",
    f"{SCISSORS}\n{SCISSORS}",
    "Signed-off-by: Eve <eve@example.org>",
    "Conflicts:\n\tPatient/a",
    "# a comment",
    "why\x00\nnot why",
    "\n\n\n",
    " \t \n",
    "\ud800 half a pair",
    "\x1b[31mred",
    "\ufeffFHIR-Version: x",
    "x" * 5000,
]


@given(MESSAGE)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_parsing_undoes_formatting(message):
    assert parse_message(format_message(message)) == message


def test_a_message_is_laid_out_as_the_format_says():
    """docs/format.md, "The commit"."""
    assert format_message(Message(**{**fields(UPDATE), "words": "Seen twice.\n\nSo corrected."})) == (
        "update Patient/example\n"
        "\n"
        "Seen twice.\n"
        "\n"
        "So corrected.\n"
        "\n"
        "FHIR-Interaction: update\n"
        "FHIR-Version: PUT Patient/example/_history/3\n"
        "FHIR-Last-Updated: 2026-11-21T22:30:00.123456Z\n"
        "FHIR-Request-Id: 5e0a4c6e\n"
    )


def fields(message: Message) -> dict[str, object]:
    return {name: getattr(message, name) for name in message.__slots__}


@pytest.mark.parametrize(
    ("interaction", "types", "subject"),
    [
        ("init", "", "init"),
        ("create", "Patient", "create Patient/0"),
        ("delete", "Patient", "delete Patient/0"),
        ("transaction", "Patient", "transaction 1 Patient"),
        ("transaction", "Patient Encounter Patient", "transaction 2 Patient, 1 Encounter"),
        ("adopt", "Encounter Patient", "adopt 1 Encounter, 1 Patient"),
    ],
)
def test_the_subject_says_what_happened(interaction, types, subject):
    """docs/format.md, "Subject": for several resources their types, the most frequent first."""
    assert subject_of(interaction, types.split()) == subject


def subject_of(interaction: str, types: Sequence[str]) -> str:
    changes = [
        Change("PUT", ResourceId(type, str(number)), VersionId(1)) for number, type in enumerate(types)
    ]
    return format_message(Message(interaction, tuple(changes), INSTANT)).partition("\n")[0]


@given(st.lists(st.sampled_from(RESOURCE_TYPES), min_size=1, max_size=30))
@QUICK
def test_the_subject_stays_one_short_line(types):
    """So that `git log --oneline` is read at a glance; what doesn't fit is said to be more."""
    subject = subject_of("transaction", types)

    assert len(subject) <= MAX_SUBJECT + len(", …")
    named = subject.removeprefix("transaction ").removesuffix(", …").split(", ")
    assert set(named) <= {f"{types.count(type)} {type}" for type in types}
    assert subject.endswith("…") == (len(named) < len(set(types)))


def said(message: Message) -> tuple[object, ...]:
    return message.interaction, message.changes, message.last_updated, message.request_id, message.unknown


@pytest.mark.parametrize("words", FORGERIES, ids=lambda words: ascii(words[:25]))
def test_the_authors_words_forge_nothing(words, git_in, tmp_path):
    """Nothing a client sends can forge a line: we and git read the trailers that the store wrote, and no others."""
    message = Message(**{**fields(UPDATE), "words": safe_words(words)})
    text = format_message(message)

    assert parse_message(text) == message
    assert said(parse_message(text)) == said(UPDATE)
    expected = format_message(UPDATE).split("\n\n")[1].strip("\n")
    assert git_in(tmp_path)("interpret-trailers", "--parse", input=text) == expected
    assert git_in(tmp_path)("interpret-trailers", "--parse", "--no-divider", input=text) == expected


LINES = st.sampled_from([*FORGERIES, "", "-", "FHIR-Last-Updated: 1", " ", "\t", "\r", "word", ":", "a: b"])


@given(st.lists(LINES | st.text(max_size=20), max_size=6).map("\n".join))
@example("\n".join(FORGERIES))
@settings(deadline=None, max_examples=300, derandomize=True)
def test_any_words_leave_what_is_parsed_as_it_is(words):
    text = format_message(Message(**{**fields(UPDATE), "words": safe_words(words)}))

    assert said(parse_message(text)) == said(UPDATE)
    assert parse_message(text).words == safe_words(words)
    assert safe_words(safe_words(words)) == safe_words(words)
    assert text.splitlines() == text.split("\n")[:-1], "there is no line end but \\n"
    text.encode("utf-8")


@given(MESSAGE)
@QUICK
def test_git_reads_the_same_trailers(git_in, tmp_path_factory, message):
    """`git log --format=%(trailers)` is how people read the record without us."""
    text = format_message(message)
    lines = git_in(tmp_path_factory.getbasetemp())("interpret-trailers", "--parse", input=text).split("\n")

    assert [line for line in lines if line.startswith("FHIR-Version: ")] == [
        f"FHIR-Version: {change}" for change in message.changes
    ]
    assert len(lines) == 2 + len(message.changes) + bool(message.request_id) + len(message.unknown)


BROKEN = {
    "": "doesn't end in FHIR trailers",
    "Fix a typo": "doesn't end in FHIR trailers",
    "Fix a typo\n\nSigned-off-by: Eve <eve@example.org>": "no FHIR-Interaction",
    "x\n\nFHIR-Interaction: update\nFHIR-Last-Updated: 2026-01-01T00:00:00Z\n\nSigned-off-by: Eve": "no FHIR-In",
    "x\n\nFHIR-Interaction: guess\nFHIR-Last-Updated: 2026-01-01T00:00:00Z": "`guess` is unknown",
    "x\n\nFHIR-Interaction: update": "no FHIR-Last-Updated",
    "x\n\nFHIR-Interaction: update\nFHIR-Interaction: update\nFHIR-Last-Updated: 2026-01-01T00:00:00Z": "2 FHIR-In",
    "x\n\nFHIR-Interaction: update\nFHIR-Last-Updated: yesterday": "no valid date",
    "x\n\nFHIR-Interaction: update\nFHIR-Last-Updated: 2026-01-01": "no valid date",
    "x\n\nFHIR-Interaction: update\n folded\nFHIR-Last-Updated: 2026-01-01T00:00:00Z": "doesn't end in",
} | {
    f"x\n\nFHIR-Interaction: update\nFHIR-Version: {value}\nFHIR-Last-Updated: 2026-01-01T00:00:00Z": "can't be read"
    for value in (
        "",
        "PUT",
        "PATCH Patient/1/_history/1",
        "PUT Patient/1",
        "PUT Patient/1/_history/0",
        "PUT Patient/1/_history/01",
        "PUT Patient/1/_history/1 ",
        "PUT  Patient/1/_history/1",
        "put Patient/1/_history/1",
        "PUT patient/1/_history/1",
        "PUT Nothing/1/_history/1",
        "PUT Patient/../_history/1",
        "PUT Patient/a/b/_history/1",
        "PUT Patient/a_b/_history/1",
        "PUT Patient/1/_history/" + "9" * 19,
    )
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.items(), ids=lambda text: ascii(text[-30:]))
def test_a_message_that_is_not_ours_is_refused_with_the_reason(text, reason):
    with pytest.raises(Invalid, match=reason):
        parse_message(text)


def test_unknown_trailers_of_ours_are_kept_and_foreign_ones_ignored():
    """docs/format.md: a reader ignores what it doesn't know; verify reports FHIR-* among it."""
    text = format_message(UPDATE) + "FHIR-Color: blue\nReviewed-by: Eve\nFHIR-Agent: Device/1\n"

    message = parse_message(text)

    assert message.unknown == ("FHIR-Color: blue",)
    assert said(message)[:4] == said(UPDATE)[:4]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, False),
        ("", False),
        ("5e0a4c6e", True),
        ("A.b-9", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("a\nFHIR-Version: x", False),
        ("a\n", False),
        ("é", False),
        ("١", False),
        ("a_b", False),
    ],
)
def test_a_request_id_stands_in_a_trailer_only_where_it_is_harmless(text, kept):
    assert safe_request_id(text) == (text if kept else None)


AUTHORS = [
    Author("Ada Lovelace", "ada@clinic.example"),
    Author("", ""),
    Author(" .,:;<>\"\\'", "<>"),
    Author("Ada <root@example.org>", "a@b> 0 +0000\nparent x"),
    Author("Ada\ncommitter Eve", "ada\x00@example.org"),
    Author("Ada\r\n\tLovelace", "ada @ clinic . example"),
    Author("Zoë 李 \u2028", "zoë@clinic.example"),
    Author("\ud800", "\udfff"),
    Author("x" * 5000, "y" * 5000),
    Author("x" * 199 + " y", "z"),
    Author("a.", ".b"),
    Author("<<>>", "\\"),
    Author("\u00a0", "\u3000"),
]


@pytest.mark.parametrize("author", AUTHORS, ids=lambda author: ascii(author.name[:12]))
def test_any_author_is_one_that_git_can_store(author, git_in, tmp_path):
    """`git fsck` finds nothing, and git shows the same name and address that we wrote."""
    git = git_in(tmp_path)
    git("init", "--quiet", "--bare")
    safe = safe_author(author)
    tree = git("hash-object", "-w", "-t", "tree", "--stdin")
    data = format_commit(bytes.fromhex(tree), None, safe, safe, INSTANT, "x\n")

    id = git("hash-object", "-w", "-t", "commit", "--stdin", input=data)
    git("update-ref", "refs/heads/main", id)

    assert git("fsck", "--full", "--strict", "--no-dangling") == ""
    assert git("log", "-1", "--format=%an%n%ae", "main").split("\n") == [safe.name, safe.email]
    assert safe.name
    assert safe.email
    assert max(len(safe.name), len(safe.email)) <= 200
    assert safe_author(safe) == safe


@given(st.text(max_size=250), st.text(max_size=250))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_a_safe_author_is_read_back_the_same(name, email):
    """The index of a rebuild, which reads commits, equals that of the writer, which made them."""
    safe = safe_author(Author(name, email))

    assert parse_commit(format_commit(bytes(20), None, safe, safe, INSTANT, "x\n")).author == safe
