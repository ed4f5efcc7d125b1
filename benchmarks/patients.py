"""Synthetic patients for benchmarks: as many as are wanted, each of a template that is varied by the patient's number.

The templates are Synthea's bundles where GIT_FHIR_SYNTHEA names a folder of them (`*.json` or `*.json.gz`), and else
made here. The same number gives the same patient, however many there are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from gitstore.fhir import json as fhir_json

Resource = dict[str, Any]

RESOURCES = 220
"""How many one patient has at most."""

_VARIED = re.compile(
    r'"(?P<date>\d{4}-\d\d-\d\d)(?=["T])'
    r"|(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r'|"value": (?P<number>\d+\.\d+)(?=[,}])'
)
_SHARED = ("Organization", "Practitioner", "PractitionerRole", "Location")
_FAMILIES = ("Abernathy", "Bauer", "Castro", "Dietrich", "Évrard", "Ferry", "Grant", "Hopper", "Ito", "Jung")
_ENDINGS = ("", "son", "mann", "ez", "ski", "ley")
_GIVEN = ("Ada", "Grace", "Edsger", "Barbara", "Alan", "Mary Ann", "José", "Katherine", "Niklaus", "Radia")
_CITIES = ("Boston", "Worcester", "Springfield", "Cambridge", "Lowell", "New Bedford", "Quincy", "Newton")
MRN = "http://hospital.example/mrn"
_LOINC, _SNOMED = "http://loinc.org", "http://snomed.info/sct"
_UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True)
class Person:
    """What questions are asked about a patient."""

    id: str
    family: str
    given: str
    mrn: str
    city: str
    birthdate: str


@dataclass(frozen=True)
class Text:
    """A resource as JSON, in pieces: what stays, and between two such what is varied."""

    type: str
    whole: str

    @cached_property
    def pieces(self) -> list[tuple[str, str, str]]:
        """What stays before, which kind follows (date, id, number, or none at the end), and its text."""
        found, end = [], 0
        for match in _VARIED.finditer(self.whole):
            kind = match.lastgroup or ""
            found.append((self.whole[end : match.start(kind)], kind, match[kind]))
            end = match.end(kind)
        return [*found, (self.whole[end:], "", "")]


class Population:
    """All that there could be. `shared` are the organizations and the like, which come before the patients."""

    def __init__(self, bundles: list[Resource]) -> None:
        resources = [entry["resource"] for bundle in bundles for entry in bundle["entry"]]
        by_name = _references(resources)
        kept = {each["id"]: each for each in resources if each["resourceType"] in _SHARED}
        self._kept = frozenset(kept)
        self.shared = [_linked(each, by_name) for each in kept.values()]
        self._templates = []
        for bundle in bundles:
            own = [entry["resource"] for entry in bundle["entry"]]
            if any(each["resourceType"] == "Patient" for each in own):
                linked = [_linked(each, by_name) for each in own if each["resourceType"] not in _SHARED]
                self._templates.append([Text(each["resourceType"], json.dumps(each)) for each in linked])

    @classmethod
    def known(cls) -> Population:
        """Of Synthea's bundles, where they are."""
        folder = os.environ.get("GIT_FHIR_SYNTHEA")
        return cls(list(_bundles(Path(folder)))) if folder else cls.made()

    @classmethod
    def made(cls) -> Population:
        return cls([{"entry": [{"resource": each} for each in _made(number)]} for number in range(4)])

    def patient(self, number: int) -> tuple[Person, list[Resource]]:
        """The patient of this number first, and then what others say about them."""
        chance = random.Random(number)
        template = self._templates[number % len(self._templates)]
        first = chance.randrange(1, max(2, len(template) - RESOURCES))
        chosen = [next(text for text in template if text.type == "Patient")]
        chosen += [text for text in template[first:] if text.type != "Patient"][: RESOURCES - 1]
        vary = _Varied(number, chance, self._kept)
        patient, *others = [_read(vary.text(each)) for each in chosen]
        person = _person(patient["id"], number, chance)
        patient |= {
            "name": [{"use": "official", "family": person.family, "given": [person.given]}],
            "birthDate": person.birthdate,
            "gender": chance.choice(["female", "male"]),
            "address": [{"city": person.city, "state": "MA", "postalCode": f"0{number % 2800 + 1000}"}],
        }
        identifiers = patient.get("identifier", [])[:2]
        patient["identifier"] = [*identifiers, {"system": MRN, "value": person.mrn}]
        return person, [patient, *others]


