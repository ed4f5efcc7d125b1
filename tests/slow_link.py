"""A network cable that takes its time: moves frames between two network namespaces, each a while after it came.

    python slow_link.py PID DEVICE PID DEVICE

makes a tap device of that name in the network namespace of each process, says `ready`, and then reads seconds from
stdin, a number a line, for which each frame is held back, in either direction. It ends with stdin. tc's netem does the
same in kernels that have it; not all do. https://www.kernel.org/doc/html/latest/networking/tuntap.html
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress

_TUNSETIFF = 0x400454CA
_TAP, _WITHOUT_HEADER = 0x0002, 0x1000
_NETWORK = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_FRAMES = 64
"""So many are taken from one side before the other has its turn."""


def enter(namespace: int) -> None:
    """Be in this network namespace, an open file, from now on: the calling thread alone. https://man7.org/linux/man-pages/man2/setns.2.html"""
    if _LIBC.setns(namespace, _NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Side:
    """One end: a tap device, and the frames that will leave through it."""

    def __init__(self, pid: str, device: str) -> None:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        enter(namespace)
        os.close(namespace)
        self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.device, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _TAP | _WITHOUT_HEADER))
        self._waiting: deque[tuple[float, bytes]] = deque()

    def take(self, other: Side, delay: float) -> None:
        """What has come in here is to leave at the other side."""
        with suppress(BlockingIOError):
            for _ in range(_FRAMES):
                other._waiting.append((time.monotonic() + delay, os.read(self.device, 65536)))

    def due(self) -> float | None:
        """When the next frame leaves; None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    def send(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            # A device that is full, or down, loses frames as a cable does.
            with suppress(OSError):
                os.write(self.device, self._waiting[0][1])
            self._waiting.popleft()


def main() -> None:
    left, right = Side(*sys.argv[1:3]), Side(*sys.argv[3:5])
    print("ready", flush=True)
    delay = 0.0
    while True:
        times = [due for due in (left.due(), right.due()) if due is not None]
        pause = max(min(times) - time.monotonic(), 0) if times else None
        ready, _, _ = select.select([left.device, right.device, 0], [], [], pause)
        if 0 in ready:
            line = sys.stdin.readline()
            if not line:
                return
            delay = float(line)
        left.take(right, delay)
        right.take(left, delay)
        left.send()
        right.send()


if __name__ == "__main__":
    main()
