"""Which repositories of a folder are open: one of each, not too many, and never one less than is in use."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.metrics import ManyMetrics
from api.repositories import IDLE, RESERVED, RETRY, Lease, Repositories, find, largest_body, listed
from gitstore import NotFound, RepositoryRefused, Settings, StorageFailed, Unavailable

SOON = 20
"""Seconds that a thread may take; only a failing test waits so long."""


class Openings:
    """Opens nothing, but knows what is open, what was and how often."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self.most = 0
        self.error: Exception | None = None
        self.begun = threading.Event()
        self.slow: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, path: str) -> Iterator[object]:
        name = os.path.basename(path).removesuffix(".git")
        with self._lock:
            self.count[name] += 1
        if name in self.slow:
            self.begun.set()
            assert self.slow[name].wait(SOON)
        if self.error is not None:
            raise self.error
        with self._lock:
            self.open[name] += 1
            self.most = max(self.most, self.open.total())
        yield lambda _environ, _start: [name]
        with self._lock:
            self.open[name] -= 1
            assert self.open[name] >= 0

    @property
    def names(self) -> list[str]:
        return sorted(self.open.elements())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def bare(path: Path) -> Path:
    """What looks like a git directory from outside."""
    (path / "objects").mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.git", "b.git", "c", "d.git"):
        bare(tmp_path / "root" / name)
    return tmp_path / "root"


@pytest.fixture
def openings() -> Openings:
    return Openings()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repositories(folder: Path, openings: Openings, clock: Clock) -> Repositories:
    return Repositories(str(folder), openings, ManyMetrics(), most=2, patience=SOON, clock=clock)


def use(repositories: Repositories, *names: str) -> None:
    for name in names:
        repositories.lease(name).release()


def in_a_thread(repositories: Repositories, name: str, into: list[object]) -> threading.Thread:
    def run() -> None:
        try:
            into.append(repositories.lease(name))
        except (NotFound, Unavailable) as error:
            into.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# Opening and closing


def test_it_is_opened_when_it_is_first_asked_for_and_stays_open(repositories, openings):
    assert openings.names == []

    use(repositories, "a", "a", "c", "a")

    assert openings.names == ["a", "c"]
    assert openings.count == {"a": 1, "c": 1}


def test_the_one_that_was_used_longest_ago_makes_room(repositories, openings):
    use(repositories, "a", "b", "a", "c")

    assert openings.names == ["a", "c"]
    assert openings.most == 2, "one is closed before another is opened"


def test_what_is_idle_is_closed(repositories, openings, clock):
    use(repositories, "a")
    clock.now += IDLE / 2
    use(repositories, "b")
    clock.now += IDLE / 2
    repositories.close_idle()

    assert openings.names == ["b"]


def test_what_is_in_use_is_never_idle(repositories, openings, clock):
    lease = repositories.lease("a")
    clock.now += 2 * IDLE
    repositories.close_idle()
    assert openings.names == ["a"]

    lease.release()
    repositories.close_idle()
    assert openings.names == ["a"], "it has just been used"


def test_one_in_use_makes_no_room_for_others(repositories, openings):
    lease = repositories.lease("a")
    use(repositories, "b", "c", "d")

    assert openings.names == ["a", "d"]
    lease.release()


def test_a_lease_that_is_released_twice_counts_once(repositories, openings, clock):
    first, second = repositories.lease("a"), repositories.lease("a")
    first.release()
    first.release()
    clock.now += IDLE
    repositories.close_idle()

    assert openings.names == ["a"]
    second.release()


def test_two_who_ask_at_once_open_it_once(repositories, openings):
    openings.slow["a"] = threading.Event()
    leases: list[object] = []
    threads = [in_a_thread(repositories, "a", leases) for _ in range(5)]
    assert openings.begun.wait(SOON)
    openings.slow["a"].set()
    for thread in threads:
        thread.join(SOON)

    assert openings.count == {"a": 1}
    assert [type(lease) for lease in leases] == [Lease] * 5


