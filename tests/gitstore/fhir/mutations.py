"""Faults that are put into sound resources, by kind: each function changes one and says whether it could."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gitstore.fhir import json
from gitstore.fhir.definitions import Element, elements, is_primitive

Mutate = Callable[[dict[str, Any]], bool]
Found = tuple[dict[str, Any], Element, str]

STRUCTURE: dict[str, Mutate] = {}
"""Faults after which it isn't FHIR any more, by what they are called in docs/validation.md."""

RULES: dict[str, Mutate] = {}
"""Faults that break a rule."""


def fault(kinds: dict[str, Mutate], kind: str) -> Callable[[Mutate], Mutate]:
    def register(mutate: Mutate) -> Mutate:
        assert kind not in kinds
        kinds[kind] = mutate
        return mutate

    return register


def properties(value: dict[str, Any], type: str) -> Iterator[Found]:
    """Each object with each of its properties and its own type, from the outside in."""
    for name in list(value):
        element = elements(type).get(name)
        if element is None:
            continue
        yield value, element, type
        if is_primitive(element.type):
            continue
        for child in value[name] if isinstance(value[name], list) else [value[name]]:
            if isinstance(child, dict):
                yield from properties(child, child.get("resourceType", element.type))


def first(resource: dict[str, Any], accept: Callable[[dict[str, Any], Element], bool]) -> Found | None:
    found = properties(resource, resource["resourceType"])
    return next((place for place in found if accept(*place[:2])), None)


def replace(accept: Callable[[dict[str, Any], Element], bool], change: Callable[[Any], Any]) -> Mutate:
    """Another value for the first property that is accepted; within an array for its first item."""

    def mutate(resource: dict[str, Any]) -> bool:
        found = first(resource, accept)
        if found is None:
            return False
        parent, element, _ = found
        if isinstance(parent[element.name], list):
            parent[element.name][0] = change(parent[element.name][0])
        else:
            parent[element.name] = change(parent[element.name])
        return True

    return mutate


def whole(accept: Callable[[dict[str, Any], Element], bool], change: Callable[[Any], Any]) -> Mutate:
    """Another value for the first property that is accepted, array or not."""

    def mutate(resource: dict[str, Any]) -> bool:
        found = first(resource, accept)
        if found is not None:
            found[0][found[1].name] = change(found[0][found[1].name])
        return found is not None

    return mutate


def of(*types: str) -> Callable[[dict[str, Any], Element], bool]:
    return lambda parent, element: element.type in types and "resourceType" not in str(element.name)


def complex_value(parent: dict[str, Any], element: Element) -> bool:
    return not is_primitive(element.type) and element.type != "Resource"


def required_code(parent: dict[str, Any], element: Element) -> bool:
    """Where any code is one of a required binding; languages and some more are not bound so."""
    return element.type == "code" and element.name in (
        "status",
        "gender",
        "use",
        "intent",
        "system",
        "mode",
        "kind",
        "type",
        "comparator",
    )


def number(text: str) -> json.Number:
    return json.Number(text)


