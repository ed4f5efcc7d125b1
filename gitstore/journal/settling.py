"""Before the journal is read: what waits in rings is added to it, so that a reader sees all that was answered."""

from __future__ import annotations

import errno
import os

from gitstore.durable import storage_error
from gitstore.founding import now
from gitstore.journal.chain import Chain
from gitstore.journal.lines import FOLDER, NOTHING, RINGS, hash_of, line, parse_head, ring_names, unreadable
from gitstore.journal.rings import Ring, in_order

_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def settle(git_dir: str) -> bytes:
    """Have all lines in the chain; where this process can't write, as on a full disk, give those that wait, as they would be added.

    Raises StorageFailed, Locked.
    """
    try:
        looked = [Ring.look(os.path.join(git_dir, RINGS, name)) for name in ring_names(git_dir)]
        rings = [ring for ring in looked if ring is not None]
    except OSError as error:
        raise unreadable(error) from error
    try:
        waiting = [ring for ring in rings if ring.is_waiting]
        if waiting:
            _drain(git_dir, any(ring.is_durable for ring in waiting))
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise storage_error(error, "lines that wait can't be added to the access journal") from error
        return _as_added(git_dir, waiting)
    finally:
        for ring in rings:
            ring.close()
    return b""


def _drain(git_dir: str, durable: bool) -> None:
    chain = Chain(git_dir, now, durable=durable)
    try:
        chain.drain()
        chain.sync()
    finally:
        chain.close()


def _as_added(git_dir: str, rings: list[Ring]) -> bytes:
    try:
        with open(os.path.join(git_dir, FOLDER, "head"), "rb") as file:
            end = parse_head(file.read())
    except OSError as error:
        raise unreadable(error) from error
    number, last = (end.number, end.hash) if end else (0, NOTHING)
    left = ([frame for frame in ring.frames()[0] if not 0 < frame.number <= number] for ring in rings)
    lines = []
    for place, frame in enumerate(in_order(left), number + 1):
        lines.append(line(place, last, frame.time, frame.body))
        last = hash_of(lines[-1])
    return b"".join(lines)
