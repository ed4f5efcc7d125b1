"""How long blame takes for a resource with many versions: python -m benchmarks.blame [--versions 1000]"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from typing import Any

from gitstore import Author, Settings, Store, Update, blame, init
from gitstore.fhir.ids import ResourceId

NURSE = Author("Nurse", "nurse@clinic.example")
PATIENT = ResourceId("Patient", "p")


FIRST: dict[str, Any] = {
    "resourceType": "Patient",
    "id": PATIENT.id,
    "identifier": [{"system": "urn:mrn", "value": "1"}, {"system": "urn:ssn", "value": "2"}],
    "name": [{"use": "official", "family": "Lovelace", "given": ["Ada", "Augusta"]}, {"text": "Countess"}],
    "telecom": [{"system": "phone", "value": f"0-{number}", "use": "home"} for number in range(5)],
    "birthDate": "1815-12-10",
    "address": [{"line": ["St James's Square 12"], "city": "London", "country": "GB"}],
    "contact": [{"name": {"family": "Byron"}, "telecom": [{"system": "email", "value": "b@example.org"}]}],
}


def edited(patient: dict[str, Any], number: int) -> dict[str, Any]:
    """The patient after another edit: each tenth puts a telephone number in front of the list, the others change one."""
    telecom = list(patient["telecom"])
    if number % 10 == 0:
        telecom.insert(0, {"system": "phone", "value": str(number)})
    else:
        telecom[number % len(telecom)] = telecom[number % len(telecom)] | {"value": f"{number}-a"}
    return {**patient, "telecom": telecom[:20]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=1000)
    count = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as folder:
        init(folder)
        clock = itertools.count(1_767_225_600_000_000, 1_000_000)
        with Store.open(folder, Settings(durability="off"), clock=lambda: next(clock)) as store:
            patient = FIRST
            for number in range(count):
                patient = edited(patient, number)
                store.commit([Update(PATIENT, patient)], NURSE)
            begin = time.perf_counter()
            leaves = list(blame(store.snapshot(), PATIENT))
            taken = time.perf_counter() - begin
    print(f"{count} versions, {len(leaves)} primitives: {taken:.3f} s")


if __name__ == "__main__":
    main()
