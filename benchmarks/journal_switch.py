"""A server whose access journal another process switches on and off while it runs: `benchmarks.journal --http`.

    python -m benchmarks.journal_switch FLAG RECORD [OPTIONS OF api]

The first byte of the file FLAG says whether answers are journaled. So both sides of a comparison are the same processes.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import api.serving
from api.journaling import Journaling


def switch(flag: str) -> None:
    """Have answers journaled only while the file says 1."""
    with open(flag, "r+b") as file:
        state = mmap.mmap(file.fileno(), 1)
    really = Journaling.process_response

    def process_response(self: Journaling, *arguments: Any) -> None:
        if state[0] == ord("1"):
            really(self, *arguments)

    Journaling.process_response = process_response  # type: ignore[assignment, method-assign]  # this is what the file is for


if __name__ == "__main__":
    switch(sys.argv[1])
    sys.exit(api.serving.main(sys.argv[2:]))