def test_while_one_is_opened_others_are_answered(repositories, openings):
    """Opening takes as long as it takes, such as for an index to be made."""
    openings.slow["a"] = threading.Event()
    leases: list[object] = []
    thread = in_a_thread(repositories, "a", leases)
    assert openings.begun.wait(SOON)

    use(repositories, "b")
    with pytest.raises(NotFound):
        repositories.lease("nobody")

    assert leases == []
    openings.slow["a"].set()
    thread.join(SOON)
    assert len(leases) == 1


def test_where_all_are_in_use_the_next_waits_for_the_end_of_a_lease(repositories, openings):
    held, _ = repositories.lease("a"), repositories.lease("b")
    leases: list[object] = []
    thread = in_a_thread(repositories, "c", leases)
    held.release()
    thread.join(SOON)

    assert isinstance(leases[0], Lease)
    assert openings.names == ["b", "c"]
    assert openings.most == 2


def test_it_does_not_wait_for_ever(folder, openings):
    repositories = Repositories(str(folder), openings, ManyMetrics(), most=1, patience=0.0)
    lease = repositories.lease("a")

    with pytest.raises(Unavailable, match="no room"):
        repositories.lease("b")

    lease.release()
    use(repositories, "b")


def test_in_the_end_all_are_closed(repositories, openings):
    use(repositories, "a")
    repositories.lease("b")
    repositories.close()

    assert openings.names == []
    assert repositories.held == 0


# What is done to the folder


def test_one_that_is_new_is_found(repositories, folder, openings):
    with pytest.raises(NotFound):
        repositories.lease("new")
    bare(folder / "new.git")

    use(repositories, "new")

    assert openings.names == ["new"]


def test_one_that_is_taken_away_is_closed_and_gone(repositories, folder, openings):
    use(repositories, "a", "b")
    (folder / "a.git").rename(folder / "elsewhere.git")

    with pytest.raises(NotFound):
        repositories.lease("a")

    assert openings.names == ["b"]
    (folder / "b.git" / "HEAD").unlink()
    repositories.close_idle()
    assert openings.names == [], "also where nobody asks for it"


def test_one_that_is_taken_away_while_it_is_used_is_closed_afterwards(repositories, folder, openings):
    lease = repositories.lease("a")
    (folder / "a.git").rename(folder / "elsewhere.git")
    with pytest.raises(NotFound):
        repositories.lease("a")

    assert openings.names == ["a"]
    lease.release()
    assert openings.names == []


def test_another_one_in_its_place_is_another_one(repositories, folder, openings):
    lease = repositories.lease("a")
    (folder / "a.git").rename(folder / "old.git")
    bare(folder / "a.git")

    use(repositories, "a")
    assert openings.names == ["a", "a"], "who uses the old one still does"

    lease.release()
    assert openings.names == ["a"]
    use(repositories, "a")
    assert openings.count["a"] == 2


# What can't be opened


def test_what_can_not_be_opened_is_tried_again_after_a_while(repositories, openings, clock):
    openings.error = StorageFailed("The disk is gone.")
    for _ in range(3):
        with pytest.raises(Unavailable, match="can't be opened"):
            repositories.lease("a")
    assert openings.count == {"a": 1}
    assert repositories.held == 0

    openings.error = None
    use(repositories, "b")
    clock.now += RETRY
    use(repositories, "a")

    assert openings.names == ["a", "b"]


def test_it_may_fail_in_any_way(repositories, openings, caplog):
    """What is wrong with a damaged repository can't be foreseen. The log says what; the client hears nothing of it."""
    openings.error = RecursionError("patient Ada")

    with pytest.raises(Unavailable) as caught:
        repositories.lease("a")

    assert "RecursionError" in caplog.text
    assert "a.git" not in str(caught.value)


def test_a_git_repository_without_a_record_is_none_of_ours(repositories, folder, openings):
    openings.error = RepositoryRefused("It holds no git-fhir record.")
    for _ in range(2):
        with pytest.raises(NotFound, match=r"^There is nothing here\.$"):
            repositories.lease("a")

    (folder / "b.git" / "git-fhir").mkdir()
    with pytest.raises(Unavailable):
        repositories.lease("b")


