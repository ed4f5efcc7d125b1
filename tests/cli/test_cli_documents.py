"""What a file holds is told by its content: one document or one a line, gzip'd or not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.documents import Document, Inputs, Refusal

LIMIT = 1000
A, B, C = b'{"id":"a"}', b'{"id":"b"}', b'{"id":"c"}'


def read(path: Path, content: bytes, name: str = "file.json", limit: int = LIMIT) -> list[str | bytes]:
    """For each document `line:data`, for each refusal `line!text`."""
    (path / name).write_bytes(content)
    found = []
    for item in Inputs([str(path / name)], limit):
        line = item.place.line or ""
        found.append(
            f"{line}:{item.data.decode()}" if isinstance(item, Document) else f"{line}!{item.issues[0].text}"
        )
    return found


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # one document
        (A, [':{"id":"a"}']),
        (A + b"\n", [':{"id":"a"}\n']),
        (b'{\n"x": {}\n,\n"y": 1}', [':{\n"x": {}\n,\n"y": 1}']),
        (b'{"x": [{}\n]}', [':{"x": [{}\n]}']),
        (b'{"x": [\n{}]}', [':{"x": [\n{}]}']),
        (b'{"x":\n{}}', [':{"x":\n{}}']),
        (b'{"x": [{},\n{}]}', [':{"x": [{},\n{}]}']),
        (b'\n\n{"x"\n: 1}', [':\n\n{"x"\n: 1}']),
        (b"not json", [":not json"]),
        # one a line
        (A + b"\n" + B, ['1:{"id":"a"}', '2:{"id":"b"}']),
        (A + b"\r\n\r\n" + B + b"\r\n", ['1:{"id":"a"}', '3:{"id":"b"}']),
        (A + b"\nnot json\n" + B, ['1:{"id":"a"}', "2:not json", '3:{"id":"b"}']),
        (b'{"id": "trunca\n' + A + b"\n" + B, ['1:{"id": "trunca', '2:{"id":"a"}', '3:{"id":"b"}']),
        # nothing
        (b"", ["!It is empty: expected a JSON document."]),
        (b" \n\n", ["!It is empty: expected a JSON document."]),
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.ndjson", "x"])
def test_content_decides_and_not_the_name(
    tmp_path: Path, content: bytes, expected: list[str], name: str
) -> None:
    """JSON's grammar leaves no doubt: within a document, an object begins only after `[`, `,` or `:`."""
    assert read(tmp_path, content, name) == expected


@pytest.mark.parametrize("content", [A, A + b"\n" + B])
@pytest.mark.parametrize("name", ["x.json.gz", "x.json"])
def test_gzip_is_told_by_its_first_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    """A name may lie. https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1"""
    assert read(tmp_path, gzip.compress(content), name) == read(tmp_path, content, name)


def test_a_broken_gzip_is_refused_after_what_can_be_read(tmp_path: Path) -> None:
    """What came whole is not lost with the rest."""
    whole = gzip.compress(b"\n".join([A, B, C]))

    assert read(tmp_path, whole[:-9], "cut.gz")[-1].startswith("!It can't be read: ")
    assert read(tmp_path, b"\x1f\x8bnonsense", "no.gz")[-1].startswith("!It can't be read: ")


def test_a_document_over_the_limit_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    """A line without end, or a file that unzips to more than memory, is not read whole."""
    long = b'{"x": "' + b"x" * 5000 + b'"}'
    refusal = "It is longer than 1,000 bytes, the limit of a document."

    assert read(tmp_path, b"\n".join([A, long, B])) == ['1:{"id":"a"}', f"2!{refusal}", '3:{"id":"b"}']
    assert read(tmp_path, long + b"\n" + B) == [f"1!{refusal}", '2:{"id":"b"}']
    assert read(tmp_path, b'{"x":\n"' + b"x" * 5000 + b'"}') == [f"!{refusal}"]
    assert read(tmp_path, gzip.compress(b"\n" * 100_000 + A)) == [f"!{refusal}"]


def test_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Files of other kinds and hidden folders, such as .git, are left out; a file that is named is always read."""
    for name in ("b.json", "a.ndjson", "sub/c.json.gz", "note.txt", ".git/d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(A)

    def names(*paths: Path) -> list[str]:
        return [str(Path(item.place.file).relative_to(tmp_path)) for item in Inputs(map(str, paths), LIMIT)]

    assert names(tmp_path) == ["a.ndjson", "b.json", "sub/c.json.gz"]
    assert names(tmp_path / "note.txt") == ["note.txt"]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """It went away, or is a link to nowhere: the next file is read all the same."""
    (tmp_path / "a.json").symlink_to("nowhere")
    (tmp_path / "b.json").write_bytes(A)

    first, second = Inputs([str(tmp_path)], LIMIT)

    assert isinstance(first, Refusal)
    assert "No such file" in first.issues[0].text
    assert isinstance(second, Document)


def test_the_position_tells_how_much_is_read(tmp_path: Path) -> None:
    """In bytes of the files as they lie on disk, for the progress bar."""
    (tmp_path / "a.json").write_bytes(A)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b"\n".join([A, B])))
    inputs = Inputs([str(tmp_path)], LIMIT)

    assert inputs.position == 0
    assert len(list(inputs)) == 3
    assert inputs.position == inputs.size == sum(path.stat().st_size for path in tmp_path.iterdir())


values = st.recursive(
    st.one_of(st.integers(0, 9), st.text("ab{}[]:,", max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab"), inner, max_size=3)),
    max_leaves=8,
)
documents = st.dictionaries(st.text("ab{}", min_size=1), values, min_size=1, max_size=3)


@settings(max_examples=50)
@given(documents, st.sampled_from([None, 0, 1, 2]))
def test_any_single_document_is_one(
    tmp_path_factory: pytest.TempPathFactory, value: object, indent: int | None
) -> None:
    """However it is printed, and however many lines that takes."""
    path = tmp_path_factory.mktemp("one")

    assert read(path, json.dumps(value, indent=indent).encode()) == [":" + json.dumps(value, indent=indent)]


@settings(max_examples=50)
@given(st.lists(documents, min_size=2, max_size=5))
def test_any_documents_on_lines_are_as_many(
    tmp_path_factory: pytest.TempPathFactory, values: list[object]
) -> None:
    """NDJSON."""
    lines = [json.dumps(value) for value in values]

    found = read(tmp_path_factory.mktemp("many"), "\n".join(lines).encode())

    assert found == [f"{number}:{line}" for number, line in enumerate(lines, 1)]