VALUES: dict[str, tuple[tuple[str, ...], Any]] = {
    "text where a boolean must be": (("boolean",), "true"),
    "text where a whole number must be": (("integer", "positiveInt", "unsignedInt"), "1"),
    "text where a decimal must be": (("decimal",), "1.0"),
    "fraction where a whole number must be": (("integer", "positiveInt", "unsignedInt"), number("1.5")),
    "boolean where text must be": (("string",), True),
    "number where text must be": (("string", "code", "uri"), 5),
    "object where text must be": (("string", "code", "uri"), {"value": "x"}),
    "array within an array": (("string", "code", "uri"), ["x"]),
    "null": (("string", "code", "uri", "boolean"), None),
    "empty text": (("string", "code", "uri"), ""),
    "month 13": (("date", "dateTime"), "2020-13"),
    "30 February": (("date", "dateTime"), "2020-02-30"),
    "29 February of a common year": (("date", "dateTime"), "2023-02-29"),
    "31 April": (("date", "dateTime"), "2023-04-31"),
    "year 0": (("date", "dateTime"), "0000"),
    "date in words": (("date", "dateTime"), "yesterday"),
    "time in a date": (("date",), "2020-01-01T10:00:00Z"),
    "time without a zone": (("dateTime", "instant"), "2020-01-01T10:00:00"),
    "time without seconds": (("dateTime", "instant"), "2020-01-01T10:00Z"),
    "hour 24": (("dateTime", "instant"), "2020-01-01T24:00:00Z"),
    "zone +15:00": (("dateTime", "instant"), "2020-01-01T10:00:00+15:00"),
    "instant without a time": (("instant",), "2020-01-01"),
    "time of day 25:00": (("time",), "25:00:00"),
    "time of day without seconds": (("time",), "10:00"),
    "underscore in an id": (("id",), "a_b"),
    "id of 65 characters": (("id",), "x" * 65),
    "space at the end of a code": (("code",), "final "),
    "two spaces in a code": (("code",), "a  b"),
    "space in a uri": (("uri", "url", "canonical"), "http://example.org/a b"),
    "base64 with other letters": (("base64Binary",), "SGVsbG8%"),
    "base64 cut short": (("base64Binary",), "SGVsbG"),
    "positiveInt 0": (("positiveInt",), 0),
    "unsignedInt -1": (("unsignedInt",), -1),
    "integer beyond 32 bits": (("integer", "positiveInt", "unsignedInt"), 2_147_483_648),
}
for kind, (types, value) in VALUES.items():
    STRUCTURE[kind] = replace(of(*types), lambda _, value=value: value)

STRUCTURE["text where an object must be"] = replace(complex_value, lambda _: "text")
STRUCTURE["null where an object must be"] = replace(complex_value, lambda _: None)
STRUCTURE["empty object"] = replace(complex_value, lambda _: {})
STRUCTURE["array where one must be"] = whole(
    lambda parent, element: element.max == 1 and complex_value(parent, element), lambda value: [value]
)
STRUCTURE["array of text where one must be"] = whole(
    lambda parent, element: element.max == 1 and is_primitive(element.type), lambda value: [value]
)
STRUCTURE["one where an array must be"] = whole(
    lambda parent, element: element.max is None, lambda value: value[0]
)
STRUCTURE["empty array"] = whole(lambda parent, element: element.max is None, lambda _: [])
STRUCTURE["unknown element in a data type"] = replace(
    of("CodeableConcept", "Identifier", "Coding", "Reference", "Period"),
    lambda value: value | {"colour": "red"},
)
STRUCTURE["element of another type"] = replace(
    of("CodeableConcept"), lambda value: value | {"family": "Chalmers"}
)
STRUCTURE["modifierExtension in a data type"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: value | {"modifierExtension": [{"url": "http://example.org/x", "valueCode": "a"}]},
)
STRUCTURE["resourceType in a data type"] = replace(
    of("CodeableConcept", "Identifier", "Reference"), lambda value: value | {"resourceType": "Patient"}
)
STRUCTURE["extension without url"] = replace(
    of("CodeableConcept", "Identifier"), lambda value: value | {"extension": [{"valueCode": "a"}]}
)
STRUCTURE["extension with two values"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: (
        value | {"extension": [{"url": "http://example.org/x", "valueCode": "a", "valueString": "b"}]}
    ),
)
STRUCTURE["oid without urn"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: value | {"extension": [{"url": "http://example.org/x", "valueOid": "1.2.3"}]},
)
STRUCTURE["uuid in capitals"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: (
        value
        | {
            "extension": [
                {"url": "http://example.org/x", "valueUuid": "urn:uuid:C757873D-EC9A-4326-A141-556F43239520"}
            ]
        }
    ),
)
STRUCTURE["extension with a value of no type"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: value | {"extension": [{"url": "http://example.org/x", "valueNarrative": {}}]},
)


@fault(STRUCTURE, "unknown element")
def _(resource):
    resource["colour"] = "red"
    return True


@fault(STRUCTURE, "element in capitals")
def _(resource):
    name = next(name for name in resource if name not in ("resourceType", "id"))
    resource[name[0].upper() + name[1:]] = resource.pop(name)
    return True


