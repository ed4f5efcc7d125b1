"""The structure of R4 as data, against HL7's own files. https://hl7.org/fhir/R4/resourcelist.html"""

import lzma
import subprocess
import sys

import pytest

from gitstore.fhir import json
from gitstore.fhir.definitions import (
    RESOURCE_TYPES,
    Element,
    codes,
    compartments,
    constraints,
    element_definitions,
    elements,
    is_primitive,
    is_resource_type,
    lineage,
    search_parameters,
)
from tools import build_definitions


def test_the_committed_data_is_what_the_tool_makes(examples_package, expansions_package):
    made = build_definitions.data(examples_package, expansions_package)

    assert {name: lzma.decompress((build_definitions.FOLDER / name).read_bytes()) for name in made} == made


def test_the_data_is_small():
    """Under 300 KB, compressed, all together."""
    sizes = {path.name: path.stat().st_size for path in build_definitions.FOLDER.glob("*.xz")}

    assert sorted(sizes) == ["codes.jsonl.xz", "definitions.jsonl.xz", "search.jsonl.xz"]
    assert sum(sizes.values()) < 300_000


def test_reading_what_validation_needs_takes_less_than_100_ms():
    """Of the processor, so that other programs don't count."""
    program = (
        "import time; from gitstore.fhir import validation\n"
        "start = time.process_time()\n"
        "validation.issues({'resourceType': 'AllergyIntolerance', 'clinicalStatus': {'text': 'x'}})\n"
        "print(time.process_time() - start)"
    )
    times = [
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]

    assert min(times) < 0.1


def test_there_are_146_concrete_resource_types_in_order():
    assert len(RESOURCE_TYPES) == 146
    assert list(RESOURCE_TYPES) == sorted(RESOURCE_TYPES)
    assert (RESOURCE_TYPES[0], RESOURCE_TYPES[-1]) == ("Account", "VisionPrescription")


@pytest.mark.parametrize("name", ["Patient", "Bundle", "Parameters", "OperationOutcome", "Binary"])
def test_concrete_resource_types_are_known(name):
    assert is_resource_type(name)


@pytest.mark.parametrize(
    "name",
    ["patient", "Resource", "DomainResource", "HumanName", "string", "Citation", "", "Patient.contact"],
)
def test_abstract_types_data_types_and_those_of_other_versions_are_no_resource_types(name):
    assert not is_resource_type(name)


def test_elements_stand_in_the_order_of_the_specification():
    """https://hl7.org/fhir/R4/patient.html"""
    assert list(elements("Patient")) == [
        "id",
        "meta",
        "implicitRules",
        "language",
        "text",
        "contained",
        "extension",
        "modifierExtension",
        "identifier",
        "active",
        "name",
        "telecom",
        "gender",
        "birthDate",
        "deceasedBoolean",
        "deceasedDateTime",
        "address",
        "maritalStatus",
        "multipleBirthBoolean",
        "multipleBirthInteger",
        "photo",
        "contact",
        "communication",
        "generalPractitioner",
        "managingOrganization",
        "link",
    ]


ELEMENTS = {
    ("Patient", "id"): Element("id", "id", 0, 1),
    ("Patient", "name"): Element("name", "HumanName", 0, None),
    ("Patient", "contact"): Element("contact", "Patient.contact", 0, None),
    ("Patient.contact", "name"): Element("name", "HumanName", 0, 1),
    ("Patient.link", "other"): Element("other", "Reference", 1, 1),
    ("Observation", "code"): Element("code", "CodeableConcept", 1, 1),
    ("Observation", "valueQuantity"): Element("valueQuantity", "Quantity", 0, 1, "value"),
    ("Observation", "valueDateTime"): Element("valueDateTime", "dateTime", 0, 1, "value"),
    ("MedicationRequest", "medicationReference"): Element(
        "medicationReference", "Reference", 1, 1, "medication"
    ),
    ("Questionnaire.item", "item"): Element("item", "Questionnaire.item", 0, None),
    ("Bundle.entry", "link"): Element("link", "Bundle.link", 0, None),
    ("Bundle.entry", "resource"): Element("resource", "Resource", 0, 1),
    ("Parameters.parameter", "part"): Element("part", "Parameters.parameter", 0, None),
    ("Timing", "repeat"): Element("repeat", "Timing.repeat", 0, 1),
    ("Timing.repeat", "dayOfWeek"): Element("dayOfWeek", "code", 0, None),
    ("HumanName", "given"): Element("given", "string", 0, None),
    ("HumanName", "id"): Element("id", "string", 0, 1),
    ("Extension", "url"): Element("url", "uri", 1, 1),
    ("Extension", "valueAge"): Element("valueAge", "Age", 0, 1, "value"),
    ("Narrative", "div"): Element("div", "xhtml", 1, 1),
    ("Element", "extension"): Element("extension", "Extension", 0, None),
    ("SampledData", "dimensions"): Element("dimensions", "positiveInt", 1, 1),
    ("ElementDefinition", "slicing"): Element("slicing", "ElementDefinition.slicing", 0, 1),
}


