"""What a soak has to tell: as a dictionary for programs, and as text."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import soak_checks as checks
from benchmarks.soak_clients import Ledger
from benchmarks.soak_server import Use

SAMPLES = 12
"""Lines of the table of memory."""


def of_answers(ledgers: Sequence[Ledger], weather: checks.Weather) -> dict[str, Any]:
    """How many of which status, how long they took, and what was refused with reason."""
    statuses: Counter[int] = Counter()
    seconds: dict[str, list[float]] = {}
    excused: Counter[str] = Counter()
    for ledger in ledgers:
        for (_, status), count in ledger.statuses.items():
            statuses[status] += count
        for kind, taken in ledger.seconds.items():
            seconds.setdefault(kind, []).extend(taken)
        excused.update(
            _reason(each.status, each.text) for each in ledger.refused if checks.excused(each, weather)
        )
    return {
        "requests": statuses.total(),
        "acknowledged writes": sum(len(ledger.acknowledged) for ledger in ledgers),
        "statuses": {str(status): statuses[status] for status in sorted(statuses)},
        "kinds": {kind: {"count": len(taken)} | _quantiles(taken) for kind, taken in sorted(seconds.items())},
        "broken connections": sum(len(ledger.broken) for ledger in ledgers),
        "refused with reason": dict(excused.most_common(checks.SHOWN)),
    }


def _reason(status: int, text: str) -> str:
    found = re.search(r'"text": ?"([^"]*)', text)
    return f"{status} {re.sub('[0-9]+', '#', found[1] if found else text)[:100]}"


def _quantiles(taken: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = statistics.quantiles([*taken, *taken], n=100, method="inclusive")
    return {"p50": 1000 * cuts[49], "p99": 1000 * cuts[98], "max": 1000 * max(taken)}


def of_weather(weather: checks.Weather, slow: Mapping[str, Counter[str]]) -> dict[str, Any]:
    return {
        "kills": len(weather.kills),
        "settings read anew": len(weather.hang_ups),
        "disk full, seconds": [round(room - little, 1) for little, _, room in weather.full],
        "maintenance": dict(Counter("done" if code == 0 else "failed" for code in weather.maintained)),
        "slow clients": {kind: dict(ends) for kind, ends in slow.items()},
    }


def _elder(uses: Sequence[Use], master: int) -> list[Use]:
    """The samples of the worker that was watched longest."""
    by_pid: dict[int, list[Use]] = {}
    for use in uses:
        if use.pid != master:
            by_pid.setdefault(use.pid, []).append(use)
    return max(by_pid.values(), key=lambda own: own[-1].at - own[0].at, default=[])


def faults_of_uses(uses: Sequence[Use], master: int) -> Iterator[str]:
    for name, own in _watched(uses, master).items():
        if len(own) > 1:
            yield from checks.growth(own).faults(name)


def _watched(uses: Sequence[Use], master: int) -> dict[str, list[Use]]:
    return {
        "the elder worker": _elder(uses, master),
        "the master": [use for use in uses if use.pid == master],
    }


def of_uses(uses: Sequence[Use], master: int) -> dict[str, Any]:
    """Memory (KiB) and descriptors of the master and of the elder worker: growth, and over time."""
    found: dict[str, Any] = {}
    for name, own in _watched(uses, master).items():
        if len(own) > 1:
            begun = uses[0].at
            samples = [[round(use.at - begun, 1), use.rss, use.pss, use.heap, use.descriptors] for use in own]
            found[name] = asdict(checks.growth(own)) | {
                "samples (s, rss, pss, heap, descriptors)": samples[:: -(-len(samples) // SAMPLES)]
            }
    return {"uses": found}


# Text


def text(found: Mapping[str, Any]) -> str:
    """The report for people, in Markdown."""
    lines = [
        f"{found['seconds']:.0f} s, {found['clients']} clients, disk: {found['disk']}; {found['requests']:,} requests answered"
        f" ({found['requests'] / found['seconds']:,.0f}/s), {found['acknowledged writes']:,} versions acknowledged in"
        f" {found['commits']:,} commits",
        f"{found['kills']} workers killed, {found['broken connections']} connections broken by it; settings read anew"
        f" {found['settings read anew']} times; disk full for {found['disk full, seconds']} s; maintenance"
        f" {found['maintenance']}; slow clients: {found['slow clients']}",
        "",
        "| status | answers |",
        "|---|---|",
        *(f"| {status} | {count:,} |" for status, count in found["statuses"].items()),
        "",
        *(f"* {count:,} times {reason}" for reason, count in found["refused with reason"].items()),
        "",
        "| ms | answers | p50 | p99 | max |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {each['count']:,} | {each['p50']:.1f} | {each['p99']:.0f} | {each['max']:.0f} |"
            for kind, each in found["kinds"].items()
        ),
        "",
    ]
    for name, use in found["uses"].items():
        lines += [*_use(name, use), ""]
    lines += [
        "log, besides information:",
        *(f"* {count:,} times {said}" for said, count in found["log"].items()),
    ]
    verify = found["verify"]
    lines += [f"verify: {len(verify['findings'])} findings, {len(verify['torn'])} torn lines of the journal"]
    faults = found["faults"]
    lines += ["", f"{len(faults)} faults", *(f"* {fault}" for fault in faults[: 3 * checks.SHOWN])]
    return "\n".join(lines)


def _use(name: str, use: Mapping[str, Any]) -> list[str]:
    [samples] = [value for key, value in use.items() if key.startswith("samples")]
    return [
        f"{name}, watched for {use['seconds']:.0f} s; in the last third: heap {use['heap'] / 1024:+.1f} MiB, resident"
        f" {use['rss'] / 1024:+.1f} MiB, descriptors {use['descriptors']:+.1f}; most: {use['most_rss'] / 1024:.0f} MiB,"
        f" {use['most_descriptors']} descriptors",
        "",
        "| s | resident, MiB | share, MiB | heap, MiB | descriptors |",
        "|---|---|---|---|---|",
        *(
            f"| {at:.0f} | {rss / 1024:.0f} | {pss / 1024:.0f} | {heap / 1024:.0f} | {descriptors} |"
            for at, rss, pss, heap, descriptors in samples
        ),
    ]