@fault(STRUCTURE, "fhir_comments")
def _(resource):
    resource["fhir_comments"] = ["as in DSTU2"]
    return True


@fault(STRUCTURE, "no resourceType")
def _(resource):
    del resource["resourceType"]
    return True


@fault(STRUCTURE, "resource type of another version")
def _(resource):
    resource["resourceType"] = "Citation"
    return True


@fault(STRUCTURE, "abstract resource type")
def _(resource):
    resource["resourceType"] = "DomainResource"
    return True


@fault(STRUCTURE, "required element missing")
def _(resource):
    found = first(resource, lambda parent, element: element.min > 0)
    if found is not None:
        del found[0][found[1].name]
        found[0].pop("_" + found[1].name, None)
    return found is not None


@fault(STRUCTURE, "required element missing in a backbone element")
def _(resource):
    found = first(resource, lambda parent, element: element.min > 0 and "resourceType" not in parent)
    if found is not None:
        del found[0][found[1].name]
        found[0].pop("_" + found[1].name, None)
    return found is not None


def _of_a_choice(resource, name, value):
    found = first(resource, lambda parent, element: element.choice is not None)
    if found is not None:
        found[0][found[1].choice + name] = value
    return found is not None


@fault(STRUCTURE, "two values of a choice")
def _(resource):
    found = first(resource, lambda parent, element: element.choice is not None)
    if found is None:
        return False
    parent, element, type = found
    other = next(
        other
        for other in elements(type).values()
        if other.choice == element.choice and other.name != element.name
    )
    parent[other.name] = (
        "2020" if is_primitive(other.type) else {"extension": [{"url": "urn:x", "valueCode": "x"}]}
    )
    return True


@fault(STRUCTURE, "value of a choice that is of no type of it")
def _(resource):
    return _of_a_choice(resource, "Narrative", {"status": "generated"})


@fault(STRUCTURE, "choice without its type")
def _(resource):
    return _of_a_choice(resource, "", "x")


def _sibling(change):
    def mutate(resource):
        found = first(resource, lambda parent, element: is_primitive(element.type) and element.max == 1)
        if found is not None:
            found[0]["_" + found[1].name] = change
        return found is not None

    return mutate


STRUCTURE["`_` sibling that is text"] = _sibling("x")
STRUCTURE["`_` sibling that is empty"] = _sibling({})
STRUCTURE["`_` sibling that is an array"] = _sibling([{"id": "a"}])
STRUCTURE["`_` sibling with an unknown element"] = _sibling({"id": "a", "value": "x"})
STRUCTURE["`_` sibling with a bad extension"] = _sibling({"extension": [{"valueCode": "x"}]})


@fault(STRUCTURE, "`_` sibling of an object")
def _(resource):
    found = first(resource, complex_value)
    if found is not None:
        found[0]["_" + found[1].name] = {"id": "a"}
    return found is not None


def _aligned(extras):
    def mutate(resource):
        found = first(resource, lambda parent, element: is_primitive(element.type) and element.max is None)
        if found is not None:
            found[0]["_" + found[1].name] = extras(found[0][found[1].name])
        return found is not None

    return mutate


STRUCTURE["`_` array longer than its values"] = _aligned(lambda values: [None] * len(values) + [{"id": "a"}])
STRUCTURE["`_` array shorter than its values"] = _aligned(
    lambda values: [{"id": "a"}] * (len(values) - 1) or []
)


@fault(STRUCTURE, "null in both arrays of a primitive")
def _(resource):
    found = first(resource, lambda parent, element: is_primitive(element.type) and element.max is None)
    if found is not None:
        values = found[0][found[1].name]
        values.append(None)
        found[0]["_" + found[1].name] = [{"id": "a"}] * (len(values) - 1) + [None]
    return found is not None


@fault(STRUCTURE, "contained resource without resourceType")
def _(resource):
    resource["contained"] = [{"id": "inner"}]
    return "text" in resource


@fault(STRUCTURE, "unknown element in a contained resource")
def _(resource):
    resource["contained"] = [{"resourceType": "Patient", "id": "inner", "colour": "red"}]
    return "text" in resource


