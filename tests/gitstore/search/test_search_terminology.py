"""Tokens by value sets and hierarchies of codes that the record holds. https://hl7.org/fhir/R4/search.html#token"""

from __future__ import annotations

import pytest
from searches import concept, found, put, refused, resource, words

ANIMALS = "http://acme.org/animals"


def value_set(id, **compose):
    return resource(
        "ValueSet", id, url=f"http://acme.org/vs/{id}", version="1.0", status="active", compose=compose
    )


RECORD = [
    resource(
        "CodeSystem",
        "animals",
        url=ANIMALS,
        status="active",
        content="complete",
        caseSensitive=True,
        hierarchyMeaning="is-a",
        concept=[
            {
                "code": "mammal",
                "display": "Mammal",
                "concept": [{"code": "dog", "concept": [{"code": "poodle"}]}, {"code": "cat"}],
            },
            {"code": "bird"},
        ],
    ),
    value_set("dogs", include=[{"system": ANIMALS, "concept": [{"code": "dog"}, {"code": "poodle"}]}]),
    value_set("all", include=[{"system": ANIMALS}]),
    value_set(
        "mammals",
        include=[{"system": ANIMALS, "filter": [{"property": "concept", "op": "is-a", "value": "mammal"}]}],
    ),
    value_set(
        "not-dogs", include=[{"system": ANIMALS}], exclude=[{"system": ANIMALS, "concept": [{"code": "dog"}]}]
    ),
    value_set("of-sets", include=[{"valueSet": ["http://acme.org/vs/dogs"]}]),
    value_set("elsewhere", include=[{"system": "http://snomed.info/sct"}]),
    value_set("circle", include=[{"valueSet": ["http://acme.org/vs/circle"]}]),
    resource(
        "ValueSet",
        "expanded",
        url="http://acme.org/vs/expanded",
        status="active",
        expansion={"timestamp": "2020", "contains": [{"system": ANIMALS, "code": "bird"}]},
    ),
    *[
        resource("Observation", id, code=concept(f"{ANIMALS}|{id}"))
        for id in ("mammal", "dog", "poodle", "cat", "bird", "unicorn")
    ],
    resource("Observation", "foreign", code=concept("http://other.org|dog")),
    resource("Observation", "both", code=concept("http://other.org|x", f"{ANIMALS}|cat")),
    resource("Observation", "codeless", status="final"),
]


@pytest.fixture(scope="module")
def cases(store_of):
    return store_of(RECORD)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("code:in=http://acme.org/vs/dogs", "dog poodle"),
        ("code:in=ValueSet/dogs", "dog poodle"),
        ("code:in=http://acme.org/vs/dogs|1.0", "dog poodle"),
        ("code:in=http://acme.org/vs/all", "mammal dog poodle cat bird both"),
        ("code:in=http://acme.org/vs/mammals", "mammal dog poodle cat both"),
        ("code:in=http://acme.org/vs/not-dogs", "mammal poodle cat bird both"),
        ("code:in=http://acme.org/vs/of-sets", "dog poodle"),
        ("code:in=http://acme.org/vs/expanded", "bird"),
        ("code:in=http://acme.org/vs/dogs,http://acme.org/vs/expanded", "dog poodle bird"),
        ("code:not-in=http://acme.org/vs/mammals", "bird unicorn foreign codeless"),
        (f"code:below={ANIMALS}|mammal", "mammal dog poodle cat both"),
        (f"code:below={ANIMALS}|dog", "dog poodle"),
        (f"code:below={ANIMALS}|poodle", "poodle"),
        (f"code:below={ANIMALS}|unknown", ""),
        (f"code:above={ANIMALS}|poodle", "mammal dog poodle"),
        (f"code:above={ANIMALS}|bird", "bird"),
        (f"code:below={ANIMALS}|dog,{ANIMALS}|bird", "dog poodle bird"),
    ],
)
def test_codes_by_value_set_and_hierarchy(cases, query, expected):
    """12c.2: the code named is below and above itself."""
    assert found(cases, f"Observation?{query}") == words(expected)


@pytest.mark.parametrize(
    "query",
    [
        "code:in=http://acme.org/vs/unknown",
        "code:in=http://acme.org/vs/dogs|9.9",
        "code:in=ValueSet/unknown",
        "code:not-in=http://acme.org/vs/unknown",
        "code:in=http://acme.org/vs/elsewhere",
        "code:in=http://acme.org/vs/circle",
        "code:in=http://snomed.info/sct?fhir_vs=isa/126851005",
        "code:below=http://snomed.info/sct|126851005",
        "code:above=http://snomed.info/sct|126851005",
        "code:below=126851005",
        f"code:below={ANIMALS}|",
    ],
)
def test_what_the_record_cannot_tell_is_refused(cases, query):
    """400: an empty answer would say that there is nothing."""
    assert refused(cases, f"Observation?{query}")


def test_terminology_is_that_of_the_record_as_it_is_now(store):
    put(store, resource("Observation", "o", code=concept(f"{ANIMALS}|dog")))
    assert refused(store, "Observation?code:in=http://acme.org/vs/dogs")

    put(store, RECORD[1])
    assert found(store, "Observation?code:in=http://acme.org/vs/dogs") == {"o"}

    put(store, value_set("dogs", include=[{"system": ANIMALS, "concept": [{"code": "poodle"}]}]))
    assert found(store, "Observation?code:in=http://acme.org/vs/dogs") == set()