class _Varied:
    """One patient's dates, ids and numbers in place of the template's."""

    def __init__(self, number: int, chance: random.Random, kept: frozenset[str]) -> None:
        self._number = number
        self._kept = kept
        self._chance = chance
        self._later = timedelta(days=-chance.randrange(3000))
        self._known: dict[str, str] = {}

    def text(self, text: Text) -> str:
        return "".join(before + self._other(kind, value) for before, kind, value in text.pieces)

    def _other(self, kind: str, value: str) -> str:
        if kind == "number":
            digits = len(value.partition(".")[2])
            return f"{float(value) * self._chance.uniform(0.8, 1.25):.{digits}f}"
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self._new(kind, value)
        return known

    def _new(self, kind: str, value: str) -> str:
        if kind == "date":
            return (date.fromisoformat(value) + self._later).isoformat()
        if kind != "id" or value in self._kept:
            return value
        return _id(self._number, value)


def _read(text: str) -> Resource:
    """As the store reads it: with every digit of its numbers."""
    resource: Resource = fhir_json.loads(text.encode())
    return resource


def _person(id: str, number: int, chance: random.Random) -> Person:
    family = chance.choice(_FAMILIES) + chance.choice(_ENDINGS) + str(number % 97)
    born = date(1930, 1, 1) + timedelta(days=chance.randrange(32_000))
    return Person(
        id, family, chance.choice(_GIVEN), f"mrn-{number:08}", chance.choice(_CITIES), born.isoformat()
    )


def _bundles(folder: Path) -> Iterator[Resource]:
    for path in sorted(folder.rglob("*.json*")):
        data = path.read_bytes()
        yield json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def _references(resources: list[Resource]) -> dict[str, str]:
    """What a reference in a bundle leads to, as a reference to a resource of the record."""
    found = {}
    for each in resources:
        type, id = each["resourceType"], each["id"]
        found[f"urn:uuid:{id}"] = f"{type}/{id}"
        if type in _SHARED:
            for identifier in each.get("identifier", ()):
                found[f"{type}?identifier={identifier['system']}|{identifier['value']}"] = f"{type}/{id}"
    return found


def _linked(resource: Resource, by_name: dict[str, str]) -> Resource:
    def hook(value: Resource) -> Resource:
        reference = value.get("reference")
        if isinstance(reference, str):
            value["reference"] = by_name.get(reference, reference)
        return value

    linked: Resource = json.loads(json.dumps(resource), object_hook=hook)
    return linked


# Where there is no Synthea

_VITALS = (
    ("8302-2", "Body Height", "cm", 170.1),
    ("29463-7", "Body Weight", "kg", 85.5),
    ("8867-4", "Heart rate", "/min", 71.2),
    ("2339-0", "Glucose", "mg/dL", 91.12),
    ("4548-4", "Hemoglobin A1c", "%", 5.84),
)
_DISEASES = (
    ("44054006", "Diabetes"),
    ("195662009", "Acute viral pharyngitis (disorder)"),
    ("59621000", "Hypertension"),
    ("10509002", "Acute bronchitis (disorder)"),
)


