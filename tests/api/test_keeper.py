"""Who holds the lease, and what follows from it for a node, step by step."""

from __future__ import annotations

import pytest

from gitstore import Conflict, HubUnreachable, Locked
from tests.api.keepers import ALL, KEY, LOOK, TTL

# The primary


def test_a_primary_takes_the_lease_that_nobody_has(node, etcd):
    one = node("primary")

    assert one.step() == LOOK

    assert one.writes
    assert etcd.get(KEY).value == "http://one:8080"


def test_a_primary_takes_no_writes_before_it_has_the_lease(node):
    one = node("primary")
    one.way.is_cut = True

    one.step()

    assert one.cluster.suspended == "etcd does not answer"


def test_a_primary_that_starts_and_finds_another_steps_down(node):
    """It never takes a write: it is suspended while it does."""
    node("primary", "two").step()
    one = node("primary")

    one.step()

    assert one.cluster.told == ["http://two:8080 holds the lease"]
    assert one.points == "http://two:8080\n"


def test_a_node_that_cannot_step_down_takes_no_writes_and_tries_again(node):
    node("primary", "two").step()
    one = node("primary")
    one.cluster.refusal = Locked("somebody else writes")

    one.step()
    assert not one.writes
    assert one.cluster.role == "primary"

    one.cluster.refusal = None
    one.step()
    assert one.cluster.role == "replica"


def test_the_lease_is_renewed(node, time, etcd):
    one = node("primary")

    for _ in range(10):
        time.now += one.step()

    assert one.writes
    assert etcd.get(KEY) is not None


def test_a_primary_that_cannot_renew_stops_before_the_lease_ends(node, time, etcd):
    """At two thirds, counted from before it asked for the last time."""
    one = node("primary")
    one.step()
    begun = time.now
    one.way.is_cut = True
    time.now += 0.3
    pause = one.step()

    while one.writes:
        time.now += pause
        pause = one.step()

    assert time.now - begun == pytest.approx(TTL * 2 / 3)
    assert etcd.get(KEY) is not None


def test_what_stays_as_it_is_is_said_once(node, time, caplog):
    one = node("primary")
    one.step()
    one.way.is_cut = True
    caplog.clear()

    for _ in range(20):
        time.now += one.step()

    assert caplog.messages == ["no writes for now: etcd does not answer"]


def test_which_role_a_node_has_is_said_by_the_node_alone(node, time, caplog):
    """Once, with the reason that the keeper gives it; here nothing but the lease is talked of."""
    one, two = node("primary"), node("replica", "two")
    one.step()
    one.way.is_cut = True
    time.now += 3 * TTL
    two.settle()
    one.way.is_cut = False
    one.settle()

    assert (one.cluster.role, two.cluster.role) == ("replica", "primary")
    assert not [text for text in caplog.messages if "primary" in text or "replica" in text]


def test_a_short_loss_of_etcd_stops_nothing(node, time):
    one = node("primary")
    time.now += one.step()
    one.way.is_cut = True
    time.now += one.step()
    one.way.is_cut = False

    one.step()

    assert one.writes
    assert one.trusts == pytest.approx(time.now + TTL * 2 / 3)


def test_a_primary_that_has_the_lease_again_takes_writes_again(node, time):
    one = node("primary")
    one.step()
    one.way.is_cut = True
    time.now += 3 * TTL
    one.step()
    assert not one.writes
    one.way.is_cut = False

    one.step()

    assert one.writes


def test_a_primary_that_was_away_for_long_finds_its_successor(node, time):
    """A machine that was suspended: the lease has ended, and somebody else has it."""
    one, two = node("primary"), node("replica", "two")
    one.step()
    two.step()
    time.now += TTL
    two.settle()
    assert two.writes

    one.step()

    assert one.cluster.role == "replica"
    assert one.points == "http://two:8080\n"


def test_the_length_that_etcd_gives_counts(node, time, etcd):
    """It may be more than was asked for."""
    one = node("primary")
    etcd.grant, grant = (lambda _: grant(60)), etcd.grant

    one.step()

    assert one.trusts == pytest.approx(time.now + 40)


def test_time_on_the_way_shortens_the_trust(node, time):
    """The lease may have been renewed right after it was asked for."""
    one = node("primary")
    one.way.takes = 0.1
    begun = time.now

    one.step()

    assert one.trusts == pytest.approx(begun + TTL * 2 / 3)


def test_a_key_that_somebody_took_away_is_written_again(node, etcd):
    one = node("primary")
    one.step()
    etcd._keys.clear()

    one.step()

    assert etcd.get(KEY).value == "http://one:8080"
    assert one.writes


def test_an_answer_that_got_lost_is_no_other_node(node, etcd, time):
    """The key was taken under the lease that this node knows of."""
    one = node("primary")
    one.step()
    etcd._keys.clear()
    one.way.loses = ALL
    one.step()
    one.way.loses = frozenset()

    one.step()

    assert one.writes
    assert one.cluster.told == []


def test_a_lease_is_noted_before_anything_is_written_under_it(node, etcd):
    """Or a process that dies right then would leave a lease that its successor takes for another node's."""
    one = node("primary")
    one.way.loses = frozenset({"create"})
    one.step()
    assert etcd.get(KEY) is not None
    one.die()
    one.way.loses = frozenset()
    one.start()

    one.step()

    assert one.writes


