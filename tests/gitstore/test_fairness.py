"""Between processes the writer's lock goes from hand to hand: who writes without a pause doesn't keep others waiting."""

from __future__ import annotations

import os
from pathlib import Path

from gitstore import Author, Settings, Store, Update
from gitstore.fhir.ids import ResourceId
from gitstore.git.writer import Writer, read_main

TURNS = 20
ADA = Author("Ada", "ada@clinic.example")


def write_when_told(record: str, told: int, tell: int) -> None:
    """A process that says when it is ready, then writes one unit for each byte that it reads; ends with 0."""
    code = 1
    try:
        with Store.open(record, Settings(durability="off", validation="off")) as store:
            os.write(tell, b".")
            while os.read(told, 1):
                store.commit(
                    [Update(ResourceId("Patient", "a"), {"resourceType": "Patient", "id": "a"})], ADA
                )
            code = 0
    finally:
        os._exit(code)


def wait_until_it_waits(pid: int) -> None:
    """Until the process waits for a lock. https://www.kernel.org/doc/html/latest/filesystems/proc.html"""
    while not any(
        line[1] == "->" and line[5] == str(pid)
        for line in map(str.split, Path("/proc/locks").read_text(encoding="ascii").splitlines())
    ):
        os.sched_yield()


def test_the_lock_goes_to_who_waits_and_not_back_to_who_lets_go(record: str) -> None:
    """Each time: a process that lets go of the lock and wants it back at once finds that the waiting one has written."""
    Store.open(record).close()
    (child_told, tell), (told, child_tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell)
        write_when_told(record, child_told, child_tell)
    assert os.read(told, 1)
    writer = Writer(record, durable=False)
    commits = []
    for _ in range(TURNS):
        with writer.locked():
            commits.append(read_main(record))
            os.write(tell, b".")
            wait_until_it_waits(pid)
    with writer.locked():
        commits.append(read_main(record))
    writer.close()
    for descriptor in (tell, told, child_told, child_tell):
        os.close(descriptor)

    assert os.waitpid(pid, 0)[1] == 0
    assert len(set(commits)) == TURNS + 1
