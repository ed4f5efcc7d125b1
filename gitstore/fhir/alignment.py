"""Which elements of one list became which of another, so that what is put in front of a list is one addition.

Elements are matched where they are equal, have the same `id`, `system` and `value` or `system` and `code`, or else are
most alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from gitstore.fhir.json import Number

Pair: TypeAlias = tuple[int | None, int | None]
"""The numbers of an element in the old list and in the new one; None where it is not in there."""

_Gap: TypeAlias = tuple[list[int], list[int]]

_LARGEST_TABLE = 40_000
"""Cells of an alignment table; where it would have more, elements are paired in their order."""


def aligned(old: Sequence[Any], new: Sequence[Any]) -> Iterator[Pair]:
    """Pairs in the order of both lists; an element that changed its place is removed and added."""
    before, after = _tokens(old, new)
    anchors = _in_place(_unique(before, after))
    for gap, anchor in zip(_gaps(anchors, len(old), len(new)), [*anchors, None], strict=True):
        yield from _between(old, new, before, after, gap)
        if anchor is not None:
            yield anchor


def matched(old: Sequence[Any], new: Sequence[Any]) -> list[int | None]:
    """For each new element which old one it was, wherever that stood; None for one that came."""
    found: list[int | None] = [None] * len(new)
    before, after = _tokens(old, new)
    unique = _unique(before, after)
    olds, news = {i for i, _ in unique}, {j for _, j in unique}
    for i, j in unique:
        found[j] = i
    left: dict[Hashable, list[int]] = {}
    for gap in _gaps(_in_place(unique), len(old), len(new)):
        inner = [i for i in gap[0] if i not in olds], [j for j in gap[1] if j not in news]
        for was, now in _between(old, new, before, after, inner):
            if now is not None:
                found[now] = was
            elif was is not None:
                left.setdefault(before[was], []).append(was)
    for j, token in enumerate(after):
        if found[j] is None and left.get(token):
            found[j] = left[token].pop(0)
    return found


def rising(numbers: Sequence[int]) -> list[int]:
    """The places of numbers, all different, that rise from one to the next: as many as can be."""
    ends: list[int] = []  # the last number of the best row of each length,
    places: list[int] = []  # where that stands,
    before: list[int] = []  # and for each place the one before it in its row
    for place, number in enumerate(numbers):
        length = bisect_left(ends, number)
        before.append(places[length - 1] if length else -1)
        ends[length : length + 1] = [number]
        places[length : length + 1] = [place]
    found: list[int] = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def frozen(value: Any) -> Hashable:
    """A hashable stand-in for a JSON value: equal exactly for equal values, numbers by their digits."""
    if isinstance(value, dict):
        return ("object", frozenset((name, frozen(child)) for name, child in value.items()))
    if isinstance(value, list):
        return ("array", tuple(frozen(child) for child in value))
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return ("number", value.lexeme if isinstance(value, Number) else str(value))


def _unique(before: Sequence[Hashable], after: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The elements that are once in each list, in the order of the old one."""
    counts = Counter(before), Counter(after)
    places = {token: j for j, token in enumerate(after)}
    return [
        (i, places[token])
        for i, token in enumerate(before)
        if counts[0][token] == 1 and counts[1][token] == 1
    ]