def test_a_fenced_primary_gives_the_lease_to_another(node, etcd, time):
    """The hub has refused its push, so the node became a replica. The others have their turn first."""
    one, two = node("primary"), node("replica", "two")
    one.step()
    one.cluster.role = "replica"

    time.now += one.step()
    assert etcd.get(KEY) is None
    two.settle()
    one.step()

    assert two.writes
    assert one.points == "http://two:8080\n"


def test_a_primary_asks_nobody_before_it_stops_without_a_lease(node, time):
    """To ask may take long, and its workers write meanwhile."""
    one = node("primary")
    one.step()
    time.now += TTL
    wrote: list[bool] = []
    one.way.on_asked = lambda: wrote.append(one.writes)

    one.step()

    assert wrote
    assert not any(wrote)


def test_a_primary_stops_first_and_then_steps_down(node, etcd):
    """That may have to wait for a write that is under way, or for the hub."""
    one = node("primary")
    one.step()
    etcd._keys.clear()
    etcd.create(KEY, "", etcd.grant(6).id)
    one.cluster.refusal = Locked("somebody else writes")

    one.step()
    assert one.cluster.suspended == "another node holds the lease"

    one.cluster.refusal = None
    one.step()
    assert one.cluster.role == "replica"
    assert one.cluster.suspended is None


def test_a_lease_that_could_not_be_given_back_is_given_back_later(node, etcd):
    one = node("primary")
    one.step()
    one.cluster.role = "replica"
    one.way.loses = frozenset({"revoke"})
    revoke, etcd.revoke = etcd.revoke, lambda _: None
    one.step()
    assert etcd.get(KEY) is not None

    one.way.loses, etcd.revoke = frozenset(), revoke
    one.step()

    assert etcd.get(KEY) is None


def test_a_lease_that_is_to_be_given_back_is_not_trusted(node, etcd):
    """Should somebody make this node the primary by hand."""
    one = node("primary")
    one.step()
    one.cluster.role = "replica"
    one.way.loses = frozenset({"revoke"})
    one.step()
    one.cluster.role = "primary"
    one.way.is_cut = True

    one.step()

    assert not one.writes
    assert one.trusts <= 0


def test_who_becomes_primary_by_hand_passes_nothing_on(node, etcd):
    two, one = node("primary", "two"), node("replica")
    two.step()
    one.step()
    etcd.revoke(etcd.get(KEY).lease)
    one.cluster.role = "primary"

    one.step()

    assert one.points is None
    assert one.writes


# The replica


def test_a_replica_knows_where_the_primary_is(node):
    node("primary", "two").step()
    one = node("replica")

    one.step()

    assert one.points == "http://two:8080\n"
    assert one.cluster.role == "replica"


@pytest.mark.parametrize(
    "url", ["", "somewhere", "file:///etc/passwd", "http://two\nhttp://three", "http://one:8080"]
)
def test_writes_are_passed_on_to_nothing_but_the_url_of_another_node(node, etcd, url):
    """Its own URL stands there where it could not give the lease back."""
    one = node("replica")
    etcd.create(KEY, url, etcd.grant(6).id)

    one.step()

    assert one.points is None


def test_a_replica_becomes_the_primary_when_nobody_is(node, etcd, time):
    one, two = node("primary"), node("replica", "two")
    one.step()
    two.step()
    one.die()
    time.now += TTL

    two.step()
    assert two.points is None
    assert two.cluster.role == "replica"
    two.later.do()
    two.step()

    assert two.writes
    assert etcd.get(KEY).value == "http://two:8080"


def test_a_new_primary_takes_no_writes_before_it_knows_that_it_still_has_the_lease(node):
    """Its promotion may have taken longer than the lease lasted."""
    one = node("replica")
    one.step()

    one.later.do()
    assert one.cluster.role == "primary"
    assert not one.writes

    one.step()
    assert one.writes


def test_the_end_of_a_promotion_is_noticed_at_once(node):
    one = node("replica")
    one.step()

    one.later.do()

    assert one.keeper.wake.is_set()


def test_the_lease_is_renewed_while_a_promotion_takes_its_time(node, time, etcd):
    one, two = node("replica"), node("replica", "two")
    one.step()
    for _ in range(10):
        time.now += one.step()
        two.step()

    assert two.later.waiting == []
    one.later.do()
    one.step()
    assert one.writes


@pytest.mark.parametrize("refusal", [HubUnreachable("no hub"), Conflict("another was faster")])
def test_a_replica_that_cannot_become_the_primary_lets_others_try(node, time, etcd, refusal):
    one = node("replica")
    one.cluster.refusal = refusal
    one.step()
    one.later.do()

    time.now += (pause := one.step())

    assert etcd.get(KEY) is None
    assert one.cluster.suspended is None
    assert pause == LOOK
    one.step()
    assert one.later.waiting == []
    time.now += LOOK
    one.step()
    assert one.later.waiting


def test_an_error_that_nobody_thought_of_ends_the_keeper(node):
    """The process ends with it, and another one takes over."""
    one = node("replica")
    one.cluster.refusal = ZeroDivisionError()
    one.step()
    one.later.do()

    with pytest.raises(ZeroDivisionError):
        one.step()


def test_without_etcd_a_replica_stays_one_and_remembers_the_primary(node):
    """It may well be there still."""
    node("primary", "two").step()
    one = node("replica")
    one.step()
    one.way.is_cut = True

    one.step()

    assert one.points == "http://two:8080\n"
    assert one.cluster.suspended is None
