"""The log: one JSON object a line, for requests and for everything else that is worth saying."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, TextIO

ACCESS = logging.getLogger("git-fhir.access")
SERVER = logging.getLogger("git-fhir")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what a caller passes as `extra={"fields": {...}}` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(stream: TextIO) -> None:
    """Send the log of this process to `stream`.

    waitress warns on its own logger each time a request waits for a thread; under load that would be most of the log.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


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
    ACCESS.info("request", extra={"fields": fields})
