"""What is wrong with a resource: severity, code, place and text. https://hl7.org/fhir/R4/validation.html"""

from __future__ import annotations

import time

import pytest

from gitstore.errors import Invalid, Issue, Unprocessable
from gitstore.fhir import validation

PATIENT = {
    "resourceType": "Patient",
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada</div>'},
}
OBSERVATION = {**PATIENT, "resourceType": "Observation", "status": "final", "code": {"text": "x"}}


def patient(**properties):
    return PATIENT | properties


def observation(**properties):
    return OBSERVATION | properties


def bundle(*entries, **properties):
    return {"resourceType": "Bundle", "type": "collection", "entry": list(entries)} | properties


def only_issue(resource, **options) -> Issue:
    [issue] = validation.issues(resource, **options)
    return issue


def test_a_sound_resource_has_no_issues():
    assert validation.issues(PATIENT) == []
    assert validation.issues(OBSERVATION, type="Observation") == []


STRUCTURE = {
    "an unknown element": (
        patient(nmae=[]),
        ("structure", "Patient.nmae", "`nmae` is no element of Patient. Did you mean `name`?"),
    ),
    "an unknown element with an odd name": (
        patient(**{"a b`c": 1}),
        ("structure", "Patient.`a bc`", "`a b`c` is no element of Patient."),
    ),
    "an unknown element within": (
        patient(contact=[{"name": {"colour": "red"}}]),
        ("structure", "Patient.contact[0].name.colour", "`colour` is no element of HumanName."),
    ),
    "another JSON type": (
        patient(active="true"),
        (
            "structure",
            "Patient.active",
            "`Patient.active` is `true`, but must be true or false in JSON: its type is boolean.",
        ),
    ),
    "a number where text must be": (
        patient(gender=1),
        (
            "structure",
            "Patient.gender",
            "`Patient.gender` is the number 1, but must be text in JSON: its type is code.",
        ),
    ),
    "text where an object must be": (
        patient(maritalStatus="M"),
        (
            "structure",
            "Patient.maritalStatus",
            "`Patient.maritalStatus` is `M`, but must be an object in JSON: its type is CodeableConcept.",
        ),
    ),
    "one where an array must be": (
        patient(name={"family": "Lovelace"}),
        (
            "structure",
            "Patient.name",
            "`Patient.name` is an object, but must be an array in JSON: it may be there several times.",
        ),
    ),
    "an empty array": (
        patient(name=[]),
        (
            "structure",
            "Patient.name",
            "`Patient.name` is an empty array; leave it out where there is nothing.",
        ),
    ),
    "an empty object": (
        patient(name=[{}]),
        (
            "structure",
            "Patient.name[0]",
            "`Patient.name[0]` is an empty object; leave it out where there is nothing.",
        ),
    ),
    "empty text": (
        patient(birthDate=""),
        (
            "structure",
            "Patient.birthDate",
            "`Patient.birthDate` is empty text; leave it out where there is none.",
        ),
    ),
    "null": (
        patient(birthDate=None),
        (
            "structure",
            "Patient.birthDate",
            "`Patient.birthDate` is null, but must be text in JSON: its type is date.",
        ),
    ),
    "a bad date": (
        patient(birthDate="2023-02-29"),
        (
            "value",
            "Patient.birthDate",
            "`Patient.birthDate` is `2023-02-29`, which is not a date of the calendar: 2026, 2026-11 or 2026-11-21.",
        ),
    ),
    "a missing element": (
        {key: value for key, value in OBSERVATION.items() if key != "status"},
        ("required", "Observation", "`Observation` has no `status`; it must be there."),
    ),
    "a missing choice": (
        {**PATIENT, "resourceType": "MedicationRequest", "status": "active", "intent": "order"}
        | {"subject": {"reference": "Patient/1"}},
        (
            "required",
            "MedicationRequest",
            "`MedicationRequest` has no `medication`; it must be there, as `medicationCodeableConcept` or"
            " `medicationReference`.",
        ),
    ),
    "two values of a choice": (
        observation(valueString="a", valueBoolean=True),
        (
            "structure",
            "Observation.value",
            "`Observation` has both `valueString` and `valueBoolean`; expected one value[x].",
        ),
    ),
    "no resource type": (
        {"id": "a"},
        ("invalid", "Resource", "`Resource` has no resourceType; expected the type of the resource."),
    ),
    "an unknown resource type": (
        {"resourceType": "Citation"},
        ("invalid", "Resource", "The resourceType is `Citation`, which is none of FHIR R4."),
    ),
    "no object": (
        ["a"],
        ("structure", "Resource", "`Resource` is an array; expected a resource, an object."),
    ),
    "a fault in an entry": (
        bundle({"resource": patient(active=1)}),
        (
            "structure",
            "Bundle.entry[0].resource.active",
            "`Bundle.entry[0].resource.active` is the number 1, but must be true or false in JSON: its type is boolean.",
        ),
    ),
    "a sibling of another JSON type": (
        patient(birthDate="1970", _birthDate="x"),
        (
            "structure",
            "Patient.birthDate",
            "`_birthDate` is `x`; expected an object with the id and extensions of `Patient.birthDate`.",
        ),
    ),
    "a sibling of another length": (
        patient(name=[{"given": ["Ada", "Augusta"], "_given": [{"id": "a"}]}]),
        (
            "structure",
            "Patient.name[0].given",
            "`_given` has 1 items and `given` 2; expected the same number, with null where there is nothing.",
        ),
    ),
    "nothing in a place of both arrays": (
        patient(
            name=[{"_given": [None, {"id": "a", "extension": [{"url": "http://x.org", "valueCode": "a"}]}]}]
        ),
        (
            "structure",
            "Patient.name[0].given[0]",
            "`Patient.name[0].given[0]` has neither a value nor an id or extension.",
        ),
    ),
}


