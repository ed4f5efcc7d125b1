"""What a _filter asks for. https://hl7.org/fhir/R4/search_filter.html#ops

| operators | of parameters of type |
|---|---|
| eq | all but reference; a string as a whole |
| ne | all but reference; of string, token and uri only where a resource has one value at most |
| co sw ew | string |
| gt lt ge le sa eb ap | number, date, quantity |
| po | date |
| ss sb in ni | token |
| re | reference |
| pr | all |

Any other pair is refused. A parameter that is not known is, too: without one test the rest would mean something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, cast

from gitstore.errors import Invalid
from gitstore.search import chains, common
from gitstore.search import criteria_values as values
from gitstore.search.asking import Asking, all_of, any_of, not_supported, shown, too_costly
from gitstore.search.criteria_kinds import (
    groups,
    is_single,
    keys_of,
    members_of,
    present,
    relatives,
    targets_of,
    truth,
)
from gitstore.search.criteria_references import references
from gitstore.search.escapes import escape, split, unescape
from gitstore.search.filter_syntax import Expression, Logic, Negation, Step, Test, parse
from gitstore.search.filters import All, Any, Comparison, Dates, Filter, Not, Strings, Tokens, Updated
from gitstore.search.parameters import Parameter

_SYSTEMS: Final = {
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ucum": "http://unitsofmeasure.org",
}
"""Names that may stand for the URLs of code systems."""

_TEXT_MATCHES: Final[dict[str, Literal["equals", "contains", "starts", "ends"]]] = {
    "eq": "equals",
    "co": "contains",
    "sw": "starts",
    "ew": "ends",
}


def meaning(asking: Asking, types: Sequence[str], text: str) -> Filter:
    """What the value of _filter asks of resources of these types. Raises Invalid."""
    return _expression(asking, types, parse(text, asking.limits.max_parameters), 0)


def _expression(asking: Asking, types: Sequence[str], expression: Expression, links: int) -> Filter:
    if isinstance(expression, Negation):
        return Not(_expression(asking, types, expression.of, links))
    if isinstance(expression, Logic):
        return _logic(asking, types, expression, links)
    return _path(asking, types, expression, expression.path, links)


def _logic(asking: Asking, types: Sequence[str], expression: Logic, links: int) -> Filter:
    """A long row of tests is a deep tree on its left, which is taken apart without descending into it."""
    row: list[tuple[str, Expression]] = []
    first: Expression = expression
    while isinstance(first, Logic):
        row.append((first.operator, first.right))
        first = first.left
    found = _expression(asking, types, first, links)
    for operator, right in reversed(row):
        other = _expression(asking, types, right, links)
        kind = All if operator == "and" else Any
        parts = found.filters if isinstance(found, kind) and found.filters else (found,)
        found = kind((*parts, other))
    return found


def _path(asking: Asking, types: Sequence[str], test: Test, path: Sequence[Step], links: int) -> Filter:
    step, rest = path[0], path[1:]
    known = _knowing(asking, types, path)
    if len(known) < len(types):
        name = ".".join(step.name for step in test.path)
        raise not_supported(f"_filter: {shown(name)} is not known for all that is searched.")
    if not rest:
        return _test(asking, types, step.name, test)
    if links == asking.limits.max_chain:
        raise too_costly(f"_filter: a chain has more than {asking.limits.max_chain} links.")
    inner_types = _led_to(asking, types, step, rest)
    filters = [_path(asking, inner_types, test, rest, links + 1)]
    if step.filter is not None:
        filters.insert(0, _expression(asking, inner_types, step.filter, links + 1))
    return chains.chain(asking, asking.parameters(types, step.name), inner_types, all_of(filters))


# Which types know what is asked of them: a chain goes on with those alone


def _knowing(asking: Asking, types: Sequence[str], path: Sequence[Step]) -> tuple[str, ...]:
    if len(path) == 1:
        return chains.knowing(asking, types, chains.Leaf(path[0].name))
    return chains.leading(asking, types, path[0].name, _led_to(asking, types, path[0], path[1:]))


def _led_to(asking: Asking, types: Sequence[str], step: Step, rest: Sequence[Step]) -> tuple[str, ...]:
    found = _knowing(asking, chains.linked(asking, types, step.name, None), rest)
    return found if step.filter is None else _knowing_all(asking, found, step.filter)


def _knowing_all(asking: Asking, types: Sequence[str], expression: Expression) -> tuple[str, ...]:
    if isinstance(expression, Negation):
        return _knowing_all(asking, types, expression.of)
    if isinstance(expression, Logic):
        return _knowing_all(asking, _knowing_all(asking, types, expression.right), expression.left)
    return _knowing(asking, types, expression.path) if types else ()


# One comparison


def _test(asking: Asking, types: Sequence[str], code: str, test: Test) -> Filter:
    if code == "_id":
        return _id_test(test)
    if code == "_lastUpdated":
        return _updated_test(asking, test)
    if code in common.CODES:
        raise _refused(code, test)
    parameters = asking.parameters(types, code)
    if test.operator == "pr":
        found = present(parameters)
        return found if truth(code, test.value) else Not(found)
    if test.operator in ("ne", "ni"):
        return _unequal(asking, code, parameters, test)
    return any_of([_compared(asking, code, group, test) for group in groups(parameters)])


def _unequal(asking: Asking, code: str, parameters: Sequence[Parameter], test: Test) -> Filter:
    """ni is that no value is in the value set; ne, that a value is another: the same only where there is one value."""
    if test.operator == "ni":
        inside = Test(test.path, "in", test.value)
        return Not(any_of([_compared(asking, code, group, inside) for group in groups(parameters)]))
    equal = Test(test.path, "eq", test.value)
    filters: list[Filter] = []
    for group in groups(parameters):
        if group[0].kind in values.COMPARED:
            filters.append(_compared(asking, code, group, test))
            continue
        found = _compared(asking, code, group, equal)
        if not is_single(group):
            raise not_supported(
                f"_filter: {shown(code)} may have several values, for which ne can't be done here; "
                "`not (… eq …)` finds what has no such value."
            )
        filters.append(All((present(group), Not(found))))
    return any_of(filters)


def _compared(asking: Asking, code: str, parameters: Sequence[Parameter], test: Test) -> Filter:
    """A comparison with parameters of one kind."""
    kind, keys, operator = parameters[0].kind, keys_of(parameters), test.operator
    if kind == "string" and operator in _TEXT_MATCHES:
        return Strings(keys, _TEXT_MATCHES[operator], (values.folded(code, test.value),))
    if kind == "uri" and operator == "eq":
        return Strings(keys, "uri", (test.value,))
    if kind == "reference" and operator == "re":
        return references(asking, code, keys, targets_of(parameters), None, [test.value])
    if kind == "date" and operator == "po":
        low, high = values.moments(asking.now, code, test.value, "eq")
        return Dates(keys, "ap", low, high, is_single(parameters))  # ap is: overlaps
    if kind in values.COMPARED and operator in values.PREFIXES:
        text = _with_system(test.value) if kind == "quantity" else test.value
        return values.compared(
            asking, code, kind, keys, cast(Comparison, operator), text, is_single(parameters)
        )
    if kind == "token":
        return _token_test(asking, code, parameters, test)
    raise _refused(code, test, kind)


def _token_test(asking: Asking, code: str, parameters: Sequence[Parameter], test: Test) -> Filter:
    keys, text = keys_of(parameters), _with_system(test.value)
    if test.operator == "eq":
        return Tokens(keys, (values.token(code, text),))
    if test.operator == "in":
        return members_of(asking, code, keys, test.value)
    if test.operator in ("ss", "sb"):
        return Tokens(keys, relatives(asking, code, "below" if test.operator == "ss" else "above", text))
    raise _refused(code, test, "token")


def _with_system(text: str) -> str:
    """The value with the URL of a code system that it names in short."""
    parts = split(text, "|")
    place = 1 if len(parts) == 3 else 0
    if len(parts) > 1 and unescape(parts[place]) in _SYSTEMS:
        parts[place] = escape(_SYSTEMS[unescape(parts[place])])
    return "|".join(parts)


def _id_test(test: Test) -> Filter:
    if test.operator == "eq":
        return common.ids([test.value])
    if test.operator == "ne":
        return Not(common.ids([test.value]))
    if test.operator == "pr":
        return All() if truth("_id", test.value) else Any()
    raise _refused("_id", test)


def _updated_test(asking: Asking, test: Test) -> Filter:
    if test.operator == "pr":
        return All() if truth("_lastUpdated", test.value) else Any()
    if test.operator == "po":
        return Updated("ap", *values.moments(asking.now, "_lastUpdated", test.value, "eq"))
    if test.operator not in values.PREFIXES:
        raise _refused("_lastUpdated", test)
    return common.updated(asking, "_lastUpdated", cast(Comparison, test.operator), test.value)


def _refused(code: str, test: Test, kind: str | None = None) -> Invalid:
    what = f"{shown(code)}, which is of type {kind}" if kind else shown(code)
    return not_supported(f"_filter: the operator {test.operator} can't be used with {what}.")