def test_those_who_wait_for_one_that_fails_hear_the_same(repositories, openings):
    openings.slow["a"] = threading.Event()
    openings.error = StorageFailed("The disk is gone.")
    answers: list[object] = []
    threads = [in_a_thread(repositories, "a", answers) for _ in range(4)]
    assert openings.begun.wait(SOON)
    openings.slow["a"].set()
    for thread in threads:
        thread.join(SOON)

    assert [type(answer) for answer in answers] == [Unavailable] * 4
    assert openings.count == {"a": 1}


# Names


def test_names_are_looked_up_in_the_folder_alone(folder, tmp_path):
    """With .git or without; the one with it, where there are both. Another kind of folder is none."""
    bare(tmp_path / "secret.git")
    bare(folder / "a")
    (folder / "work" / ".git").mkdir(parents=True)
    (folder / "file.git").write_text("")
    for name in RESERVED:
        bare(folder / name)

    assert find(str(folder), "a").path == str(folder / "a.git")
    assert find(str(folder), "c").path == str(folder / "c")
    for name in ("", ".", "..", "a.git", "A.GIT", "work", "file", "../secret", "..%2fsecret", "/", *RESERVED):
        assert find(str(folder), name) is None, name
    assert [os.path.basename(each.path) for each in listed(str(folder))] == ["a.git", "b.git", "c", "d.git"]


@given(st.text(st.characters(codec="latin-1")) | st.text("./a\0 bg-_"))
def test_no_name_leads_out_of_the_folder(name):
    """Whatever a path's segment is after decoding. The folder here is / itself, so that all there is could be found."""
    found = find("/", name)

    assert found is None or os.path.dirname(found.path) == "/"


def test_a_link_in_the_folder_is_followed_by_who_put_it_there(folder, tmp_path):
    """So that repositories can lie on several disks. It is the target that counts: another target is another one."""
    first, second = bare(tmp_path / "first.git"), bare(tmp_path / "second.git")
    link = folder / "linked"
    link.symlink_to(first)
    before = find(str(folder), "linked")
    link.unlink()
    link.symlink_to(second)
    after = find(str(folder), "linked")
    link.unlink()
    link.symlink_to(link)

    assert before.path == after.path == str(link)
    assert before.identity != after.identity
    assert find(str(folder), "linked") is None, "a link to itself leads nowhere"


def test_the_largest_body_is_that_of_the_most_generous(folder):
    """fhir.maxBundle of each; one whose settings can't be read doesn't count, nor does one that takes less than others."""
    assert largest_body(str(folder)) == Settings().max_bundle

    config = "[core]\nbare = true\nrepositoryformatversion = 0\n[fhir]\nmaxBundle = {}\n"
    for name, value in (("a.git", "300m"), ("b.git", "much"), ("d.git", "1k")):
        (folder / name / "refs").mkdir()
        (folder / name / "config").write_text(config.format(value))

    assert largest_body(str(folder)) == 300 * 1024**2


# All of it


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["lease", "release", "sweep"])), max_size=40)
)
def test_whatever_is_asked_there_are_not_too_many_and_none_is_closed_in_use(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("any")
    for name in "abcd":
        bare(folder / name)
    openings, clock = Openings(), Clock()
    repositories = Repositories(str(folder), openings, ManyMetrics(), most=2, patience=0.0, clock=clock)
    leases: dict[str, list[Lease]] = {name: [] for name in "abcd"}
    for name, step in steps:
        if step == "lease":
            try:
                leases[name].append(repositories.lease(name))
            except Unavailable:
                assert not leases[name]
                assert sum(map(bool, leases.values())) == 2
        elif step == "release" and leases[name]:
            leases[name].pop().release()
        elif step == "sweep":
            clock.now += IDLE
            repositories.close_idle()
        used = {each for each, held in leases.items() if held}
        assert used <= set(openings.names)
        assert repositories.held == len(openings.names) <= 2
        assert max(openings.open.values(), default=0) <= 1
