"""Packs as git reads them. https://git-scm.com/docs/gitformat-pack"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitstore.git.pack import BLOB, COMMIT, TREE, Pack, delta, object_id
from gitstore.git.repository import git_environment, run_git
from gitstore.git.scratch import Scratch

QUICK = settings(deadline=None, max_examples=25, derandomize=True)
KINDS = {BLOB: "blob", TREE: "tree", COMMIT: "commit"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for packs to be put into."""
    path = tmp_path_factory.mktemp("bare.git")
    run_git(["init", "--quiet", "--bare", str(path)])
    return path


def apply(base: bytes, difference: bytes) -> bytes:
    """What git's documentation says a delta means, read back without the code under test."""
    at = 0

    def size() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = difference[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    assert size() == len(base)
    length = size()
    target = b""
    while at < len(difference):
        command = difference[at]
        at += 1
        if command < 0x80:
            assert command, "the instruction 0 is reserved"
            target += difference[at : at + command]
            at += command
            continue
        numbers = []
        for bit in range(7):
            present = command >> bit & 1
            numbers.append(difference[at] if present else 0)
            at += present
        offset = int.from_bytes(bytes(numbers[:4]), "little")
        copied = int.from_bytes(bytes(numbers[4:]), "little") or 0x10000
        assert offset + copied <= len(base)
        target += base[offset : offset + copied]
    assert len(target) == length
    return target


BYTES = st.binary(max_size=300) | st.text("ab\n", max_size=400).map(str.encode)


@given(BYTES, BYTES)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_a_delta_applied_to_its_base_gives_the_target(base, target):
    """https://git-scm.com/docs/gitformat-pack#_deltified_representation"""
    assert apply(base, delta(base, target)) == target


@given(st.data(), st.binary(max_size=300), st.binary(min_size=1, max_size=60))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_a_delta_within_a_known_region_gives_the_target_too(data, base, new):
    """Who knows where two objects of one length differ spares the search; the region may be wider than that."""
    base += new[::-1]
    start = data.draw(st.integers(0, len(base) - len(new)))
    end = start + len(new)
    target = base[:start] + new + base[end:]
    region = data.draw(st.integers(0, start)), data.draw(st.integers(end, len(base)))

    assert apply(base, delta(base, target, region)) == target


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (b"", b""),
        (b"", b"new"),
        (b"old", b""),
        (b"same", b"same"),
        (b"aa", b"aaa"),
        (b"aaa", b"aa"),
        (b"a" * 0x10000, b"a" * 0x10000),
        (b"a" * 0x10001, b"a" * 0x10001),
        (b"a" * 200_000 + b"1" + b"b" * 300_000, b"a" * 200_000 + b"23" + b"b" * 300_000),
        (bytes(range(256)) * 70_000, b"x" + bytes(range(256)) * 70_000),
        (b"", b"i" * 1000),
    ],
    ids=lambda value: f"{len(value)}-bytes",
)
def test_a_delta_copies_and_inserts_any_length(base, target):
    """A copy holds at most 64 KiB, of which the size is written as 0; an insertion at most 127 bytes."""
    assert apply(base, delta(base, target)) == target


def test_a_small_change_of_a_large_object_is_a_small_delta():
    """The sense of it: a tree of which one entry changes costs some 30 bytes, not its own size."""
    base = bytes(range(256)) * 1000

    assert len(delta(base, base[:100_000] + b"x" * 20 + base[100_020:])) < 80


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"a" * 5000])
def test_an_object_id_is_what_git_calls_the_object(kind, data, git_in, tmp_path):
    """https://git-scm.com/docs/git-hash-object"""
    found = git_in(tmp_path)("hash-object", "--literally", "--stdin", "-t", KINDS[kind], input=data)

    assert object_id(kind, data).hex() == found


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[bytes, int | None]]:
    """Objects, each with the place of an earlier one that it may be a delta of."""
    story: list[tuple[bytes, int | None]] = []
    for _ in range(draw(st.integers(1, 12))):
        base = draw(st.none() | st.integers(0, len(story) - 1)) if story else None
        if base is None:
            data = draw(st.binary(max_size=40)) * draw(st.integers(1, 60))
        else:
            old = story[base][0]
            at = draw(st.integers(0, len(old)))
            data = old[:at] + draw(st.binary(max_size=20)) + old[at + draw(st.integers(0, 20)) :]
        story.append((data, base))
    return story


@given(stories(), st.booleans())
@QUICK
def test_git_reads_any_pack_back(bare, story, large):
    """Byte for byte: `git cat-file`, and `git verify-pack` and `git index-pack` agree with our idx.

    So do we before it is written, whether it is in memory or, as a large one is, on the disk.
    """
    pack = Pack(Scratch(str(bare), in_memory=0) if large else None)
    ids: list[bytes] = []
    for number, (data, base) in enumerate(story):
        ids.append(pack.add(BLOB, data, base=ids[base] if base is not None else None, keep=number % 2 == 0))
    objects = {id: data for id, (data, _) in zip(ids, story, strict=True)}
    assert {id: pack.data(id) for id in ids} == objects
    check(bare, pack, objects)
    pack.close()


