"""FHIRPath Patch, operation by operation. https://hl7.org/fhir/R4/fhirpatch.html"""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.errors import Invalid, TooLarge, Unprocessable
from gitstore.fhir import json
from gitstore.fhir.patch import of_parameters, places
from gitstore.fhir.patch.result import Work, copied

HOME = {"use": "home", "system": "phone", "value": "1"}
WORK = {"use": "work", "system": "phone", "value": "2"}
MAIL = {"use": "home", "system": "email", "value": "3"}
BORN_AT = {"extension": [{"url": "http://example.org/time", "valueTime": "10:00:00"}]}
BASIC = {"resourceType": "Basic", "id": "b", "code": {"text": "x"}}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "ada",
    "meta": {"versionId": "3"},
    "birthDate": "1815-12-10",
    "_birthDate": BORN_AT,
    "name": [
        {"use": "official", "family": "Lovelace", "given": ["Ada", "Augusta"], "_given": [None, {"id": "g"}]},
        {"use": "maiden", "family": "Byron"},
    ],
    "telecom": [HOME, WORK, MAIL],
    "multipleBirthInteger": 2,
    "contact": [{"name": {"text": "Annabella"}, "relationship": [{"text": "mother"}]}],
    "contained": [{"resourceType": "Organization", "id": "o", "name": "Home"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "weight"},
    "valueQuantity": {"value": json.Number("70.50"), "unit": "kg"},
    "note": [{"text": "calm"}],
}


def operation(type: str, path: str, **parts: Any) -> dict[str, Any]:
    """An operation; `value` is the part without its name, the others are themselves."""
    found: list[dict[str, Any]] = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}]
    for name, part in parts.items():
        if name == "value":
            found.append({"name": "value", **part})
        else:
            found.append({"name": name, "valueString" if isinstance(part, str) else "valueInteger": part})
    return {"name": "operation", "part": found}