def _in_place(unique: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most of them that are in the same order in both lists."""
    return [unique[place] for place in rising([j for _, j in unique])]


def _gaps(anchors: Sequence[tuple[int, int]], olds: int, news: int) -> Iterator[_Gap]:
    """What lies in front of each anchor, and behind the last."""
    i = j = 0
    for old, new in (*anchors, (olds, news)):
        yield list(range(i, old)), list(range(j, new))
        i, j = old + 1, new + 1


def _between(
    old: Sequence[Any],
    new: Sequence[Any],
    before: Sequence[Hashable],
    after: Sequence[Hashable],
    gap: _Gap,
) -> Iterator[Pair]:
    """The pairs of a gap: what is equal at its ends, then within, then what is most alike."""
    olds, news = gap
    if not (olds and news):  # as most gaps are: mostly one element changes
        yield from (_placed(pair, gap) for pair in _in_order(olds, news))
        return
    left, right = [before[i] for i in olds], [after[j] for j in news]
    head = _common(left, right)
    tail = _common(left[head:][::-1], right[head:][::-1])
    yield from zip(olds[:head], news[:head], strict=True)
    yield from _inside(
        old, new, before, after, (olds[head : len(olds) - tail], news[head : len(news) - tail])
    )
    yield from zip(olds[len(olds) - tail :], news[len(news) - tail :], strict=True)


def _common(before: Sequence[Hashable], after: Sequence[Hashable]) -> int:
    """How many tokens at the beginning are the same."""
    count = 0
    for left, right in zip(before, after):  # noqa: B905 - one may be shorter
        if left != right:
            break
        count += 1
    return count


def _inside(
    old: Sequence[Any],
    new: Sequence[Any],
    before: Sequence[Hashable],
    after: Sequence[Hashable],
    gap: _Gap,
) -> Iterator[Pair]:
    olds, news = gap
    if not (olds and news) or len(olds) * len(news) > _LARGEST_TABLE:
        pairs: Sequence[Pair] = _in_order(olds, news)
        yield from (_placed(pair, gap) for pair in pairs)
        return
    matcher = SequenceMatcher(None, [before[i] for i in olds], [after[j] for j in news], autojunk=False)
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        part = olds[old_start:old_end], news[new_start:new_end]
        if tag == "equal":
            yield from zip(*part, strict=True)
        else:
            pairs = _most_alike([old[i] for i in part[0]], [new[j] for j in part[1]])
            yield from (_placed(pair, part) for pair in pairs)


def _placed(pair: Pair, gap: _Gap) -> Pair:
    i, j = pair
    return None if i is None else gap[0][i], None if j is None else gap[1][j]


def _tokens(old: Sequence[Any], new: Sequence[Any]) -> tuple[list[Hashable], list[Hashable]]:
    """What stands for each element when the lists are aligned: its key if it is the only one with it, else itself."""
    keys = [_key(element) for element in old], [_key(element) for element in new]
    repeated = {key for side in keys for key, count in Counter(side).items() if count > 1} | {None}
    before, after = (
        [frozen(element) if key in repeated else key for element, key in zip(elements, side, strict=True)]
        for elements, side in zip((old, new), keys, strict=True)
    )
    return before, after


def _key(element: Any) -> Hashable | None:
    """What identifies an element among its siblings, if it has something that does."""
    if not isinstance(element, dict):
        return None
    if isinstance(element.get("id"), str):
        return ("id", element["id"])
    for name in ("value", "code"):
        if isinstance(element.get(name), str) and isinstance(element.get("system"), str):
            return (name, element["system"], element[name])
    return None


def _most_alike(old: Sequence[Any], new: Sequence[Any]) -> list[Pair]:
    """The pairing with the highest sum of likeness that keeps the order of both lists."""
    if not old or not new or len(old) * len(new) > _LARGEST_TABLE:
        return _in_order(old, new)
    old_traits, new_traits = [_traits(element) for element in old], [_traits(element) for element in new]
    rows, columns = len(old), len(new)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    likeness = [[_likeness(before, after) for after in new_traits] for before in old_traits]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            paired = likeness[i][j] + best[i + 1][j + 1] if likeness[i][j] else 0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs: list[Pair] = []
    i = j = 0
    while i < rows and j < columns:
        if likeness[i][j] and best[i][j] == likeness[i][j] + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    return [*pairs, *((rest, None) for rest in range(i, rows)), *((None, rest) for rest in range(j, columns))]


def _in_order(old: Sequence[Any], new: Sequence[Any]) -> list[Pair]:
    common = min(len(old), len(new))
    return [
        *((place, place) for place in range(common)),
        *((place, None) for place in range(common, len(old))),
        *((None, place) for place in range(common, len(new))),
    ]


def _traits(element: Any) -> Counter[Hashable]:
    """What an element is compared by when no key matches it: its id, the names in it, and the values at them."""
    traits: Counter[Hashable] = Counter()
    if not isinstance(element, dict):
        traits[("kind", "list" if isinstance(element, list) else "primitive")] = 1
        return traits
    if "id" in element:
        traits[("id", frozen(element["id"]))] = 1
    for steps, value in _leaves((), element):
        traits[("name", steps)] += 1
        traits[("leaf", steps, value)] += 2
    return traits


def _likeness(old: Counter[Hashable], new: Counter[Hashable]) -> int:
    """How much two elements have in common; 0 where they can't be the same one, as their ids differ."""
    ids = [{trait for trait in side if isinstance(trait, tuple) and trait[0] == "id"} for side in (old, new)]
    if ids[0] and ids[1] and ids[0] != ids[1]:
        return 0
    return (old & new).total()


def _leaves(steps: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Hashable]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves((*steps, name), child)
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(steps, child)
    else:
        yield steps, frozen(value)
