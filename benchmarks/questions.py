"""The searches that benchmarks ask: what clients ask for every day, of a patient or of the whole record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.patients import MRN, Person

_LOINC, _SNOMED, _UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"

QUESTIONS = (
    # Patients
    "Patient?_id={id}",
    "Patient?identifier=" + MRN + "|{mrn}",
    "Patient?identifier={mrn}",
    "Patient?name={family}",
    "Patient?family={family}&given={given}&birthdate={birthdate}",
    "Patient?name:contains={family}",
    "Patient?birthdate=ge1980&birthdate=lt1990&_sort=family",
    "Patient?address-city={city}&gender=female&_sort=-birthdate",
    # What is said of one patient
    "Observation?patient={id}",
    "Observation?subject=Patient/{id}&category=vital-signs&_sort=-date",
    f"Observation?patient={{id}}&code={_LOINC}|8302-2,{_LOINC}|29463-7&_sort=-date&_count=1",
    "Condition?patient={id}&clinical-status=active",
    "MedicationRequest?patient={id}&status=active&_include=MedicationRequest:requester",
    "DiagnosticReport?patient={id}&_include=DiagnosticReport:result",
    "Encounter?patient={id}&_include=Encounter:participant&_include=Encounter:service-provider",
    "Patient?_id={id}&_revinclude=Condition:patient&_revinclude=MedicationRequest:patient",
    "Patient/{id}/Observation",
    "Patient/{id}/*",
    # By code, date, status and number
    f"Observation?code={_LOINC}|8302-2",
    "Observation?code=8302-2",
    f"Observation?code={_LOINC}|8302-2&date=ge2010&date=lt2011",
    "Observation?status=final",
    f"Observation?code={_LOINC}|29463-7&value-quantity=gt90|{_UCUM}|kg",
    f"Observation?code-value-quantity={_LOINC}|29463-7$gt90000|{_UCUM}|g",
    "Observation?component-code-value-quantity=8480-6$gt140",
    "Observation?date=2010-05",
    "Observation?_sort=-date",
    f"Observation?code={_LOINC}|8302-2&_sort=-date",
    "Encounter?status=finished&class=AMB&_sort=-date",
    f"Condition?code={_SNOMED}|195662009&clinical-status=resolved",
    # Through references
    "Observation?patient.name={family}",
    "Observation?patient.identifier=" + MRN + f"|{{mrn}}&code={_LOINC}|8302-2",
    f"Patient?_has:Condition:patient:code={_SNOMED}|195662009",
    f"Patient?gender=female&_has:Observation:patient:code={_LOINC}|4548-4",
    # Changes, counts, everything
    "Observation?_lastUpdated=ge2020&_sort=-_lastUpdated",
    "?_type=Condition,MedicationRequest&_lastUpdated=ge2020",
    f"Observation?code={_LOINC}|8302-2&_summary=count",
    "Observation?_count=0",
)
"""First pages of 50 but where `_count` says something else."""

LONG = f"Observation?code={_LOINC}|8302-2"
"""A list whose last page is asked for."""


def asked(question: str, people: Sequence[Person]) -> Iterator[str]:
    """The question as it is asked about each of them."""
    for person in people:
        yield question.format(**{name: getattr(person, name) for name in Person.__slots__})