@fault(STRUCTURE, "unknown element in an entry")
def _(resource):
    entry = next((entry for entry in resource.get("entry", []) if "resource" in entry), None)
    if resource["resourceType"] != "Bundle" or entry is None:
        return False
    entry["resource"]["colour"] = "red"
    return True


@fault(STRUCTURE, "bad date in an entry")
def _(resource):
    entry = next((entry for entry in resource.get("entry", []) if "resource" in entry), None)
    if resource["resourceType"] != "Bundle" or entry is None:
        return False
    entry["resource"].setdefault("meta", {})["lastUpdated"] = "2020-13-01T00:00:00Z"
    return True


# Rules.

RULES["code outside a required binding"] = replace(required_code, lambda _: "no-such-code")
RULES["code in capitals"] = replace(
    required_code, lambda code: code.upper() if code.islower() else "X" + code
)
RULES["system of a telecom"] = replace(
    lambda parent, element: element.type == "ContactPoint", lambda value: value | {"system": "carrier-pigeon"}
)
RULES["use of a name"] = replace(of("HumanName"), lambda value: value | {"use": "stage"})
RULES["comparator of a quantity"] = replace(of("Quantity"), lambda value: value | {"comparator": "=>"})
RULES["status of a narrative"] = replace(of("Narrative"), lambda value: value | {"status": "written"})
RULES["reference to an unknown type"] = replace(of("Reference"), lambda value: {"reference": "Patent/1"})
RULES["reference to a data type"] = replace(of("Reference"), lambda value: {"reference": "HumanName/1"})
RULES["reference to a missing contained resource"] = replace(
    of("Reference"), lambda value: {"reference": "#nowhere"}
)
RULES["reference whose type is another"] = replace(
    lambda parent, element: element.type == "Reference" and element.name in ("subject", "patient"),
    lambda value: {"reference": "Patient/1", "type": "Group"},
)
RULES["reference to a type that isn't allowed"] = replace(
    lambda parent, element: element.type == "Reference" and element.name in ("patient", "encounter"),
    lambda value: {"reference": "Medication/1"},
)
RULES["absolute reference to a type that isn't allowed"] = replace(
    lambda parent, element: element.type == "Reference" and element.name in ("patient", "encounter"),
    lambda value: {"reference": "http://example.org/fhir/Medication/1"},
)
RULES["extension with neither value nor extension"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: value | {"extension": [{"url": "http://example.org/x"}]},
)
RULES["extension with both value and extension"] = replace(
    of("CodeableConcept", "Identifier"),
    lambda value: (
        value
        | {
            "extension": [
                {
                    "url": "http://example.org/x",
                    "valueCode": "a",
                    "extension": [{"url": "y", "valueCode": "a"}],
                }
            ]
        }
    ),
)
RULES["element with an id only"] = replace(of("CodeableConcept", "Identifier"), lambda _: {"id": "a"})


def _contain(inner: dict[str, Any], reference: str | None = "#inner") -> Mutate:
    def mutate(resource):
        if "text" not in resource or "contained" in resource:
            return False
        resource["contained"] = [{"resourceType": "Basic", "id": "inner", "code": {"text": "x"}} | inner]
        if reference is not None:
            extension = {"url": "http://example.org/x", "valueReference": {"reference": reference}}
            resource["extension"] = [extension]
        return True

    return mutate


PATIENT = {"resourceType": "Patient", "id": "deep"}
RULES["contained resource that nothing refers to"] = _contain({}, None)
RULES["contained resource in a contained one"] = _contain({"contained": [PATIENT]})
RULES["contained resource with a versionId"] = _contain({"meta": {"versionId": "1"}})
RULES["contained resource with a security label"] = _contain({"meta": {"security": [{"code": "R"}]}})
RULES["contained resource of a type that isn't allowed"] = _contain(
    {"subject": {"reference": "#"}, "author": {"reference": "#inner"}}
)