def parameters(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters"} | ({"parameter": list(operations)} if operations else {})


def patched(resource: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    return of_parameters(parameters(*operations)).apply(resource)


def part(name: str, *parts: dict[str, Any], **value: Any) -> dict[str, Any]:
    return {"name": name, "part": list(parts)} if parts else {"name": name, **value}


def text(value: str) -> dict[str, Any]:
    return {"valueString": value}


DONE: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "nothing": (PATIENT, [], {}),
    # add
    "add a primitive": (
        PATIENT,
        [operation("add", "Patient", name="gender", value={"valueCode": "female"})],
        {"gender": "female"},
    ),
    "add a boolean": (
        PATIENT,
        [operation("add", "Patient", name="active", value={"valueBoolean": False})],
        {"active": False},
    ),
    "add a data type": (
        PATIENT,
        [
            operation(
                "add", "Patient", name="maritalStatus", value={"valueCodeableConcept": {"text": "married"}}
            )
        ],
        {"maritalStatus": {"text": "married"}},
    ),
    "add within an element": (
        PATIENT,
        [operation("add", "Patient.contact[0]", name="gender", value={"valueCode": "female"})],
        {"contact": [PATIENT["contact"][0] | {"gender": "female"}]},
    ),
    "add to a list": (
        PATIENT,
        [operation("add", "Patient", name="telecom", value={"valueContactPoint": {"value": "4"}})],
        {"telecom": [HOME, WORK, MAIL, {"value": "4"}]},
    ),
    "add to a list that isn't there": (
        PATIENT,
        [operation("add", "Patient", name="identifier", value={"valueIdentifier": {"value": "x"}})],
        {"identifier": [{"value": "x"}]},
    ),
    "add to a list of primitives": (
        PATIENT,
        [operation("add", "Patient.name[0]", name="given", value=text("King"))],
        {
            "name": [
                PATIENT["name"][0]
                | {"given": ["Ada", "Augusta", "King"], "_given": [None, {"id": "g"}, None]},
                PATIENT["name"][1],
            ]
        },
    ),
    "add a choice": (
        {"resourceType": "Observation"},
        [operation("add", "Observation", name="value", value={"valueQuantity": {"value": 1}})],
        {"valueQuantity": {"value": 1}},
    ),
    "add a choice by its name with x": (
        {"resourceType": "Observation"},
        [operation("add", "Observation", name="value[x]", value=text("much"))],
        {"valueString": "much"},
    ),
    "add a backbone element": (
        PATIENT,
        [
            operation(
                "add",
                "Patient",
                name="contact",
                value=part(
                    "value",
                    part("name", valueHumanName={"text": "William"}),
                    part("telecom", valueContactPoint={"value": "1"}),
                    part("telecom", valueContactPoint={"value": "2"}),
                    part("gender", valueCode="male"),
                ),
            )
        ],
        {
            "contact": [
                *PATIENT["contact"],
                {"name": {"text": "William"}, "telecom": [{"value": "1"}, {"value": "2"}], "gender": "male"},
            ]
        },
    ),
    "add backbone elements in one another": (
        {"resourceType": "Questionnaire"},
        [
            operation(
                "add",
                "Questionnaire",
                name="item",
                value=part(
                    "value", part("linkId", valueString="1"), part("item", part("linkId", valueString="1.1"))
                ),
            )
        ],
        {"item": [{"linkId": "1", "item": [{"linkId": "1.1"}]}]},
    ),
    "add an extension": (
        PATIENT,
        [
            operation(
                "add",
                "Patient",
                name="extension",
                value=part(
                    "value", part("url", valueUri="http://example.org/e"), part("value", valueInteger=1)
                ),
            )
        ],
        {"extension": [{"url": "http://example.org/e", "valueInteger": 1}]},
    ),
    "add an extension to a primitive": (
        PATIENT,
        [
            operation(
                "add",
                "Patient.name[1].family",
                name="extension",
                value=part(
                    "value", part("url", valueUri="http://example.org/e"), part("value", valueCode="x")
                ),
            )
        ],
        {
            "name": [
                PATIENT["name"][0],
                PATIENT["name"][1]
                | {"_family": {"extension": [{"url": "http://example.org/e", "valueCode": "x"}]}},
            ]
        },
    ),
    "add to the extensions of a primitive": (
        PATIENT,
        [
            operation(
                "add",
                "Patient.birthDate",
                name="extension",
                value=part("value", part("url", valueUri="urn:e")),
            )
        ],
        {"_birthDate": {"extension": [*BORN_AT["extension"], {"url": "urn:e"}]}},
    ),
    "add an id to a primitive in a list": (
        PATIENT,
        [operation("add", "Patient.name.given.first()", name="id", value=text("f"))],
        {"name": [PATIENT["name"][0] | {"_given": [{"id": "f"}, {"id": "g"}]}, PATIENT["name"][1]]},
    ),
    "add a primitive with an extension": (
        {"resourceType": "Patient"},
        [operation("add", "Patient", name="birthDate", value={"valueDate": "1815", "_valueDate": BORN_AT})],
        {"birthDate": "1815", "_birthDate": BORN_AT},
    ),
    "add a contained resource": (
        {"resourceType": "Patient"},
        [operation("add", "Patient", name="contained", value={"resource": BASIC})],
        {"contained": [BASIC]},
    ),
    "add within a contained resource": (
        PATIENT,
        [operation("add", "Patient.contained[0]", name="active", value={"valueBoolean": True})],
        {"contained": [PATIENT["contained"][0] | {"active": True}]},
    ),
    "add to what was added": (
        PATIENT,
        [
            operation("add", "Patient", name="maritalStatus", value={"valueCodeableConcept": {"text": "m"}}),
            operation("add", "Patient.maritalStatus", name="coding", value={"valueCoding": {"code": "M"}}),
        ],
        {"maritalStatus": {"text": "m", "coding": [{"code": "M"}]}},
    ),
    # delete
    "delete a primitive with its extensions": (
        PATIENT,
        [operation("delete", "Patient.birthDate")],
        {"birthDate": ..., "_birthDate": ...},
    ),
    "delete a choice": (
        PATIENT,
        [operation("delete", "Patient.multipleBirth")],
        {"multipleBirthInteger": ...},
    ),
    "delete a nested element": (
        PATIENT,
        [operation("delete", "Patient.contact[0].name")],
        {"contact": [{"relationship": [{"text": "mother"}]}]},
    ),
    "delete an item": (PATIENT, [operation("delete", "Patient.telecom[1]")], {"telecom": [HOME, MAIL]}),
    "delete a primitive of a list": (
        PATIENT,
        [operation("delete", "Patient.name[0].given[0]")],
        {"name": [PATIENT["name"][0] | {"given": ["Augusta"], "_given": [{"id": "g"}]}, PATIENT["name"][1]]},
    ),
    "delete the last item": (PATIENT, [operation("delete", "Patient.contact")], {"contact": ...}),
    "delete the last content": (
        PATIENT,
        [operation("delete", "Patient.contact.name"), operation("delete", "Patient.contact.relationship")],
        {"contact": ...},
    ),
    "delete what isn't there": (PATIENT, [operation("delete", "Patient.gender")], {}),
    "delete below what isn't there": (PATIENT, [operation("delete", "Patient.maritalStatus.text")], {}),
    "delete an extension that isn't there": (
        PATIENT,
        [operation("delete", "Patient.name[1].family.extension")],
        {},
    ),
    "delete beyond the end": (PATIENT, [operation("delete", "Patient.name[7]")], {}),
    "delete an extension": (
        PATIENT,
        [operation("delete", "Patient.birthDate.extension('http://example.org/time')")],
        {"_birthDate": ...},
    ),
    # replace
    "replace a primitive": (
        PATIENT,
        [operation("replace", "Patient.birthDate", value={"valueDate": "1816"})],
        {"birthDate": "1816", "_birthDate": ...},
    ),
    "replace a nested primitive": (
        PATIENT,
        [operation("replace", "Patient.contact.name.text", value=text("Anne"))],
        {"contact": [PATIENT["contact"][0] | {"name": {"text": "Anne"}}]},
    ),
    "replace a data type": (
        PATIENT,
        [operation("replace", "Patient.contact[0].name", value={"valueHumanName": {"family": "B"}})],
        {"contact": [PATIENT["contact"][0] | {"name": {"family": "B"}}]},
    ),
    "replace an item": (
        PATIENT,
        [operation("replace", "Patient.name[1]", value={"valueHumanName": {"family": "King"}})],
        {"name": [PATIENT["name"][0], {"family": "King"}]},
    ),
    "replace a primitive of a list": (
        PATIENT,
        [operation("replace", "Patient.name[0].given[1]", value=text("Gordon"))],
        {"name": [{"use": "official", "family": "Lovelace", "given": ["Ada", "Gordon"]}, PATIENT["name"][1]]},
    ),
    "replace a backbone element": (
        PATIENT,
        [operation("replace", "Patient.contact[0]", value=part("value", part("gender", valueCode="female")))],
        {"contact": [{"gender": "female"}]},
    ),
    "replace a choice by another type": (
        OBSERVATION,
        [operation("replace", "Observation.value", value=text("heavy"))],
        {"valueQuantity": ..., "valueString": "heavy"},
    ),
    "replace within a choice": (
        OBSERVATION,
        [operation("replace", "Observation.value.ofType(Quantity).unit", value=text("g"))],
        {"valueQuantity": {"value": json.Number("70.50"), "unit": "g"}},
    ),
    "replace a narrative": (
        {"resourceType": "Patient", "text": {"status": "generated", "div": "<div>1</div>"}},
        [operation("replace", "Patient.text.div", value=text("<div>2</div>"))],
        {"text": {"status": "generated", "div": "<div>2</div>"}},
    ),
    "replace a value of the contained": (
        PATIENT,
        [operation("replace", "Patient.contained.where(id = 'o').name", value=text("Away"))],
        {"contained": [PATIENT["contained"][0] | {"name": "Away"}]},
    ),
    # insert
    "insert at the start": (
        PATIENT,
        [operation("insert", "Patient.telecom", index=0, value={"valueContactPoint": {"value": "0"}})],
        {"telecom": [{"value": "0"}, HOME, WORK, MAIL]},
    ),
    "insert in the middle": (
        PATIENT,
        [operation("insert", "Patient.telecom", index=2, value={"valueContactPoint": {"value": "0"}})],
        {"telecom": [HOME, WORK, {"value": "0"}, MAIL]},
    ),
    "insert at the end": (
        PATIENT,
        [operation("insert", "Patient.telecom", index=3, value={"valueContactPoint": {"value": "0"}})],
        {"telecom": [HOME, WORK, MAIL, {"value": "0"}]},
    ),
    "insert into a list that isn't there": (
        PATIENT,
        [operation("insert", "Patient.identifier", index=0, value={"valueIdentifier": {"value": "0"}})],
        {"identifier": [{"value": "0"}]},
    ),
    "insert a primitive": (
        PATIENT,
        [operation("insert", "Patient.name[0].given", index=1, value=text("King"))],
        {
            "name": [
                PATIENT["name"][0]
                | {"given": ["Ada", "King", "Augusta"], "_given": [None, None, {"id": "g"}]},
                PATIENT["name"][1],
            ]
        },
    ),
    "insert a backbone element": (
        PATIENT,
        [
            operation(
                "insert", "Patient.contact", index=0, value=part("value", part("gender", valueCode="male"))
            )
        ],
        {"contact": [{"gender": "male"}, *PATIENT["contact"]]},
    ),
    # move
    "move forward": (
        PATIENT,
        [operation("move", "Patient.telecom", source=0, destination=2)],
        {"telecom": [WORK, MAIL, HOME]},
    ),
    "move back": (
        PATIENT,
        [operation("move", "Patient.telecom", source=2, destination=0)],
        {"telecom": [MAIL, HOME, WORK]},
    ),
    "move to the same place": (PATIENT, [operation("move", "Patient.telecom", source=1, destination=1)], {}),
    "move a primitive": (
        PATIENT,
        [operation("move", "Patient.name[0].given", source=1, destination=0)],
        {
            "name": [
                PATIENT["name"][0] | {"given": ["Augusta", "Ada"], "_given": [{"id": "g"}, None]},
                PATIENT["name"][1],
            ]
        },
    ),
}


@pytest.mark.parametrize(("resource", "operations", "changes"), DONE.values(), ids=DONE)
def test_operations_are_done(resource, operations, changes):
    """9.9: each kind of operation; ... stands for what is gone. https://hl7.org/fhir/R4/fhirpatch.html"""
    expected = {name: value for name, value in (resource | changes).items() if value is not ...}
    before = copied(resource)

    assert patched(resource, *operations) == expected
    assert resource == before


PATHS = {
    "telecom[1]": 1,
    "Patient.telecom[1]": 1,
    "Resource.telecom[1]": 1,
    "DomainResource.telecom[1]": 1,
    "$this.telecom[1]": 1,
    "Patient.telecom.first()": 0,
    "Patient.telecom.last()": 2,
    "Patient.telecom.tail().first()": 1,
    "Patient.telecom.skip(1).take(1)": 1,
    "Patient.telecom.where(use = 'work')": 1,
    "Patient.telecom.where(use = 'work').single()": 1,
    "Patient.telecom.where(use = 'home' and system = 'phone')": 0,
    "Patient.telecom.where(use = 'home').where(system = 'email')": 2,
    "Patient.telecom.where(use = 'home')[1]": 2,
    "Patient.telecom.where(value.toInteger() > 2)": 2,
    "Patient.telecom.where(value in ('2' | '7'))": 1,
    "Patient.telecom.where(system != 'phone')": 2,
    "Patient.telecom.where(use.startsWith('w'))": 1,
    "Patient.telecom.where(rank.empty()).last()": 2,
    "Patient.telecom.where(value.toInteger() > -1)[0]": 0,
    "Patient.telecom.where(system != %ucum and value = '2')": 1,
    "Patient.telecom.where($this.skip(0)[0].use is code).tail()[0]": 1,
    "Patient.telecom.where({}.empty()).first()": 0,
    "Patient.telecom.where(value = '2').as(ContactPoint)": 1,
    "(Patient.telecom[1] as ContactPoint)": 1,
}


@pytest.mark.parametrize(("path", "number"), PATHS.items())
def test_a_path_selects_by_number_criteria_or_type(path, number):
    """http://hl7.org/fhirpath/N1/#expressions"""
    left = [item for item in PATIENT["telecom"] if item is not PATIENT["telecom"][number]]

    assert patched(PATIENT, operation("delete", path))["telecom"] == left


def test_equal_values_in_different_places_are_told_apart():
    """FHIRPath has values and no places; a patch is about places."""
    twins = {"resourceType": "Patient", "name": [{"family": "X", "given": ["X", "X", "X"]}, {"family": "X"}]}

    result = patched(
        twins,
        operation("replace", "Patient.name[0].given[1]", value=text("Y")),
        operation("replace", "Patient.name.where(given.empty()).family", value=text("Z")),
    )

    assert result["name"] == [{"family": "X", "given": ["X", "Y", "X"]}, {"family": "Z"}]


def test_a_primitive_that_is_null_has_its_place():
    """It is there by its extension. https://hl7.org/fhir/R4/json.html#primitive"""
    resource = {"resourceType": "Patient", "name": [{"given": ["A", None], "_given": [None, {"id": "b"}]}]}

    result = patched(resource, operation("replace", "Patient.name.given.where(id = 'b')", value=text("B")))

    assert result["name"] == [{"given": ["A", "B"]}]


def test_the_type_of_a_choice_changes_at_its_place():
    """The order of properties is that of the author. https://hl7.org/fhir/R4/json.html"""
    result = patched(OBSERVATION, operation("replace", "Observation.value", value=text("heavy")))

    assert list(result) == ["resourceType", "status", "code", "valueString", "note"]


def test_numbers_keep_their_digits():
    """https://hl7.org/fhir/R4/json.html#decimal"""
    value = {"valueQuantity": {"value": json.Number("1.500")}}

    result = patched(
        OBSERVATION, operation("add", "Observation.note[0]", name="time", value={"valueDateTime": "2026"})
    )
    other = patched(OBSERVATION, operation("replace", "Observation.value", value=value))

    assert b'"value":70.50' in json.dumps(result)
    assert b'"value":1.500' in json.dumps(other)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "add to nothing": (operation("add", "Patient.maritalStatus", name="text", value=text("x")), "no element"),
    "add to several": (operation("add", "Patient.name", name="given", value=text("x")), "2 elements"),
    "add what is there": (
        operation("add", "Patient", name="birthDate", value={"valueDate": "1816"}),
        "already",
    ),
    "add a choice that is there": (
        operation("add", "Patient", name="multipleBirth", value={"valueBoolean": True}),
        "already",
    ),
    "add an unknown element": (
        operation("add", "Patient", name="birthday", value={"valueDate": "1816"}),
        "has no",
    ),
    "add by the name in JSON": (
        operation("add", "Patient", name="multipleBirthInteger", value={"valueInteger": 1}),
        "has no",
    ),
    "add a value of another type": (
        operation("add", "Patient", name="gender", value=text("female")),
        "expected code",
    ),
    "add a choice of another type": (
        operation("add", "Patient", name="deceased", value=text("yes")),
        "expected boolean, dateTime",
    ),
    "add a complex value for a primitive": (
        operation("add", "Patient", name="gender", value={"valueCoding": {"code": "x"}}),
        "can't be a Coding",
    ),
    "add a value for a backbone element": (
        operation("add", "Patient", name="contact", value=text("x")),
        "can't be a string",
    ),
    "add parts for a primitive": (
        operation("add", "Patient", name="gender", value=part("value", part("id", valueString="x"))),
        "as parts",
    ),
    "add an unknown part": (
        operation("add", "Patient", name="contact", value=part("value", part("age", valueString="x"))),
        "has no",
    ),
    "add a part of another type": (
        operation("add", "Patient", name="contact", value=part("value", part("gender", valueString="x"))),
        "expected code",
    ),
    "add a part twice": (
        operation(
            "add",
            "Patient",
            name="contact",
            value=part("value", part("gender", valueCode="x"), part("gender", valueCode="y")),
        ),
        "already",
    ),
    "add a resource for an element": (
        operation("add", "Patient", name="name", value={"resource": BASIC}),
        "can't be a Basic",
    ),
    "add a value for a resource": (
        operation("add", "Patient", name="contained", value={"valueHumanName": {"text": "x"}}),
        "can't be a HumanName",
    ),
    "replace nothing": (operation("replace", "Patient.gender", value={"valueCode": "female"}), "no element"),
    "replace several": (
        operation("replace", "Patient.telecom", value={"valueContactPoint": {"value": "1"}}),
        "3 elements",
    ),
    "replace by another type": (
        operation("replace", "Patient.birthDate", value=text("1816")),
        "expected date",
    ),
    "replace the resource": (operation("replace", "Patient", value={"resource": PATIENT}), "resource itself"),
    "replace the id": (operation("replace", "Patient.id", value={"valueId": "x"}), "can't change the id"),
    "delete the id": (operation("delete", "Patient.id"), "can't change the id"),
    "delete several": (operation("delete", "Patient.telecom"), "3 elements"),
    "delete the resource": (operation("delete", "Patient"), "resource itself"),
    "delete an unknown element": (operation("delete", "Patient.birthday"), "has no"),
    "delete the resource type": (operation("delete", "Patient.resourceType"), "has no"),
    "delete one of several": (operation("delete", "Patient.telecom.single()"), "single"),
    "path of another type": (
        operation("replace", "Observation.status", value={"valueCode": "final"}),
        "no element",
    ),
    "insert beyond the end": (
        operation("insert", "Patient.telecom", index=4, value={"valueContactPoint": {"value": "1"}}),
        "0 to 3",
    ),
    "insert before the start": (
        operation("insert", "Patient.telecom", index=-1, value={"valueContactPoint": {"value": "1"}}),
        "0 to 3",
    ),
    "insert into no list": (
        operation("insert", "Patient.birthDate", index=0, value={"valueDate": "1816"}),
        "is no list",
    ),
    "insert into an item": (
        operation("insert", "Patient.telecom[0]", index=0, value={"valueContactPoint": {"value": "1"}}),
        "name of a list",
    ),
    "insert into the resource": (
        operation("insert", "Patient", index=0, value={"valueContactPoint": {"value": "1"}}),
        "name of a list",
    ),
    "insert into an unknown list": (
        operation("insert", "Patient.phones", index=0, value={"valueContactPoint": {"value": "1"}}),
        "has no",
    ),
    "insert into one of several lists": (
        operation("insert", "Patient.name.given", index=0, value=text("x")),
        "2 elements",
    ),
    "insert below nothing": (
        operation("insert", "Patient.maritalStatus.coding", index=0, value={"valueCoding": {"code": "x"}}),
        "no element",
    ),
    "insert another type": (
        operation("insert", "Patient.telecom", index=0, value=text("x")),
        "expected ContactPoint",
    ),
    "move from beyond the end": (
        operation("move", "Patient.telecom", source=3, destination=0),
        "source is 3; 0 to 2",
    ),
    "move to beyond the end": (
        operation("move", "Patient.telecom", source=0, destination=3),
        "destination is 3; 0 to 2",
    ),
    "move from before the start": (
        operation("move", "Patient.telecom", source=-1, destination=0),
        "source is -1",
    ),
    "move in an empty list": (
        operation("move", "Patient.identifier", source=0, destination=0),
        "the list is empty",
    ),
}


