"""The log: one JSON object a line, for requests and for everything else that is worth saying."""

from __future__ import annotations

import logging
import time
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
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line).decode()


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
    *, request_id: str, author: str, method: str, path: str, status: int, milliseconds: float, size: int
) -> None:
    """The line of one request. The query is left out: it may hold names and numbers of patients."""
    fields = {
        "requestId": request_id,
        "author": author,
        "method": method,
        "path": path,
        "status": status,
        "milliseconds": round(milliseconds, 3),
        "bytes": size,
    }
    if ACCESS.isEnabledFor(logging.INFO):
        # ACCESS.info would walk the stack for a file and line that no one wants to know, for every request.
        extra = {"fields": fields}
        ACCESS.handle(ACCESS.makeRecord(ACCESS.name, logging.INFO, "", 0, "request", (), None, extra=extra))