DIVS = {
    "script in a narrative": "<p>a</p><script>alert(1)</script>",
    "style element in a narrative": "<style>p {}</style><p>a</p>",
    "iframe in a narrative": '<iframe src="http://example.org/"/><p>a</p>',
    "form in a narrative": '<form action="x"><input name="a"/></form><p>a</p>',
    "event handler in a narrative": '<p onclick="alert(1)">a</p>',
    "javascript link in a narrative": '<a href="javascript:alert(1)">a</a>',
    "narrative that isn't well-formed": "<p>a",
    "unknown entity in a narrative": "<p>&nothing;</p>",
    "narrative without content": "<p> </p>",
}
for kind, content in DIVS.items():
    RULES[kind] = replace(
        of("Narrative"),
        lambda value, content=content: (
            value | {"div": f'<div xmlns="http://www.w3.org/1999/xhtml">{content}</div>'}
        ),
    )
RULES["narrative without its namespace"] = replace(
    of("Narrative"), lambda value: value | {"div": "<div>a</div>"}
)
RULES["narrative that is no div"] = replace(
    of("Narrative"), lambda value: value | {"div": '<p xmlns="http://www.w3.org/1999/xhtml">a</p>'}
)
RULES["external entity in a narrative"] = replace(
    of("Narrative"),
    lambda value: (
        value
        | {
            "div": '<!DOCTYPE div [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            '<div xmlns="http://www.w3.org/1999/xhtml">&x;</div>'
        }
    ),
)


# Invariants: each with a resource that has what it is about.


def on(type: str, change: dict[str, Any]) -> Mutate:
    """Other values for properties of a resource of a type; without a property where it is None."""

    def mutate(resource):
        if resource["resourceType"] != type:
            return False
        for name, value in change.items():
            choice = elements(type)[name].choice
            for other in elements(type).values():
                if choice is not None and other.choice == choice:
                    resource.pop(other.name, None)
            if value is None:
                resource.pop(name, None)
            else:
                resource[name] = value
        return True

    return mutate


def entries(*changes: dict[str, Any], **bundle: Any) -> Mutate:
    """Entries of a Bundle of these, and what the Bundle has besides."""
    return on("Bundle", {"entry": list(changes), "total": None, "link": None} | bundle)


def item(**properties: Any) -> Mutate:
    return on("Questionnaire", {"item": [{"linkId": "1", "type": "string"} | properties]})


FINISHED = {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}
IN_ERROR = {
    "system": "http://terminology.hl7.org/CodeSystem/condition-ver-status",
    "code": "entered-in-error",
}
GET = {"method": "GET", "url": "Patient/1"}
QUANTITY = {"value": 1, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}
FULL_URL = "http://example.org/fhir/Patient/deep"

