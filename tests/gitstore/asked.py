"""A search's text made a query, with the registry of R4: what the tests of criteria share."""

from __future__ import annotations

from gitstore.errors import Invalid
from gitstore.fhir import dates
from gitstore.search.criteria import parse, parse_filter
from gitstore.search.filters import References, ReferenceValue
from gitstore.search.parameters import Registry

REGISTRY = Registry()
NOW = dates.parse_instant("2026-11-22T00:00:00Z")
BASES = ("http://localhost:8080/fhir",)


class Terms:
    """A terminology of one code system, http://s: a is above b, and the value set http://vs has both."""

    def codes_in(self, value_set):
        return {"http://vs": {"http://s": frozenset("ab")}, "http://none": {}}.get(value_set)

    def below(self, system, code):
        return {"a": frozenset("ab"), "b": frozenset("b")}.get(code) if system == "http://s" else None

    def above(self, system, code):
        return {"a": frozenset("a"), "b": frozenset("ab")}.get(code) if system == "http://s" else None


def key(type, code, variant=""):
    parameter = REGISTRY.find(type, code)
    return parameter.key if not variant else getattr(parameter, variant)


def ask(types, query, **options):
    """`ask("Patient", "name=a&active=true")`, of parts that hold no & or = themselves."""
    pairs = [tuple(part.split("=", 1)) for part in query.split("&")] if isinstance(query, str) else query
    options = {"now": NOW, "bases": BASES, "terminology": Terms(), **options}
    return parse(REGISTRY, (types,) if isinstance(types, str) else types, pairs, **options)


def asked(types, query, **options):
    """The one filter that the query asks for."""
    [filter] = ask(types, query, **options).filter.filters
    return filter


def criteria(type, query, **options):
    pairs = [tuple(part.split("=", 1)) for part in query.split("&")] if query else []
    return parse_filter(REGISTRY, type, pairs, now=NOW, bases=BASES, **options)


def refused(types, query, **options):
    """Code and text of the issue with which a query is refused, and that it is not answered."""
    try:
        query = ask(types, query, **options)
    except Invalid as error:
        [issue] = error.issues
        assert issue.severity == "error"
        return issue.code, issue.text
    raise AssertionError(f"answered: {query}")


def referring(key: int, *values: ReferenceValue) -> References:
    """References to these, and where the type is known also by the URL that the resource has on this server."""
    urls = [
        ReferenceValue(
            url=f"{BASES[0]}/{value.type}/{value.id}"
            + (f"/_history/{value.version}" if value.version else "")
        )
        for value in values
        if value.type
    ]
    return References((key,), (*values, *urls))
