"""XML of HL7's examples, in milliseconds: `python -m benchmarks.xml`.

The examples are HL7's 726, each converted several times; the least of its times counts, as the rest is the machine's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from gitstore.fhir import json, xml
from tools.build_definitions import EXAMPLES, instances, package


def milliseconds(run: Callable[[], object], rounds: int) -> float:
    """The least time that one call takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    writing, reading, plain, sizes = [], [], [], []
    for _, data in instances(package(*EXAMPLES)):
        resource = json.loads(data)
        document = xml.dumps(resource)
        writing.append(milliseconds(lambda resource=resource: xml.dumps(resource), rounds))
        reading.append(milliseconds(lambda document=document: xml.loads(document), rounds))
        plain.append(milliseconds(lambda data=data: json.loads(data), rounds))
        sizes.append(len(document) / 1024)
    print(f"{'':<28}{'median':>10}{'95 %':>10}{'most':>10}")
    for name, values in (
        ("xml.dumps, ms", writing),
        ("xml.loads, ms", reading),
        ("json.loads beside it, ms", plain),
        ("size of the XML, KB", sizes),
    ):
        late = statistics.quantiles(values, n=20)[-1]
        print(f"{name:<28}{statistics.median(values):>10.3f}{late:>10.3f}{max(values):>10.1f}")


if __name__ == "__main__":
    main()