RULES |= {
    "att-1": replace(of("Attachment"), lambda _: {"data": "SGVsbG8="}),
    "bdl-1": entries({"resource": PATIENT}, type="collection", total=1),
    "bdl-2": entries({"resource": PATIENT, "search": {"mode": "match"}}, type="collection"),
    "bdl-3": entries({"resource": PATIENT}, type="transaction"),
    "bdl-3 in a collection": entries({"resource": PATIENT, "request": GET}, type="collection"),
    "bdl-4": entries({"resource": PATIENT}, type="batch-response"),
    "bdl-5": entries({"fullUrl": FULL_URL}, type="collection"),
    "bdl-7": entries(*[{"fullUrl": FULL_URL, "resource": PATIENT}] * 2, type="collection"),
    "bdl-8": entries({"fullUrl": f"{FULL_URL}/_history/1", "resource": PATIENT}, type="collection"),
    "bdl-9": entries({"resource": PATIENT}, type="document", identifier=None),
    "bdl-10": entries({"resource": PATIENT}, type="document", timestamp=None),
    "bdl-11": entries({"resource": PATIENT}, type="document"),
    "bdl-12": entries({"resource": PATIENT}, type="message"),
    "con-4": on("Condition", {"abatementString": "gone", "clinicalStatus": {"coding": [FINISHED]}}),
    "con-5": on(
        "Condition", {"verificationStatus": {"coding": [IN_ERROR]}, "clinicalStatus": {"coding": [FINISHED]}}
    ),
    "clinicalStatus of another code system": on(
        "Condition", {"clinicalStatus": {"coding": [{"system": "http://example.org", "code": "active"}]}}
    ),
    "clinicalStatus without a coding": on("Condition", {"clinicalStatus": {"text": "active"}}),
    "cpt-2": on("Patient", {"telecom": [{"value": "555"}]}),
    "obs-3": on("Observation", {"referenceRange": [{"appliesTo": [{"text": "x"}]}]}),
    "obs-6": on("Observation", {"dataAbsentReason": {"text": "x"}, "valueQuantity": QUANTITY}),
    "obs-7": on(
        "Observation",
        {
            "code": {"coding": [{"code": "a"}]},
            "component": [{"code": {"coding": [{"code": "a"}]}}],
            "valueQuantity": QUANTITY,
            "dataAbsentReason": None,
        },
    ),
    "org-1": on("Organization", {"name": None, "identifier": None}),
    "org-3": on("Organization", {"telecom": [{"system": "phone", "value": "1", "use": "home"}]}),
    "pat-1": on("Patient", {"contact": [{"gender": "male"}]}),
    "per-1": replace(of("Period"), lambda _: {"start": "2020-02-01", "end": "2020-01-31"}),
    "per-1 with times": replace(
        of("Period"), lambda _: {"start": "2020-01-01T10:00:00Z", "end": "2020-01-01T10:30:00+01:00"}
    ),
    "qty-3": replace(of("Quantity", "Age", "Duration"), lambda _: {"value": 1, "code": "mg"}),
    "que-1 of a group": item(type="group"),
    "que-1 of a display": item(type="display", item=[{"linkId": "2", "type": "string"}]),
    "que-2": item(type="group", item=[{"linkId": "1", "type": "string"}]),
    "que-4": item(type="choice", answerOption=[{"valueString": "a"}], answerValueSet="http://example.org/vs"),
    "que-5": item(type="boolean", answerOption=[{"valueString": "a"}]),
    "que-7": item(enableWhen=[{"question": "0", "operator": "exists", "answerString": "x"}]),
    "que-11": item(type="choice", answerOption=[{"valueString": "a"}], initial=[{"valueString": "a"}]),
    "que-12": item(enableWhen=[{"question": "0", "operator": "=", "answerString": x} for x in "abc"]),
    "que-13": item(initial=[{"valueString": "a"}, {"valueString": "b"}]),
    "rat-1": on(
        "Observation", {"component": [{"code": {"text": "x"}, "valueRatio": {"numerator": QUANTITY}}]}
    ),
    "rng-2": on(
        "Observation",
        {
            "component": [
                {"code": {"text": "x"}, "valueRange": {"low": QUANTITY | {"value": 2}, "high": QUANTITY}}
            ]
        },
    ),
    "sqty-1": on("Observation", {"referenceRange": [{"low": QUANTITY | {"comparator": "<"}}]}),
    "tim-1": replace(of("Timing"), lambda _: {"repeat": {"duration": 1}}),
    "tim-9": replace(of("Timing"), lambda _: {"repeat": {"offset": 1}}),
    "app-2": on("Appointment", {"start": "2020-01-01T10:00:00Z", "end": None}),
    "inv-1 of a Task": on("Task", {"authoredOn": "2020-01-02", "lastModified": "2020-01-01"}),
    "imm-1": on("Immunization", {"education": [{"publicationDate": "2020"}]}),
    "lst-1": on("List", {"emptyReason": {"text": "x"}, "entry": [{"item": {"display": "x"}}]}),
    "cmp-1": on("Composition", {"section": [{"title": "empty"}]}),
    "fhs-1": on("FamilyMemberHistory", {"ageString": "a", "bornString": "b"}),
    "mdd-1": on("MedicationDispense", {"whenPrepared": "2020-02-01", "whenHandedOver": "2020-01-01"}),
    "sev-1": on("AuditEvent", {"entity": [{"name": "a", "query": "YQ=="}]}),
    "qrs-1": on(
        "QuestionnaireResponse",
        {"item": [{"linkId": "1", "answer": [{"valueString": "a"}], "item": [{"linkId": "2"}]}]},
    ),
}
