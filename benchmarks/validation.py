"""What validation costs: microseconds for each of HL7's examples, and what it takes to get ready.

    python -m benchmarks.validation [--rounds N] [--json]

Each example is validated in each round, and the table has the fastest of its times: what other programs take from the
processor is not counted. The aim is less than 500 µs for the median example.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from gitstore.fhir import json, validation
from tools.build_definitions import EXAMPLES, instances, package

_FIRST = """
import gitstore.fhir.definitions, time
start = time.process_time()
from gitstore.fhir import validation
ready = time.process_time()
validation.issues({"resourceType": "Patient", "maritalStatus": {"text": "x"}})
done = time.process_time()
print(ready - start, done - ready)
"""


def fastest(rounds: int, examine: Callable[[Any], object]) -> list[float]:
    """Microseconds for each example, in ascending order."""
    resources = [json.loads_trusted(data) for _, data in instances(package(*EXAMPLES))]
    best = [float("inf")] * len(resources)
    for _ in range(rounds):
        for number, resource in enumerate(resources):
            start = time.perf_counter()
            examine(resource)
            best[number] = min(best[number], time.perf_counter() - start)
    return sorted(seconds * 1e6 for seconds in best)


def first() -> tuple[float, float]:
    """Milliseconds of the processor to import validation, where the rest of gitstore is, and for the first resource."""
    runs = []
    for _ in range(5):
        run = subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True)
        runs.append([float(seconds) * 1e3 for seconds in run.stdout.split()])
    return min(run[0] for run in runs), min(run[1] for run in runs)


def measure(rounds: int) -> dict[str, dict[str, float]]:
    results = {}
    for name, examine in {
        "full": validation.issues,
        "structure": lambda resource: validation.issues(resource, structure_only=True),
    }.items():
        times = fastest(rounds, examine)
        results[name] = {
            "median": statistics.median(times),
            "90 %": times[int(len(times) * 0.9)],
            "largest": times[-1],
        }
    importing, first_resource = first()
    results["start (ms)"] = {"import": importing, "first resource": first_resource}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    results = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(results).decode("utf-8"))
        return
    for name, figures in results.items():
        print(f"{name:12}" + "".join(f"  {figure} {value:,.0f}" for figure, value in figures.items()))


if __name__ == "__main__":
    main()
