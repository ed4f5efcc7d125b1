"""What is said to git's servers, and how their answers are read. https://git-scm.com/docs/gitprotocol-common"""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.git import packets
from gitstore.git.packets import Misunderstood, packet

FLUSH, DELIMITER = b"0000", b"0001"
MAIN = "refs/heads/main"
OLD, NEW = "1" * 40, "2" * 40


@given(st.lists(st.binary(max_size=300)), st.binary(max_size=20))
def test_packets_are_read_as_they_were_written(data: list[bytes], rest: bytes) -> None:
    """What comes after the flush is left to who reads on."""
    stream = BytesIO(b"".join(map(packet, data)) + FLUSH + rest)
    assert list(packets.packets(stream.read)) == data
    assert stream.read() == rest


def test_the_longest_packet_has_four_digits() -> None:
    """https://git-scm.com/docs/gitprotocol-common#_pkt_line_format: 65520 bytes with its length."""
    longest = bytes(65516)
    assert packet(longest)[:4] == b"fff0"
    assert list(packets.packets(BytesIO(packet(longest) + FLUSH).read)) == [longest]


@given(st.binary(max_size=60))
def test_an_answer_that_is_none_of_git_s_is_misunderstood_and_nothing_else(answer: bytes) -> None:
    for read in (
        packets.told,
        lambda read: packets.has_moved(read, MAIN),
        lambda read: list(packets.fetched(read, MAIN)[1]),
    ):
        try:
            read(BytesIO(answer).read)
        except Misunderstood:
            continue


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.data())
def test_an_answer_that_breaks_off_is_misunderstood(data: list[bytes], chance: st.DataObject) -> None:
    whole = b"".join(map(packet, data)) + FLUSH
    part = whole[: chance.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(Misunderstood):
        list(packets.packets(BytesIO(part).read))


@pytest.mark.parametrize(
    ("lines", "moved"),
    [
        ([b"unpack ok\n", b"ok refs/heads/main\n"], True),
        ([b"unpack ok", b"ok refs/heads/main"], True),
        ([b"unpack ok\n", b"ng refs/heads/main failed to update ref\n"], False),
        ([b"unpack ok\n", b"ok refs/heads/mai\n"], False),
        ([b"unpack ok\n"], False),
        ([b"unpack index-pack abnormal exit\n", b"ng refs/heads/main unpacker error\n"], False),
        ([b"unpack index-pack abnormal exit\n", b"ok refs/heads/main\n"], False),
    ],
)
def test_a_ref_has_moved_when_the_server_says_so(lines: list[bytes], moved: bool) -> None:
    """https://git-scm.com/docs/gitprotocol-pack#_report_status"""
    answer = b"".join(map(packet, lines)) + FLUSH
    assert packets.has_moved(BytesIO(answer).read, MAIN) is moved


def test_refs_are_told_with_or_without_what_else_is_known_of_them() -> None:
    """https://git-scm.com/docs/gitprotocol-v2#_ls_refs"""
    lines = [f"{OLD} {MAIN}\n", f"{NEW} refs/tags/v1 peeled:{OLD}\n", f"{NEW} HEAD symref-target:{MAIN}"]
    answer = b"".join(packet(line.encode()) for line in lines) + FLUSH
    assert packets.told(BytesIO(answer).read) == {MAIN: OLD, "refs/tags/v1": NEW, "HEAD": NEW}


def test_a_pack_is_what_the_server_sends_but_not_what_it_says_meanwhile() -> None:
    """https://git-scm.com/docs/gitprotocol-v2#_fetch"""
    lines = [b"packfile\n", b"\x02Counting\n", b"\x01PACK", b"\x01", b"\x02done", b"\x01rest"]
    answer = b"".join(map(packet, lines)) + FLUSH
    commit, pieces = packets.fetched(BytesIO(answer).read, NEW)
    assert (commit, b"".join(pieces)) == (NEW, b"PACKrest")


def test_what_is_asked_for_by_name_is_told_with_the_pack() -> None:
    """https://git-scm.com/docs/gitprotocol-v2#_fetch, `wanted-refs`"""
    refs = [packet(b"wanted-refs\n"), packet(f"{NEW} {MAIN}\n".encode()), DELIMITER]
    answer = b"".join([*refs, packet(b"packfile\n"), packet(b"\x01PACK"), FLUSH])
    commit, pieces = packets.fetched(BytesIO(answer).read, MAIN)
    assert (commit, list(pieces)) == (NEW, [b"PACK"])


@pytest.mark.parametrize(
    "answer",
    [
        packet(b"ERR unknown ref refs/heads/main"),
        packet(b"packfile\n") + FLUSH,
        packet(b"wanted-refs\n") + DELIMITER + packet(b"packfile\n") + FLUSH,
        b"",
    ],
)
def test_an_answer_that_names_no_commit_is_misunderstood(answer: bytes) -> None:
    with pytest.raises(Misunderstood):
        packets.fetched(BytesIO(answer).read, MAIN)


@pytest.mark.parametrize(
    ("lines", "knows"),
    [
        ([b"version 2\n", b"agent=git/2.39.5\n", b"fetch=shallow wait-for-done ref-in-want\n"], True),
        ([b"version 2\n", b"fetch=shallow wait-for-done\n"], False),
        ([b"version 2\n", b"ls-refs=ref-in-want\n", b"fetch\n"], False),
    ],
)
def test_a_server_says_whether_it_knows_refs_by_name(lines: list[bytes], knows: bool) -> None:
    """https://git-scm.com/docs/gitprotocol-v2#_capability_advertisement; some servers name the service before."""
    told = b"".join(map(packet, lines)) + FLUSH
    assert packets.knows_names(BytesIO(told).read) is knows
    assert packets.knows_names(BytesIO(packet(b"# service=git-upload-pack\n") + FLUSH + told).read) is knows


def test_a_server_that_gives_up_says_why() -> None:
    answer = packet(b"packfile\n") + packet(b"\x01PACK") + packet(b"\x03upload-pack: not our ref\n") + FLUSH
    _, pieces = packets.fetched(BytesIO(answer).read, NEW)
    assert next(pieces) == b"PACK"
    with pytest.raises(Misunderstood, match="not our ref"):
        next(pieces)


def test_what_is_asked_is_what_git_s_protocol_has() -> None:
    assert packets.move(MAIN, OLD, NEW) == (
        packet(f"{OLD} {NEW} {MAIN}\0 report-status object-format=sha1 agent=git-fhir".encode()) + FLUSH
    )
    head = [b"agent=git-fhir", b"object-format=sha1"]
    asked = [
        packet(b"command=ls-refs\n"),
        *map(packet, head),
        DELIMITER,
        packet(b"ref-prefix refs/tags/\n"),
        FLUSH,
    ]
    assert packets.tell(["refs/tags/"]) == b"".join(asked)
    said = [
        b"thin-pack\n",
        b"no-progress\n",
        b"ofs-delta\n",
        f"want {NEW}\n".encode(),
        f"have {OLD}\n".encode(),
    ]
    asked = [
        packet(b"command=fetch\n"),
        *map(packet, head),
        DELIMITER,
        *map(packet, [*said, b"done\n"]),
        FLUSH,
    ]
    assert packets.fetch(NEW, OLD) == b"".join(asked)
    asked[asked.index(packet(said[3]))] = packet(b"want-ref refs/heads/main\n")
    assert packets.fetch(MAIN, OLD) == b"".join(asked)
