"""A process that writes until it is killed: `python killed_writer.py GIT_DIR WRITERS`.

Every line on stdout is a write that was acknowledged: `one K N` (Patient/one-K has version N) or `three K N` (the three
resources of transaction K have version N).
"""

from __future__ import annotations

import os
import sys
import threading

from gitstore import Author, Delete, NotFound, Store, Update
from gitstore.fhir.ids import ResourceId

AUTHOR = Author("Grace", "grace@clinic.example")
TYPES = ("Patient", "Practitioner", "Location")


def update(type: str, id: str, number: int) -> Update:
    resource_id = ResourceId(type, id)
    body = {
        "resourceType": type,
        "id": id,
        "language": f"n-{number}",
        "implicitRules": "x" * (number % 997 + 1),
    }
    return Update(resource_id, body, if_match=frozenset([str(number - 1)]) if number > 1 else None)


def acknowledge(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def last_version(store: Store, type: str, id: str) -> int:
    try:
        return store.snapshot().history(ResourceId(type, id), count=1).versions[0].version_id
    except NotFound:
        return 0


def write_one(store: Store, key: int) -> None:
    number = last_version(store, "Patient", f"one-{key}")
    while True:
        number += 1
        if number % 10 == 0:
            store.commit([Delete(ResourceId("Patient", f"one-{key}"))], AUTHOR)
        else:
            store.commit([update("Patient", f"one-{key}", number)], AUTHOR)
        acknowledge(f"one {key} {number}")


def write_three(store: Store, key: int) -> None:
    number = last_version(store, "Patient", f"three-{key}")
    while True:
        number += 1
        interactions = [update(type, f"three-{key}", number) for type in TYPES]
        store.commit(interactions, AUTHOR, interaction="transaction")
        acknowledge(f"three {key} {number}")


def main() -> None:
    store = Store.open(sys.argv[1])
    acknowledge("ready")
    writers = int(sys.argv[2])
    threads = [
        threading.Thread(target=write_three if key % 4 == 0 else write_one, args=(store, key))
        for key in range(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