@pytest.mark.parametrize(("resource", "expected"), STRUCTURE.values(), ids=STRUCTURE)
def test_faults_of_structure(resource, expected):
    issue = only_issue(resource)

    assert (issue.severity, issue.code, issue.expression, issue.text) == ("error", *expected)
    assert validation.is_structural(issue)
    assert validation.issues(resource, structure_only=True) == [issue]


CONTAINED = {"resourceType": "Organization", "id": "o", "name": "Home"}

RULES = {
    "a code outside a required binding": (
        patient(gender="M"),
        (
            "code-invalid",
            "Patient.gender",
            "`Patient.gender` is `M`; expected one of female, male, other, unknown.",
        ),
    ),
    "a code of a long list": (
        observation(subject={"type": "Patient"}, status="done"),
        (
            "code-invalid",
            "Observation.status",
            "`Observation.status` is `done`; expected one of amended, cancelled, corrected, entered-in-error, final,"
            " preliminary, registered, unknown.",
        ),
    ),
    "a media type": (
        patient(photo=[{"contentType": "picture"}]),
        (
            "code-invalid",
            "Patient.photo[0].contentType",
            "`Patient.photo[0].contentType` is `picture`; expected a code of http://hl7.org/fhir/ValueSet/mimetypes.",
        ),
    ),
    "a reference to another type": (
        observation(subject={"reference": "Practitioner/1"}),
        (
            "business-rule",
            "Observation.subject",
            "`Observation.subject` leads to Practitioner (`Practitioner/1`); expected Device or Group or Location or"
            " Patient.",
        ),
    ),
    "a reference that says another type": (
        observation(subject={"type": "Practitioner", "display": "Ada"}),
        (
            "business-rule",
            "Observation.subject",
            "`Observation.subject` leads to Practitioner (`Practitioner`); expected Device or Group or Location or"
            " Patient.",
        ),
    ),
    "a reference that isn't one": (
        observation(subject={"reference": "Ada"}),
        (
            "business-rule",
            "Observation.subject.reference",
            "`Observation.subject` is `Ada`; expected Type/id with a resource type of R4.",
        ),
    ),
    "a reference to a contained resource of another type": (
        observation(subject={"reference": "#o"}, contained=[CONTAINED]),
        (
            "business-rule",
            "Observation.subject",
            "`Observation.subject` leads to Organization (`#o`); expected Device or Group or Location or Patient.",
        ),
    ),
    "a reference to nothing": (
        observation(subject={"reference": "#p"}),
        (
            "invariant",
            "Observation.subject",
            "`Observation.subject` breaks ref-1: a reference that begins with # leads to a contained resource.",
        ),
    ),
    "a contained resource that nothing refers to": (
        patient(contained=[CONTAINED]),
        (
            "invariant",
            "Patient",
            "`Patient` breaks dom-3: each contained resource is referred to from elsewhere in the resource, or refers to"
            " its container.",
        ),
    ),
    "a script": (
        patient(
            text={"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">a<script/></div>'}
        ),
        (
            "invariant",
            "Patient.text.div",
            "`Patient.text.div` holds <script>, which is not allowed there (txt-1).",
        ),
    ),
    "an id and nothing else": (
        patient(maritalStatus={"id": "a"}),
        (
            "invariant",
            "Patient.maritalStatus",
            "`Patient.maritalStatus` breaks ele-1: it has an id and nothing else; expected a value or an extension.",
        ),
    ),
    "a primitive with an id and nothing else": (
        patient(_birthDate={"id": "a"}),
        (
            "invariant",
            "Patient.birthDate",
            "`Patient.birthDate` breaks ele-1: it has an id and nothing else; expected a value or an extension.",
        ),
    ),
    "an invariant without words of ours": (
        {**PATIENT, "resourceType": "Organization"},
        (
            "invariant",
            "Organization",
            "`Organization` breaks org-1: `(identifier.count() + name.count()) > 0` must be true.",
        ),
    ),
    "a reference within a Bundle": (
        bundle(
            {"fullUrl": "urn:uuid:1", "resource": patient()},
            {"resource": observation(encounter={"reference": "urn:uuid:1"})},
        ),
        (
            "business-rule",
            "Bundle.entry[1].resource.encounter",
            "`Bundle.entry[1].resource.encounter` leads to Patient (`urn:uuid:1`); expected Encounter.",
        ),
    ),
}


@pytest.mark.parametrize(("resource", "expected"), RULES.values(), ids=RULES)
def test_broken_rules(resource, expected):
    issue = only_issue(resource)

    assert (issue.severity, issue.code, issue.expression, issue.text) == ("error", *expected)
    assert not validation.is_structural(issue)
    assert validation.issues(resource, structure_only=True) == []


def test_the_type_must_be_the_one_that_is_expected():
    issue = only_issue(PATIENT, type="Observation")

    assert (issue.code, issue.text) == ("invalid", "The resourceType is `Patient`; expected `Observation`.")


def test_all_problems_are_reported_in_one_go():
    found = validation.issues(
        patient(gender="M", birthDate="1970-02-30", colour="red", name=[{"use": "stage"}, {}])
    )

    assert sorted((issue.code, issue.expression) for issue in found) == [
        ("code-invalid", "Patient.gender"),
        ("code-invalid", "Patient.name[0].use"),
        ("structure", "Patient.colour"),
        ("structure", "Patient.name[1]"),
        ("value", "Patient.birthDate"),
    ]


def test_an_invariant_is_not_judged_where_the_structure_below_is_at_fault():
    """per-1 of this Period can't be told; the other one's can."""
    bad, late = {"start": "x", "end": "1970"}, {"start": "1971", "end": "1970"}
    found = validation.issues(patient(name=[{"period": bad}, {"period": late}]))

    assert [(issue.code, issue.expression) for issue in found] == [
        ("value", "Patient.name[0].period.start"),
        ("invariant", "Patient.name[1].period"),
    ]


def test_what_should_be_there_is_a_warning():
    """dom-6. https://hl7.org/fhir/R4/domainresource.html"""
    issue = only_issue({"resourceType": "Patient"})

    assert (issue.severity, issue.code) == ("warning", "invariant")
    assert not validation.is_structural(issue)


SOUND = {
    "a primitive that only has an extension": observation(
        status="final", _status={"extension": [{"url": "http://example.org/x", "valueCode": "a"}]}
    ),
    "a required primitive without a value": {
        **{key: value for key, value in OBSERVATION.items() if key != "status"},
        "_status": {"extension": [{"url": "http://example.org/absent", "valueCode": "unknown"}]},
    },
    "an extension whose value is only an extension": patient(
        extension=[
            {
                "url": "http://x.org",
                "_valueString": {"extension": [{"url": "http://y.org", "valueCode": "unknown"}]},
            }
        ]
    ),
    "placeholders in both arrays": patient(
        name=[
            {
                "given": [None, "Ada"],
                "_given": [{"extension": [{"url": "http://x.org", "valueCode": "a"}]}, None],
            }
        ]
    ),
    "an id beside a value": patient(birthDate="1970", _birthDate={"id": "a"}),
    "a contained resource": patient(contained=[CONTAINED], managingOrganization={"reference": "#o"}),
    "a contained resource that refers to its container": patient(
        contained=[{**OBSERVATION, "id": "a", "subject": {"reference": "#"}}]
    ),
    "a conditional reference": observation(subject={"reference": "Patient?identifier=http://example.org|1"}),
    "an absolute reference": observation(subject={"reference": "http://example.org/fhir/Patient/1"}),
    "a reference to elsewhere": observation(subject={"reference": "https://example.org/people/ada"}),
    "a reference to a version": observation(subject={"reference": "Patient/1/_history/2"}),
    "a reference to a type that isn't a resource's": observation(subject={"type": "http://example.org/Pet"}),
    "a media type with parameters": patient(photo=[{"contentType": "text/plain; charset=utf-8"}]),
    "a range of two units": observation(
        valueRange={"low": {"value": 2, "unit": "m"}, "high": {"value": 1, "unit": "km"}}
    ),
    "a period of two precisions": patient(
        name=[{"family": "L", "period": {"start": "2020-02", "end": "2020-02-10"}}]
    ),
    "two entries of one fullUrl in two versions": bundle(
        *[
            {
                "fullUrl": "http://example.org/fhir/Patient/a",
                "resource": patient(id="a", meta={"versionId": version}),
            }
            for version in "12"
        ]
    ),
    "an entry without fullUrl": bundle({"resource": PATIENT}),
}


@pytest.mark.parametrize("resource", SOUND.values(), ids=SOUND)
def test_what_may_look_wrong_and_is_not(resource):
    assert validation.issues(resource) == []


MANY = 2_000
CODINGS = [{"code": str(number)} for number in range(MANY)]
LARGE = {
    "references to contained resources": observation(
        contained=[
            CONTAINED | {"id": f"o{number}", "partOf": {"reference": f"#o{number}"}} for number in range(MANY)
        ],
        performer=[{"reference": f"#o{number}"} for number in range(MANY)],
    ),
    "codings beside components": observation(
        code={"coding": CODINGS},
        component=[{"code": {"coding": [{"code": "x"}]}} for _ in CODINGS],
        valueString="x",
    ),
    "groups of an implementation guide": {
        **PATIENT,
        "resourceType": "ImplementationGuide",
        "url": "http://example.org/ig",
        "name": "Guide",
        "status": "draft",
        "packageId": "example.guide",
        "fhirVersion": ["4.0.1"],
        "definition": {
            "grouping": [{"id": f"g{number}", "name": "x"} for number in range(MANY)],
            "resource": [
                {"reference": {"reference": "Patient/1"}, "groupingId": f"g{n}"} for n in range(MANY)
            ],
        },
    },
    "elements of a snapshot": {
        **PATIENT,
        "resourceType": "StructureDefinition",
        "url": "http://example.org/test",
        "name": "Test",
        "status": "draft",
        "kind": "logical",
        "abstract": True,
        "type": "Test",
        "snapshot": {
            "element": [
                {"id": path, "path": path, "min": 0, "max": "1", "definition": "x"}
                | {"base": {"path": path, "min": 0, "max": "1"}}
                for path in ["Test", *[f"Test.e{number}" for number in range(MANY)]]
            ]
        },
        "differential": {"element": [{"id": "Test", "path": "Test"}]},
    },
    "entries of one bundle": bundle(
        *[
            {"fullUrl": f"urn:uuid:{number}", "resource": observation(subject={"reference": "urn:uuid:0"})}
            for number in range(MANY)
        ]
    ),
}


@pytest.mark.parametrize("resource", LARGE.values(), ids=LARGE)
def test_time_grows_with_the_size_and_not_faster(resource):
    """2,000 times 2,000 comparisons would take much longer."""
    start = time.process_time()
    validation.issues(resource)

    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("resource", "error", "count"),
    [
        (PATIENT, None, 0),
        ({"resourceType": "Patient"}, None, 0),
        (patient(gender="M"), Unprocessable, 1),
        (patient(gender="M", birthDate="x"), Invalid, 2),
    ],
)
def test_what_is_refused_is_raised_as_400_or_422(resource, error, count):
    """Warnings are no reason, and not among the issues."""
    refused = validation.refusal(validation.issues(resource))

    assert type(refused) is (error or type(None))
    assert count == (len(refused.issues) if refused else 0)


def test_no_more_than_a_thousand_issues_are_reported():
    assert len(validation.issues(patient(name=[1] * 5_000))) == validation.MAX_ISSUES


def test_a_long_text_is_shown_short():
    [issue] = validation.issues(patient(birthDate="1" * 1000))

    assert len(issue.text) < 200
