"""fhir.referentialIntegrity = enforce: no reference of the record leads nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import UNCHECKED

from gitstore import Conflict, Create, Delete, Store, Unprocessable, Update
from gitstore.fhir.ids import ResourceId

ENFORCED = replace(UNCHECKED, referential_integrity="enforce", base_url="http://fhir.example.org/fhir")
ADA, CLINIC = ResourceId("Patient", "ada"), ResourceId("Organization", "clinic")


@pytest.fixture
def strict(record, clock, new_id):
    with Store.open(record, ENFORCED, clock=clock, new_id=new_id) as opened:
        yield opened


def patient(reference: str | None = None) -> Update:
    organization = {"managingOrganization": {"reference": reference}} if reference else {}
    return Update(ADA, {"resourceType": "Patient", "id": "ada", **organization})


def clinic() -> Update:
    return Update(CLINIC, {"resourceType": "Organization", "id": "clinic"})


@pytest.mark.parametrize(
    "reference",
    [
        "Organization/clinic",
        "Organization/clinic/_history/1",
        "http://fhir.example.org/fhir/Organization/clinic",
    ],
)
def test_a_reference_to_nothing_is_refused_and_nothing_is_written(strict, ada, reference):
    """However this server is named in it."""
    head = strict.snapshot().commit

    with pytest.raises(Unprocessable, match="Organization/clinic"):
        strict.commit([patient(reference)], ada)

    assert strict.snapshot().commit == head
    strict.commit([clinic()], ada)
    strict.commit([patient(reference)], ada)


@pytest.mark.parametrize(
    "reference", ["http://elsewhere.org/Organization/clinic", "urn:uuid:0", "#contained", "Nothing/clinic"]
)
def test_what_leads_elsewhere_is_not_looked_at(strict, ada, reference):
    assert strict.commit([patient(reference)], ada)[0].changed


def test_a_reference_without_a_search_parameter_counts_too(strict, ada):
    """Of extensions, for one: a parameter for it need not exist."""
    extension = {"url": "http://example.org/x", "valueReference": {"reference": "Organization/clinic"}}
    resource = {"resourceType": "Patient", "id": "ada", "extension": [extension]}

    with pytest.raises(Unprocessable, match="Organization/clinic"):
        strict.commit([Update(ADA, resource)], ada)


def test_a_reference_to_a_version_keeps_nothing(strict, ada):
    """Versions stay when their resource is deleted, so it can be; and what is deleted can be named by its versions."""
    strict.commit([clinic()], ada)
    strict.commit([patient("Organization/clinic/_history/1")], ada)

    strict.commit([Delete(CLINIC)], ada)

    assert strict.commit([patient("Organization/clinic/_history/1")], ada)[0].changed
    with pytest.raises(Unprocessable, match="Organization/clinic"):
        strict.commit([patient("Organization/clinic")], ada)


def test_what_is_referred_to_can_not_be_deleted(strict, ada):
    """10.8: 409, naming what is in the way. https://hl7.org/fhir/R4/http.html#delete"""
    strict.commit([clinic()], ada)
    strict.commit([patient("Organization/clinic")], ada)

    with pytest.raises(Conflict, match="`Patient/ada` refer to it"):
        strict.commit([Delete(CLINIC)], ada)

    strict.commit([patient()], ada)
    assert strict.commit([Delete(CLINIC)], ada)[0].changed


def test_a_transaction_is_judged_by_what_it_leaves(strict, ada):
    """Two that refer to one another can come together, and go together; the entry at fault is named."""
    other = {"resourceType": "Organization", "id": "clinic", "endpoint": [{"reference": "Endpoint/e"}]}
    endpoint = {
        "resourceType": "Endpoint",
        "id": "e",
        "managingOrganization": {"reference": "Organization/clinic"},
    }
    both = [Update(CLINIC, other), Update(ResourceId("Endpoint", "e"), endpoint)]

    with pytest.raises(Unprocessable) as refused:
        strict.commit([both[0], patient()], ada, interaction="transaction")
    assert refused.value.entry == 0
    strict.commit(both, ada, interaction="transaction")
    with pytest.raises(Conflict):
        strict.commit([Delete(CLINIC)], ada)
    strict.commit([Delete(CLINIC), Delete(ResourceId("Endpoint", "e"))], ada, interaction="transaction")


def test_a_resource_may_refer_to_itself(strict, ada):
    resource = {"resourceType": "Patient", "id": "ada", "link": [{"other": {"reference": "Patient/ada"}}]}
    strict.commit([Update(ADA, resource)], ada)

    assert strict.commit([Delete(ADA)], ada)[0].changed


def test_what_was_there_before_the_setting_is_known_to_it(store, record, clock, ada):
    """The index is made anew when the setting changes, so that every referrer is found."""
    store.commit([clinic()], ada)
    store.commit([patient("Organization/clinic")], ada)
    store.close()

    with Store.open(record, ENFORCED, clock=clock) as strict, pytest.raises(Conflict):
        strict.commit([Delete(CLINIC)], ada)


def test_without_the_setting_references_may_lead_nowhere(store, ada):
    """The default: https://hl7.org/fhir/R4/references.html#literal lets the target come later."""
    store.commit([patient("Organization/clinic")], ada)
    store.commit([clinic()], ada)

    assert store.commit([Delete(CLINIC)], ada)[0].changed


def test_created_ids_are_known_to_other_entries(strict, ada):
    urn = "urn:uuid:5a5f3a3c-31a0-4e43-9d5e-6d2a3d5b5b10"
    entries = [
        Create({"resourceType": "Organization"}, urn),
        Create({"resourceType": "Patient", "managingOrganization": {"reference": urn}}),
    ]

    assert all(outcome.changed for outcome in strict.commit(entries, ada, interaction="transaction"))
