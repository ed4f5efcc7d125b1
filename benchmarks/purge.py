"""What a purge takes, when all of history has to be made anew: `python -m benchmarks.purge --folder PATH`

A record as in benchmarks/audit_record.py, made in the folder once. Each run purges one more of its oldest resources with
`git fhir purge`, in a process of its own, so that every commit but the first few is another one after it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.audit_record import THROWAWAY, filled
from benchmarks.scripts import name
from gitstore import Store
from gitstore.fhir.ids import ResourceId


def purged(record: Path, resource_id: ResourceId) -> dict[str, float]:
    """Seconds by the clock and of the processors, and the largest process of all in MB."""
    command = [sys.executable, "-m", "cli", "-C", str(record), "purge", str(resource_id), "--yes"]
    command += ["-m", "A benchmark", "--author", "Nurse 0 <nurse-0@clinic.example>"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # With what git's processes used below it. https://man7.org/linux/man-pages/man2/getrusage.2.html
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{resource_id} was not purged")
    return {
        "seconds": time.perf_counter() - begun,
        "CPU seconds": used.ru_utime + used.ru_stime,
        "peak MB": used.ru_maxrss * 1024 / 1e6,
    }


def oldest(record: Path) -> ResourceId:
    """The first resource that is there and was not purged yet."""
    with Store.open(record, THROWAWAY) as store:
        snapshot = store.snapshot()
        for number in range(1, 1000):
            resource_id = ResourceId(*name(number))
            newest = snapshot.newest(resource_id)
            if newest is not None and newest.purged is None:
                return resource_id
    raise SystemExit("Everything old was purged.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resources", type=int, default=20_000)
    parser.add_argument("--commits", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", required=True, help="where the record is, or is to be made")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    record = filled(Path(arguments.folder) / "record.git", arguments.resources, arguments.commits)
    subprocess.run(["git", "-C", str(record), "config", "fhir.durability", "off"], check=True)
    found = [purged(record, oldest(record)) for _ in range(arguments.runs)]
    if arguments.json:
        print(json.dumps({"runs": found, "load average": os.getloadavg()[0]}, indent=2))
        return
    print(f"load average {os.getloadavg()[0]:.1f}\n\n| seconds | CPU seconds | peak MB |\n|---|---|---|")
    for one in found:
        print("| " + " | ".join(f"{figure:,.1f}" for figure in one.values()) + " |")


if __name__ == "__main__":
    main()
