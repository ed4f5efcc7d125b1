"""How many requests of one principal are worked on at once. docs/operations.md, `fhir.maxInFlight`"""

from __future__ import annotations

import threading

import falcon
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import CODES, RETRY_AFTER
from api.limits import InFlight


def test_as_many_as_the_limit_and_no_more() -> None:
    """429 with Retry-After. https://www.rfc-editor.org/rfc/rfc6585#section-4"""
    requests = InFlight(2)
    requests.enter("ada")
    requests.enter("ada")

    with pytest.raises(falcon.HTTPTooManyRequests) as caught:
        requests.enter("ada")

    assert caught.value.status == falcon.HTTP_429
    assert caught.value.headers == {"Retry-After": str(RETRY_AFTER)}
    assert caught.value.description == "You have 2 requests under way; at most 2 may be."


def test_it_has_an_issue_code_of_its_own() -> None:
    """https://hl7.org/fhir/R4/valueset-issue-type.html: throttled"""
    assert CODES[429] == "throttled"


def test_one_principal_is_not_in_the_way_of_another() -> None:
    requests = InFlight(1)
    requests.enter("ada")

    requests.enter("grace")

    assert (requests.count(), requests.principals()) == (2, 2)


def test_who_leaves_makes_room() -> None:
    requests = InFlight(1)
    requests.enter("ada")
    requests.leave("ada")

    requests.enter("ada")

    assert requests.count() == 1


def test_who_is_refused_has_not_begun() -> None:
    """Or the count would never come down to nothing."""
    requests = InFlight(1)
    requests.enter("ada")
    with pytest.raises(falcon.HTTPTooManyRequests):
        requests.enter("ada")

    requests.leave("ada")

    assert (requests.count(), requests.principals()) == (0, 0)
    with pytest.raises(KeyError):
        requests.leave("ada")


def test_0_is_no_limit() -> None:
    requests = InFlight(0)
    for _ in range(1000):
        requests.enter("ada")

    assert requests.count() == 1000


def test_a_block_leaves_however_it_ends() -> None:
    requests = InFlight(1)

    with pytest.raises(RuntimeError, match="1 under way"), requests.held("ada"):
        raise RuntimeError(f"{requests.count()} under way")
    with requests.held("ada"):
        with pytest.raises(falcon.HTTPTooManyRequests), requests.held("ada"):
            pytest.fail("begun beyond the limit")
        assert requests.count() == 1

    assert requests.principals() == 0


@given(st.integers(0, 3), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_it_counts_as_a_list_would(limit: int, steps: list[tuple[str, bool]]) -> None:
    """Whatever comes and goes: who is under way is whoever was let in and has not left."""
    requests, under_way = InFlight(limit), list[str]()
    for key, enters in steps:
        if not enters:
            if key in under_way:
                under_way.remove(key)
                requests.leave(key)
        elif limit and under_way.count(key) >= limit:
            with pytest.raises(falcon.HTTPTooManyRequests):
                requests.enter(key)
        else:
            requests.enter(key)
            under_way.append(key)
        assert (requests.count(), requests.principals()) == (len(under_way), len(set(under_way)))


def test_threads_never_get_beyond_the_limit() -> None:
    """Eight threads, three places: with all of them coming and going, never more than three are inside."""
    requests, inside, most, refused = InFlight(3), 0, 0, 0
    lock, start = threading.Lock(), threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most, refused
        start.wait()
        for _ in range(500):
            try:
                requests.enter("ada")
            except falcon.HTTPTooManyRequests:
                with lock:
                    refused += 1
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            requests.leave("ada")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 <= most <= 3
    assert (requests.count(), requests.principals()) == (0, 0)
