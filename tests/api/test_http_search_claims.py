"""What the CapabilityStatement says about search, tried claim by claim: each has to be true.

https://hl7.org/fhir/R4/capabilitystatement-definitions.html#CapabilityStatement.rest.resource.searchParam
"""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from gitstore import Store
from gitstore.fhir.definitions import RESOURCE_TYPES
from tests.api.ward import client_of, reader, ward
from tests.conftest import copy_record

__all__ = ["reader", "ward"]

HARMLESS = {
    "number": "1",
    "date": "2020",
    "string": "x",
    "token": "x",
    "reference": "x",
    "quantity": "1",
    "uri": "http://x.example",
    "special": "0|0|1|km",
}
"""A value for each type of parameter."""

CONTROLS = {
    "_contained": "true",
    "_containedType": "container",
    "_count": "1",
    "_elements": "id",
    "_filter": "_id eq x",
    "_include": "*",
    "_list": "x",
    "_revinclude": "Provenance:target",
    "_sort": "_id",
    "_summary": "true",
    "_total": "none",
    "_type": "Patient",
}
STRICT = "handling=strict"


@pytest.fixture(scope="module")
def rest(reader):
    return reader.get("metadata").json["rest"][0]


def accepted(reader, query):
    """Whether a search that must know all its parameters is answered."""
    response = reader.get(query, Prefer=STRICT)
    return response.status_code == 200 and response.json["type"] == "searchset"


def test_every_parameter_of_every_type_is_known(reader, rest, ward, settings):
    """13.3: one search each, strictly, with a value that it can have."""
    with Store.open(ward, settings) as store:
        for claim in rest["resource"]:
            type = claim["type"]
            known = store.search_parameters(type)
            names = [each["name"] for each in claim["searchParam"]]
            assert set(known) <= set(names)
            assert len(set(names)) == len(names)
            for each in claim["searchParam"]:
                name, kind = each["name"], each["type"]
                if kind == "composite":
                    value = "$".join(HARMLESS[part.kind] for part in known[name].components)
                else:
                    value = HARMLESS[kind]
                assert each["definition"].startswith("http://hl7.org/fhir/SearchParameter/")
                assert accepted(reader, f"{type}?{name}={value}&_count=1&_total=none"), (type, name, value)


def test_every_include_works(reader, rest):
    """All that are named; as many in a search as it may have."""
    for claim in rest["resource"]:
        for kind, names in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
            named = claim.get(names, [])
            for start in range(0, len(named), 20):
                query = "&".join(f"{kind}={name}" for name in named[start : start + 20])
                assert accepted(reader, f"{claim['type']}?_id=x&{query}"), (claim["type"], query)


def test_what_leads_to_a_type_is_named(rest):
    """The references to it of all types, such as a widely used one."""
    patient = next(claim for claim in rest["resource"] if claim["type"] == "Patient")

    assert "Provenance:target" in patient["searchRevInclude"]
    assert "Observation:subject" in patient["searchRevInclude"]
    assert "Medication:manufacturer" not in patient["searchRevInclude"]
    assert {"*", "Patient:general-practitioner", "Patient:organization"} <= set(patient["searchInclude"])


def test_the_parameters_of_every_resource_are_known(reader, rest):
    """With all types at once, and of a single one."""
    for each in rest["searchParam"]:
        value = CONTROLS.get(each["name"]) or HARMLESS[each["type"]]
        if each["name"] == "_has":
            assert accepted(reader, "?_type=Patient&_has:Observation:subject:code=x")
            assert accepted(reader, "Patient?_has:Observation:subject:code=x")
        else:
            assert accepted(reader, f"?{each['name']}={value}"), each
            assert accepted(reader, f"Patient?{each['name']}={value}"), each


def test_the_compartments_can_be_searched(reader, rest):
    names = {url.rpartition("/")[2] for url in rest["compartment"]}

    assert names == {"device", "encounter", "patient", "practitioner", "relatedperson"}
    for type in RESOURCE_TYPES:
        status = 200 if type.lower() in names else 404
        assert reader.get(f"{type}/x/*").status_code == status


def test_without_search_nothing_is_claimed(ward, settings, tmp_path):
    """`fhir.search = off`: 501 and not a word about it."""
    off = replace(settings, search="off")
    with Store.open(copy_record(ward, tmp_path / "without.git"), off) as store:
        client = client_of(store, off)
        text = client.get("metadata").text
        assert client.get("Patient?name=x").status_code == 501
        for word in ("search-", "searchParam", "searchInclude", "compartment"):
            assert word not in text


def test_a_parameter_of_the_record_is_claimed(ward, settings, tmp_path):
    """An active SearchParameter, once the index was made with it."""
    parameter = {
        "resourceType": "SearchParameter",
        "id": "shoe-size",
        "url": "http://clinic.example/SearchParameter/shoe-size",
        "status": "active",
        "code": "shoe-size",
        "base": ["Patient"],
        "type": "number",
        "expression": "Patient.extension.where(url = 'http://clinic.example/shoe-size').value",
    }
    with Store.open(copy_record(ward, tmp_path / "with.git"), settings) as store:
        client = client_of(store, settings)
        before = client.get("metadata").headers["ETag"]
        client.put("SearchParameter/shoe-size", parameter)
        store.reindex()

        answer = client.get("metadata")

    claims = {each["type"]: each["searchParam"] for each in answer.json["rest"][0]["resource"]}
    expected = {"name": "shoe-size", "definition": parameter["url"], "type": "number"}
    assert expected in claims["Patient"]
    assert expected not in claims["Group"]
    assert answer.headers["ETag"] != before


def test_it_stays_small(reader):
    """Under a megabyte, and packed under a hundred kilobytes: it is what clients ask for first."""
    data = reader.get("metadata").content

    assert len(data) < 1_000_000
    assert len(gzip.compress(data, 4)) < 100_000
