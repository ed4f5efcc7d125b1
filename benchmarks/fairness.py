"""How long a PUT over HTTP waits, alone and beside `git fhir import` at full speed: `python -m benchmarks.fairness`.

One client sends one PUT after the other to a server with all defaults, durable. Then the same again while imports of a
large file follow one another in another process. The table gives milliseconds; the first requests warm up and don't count.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.store import resource
from gitstore import init

LINES = 20_000
WARM_UP = 20
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def puts(port: int, count: int) -> list[float]:
    """Seconds that each PUT took, from one client with one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for number in range(count + WARM_UP):
        body = json.dumps(resource(number) | {"id": "measured"})
        begun = time.perf_counter()
        connection.request(
            "PUT", "/fhir/Observation/measured", body, {"Content-Type": "application/fhir+json"}
        )
        response = connection.getresponse()
        response.read()
        if response.status not in (200, 201):
            raise SystemExit(f"PUT was answered with {response.status}")
        taken.append(time.perf_counter() - begun)
    connection.close()
    return taken[WARM_UP:]


@contextmanager
def server(record: str) -> Iterator[int]:
    """`git fhir serve` on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api", record, "--allow-anonymous", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().rsplit(":", 1)[1].removesuffix("/fhir\n"))
    finally:
        process.terminate()
        process.wait()


class Imports(threading.Thread):
    """`git fhir import` of one large file after the other, until stopped."""

    def __init__(self, record: str, folder: Path) -> None:
        super().__init__()
        self.imported = 0
        self.seconds = 0.0
        self._file = folder / "large.ndjson"
        self._file.write_text("".join(json.dumps(resource(number)) + "\n" for number in range(LINES)))
        self._command = [sys.executable, "-P", "-m", "cli", "-C", record, "import", "--force"]
        self._stopping = False
        self.began = threading.Event()

    def run(self) -> None:
        environment = os.environ | {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@clinic.example"}
        while not self._stopping:
            begun = time.perf_counter()
            self._process = subprocess.Popen(
                [*self._command, str(self._file)], stdout=subprocess.DEVNULL, env=environment
            )
            self.began.set()
            if self._process.wait() == 0:
                self.imported += LINES
                self.seconds += time.perf_counter() - begun

    def stop(self) -> None:
        self._stopping = True
        self._process.terminate()
        self.join()


def measure(folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds of each PUT: alone, and beside imports."""
    record = init(folder / "record.git")
    imports = Imports(record, folder)
    with server(record) as port:
        alone = puts(port, count)
        imports.start()
        imports.began.wait()
        beside: list[float] = []
        while len(beside) < count or not imports.imported:
            beside += puts(port, 100)
        imports.stop()
    rate = f", {imports.imported / imports.seconds:,.0f} resources/s"
    return {"alone": alone, f"beside git fhir import{rate}": beside}


def summary(taken: list[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = statistics.quantiles(taken, n=1000, method="inclusive")
    found = {name: 1000 * cuts[round(1000 * share) - 1] for name, share in QUANTILES.items()}
    return {"PUTs": len(taken)} | found | {"max": 1000 * max(taken)}


def table(results: dict[str, list[float]]) -> str:
    """Markdown."""
    lines = ["| PUT over HTTP, ms | PUTs | p50 | p95 | p99 | max |", "|---|---|---|---|---|---|"]
    for name, taken in results.items():
        count, *figures = summary(taken).values()
        lines.append(f"| {name} | {count:,.0f} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="PUTs of each kind, at least")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--folder", help="where to write; a temporary folder beside this checkout otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(
        dir=arguments.folder or Path(__file__).parent.parent, prefix=".bench-"
    ) as folder:
        results = measure(Path(folder), arguments.count)
    if arguments.json:
        print(json.dumps({name: summary(taken) for name, taken in results.items()}, indent=2))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
