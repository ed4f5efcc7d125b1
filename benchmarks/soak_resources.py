"""What is written during a soak: small resources, each with the mark of the write that it is of."""

from __future__ import annotations

import re
from typing import Any

SYSTEM = "urn:soak"
"""Of the identifier that says which write a version is of: its value is the write's mark."""

SCOPED = "scoped"
"""The id of the Patient whom the patient-scoped token is about."""

SHARED = tuple(f"shared-{number}" for number in range(3))
TRIPLE = ("Patient", "Observation", "Condition")
TYPES = TRIPLE
"""What clients write."""

MARK = re.compile(rb'"value": ?"(w[0-9]+-[0-9]+)"')


def patient(mark: str) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": mark}],
        "name": [{"family": "Soak", "given": ["Ada"]}],
        "birthDate": "1980-02-29",
    }


def observation(mark: str, subject: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": SYSTEM, "value": mark}],
        "status": "final",
        "code": {"coding": [{"system": SYSTEM, "code": "soak"}], "text": "Soak"},
        "subject": {"reference": subject},
        "effectiveDateTime": "2026-11-21T22:30:00Z",
        "valueQuantity": {
            "value": 20 + len(mark) * 7,
            "unit": "l",
            "system": "http://unitsofmeasure.org",
            "code": "L",
        },
        "note": [{"text": f"Rain from the west. {mark} " * 8}],
    }


def condition(mark: str, subject: str) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "identifier": [{"system": SYSTEM, "value": mark}],
        "code": {"coding": [{"system": SYSTEM, "code": "soak"}], "text": "Wet through"},
        "subject": {"reference": subject},
    }
