"""The log: one JSON object a line, for requests and for everything else that is worth saying."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any, TextIO

from gitstore.fhir import json

ACCESS = logging.getLogger("git-fhir.access")
SERVER = logging.getLogger("git-fhir")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what a caller passes as `extra={"fields": {...}}` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.gmtime(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = _traceback(record.exc_info[1])
        return json.dumps(line).decode()


def _traceback(error: BaseException) -> str:
    """Where it happened, and the kinds of the errors. Not what they say: that often quotes what was being looked at."""
    parts = []
    cause: BaseException | None = error
    while cause is not None:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        parts.append(f"{frames}{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nled to\n".join(reversed(parts))


def configure(stream: TextIO) -> None:
    """Send the log of this process to `stream`.

    waitress warns on its own logger each time a request waits for a thread; under load that would be most of the log.
    What no line shows is not looked up: https://docs.python.org/3/howto/logging.html#optimization
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def access(
    *,
    request_id: str,
    author: str,
    method: str,
    path: str,
    status: int,
    milliseconds: float,
    size: int,
    interaction: str = "other",
    principal: tuple[str, str] = ("anonymous", "anonymous"),
    denied: str | None = None,
) -> None:
    """The line of one request. The query is left out: it may hold names and numbers of patients.

    `principal` says how its sender was recognised, and by which key; `denied` why it was refused for that, in a word.
    """
    kind, key = principal
    fields: dict[str, Any] = {
        "requestId": request_id,
        "author": author,
        "principal": {"kind": kind, "key": key},
        "method": method,
        "path": path,
        "interaction": interaction,
        "status": status,
        "milliseconds": round(milliseconds, 3),
        "bytes": size,
    }
    if denied is not None:
        fields["denied"] = denied
    if ACCESS.isEnabledFor(logging.INFO):
        # ACCESS.info would walk the stack for a file and line that no one wants to know, for every request.
        extra = {"fields": fields}
        ACCESS.handle(ACCESS.makeRecord(ACCESS.name, logging.INFO, "", 0, "request", (), None, extra=extra))