def _id(*parts: object) -> str:
    """An id like Synthea's, always the same for the same parts."""
    return str(uuid.UUID(hashlib.md5(repr(parts).encode(), usedforsecurity=False).hexdigest()))


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _made(template: int) -> Iterator[Resource]:
    """A patient of ten visits, and who they went to."""
    patient, clinic, doctor = (_id(template, what) for what in ("patient", "clinic", "doctor"))
    npi = [{"system": "http://hl7.org/fhir/sid/us-npi", "value": f"99{template}"}]
    yield {"resourceType": "Organization", "id": clinic, "identifier": npi, "name": f"Clinic {template}"}
    yield {
        "resourceType": "Practitioner",
        "id": doctor,
        "identifier": npi,
        "name": [{"family": f"Doctor{template}"}],
    }
    yield {"resourceType": "Patient", "id": patient}
    for visit in range(10):
        yield from _visit(template, visit, f"Patient/{patient}", f"Practitioner/{doctor}", clinic)


def _visit(template: int, visit: int, patient: str, doctor: str, clinic: str) -> Iterator[Resource]:
    encounter = _id(template, visit)
    time = f"{2008 + visit}-0{visit % 9 + 1}-1{template}T09:30:00+02:00"
    about = {"subject": {"reference": patient}, "encounter": {"reference": f"Encounter/{encounter}"}}
    kind = "AMB" if visit % 3 else "EMER"
    yield {
        "resourceType": "Encounter",
        "id": encounter,
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": kind},
        "subject": {"reference": patient},
        "participant": [{"individual": {"reference": doctor}}],
        "period": {"start": time, "end": time.replace("T09:30", "T10:15")},
        "serviceProvider": {"reference": f"Organization/{clinic}"},
    }
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    results = []
    for code, display, unit, value in _VITALS:
        results.append(_id(template, visit, code))
        yield {
            "resourceType": "Observation",
            "id": results[-1],
            "status": "final",
            "category": [_concept(category, "vital-signs", "Vital Signs")],
            "code": _concept(_LOINC, code, display),
            **about,
            "effectiveDateTime": time,
            "valueQuantity": {"value": value, "unit": unit, "system": _UCUM, "code": unit},
        }
    yield _blood_pressure(_id(template, visit, "pressure"), about, time)
    code, display = _DISEASES[visit % len(_DISEASES)]
    clinical = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    yield {
        "resourceType": "Condition",
        "id": _id(template, visit, "condition"),
        "clinicalStatus": {"coding": [{"system": clinical, "code": "active" if visit > 7 else "resolved"}]},
        "code": _concept(_SNOMED, code, display),
        **about,
        "onsetDateTime": time,
    }
    yield {
        "resourceType": "MedicationRequest",
        "id": _id(template, visit, "medication"),
        "status": "active" if visit > 7 else "stopped",
        "intent": "order",
        "medicationCodeableConcept": _concept(
            "http://www.nlm.nih.gov/research/umls/rxnorm", "860975", "Metformin"
        ),
        **about,
        "authoredOn": time,
        "requester": {"reference": doctor},
    }
    yield {
        "resourceType": "DiagnosticReport",
        "id": _id(template, visit, "report"),
        "status": "final",
        "code": _concept(_LOINC, "51990-0", "Basic metabolic panel"),
        **about,
        "effectiveDateTime": time,
        "result": [{"reference": f"Observation/{id}"} for id in results],
    }


def _blood_pressure(id: str, about: Resource, time: str) -> Resource:
    def component(code: str, display: str, value: float) -> Resource:
        quantity = {"value": value, "unit": "mm[Hg]", "system": _UCUM, "code": "mm[Hg]"}
        return {"code": _concept(_LOINC, code, display), "valueQuantity": quantity}

    parts = (("8480-6", "Systolic Blood Pressure", 121.4), ("8462-4", "Diastolic Blood Pressure", 80.3))
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": _concept(_LOINC, "85354-9", "Blood Pressure"),
        **about,
        "effectiveDateTime": time,
        "component": [component(*part) for part in parts],
    }
