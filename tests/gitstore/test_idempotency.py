"""Idempotency keys: a retry after a lost answer does nothing again, and is answered as the first time."""

from __future__ import annotations

import threading

import pytest

from gitstore import (
    ANONYMOUS,
    Ask,
    Create,
    Criteria,
    Delete,
    Idempotency,
    Invalid,
    Unprocessable,
    Update,
)
from gitstore.fhir.ids import ResourceId

ONCE = Idempotency("order-1", "ab" * 32)
PATIENT = ResourceId("Patient", "p")


def resource(type: str = "Patient", id: str | None = None, **elements: object) -> dict[str, object]:
    return {"resourceType": type, **({"id": id} if id else {}), **elements}


def test_a_retry_makes_nothing_and_gets_the_first_answer(store, ada):
    """A drug must not be ordered twice because an answer was lost."""
    first = store.commit([Create(resource())], ada, idempotency=ONCE)
    store.commit([Update(PATIENT, resource(id="p"))], ada)
    head = store.snapshot().commit

    again = store.commit([Create(resource())], ada, idempotency=ONCE)

    assert again == first
    assert store.snapshot().commit == head


def test_the_same_key_with_another_request_is_refused(store, ada):
    store.commit([Create(resource())], ada, idempotency=ONCE)

    with pytest.raises(Unprocessable, match="order-1"):
        store.commit([Create(resource())], ada, idempotency=Idempotency("order-1", "cd" * 32))

    assert len(store.snapshot().history().versions) == 1


def test_keys_of_different_authors_and_longer_keys_are_others(store, ada):
    for author, key in ((ada, "a"), (ANONYMOUS, "a"), (ada, "a!"), (ada, "aa")):
        [made] = store.commit([Create(resource())], author, idempotency=Idempotency(key, "ab" * 32))
        assert made.changed

    assert store.snapshot().history().total == 4


def test_a_retry_is_answered_after_a_rebuild_too(store, ada):
    """The key is in the commit's trailers, and the index only repeats it."""
    first = store.commit([Create(resource())], ada, idempotency=ONCE)

    store.reindex()

    assert store.commit([Create(resource())], ada, idempotency=ONCE) == first
    assert list(store.verify()) == []


def test_a_transaction_is_answered_entry_by_entry(store, ada):
    """Also where entries came to nothing, and where what they asked has changed since."""
    store.commit([Update(ResourceId("Patient", "old"), resource(id="old", active=True))], ada)

    def unit() -> list[object]:
        return [
            Create(resource("Observation")),
            Delete(ResourceId("Patient", "never")),
            Create(resource(), unless=Criteria("Patient", (("active", "true"),))),
            Update(PATIENT, resource(id="p")),
            Ask(lambda snapshot: snapshot.read(PATIENT).version_id),
        ]

    first = store.commit(unit(), ada, interaction="transaction", idempotency=ONCE)
    store.commit([Update(PATIENT, resource(id="p", active=True))], ada)
    again = store.commit(unit(), ada, interaction="transaction", idempotency=ONCE)

    assert [each.changed for each in first] == [True, False, False, True, False]
    assert [again[place] for place in (0, 1, 3, 4)] == [first[place] for place in (0, 1, 3, 4)]
    assert not again[2].changed


def test_parallel_requests_with_one_key_make_one_version(store, ada):
    outcomes = []

    def send() -> None:
        outcomes.append(store.commit([Create(resource())], ada, idempotency=ONCE))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({str(outcome[0].version) for outcome in outcomes}) == 1
    assert store.snapshot().history().total == 1


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 129, "a\nb"])
def test_a_key_that_could_not_stand_in_a_trailer_is_refused(key):
    with pytest.raises(Invalid):
        Idempotency.parse(f"{key} {'ab' * 32}")


def test_the_key_stands_in_the_commit(store, ada, git):
    store.commit([Create(resource())], ada, idempotency=ONCE)

    assert f"FHIR-Idempotency-Key: order-1 {'ab' * 32}" in git("log", "-1", "--format=%B", "main")