def check(bare: Path, pack: Pack, expected: dict[bytes, bytes]) -> dict[bytes, int]:
    """Let git read the pack: its objects are exactly those expected. Returns the depth of each."""
    folder = bare / "objects" / "pack"
    name, pieces, index_bytes = pack.files()
    path = folder / f"pack-{name}.pack"
    written = path.write_bytes(b"".join(pieces))
    path.with_suffix(".idx").write_bytes(index_bytes)
    try:
        assert written == pack.size + 20
        again = git_bytes(bare, "index-pack", "-o", str(bare / "again.idx"), str(path))
        assert again.decode().strip() == name
        assert (bare / "again.idx").read_bytes() == index_bytes
        listing = git_bytes(bare, "verify-pack", "-v", str(path)).decode().splitlines()
        rows = [line.split() for line in listing if line[40:41] == " "]
        assert {bytes.fromhex(row[0]) for row in rows} == set(expected)
        ids = b"".join(id.hex().encode() + b"\n" for id in expected)
        answer = git_bytes(bare, "cat-file", "--batch", input=ids)
        for id, data in expected.items():
            head, _, answer = answer.partition(b"\n")
            assert head.split()[0] == id.hex().encode()
            assert answer[: len(data)] == data
            answer = answer[len(data) + 1 :]
        return {bytes.fromhex(row[0]): int(row[5]) if len(row) > 5 else 0 for row in rows}
    finally:
        for file in (path, path.with_suffix(".idx"), bare / "again.idx"):
            file.unlink(missing_ok=True)


def git_bytes(folder: Path, *arguments: str, input: bytes = b"") -> bytes:
    result = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, input=input, env=git_environment(), check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def test_a_chain_of_deltas_is_at_most_48_deep(bare):
    """Reading an object costs one step for each delta below it; git's own limit is 50. The next one starts anew."""
    pack = Pack()
    objects = {}
    base = None
    for number in range(120):
        data = b"x" * 1000 + b"%d" % number
        base = pack.add(BLOB, data, base=base)
        objects[base] = data

    depths = check(bare, pack, objects)

    assert max(depths.values()) == 48
    assert list(depths.values()).count(0) == 3


def test_what_does_not_shrink_is_stored_whole(bare):
    """A delta that saves less than half only makes reading slower."""
    pack = Pack()
    first = pack.add(BLOB, b"a" * 100)
    second = pack.add(BLOB, bytes(range(200)), base=first)

    assert check(bare, pack, {first: b"a" * 100, second: bytes(range(200))})[second] == 0


def test_an_object_is_added_once(bare):
    pack = Pack()
    id = pack.add(BLOB, b"once")

    assert pack.add(BLOB, b"once", base=id) == id
    assert len(pack) == 1
    check(bare, pack, {id: b"once"})


def test_a_base_that_is_in_no_pack_of_ours_is_not_used(bare):
    """A pack stands by itself: the pack of the base could be thrown away."""
    pack = Pack()
    id = pack.add(BLOB, b"a" * 500, base=bytes(20))

    assert check(bare, pack, {id: b"a" * 500}) == {id: 0}


@given(stories(), stories(), st.data(), st.booleans())
@QUICK
def test_truncating_forgets_what_came_after(bare, kept, dropped, data, large):
    """A unit of work that fails leaves nothing in the pack of its group, and what follows can't lean on it."""
    pack = Pack(Scratch(str(bare), in_memory=0) if large else None)
    expected = {pack.add(BLOB, b"keep" + content): b"keep" + content for content, _ in kept}
    mark, size = len(pack), pack.size
    gone = [pack.add(BLOB, b"drop" + content * 3) for content, _ in dropped]

    pack.truncate(mark)
    assert (len(pack), pack.size) == (mark, size)

    after = b"after" + data.draw(st.binary(max_size=50)) + dropped[0][0] * 3
    expected[pack.add(BLOB, after, base=gone[0])] = after
    check(bare, pack, expected)
    pack.close()


def test_an_offset_beyond_2_gib_goes_into_the_table_of_large_ones(git_in, tmp_path):
    """https://git-scm.com/docs/gitformat-pack, "A table of 8-byte offset entries". Read by `git show-index`."""
    pack = Pack()
    offsets: dict[str, int] = {}
    for number in range(6):
        if number == 2:
            pack.size = 2**31 - 5  # as if two gigabytes lay between
        if number == 4:
            pack.size = 5 * 2**32
        offset = pack.size
        offsets[pack.add(BLOB, b"object %d" % number).hex()] = offset

    rows = git_in(tmp_path)("show-index", "--object-format=sha1", input=pack.files()[2]).splitlines()

    assert {row.split()[1]: int(row.split()[0]) for row in rows} == offsets
    assert sum(offset >= 2**31 for offset in offsets.values()) == 3


def test_a_distance_of_any_length_is_understood(bare):
    """The offset to the base has 1 to 4 bytes here; git adds one at each continuation."""
    pack = Pack()
    base = pack.add(BLOB, b"base" * 100)
    expected = {base: b"base" * 100}
    for number, gap in enumerate((0, 50, 1000, 20_000, 3_000_000)):
        filler = incompressible(gap, number)
        expected[pack.add(BLOB, filler)] = filler
        data = b"base" * 100 + b"%d" % number
        expected[pack.add(BLOB, data, base=base)] = data

    depths = check(bare, pack, expected)

    assert sum(depth == 1 for depth in depths.values()) == 5


def incompressible(size: int, seed: int) -> bytes:
    """Bytes that zlib can't make smaller, the same at each run."""
    return random.Random(seed).randbytes(size)