@pytest.mark.parametrize(("place", "element"), ELEMENTS.items(), ids=map(".".join, ELEMENTS))
def test_an_element_has_name_type_and_cardinality(place, element):
    path, name = place

    assert elements(path)[name] == element


@pytest.mark.parametrize("path", ["string", "Nothing", "Patient.name", "Patient.nothing", ""])
def test_what_has_no_elements_is_a_key_error(path):
    with pytest.raises(KeyError):
        elements(path)


def reachable():
    """Each type path that a resource can lead to."""
    seen = {"Element"}
    waiting = ["Element", *RESOURCE_TYPES]
    while waiting:
        for element in elements(waiting.pop()).values():
            if element.type not in seen and not is_primitive(element.type):
                seen.add(element.type)
                waiting.append(element.type)
    return seen


def test_every_type_that_an_element_has_is_defined():
    assert {"Extension", "Dosage.doseAndRate", "ElementDefinition", "Resource"} <= reachable()


def unknown(value, type, place):
    """The places in a resource that the definitions don't lead to, or where they say another shape."""
    for name, child in value.items():
        element = elements(type).get(name.removeprefix("_"))
        if element is None:
            if name != "resourceType":
                yield f"{place}.{name}"
            continue
        primitive = is_primitive(element.type)
        if isinstance(child, list) == (element.max == 1) or name.startswith("_") > primitive:
            yield f"{place}.{name}"
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, dict) and (not primitive or name.startswith("_")):
                child_type = "Element" if primitive else element.type
                yield from unknown(
                    item,
                    item.get("resourceType", child_type) if child_type == "Resource" else child_type,
                    f"{place}.{name}",
                )
            elif isinstance(item, dict) or (item is not None and not primitive):
                yield f"{place}.{name}"


def test_every_official_example_can_be_walked(examples):
    """Contained resources, entries of Bundles, Parameters and extensions included."""
    found = {}
    for name, data in examples.items():
        resource = json.loads_trusted(data)
        places = list(unknown(resource, resource["resourceType"], resource["resourceType"]))
        if places:
            found[name] = places

    assert found == {}


def test_there_are_726_official_examples(examples):
    """All but the definitions, of nearly every type."""
    assert len(examples) == 726
    types = {json.loads_trusted(data)["resourceType"] for data in examples.values()}
    assert types <= set(RESOURCE_TYPES)
    assert len(types) > 130
    assert not types & {"StructureDefinition", "ValueSet", "CodeSystem", "SearchParameter"}


def test_a_definition_says_what_the_element_is_for():
    """https://hl7.org/fhir/R4/observation-definitions.html"""
    status = element_definitions("Observation")["status"]
    value = element_definitions("Observation")["value[x]"]

    assert (status.types, status.min, status.max) == (("code",), 1, 1)
    assert (status.summary, status.modifier) == (True, True)
    assert status.binding == ("required", "http://hl7.org/fhir/ValueSet/observation-status")
    assert (value.summary, value.modifier, value.binding) == (True, False, None)
    assert len(value.types) == 11


def test_a_definition_says_where_references_lead():
    assert element_definitions("Observation")["subject"].targets["Reference"] == {
        "Patient",
        "Group",
        "Device",
        "Location",
    }
    assert element_definitions("Observation")["focus"].targets["Reference"] == {"Resource"}
    assert element_definitions("PlanDefinition.action")["definition[x]"].targets["canonical"] == {
        "ActivityDefinition",
        "PlanDefinition",
        "Questionnaire",
    }
    assert element_definitions("Observation.referenceRange")["low"].profiles == {"Quantity": "SimpleQuantity"}


@pytest.mark.parametrize(
    ("type", "ancestors"),
    [
        ("Age", ("Age", "Quantity", "Element")),
        ("Patient", ("Patient", "DomainResource", "Resource")),
        ("Bundle", ("Bundle", "Resource")),
        ("code", ("code", "string", "Element")),
        ("Patient.contact", ("Patient.contact", "Element")),
        ("Nothing", ("Nothing",)),
    ],
)
def test_types_are_derived_from_others(type, ancestors):
    assert lineage(type) == ancestors


