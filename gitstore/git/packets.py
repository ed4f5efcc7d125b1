"""What git's clients and servers say to each other: moving a branch on, telling refs, fetching a branch.

https://git-scm.com/docs/gitprotocol-common#_pkt_line_format, https://git-scm.com/docs/gitprotocol-pack#_pushing_data_to_a_server,
https://git-scm.com/docs/gitprotocol-v2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Read = Callable[[int], bytes]
"""Gives so many of the bytes that a server answers with, fewer at their end."""

_FLUSH, _DELIMITER = b"0000", b"0001"
_LENGTH = 4
"""Characters, which count themselves. What is less than that is no length, but a mark between packets."""

_AGENT, _FORMAT = b"agent=git-fhir", b"object-format=sha1"
_PACK, _PROGRESS = b"\x01", b"\x02"
"""What a packet of a response with a pack begins with. https://git-scm.com/docs/gitprotocol-v2#_fetch"""


class Misunderstood(Exception):
    """The server's answer is none of git's, or one that only git can make sense of; its text says what there is."""


def packet(data: bytes) -> bytes:
    """The pkt-line with up to 65516 bytes."""
    return b"%04x%b" % (len(data) + _LENGTH, data)


def packets(read: Read) -> Iterator[bytes]:
    """The packets before the first flush; a mark between them is an empty one. Raises Misunderstood where no flush comes."""
    while (head := read(_LENGTH)) != _FLUSH:
        if len(head) != _LENGTH or head.strip(b"0123456789abcdefABCDEF"):
            raise Misunderstood(f"{head!r} is not the length of a packet")
        length = max(int(head, 16) - _LENGTH, 0)
        data = read(length) if length else b""
        if len(data) != length:
            raise Misunderstood("it breaks off")
        yield data


# Pushing


def move(ref: str, old: str, new: str) -> bytes:
    """Move a ref from one commit to another, if it is there. A pack with what the server lacks follows."""
    command = f"{old} {new} {ref}".encode()
    return packet(b"%b\x00 report-status %b %b" % (command, _FORMAT, _AGENT)) + _FLUSH


def has_moved(read: Read, ref: str) -> bool:
    """Whether the server has done so. Raises Misunderstood where it doesn't say."""
    lines = [line.rstrip(b"\n") for line in packets(read)]
    if not lines or not lines[0].startswith(b"unpack "):
        raise Misunderstood(f"{b' '.join(lines[:1])!r} doesn't say what became of a pack")
    return lines[0] == b"unpack ok" and b"ok %b" % ref.encode() in lines[1:]


# Fetching


def tell(prefixes: Sequence[str]) -> bytes:
    """Tell the refs whose names begin with one of these. https://git-scm.com/docs/gitprotocol-v2#_ls_refs"""
    return _command(b"ls-refs", [f"ref-prefix {prefix}\n" for prefix in prefixes])


def told(read: Read) -> dict[str, str]:
    """The ids of the refs, by their names. Raises Misunderstood."""
    refs = {}
    for line in packets(read):
        id, _, rest = line.rstrip(b"\n").decode(errors="replace").partition(" ")
        if len(id) != 40 or not rest:
            raise Misunderstood(f"{line[:80]!r} is no ref")
        refs[rest.partition(" ")[0]] = id
    return refs


def knows_names(read: Read) -> bool:
    """Whether a server gives what a ref leads to, of which only the name is known.

    https://git-scm.com/docs/git-config#Documentation/git-config.txt-uploadpackallowRefInWant
    """
    lines = list(packets(read))
    if lines and lines[0].startswith(b"# service="):
        lines = list(packets(read))
    return any(line.startswith(b"fetch=") and b"ref-in-want" in line.split(b"=")[1].split() for line in lines)


def fetch(want: str, have: str) -> bytes:
    """Give what a commit, or a ref by its name, builds on and another commit doesn't."""
    wanted = f"want-ref {want}\n" if want.startswith("refs/") else f"want {want}\n"
    asked = ["thin-pack\n", "no-progress\n", "ofs-delta\n", wanted, f"have {have}\n", "done\n"]
    return _command(b"fetch", asked)


def fetched(read: Read, want: str) -> tuple[str, Iterator[bytes]]:
    """The commit that was wanted, and the pieces of the pack. Raises Misunderstood where there is none, and so do they."""
    lines = packets(read)
    begin = next(lines, b"").rstrip(b"\n")
    if want.startswith("refs/") and begin == b"wanted-refs":
        want = next(lines, b"").decode(errors="replace").partition(" ")[0]
        next(lines, b"")  # the mark behind it
        begin = next(lines, b"").rstrip(b"\n")
    if len(want) != 40 or begin != b"packfile":
        raise Misunderstood(f"{begin[:80]!r} is no pack")
    return want, _pieces(lines)


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    for data in lines:
        if data[:1] == _PACK:
            yield data[1:]
        elif data[:1] != _PROGRESS:
            raise Misunderstood(data[1:].decode(errors="replace").strip() or "it gives no pack")


def _command(name: bytes, arguments: Sequence[str]) -> bytes:
    said = [b"command=%b\n" % name, _AGENT, _FORMAT]
    return b"".join(
        [*map(packet, said), _DELIMITER, *(packet(argument.encode()) for argument in arguments), _FLUSH]
    )
