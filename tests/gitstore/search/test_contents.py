"""The rows of resources: whatever stood there before, an update leaves what the new version says, and no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir.ids import ResourceId
from gitstore.search import contents
from gitstore.search.contents import Keys, meant, stored
from gitstore.search.index import of_contents
from gitstore.search.noting import renew
from gitstore.search.rows import Contained, Rows

ADA, GRACE = ResourceId("Patient", "ada"), ResourceId("Patient", "grace")

_parameters = st.integers(1, 3)
_elements = st.integers(0, 1)
_words = st.sampled_from(["", "a", "b"])
_numbers = st.integers(0, 2)
_amounts = st.sampled_from([b"\x01", b"\x02"])


def _rows(contained: st.SearchStrategy[list[Contained]]) -> st.SearchStrategy[Rows]:
    def some(*parts: st.SearchStrategy[object]) -> st.SearchStrategy[list[tuple[object, ...]]]:
        return st.lists(st.tuples(_parameters, *parts), max_size=3, unique=True)

    return st.builds(
        Rows,
        tokens=some(_words, _words, _elements),
        strings=some(_words, _numbers, _elements),
        dates=some(st.just(0), _numbers, _numbers, _elements),
        quantities=some(_words, _words, _amounts, _amounts, _elements),
        references=some(
            st.sampled_from(["Patient", "Group", None]), _words, st.sampled_from([None, "1"]), _elements
        ),
        positions=some(st.sampled_from([0.0, 1.5]), st.sampled_from([-0.5, 2.0])),
        narrative=_words,
        content=_words,
        contained=contained,
    )


_inner = st.builds(Contained, st.just("Group"), st.just("inside"), _rows(st.just([])))
rows = _rows(st.lists(_inner, max_size=1))


@given(st.lists(st.one_of(st.none(), rows), min_size=1, max_size=4), rows)
def test_the_last_version_is_what_the_index_holds(versions, other):
    """After any sequence of versions and deletions; and what another resource says is not touched."""
    connection = of_contents([(ADA, Rows()), (GRACE, other)])
    for version in versions:
        renew(connection, 1, version)
        expected = meant(version) if version is not None else set()
        assert stored(connection, 1) == expected
        assert stored(connection, 2) == meant(other)
    last = versions[-1] or Rows()
    for word in ("a", "b"):
        found = connection.execute(
            "SELECT t.resource FROM words JOIN texts t ON t.key = words.rowid WHERE words MATCH ?", (word,)
        )
        expected = {n for n, one in ((1, last), (2, other)) if word in (one.narrative, one.content)}
        assert {key for (key,) in found} == expected
    connection.close()


@given(rows)
def test_what_stays_the_same_is_not_written_again(version):
    """An update mostly changes a value or two of dozens."""
    version.narrative = version.content = ""
    version.contained = []
    connection = of_contents([(ADA, version)])
    before = connection.total_changes
    renew(connection, 1, version)
    assert connection.total_changes == before
    connection.close()


def test_no_more_keys_are_remembered_than_there_is_room_for(monkeypatch):
    """A rebuild meets every resource in one transaction, and there may be millions."""
    monkeypatch.setattr(contents, "_MOST_KNOWN", 3)
    keys, asked = Keys(), []

    def look_up(name):
        asked.append(name)
        return len(asked)

    assert [keys.key(name, look_up) for name in "abcabc"] == [1, 2, 3, 1, 2, 3]
    assert keys.key("d", look_up) == 4
    assert keys.key("a", look_up) == 5
    assert asked == [*"abcda"]


def test_resources_in_memory_may_refer_to_one_another_and_to_others():
    """Whom they refer to takes a key, too, be it one of them or not."""

    def referring(*ids):
        return Rows(references=[(1, "Patient", id, None, 0) for id in ids])

    written = [(ADA, referring("charles", "grace")), (GRACE, referring("ada", "charles"))]
    connection = of_contents(written)

    assert [stored(connection, key) for key in (1, 2)] == [meant(rows) for _, rows in written]
    connection.close()