def test_a_type_has_the_constraints_of_what_it_is_derived_from():
    assert [constraint.key for constraint in constraints("Age")] == ["age-1", "qty-3"]
    assert [constraint.key for constraint in constraints("Organization")][:1] == ["org-1"]
    assert "dom-3" in [constraint.key for constraint in constraints("Organization")]
    assert [constraint.key for constraint in constraints("Organization.telecom")] == ["org-3"]
    assert [constraint.key for constraint in constraints("SimpleQuantity")] == ["sqty-1"]
    assert constraints("Nothing") == ()


def test_the_codes_of_required_bindings_are_known():
    """https://hl7.org/fhir/R4/valueset-administrative-gender.html"""
    assert codes("http://hl7.org/fhir/ValueSet/administrative-gender") == {
        "http://hl7.org/fhir/administrative-gender": {"male", "female", "other", "unknown"}
    }
    assert codes("http://hl7.org/fhir/ValueSet/mimetypes") is None
    assert codes("http://example.org/ValueSet/unknown") is None


def test_only_three_required_bindings_have_no_list_of_codes():
    paths = {*RESOURCE_TYPES, *reachable()} - {"Resource"}
    bindings = {definition.binding for path in paths for definition in element_definitions(path).values()} - {
        None
    }
    required = {value_set for strength, value_set in bindings if strength == "required"}

    assert len(required) == 224
    assert {value_set for value_set in required if codes(value_set) is None} == {
        "http://hl7.org/fhir/ValueSet/mimetypes",
        "http://hl7.org/fhir/ValueSet/ucum-units",
        "http://loinc.org/vs/LL379-9",
    }


def test_there_are_1375_search_parameters():
    """https://hl7.org/fhir/R4/searchparameter-registry.html"""
    parameters = search_parameters()
    subject, code_value = parameters["Observation-subject"], parameters["Observation-code-value-quantity"]

    assert len(parameters) == 1375
    assert (subject.code, subject.base, subject.type) == ("subject", ("Observation",), "reference")
    assert (subject.expression, subject.target) == (
        "Observation.subject",
        {"Patient", "Group", "Device", "Location"},
    )
    assert (subject.components, subject.chain, subject.multiple_or) == ((), (), True)
    assert code_value.components == (
        ("clinical-code", "code"),
        ("Observation-value-quantity", "value.as(Quantity)"),
    )
    assert not code_value.multiple_or
    assert parameters["Resource-lastUpdated"].comparators == (
        "eq",
        "ne",
        "gt",
        "ge",
        "lt",
        "le",
        "sa",
        "eb",
        "ap",
    )
    assert [id for id, parameter in parameters.items() if parameter.expression is None] == [
        "DomainResource-text",
        "Resource-content",
        "Resource-query",
    ]


def test_components_are_search_parameters_themselves():
    parameters = search_parameters()
    components = [id for parameter in parameters.values() for id, _ in parameter.components]

    assert len(components) > 90
    assert [id for id in components if id not in parameters] == []


def test_there_are_five_compartments():
    """https://hl7.org/fhir/R4/compartmentdefinition-patient.html"""
    assert list(compartments()) == ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"]
    assert compartments()["Patient"]["Observation"] == ("subject", "performer")
    assert "Medication" not in compartments()["Patient"]


def test_a_package_is_found_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FHIR_PACKAGES_CACHE", str(tmp_path))
    (tmp_path / "some.package-1.0.tgz").touch()

    assert build_definitions.package("some.package", "1.0") == tmp_path / "some.package-1.0.tgz"


def test_a_package_that_can_not_be_had_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("FHIR_PACKAGES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(
        build_definitions.PackageMissingError, match=r"some.package 1.0 is missing, and so is npm"
    ):
        build_definitions.package("some.package", "1.0")


@pytest.mark.parametrize(
    ("npm", "message"),
    [
        ("echo 'no such package' >&2; exit 1", "npm pack failed: no such package"),
        ("echo x >p.tgz", "not the known file"),
    ],
)
def test_a_download_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, npm, message):
    """What comes must also be the known file, byte for byte."""
    (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("FHIR_PACKAGES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(build_definitions.PackageMissingError, match=message):
        build_definitions.package(*build_definitions.EXAMPLES)

    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_stays_for_the_next_time(tmp_path, monkeypatch):
    (tmp_path / "npm").write_text(
        '#!/bin/sh\n[ "$1" = pack ] && for spec; do :; done && echo "$spec" >p.tgz\n'
    )
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("FHIR_PACKAGES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    path = build_definitions.package("some.package", "1.0")

    assert path.read_text() == "some.package@1.0\n"
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_knowing_the_resource_types_takes_little_of_the_start():
    """Every command of the CLI imports them: only their line of the data is read, and no elements."""
    program = (
        "from gitstore.fhir import definitions as d\n"
        "print(d._section.cache_info().currsize, d.elements.cache_info().currsize)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout == "1 0\n"