@pytest.mark.parametrize(("wrong", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_resource_does_not_allow_is_unprocessable(wrong, message):
    """9.9: 422, and what came before is not done either. https://hl7.org/fhir/R4/fhirpatch.html"""
    before = copied(PATIENT)

    with pytest.raises(Unprocessable, match=message) as refusal:
        patched(
            PATIENT,
            operation("delete", "Patient.telecom[7]"),
            operation("delete", "Patient.name[1].use"),
            wrong,
        )

    assert [issue.code for issue in refusal.value.issues] == ["processing"]
    assert before == PATIENT


def without(of: dict[str, Any], name: str) -> dict[str, Any]:
    return of | {"part": [part for part in of["part"] if part["name"] != name]}


ADD = operation("add", "Patient", name="gender", value={"valueCode": "female"})
INSERT = operation("insert", "Patient.telecom", index=0, value={"valueContactPoint": {"value": "1"}})
MOVE = operation("move", "Patient.telecom", source=0, destination=0)
MALFORMED = {
    "another name": ADD | {"name": "change"},
    "no parts": {"name": "operation"},
    "no type": without(ADD, "type"),
    "unknown type": operation("remove", "Patient.name"),
    "type in capitals": operation("Delete", "Patient.name"),
    "no path": without(ADD, "path"),
    "no name": without(ADD, "name"),
    "add without value": without(ADD, "value"),
    "insert without index": without(INSERT, "index"),
    "insert without value": without(INSERT, "value"),
    "move without source": without(MOVE, "source"),
    "move without destination": without(MOVE, "destination"),
    "delete with a value": operation("delete", "Patient.name", value=text("x")),
    "add with an index": ADD | {"part": [*ADD["part"], {"name": "index", "valueInteger": 0}]},
    "unknown part": ADD | {"part": [*ADD["part"], {"name": "comment", "valueString": "x"}]},
    "part given twice": ADD | {"part": [*ADD["part"], {"name": "name", "valueString": "x"}]},
    "path that is a number": ADD
    | {"part": [ADD["part"][0], {"name": "path", "valueInteger": 1}, *ADD["part"][2:]]},
    "path that is a text with two values": ADD
    | {
        "part": [
            ADD["part"][0],
            {"name": "path", "valueString": "Patient", "valueCode": "Patient"},
            *ADD["part"][2:],
        ]
    },
    "index that is text": without(INSERT, "index")
    | {"part": [*without(INSERT, "index")["part"], {"name": "index", "valueString": "0"}]},
    "value that is nothing": operation("add", "Patient", name="gender", value={}),
    "value that is two things": operation(
        "add",
        "Patient",
        name="gender",
        value={"valueCode": "x", "part": [{"name": "id", "valueString": "x"}]},
    ),
    "value of an unknown type": operation("add", "Patient", name="gender", value={"valueGender": "female"}),
    "number that is text": operation("add", "Patient", name="multipleBirth", value={"valueInteger": "2"}),
    "date that is none": operation("add", "Patient", name="birthDate", value={"valueDate": "yesterday"}),
    "part without a name": operation(
        "add", "Patient", name="contact", value={"part": [{"valueString": "x"}]}
    ),
}


@pytest.mark.parametrize("wrong", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_patch_is_invalid(wrong):
    """400, with the place in the Parameters. https://hl7.org/fhir/R4/fhirpatch.html"""
    with pytest.raises(Invalid) as refusal:
        of_parameters(parameters(operation("delete", "Patient.gender"), wrong))

    assert not isinstance(refusal.value, Unprocessable)
    assert refusal.value.issues[0].expression.startswith("Parameters.parameter[1]")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "Patient.",
        "Patient.name[",
        "Patient.name[0",
        "Patient.name.nothing()",
        "1",
        "'name'",
        "Patient.name | Patient.contact.name",
        "Patient.name.given & 'x'",
        "Patient.name.count()",
        "Patient.name.exists()",
        "Patient.name is HumanName",
        "Patient.name.select(given)",
        "Patient.name[-1]",
        "Patient.name[Patient.multipleBirth]",
        "Patient.name.skip('1')",
        "Patient.name.first(1)",
        "Patient.name.where()",
        "Patient.name.ofType('x')",
        "Patient.extension(url)",
        "%resource.name",
        # other resources, and what takes too long
        "Patient.managingOrganization.resolve().name",
        "Patient.contact.where(organization.resolve().active)",
        "Patient.name.where(%resource.name.exists())",
        "Patient.descendants()",
        "Patient.name.where(descendants().exists())",
        "Patient.contact.where(organization.exists(resolve().active))",
        "Patient.name[0].given.where(startsWith(%resource.id))",
        "Patient.telecom.where(0 - rank = 1)",
        "Patient.telecom.where(1 - 1 = rank)",
        "Patient.name.where(family.matches('(a+)+$'))",
        "Patient.name.where(family.replaceMatches('(a+)+$', '') = '')",
        "Patient.name.where(given.combine(given).exists())",
        "Patient.repeat(contact)",
        "Patient.name.where(family + family = '')",
        "Patient.name.where((family as Constant.resolve()).exists())",
        "Patient" + ".contact" * 101,
        "Patient.name.where(" + "given." * 101 + "exists())",
        "Patient.name.where(" * 60 + "true" + ")" * 60,
        "x" * 5000,
    ],
)
def test_a_path_that_does_more_than_select_is_invalid(path):
    """Neither resolve() nor sums: the path selects within the resource. https://hl7.org/fhir/R4/fhirpatch.html"""
    with pytest.raises(Invalid) as refusal:
        of_parameters(parameters(operation("delete", path) if path else without(ADD, "path")))

    assert not isinstance(refusal.value, Unprocessable)


def test_nesting_is_bounded():
    """Extensions in extensions, until it would be too deep for JSON."""
    extension = part("value", part("url", valueUri="http://example.org/e"))
    deeper = [
        operation("add", "Patient" + ".extension" * depth, name="extension", value=extension)
        for depth in range(60)
    ]

    with pytest.raises(Unprocessable, match="more than 64 deep"):
        patched({"resourceType": "Patient"}, *deeper)


def test_the_number_of_operations_is_bounded():
    with pytest.raises(TooLarge, match="at most 1000"):
        of_parameters(parameters(*[operation("delete", "Patient.gender")] * 1001))


def test_a_patch_can_be_applied_again():
    """What one application changes in a value that the patch added is not in the next one."""
    patch = of_parameters(
        parameters(
            operation("add", "Patient", name="name", value={"valueHumanName": {"given": ["A"]}}),
            operation("add", "Patient.name", name="given", value=text("B")),
        )
    )
    empty = {"resourceType": "Patient"}

    assert patch.apply(empty) == patch.apply(empty) == empty | {"name": [{"given": ["A", "B"]}]}


@pytest.mark.parametrize(
    ("path", "work"),
    [
        ("Patient.telecom[1]", 1 + 3 + 1),
        ("Patient.telecom.where(true)", 1 + 3 + 15 + 3),
        ("Patient.telecom.where(use = 'work')", 1 + 3 + 3 * 15 + 1),
    ],
)
def test_each_element_that_a_path_looks_at_is_work(path, work):
    """Each step counts its elements, and each part of the criteria all that is in them."""
    compiled = places.compile(path)

    assert compiled.places(PATIENT, Work(work))
    with pytest.raises(TooLarge, match="look at more than"):
        compiled.places(PATIENT, Work(work - 1))


def test_the_work_of_paths_is_bounded():
    """Each operation is cheap on its own; together they would take minutes, for which other writers had to wait."""
    large = {"resourceType": "Patient", "telecom": [{"value": str(number)} for number in range(10_000)]}
    criteria = " and ".join(["value.exists()"] * 40)

    with pytest.raises(TooLarge, match="look at more than"):
        patched(large, operation("delete", f"Patient.telecom.where({criteria})"))
    assert len(patched(large, operation("delete", "Patient.telecom.where(value = '7')"))["telecom"]) == 9_999


CLAIM = {"resourceType": "Nonsense", "name": "x"}


@pytest.mark.parametrize(
    ("resource", "change", "message"),
    [
        ({"telecom": HOME}, operation("delete", "Patient.telecom[1]"), None),
        ({"telecom": HOME}, operation("delete", "Patient.telecom"), None),
        ({"telecom": HOME}, operation("move", "Patient.telecom", source=0, destination=0), "no array"),
        ({"name": "x"}, operation("replace", "Patient.name.family", value=text("y")), "has no"),
        ({"name": [{"given": ["x"], "_given": {}}]}, operation("delete", "Patient.name.given"), None),
        (
            {"name": [{"given": ["x"], "_given": {}}]},
            operation("add", "Patient.name", name="given", value=text("y")),
            "no array",
        ),
        (
            {"contained": [CLAIM]},
            operation("replace", "Patient.contained.name", value=text("y")),
            "no element",
        ),
        (
            {"contained": [CLAIM]},
            operation("add", "Patient.contained", name="name", value=text("y")),
            "has no",
        ),
        ({"contained": ["x"]}, operation("replace", "Patient.contained.name", value=text("y")), "has no"),
    ],
)
def test_a_resource_that_is_no_fhir_is_patched_or_refused(resource, change, message):
    """It may have come in while validation was off."""
    stored = {"resourceType": "Patient"} | resource
    if message is None:
        assert patched(stored, change)["resourceType"] == "Patient"
        return

    with pytest.raises(Unprocessable, match=message):
        patched(stored, change)
