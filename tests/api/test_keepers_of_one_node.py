"""Several processes of one node: one keeps the lease, another goes on with it, the last one gives it back."""

from __future__ import annotations

import math

import pytest

from api.lease_files import Files
from tests.api.keepers import KEY, TTL


def test_one_process_keeps_the_lease_and_another_goes_on_with_it(node, etcd):
    one = node("primary")
    one.step()
    first, lease = one.files, etcd.get(KEY).lease
    one.start()

    assert one.step() == TTL / 12
    assert one.writes
    first.close()
    one.step()

    assert one.writes
    assert etcd.get(KEY).lease == lease


def test_a_process_that_takes_over_trusts_the_lease_as_long_as_the_other_did(node, time):
    """No write is refused because a worker was replaced."""
    one = node("primary")
    one.step()
    until = one.trusts
    one.die()
    one.start()
    one.way.is_cut = True

    one.step()
    assert one.writes
    time.now = until
    one.step()

    assert not one.writes


def test_what_was_noted_before_a_restart_of_the_machine_says_nothing_of_time(tmp_path):
    """The clock began anew. https://docs.kernel.org/admin-guide/sysctl/kernel.html#random"""
    files = Files(str(tmp_path))
    files.note(7, 50.5)
    assert files.noted() == (7, 50.5)
    note = (tmp_path / "lease").read_text()
    (tmp_path / "lease").write_text(note.replace(note.split()[3], "another"))

    assert files.noted() == (7, -math.inf)

    files.close()


def test_only_the_last_process_gives_the_lease_back(node, etcd):
    """Also where it never was the one at work."""
    one = node("primary")
    one.step()
    first, one.files = one.files, None
    one.start()

    assert not first.is_last()
    first.close()
    assert one.files.is_last()
    one.keeper.leave()
    one.step()
    one.keeper.give_back()

    assert etcd.get(KEY) is None


def test_a_node_that_is_about_to_stop_renews_and_decides_nothing(node, etcd, time):
    one = node("primary")
    one.step()
    one.keeper.leave()

    for _ in range(10):
        time.now += one.step()
    assert etcd.get(KEY) is not None
    etcd._keys.clear()
    etcd.create(KEY, "http://two:8080", etcd.grant(6).id)
    one.step()

    assert one.cluster.role == "primary"


def test_a_copy_of_a_repository_does_not_hold_the_leases_of_the_first(node, tmp_path):
    one = node("primary")
    one.step()
    copy = node("primary", "copy")
    (tmp_path / "copy" / "lease").write_bytes((tmp_path / "one" / "lease").read_bytes())

    copy.step()

    assert copy.cluster.role == "replica"
    assert one.writes


@pytest.mark.parametrize("content", [b"", b"\0" * 128, b"1 2", b"x y z a", b"\xff", "² 1 2 a".encode()])
def test_a_note_that_nobody_wrote_holds_no_lease(tmp_path, content):
    (tmp_path / "lease").write_bytes(content)
    files = Files(str(tmp_path))

    assert files.noted() == (None, -math.inf)

    files.close()
