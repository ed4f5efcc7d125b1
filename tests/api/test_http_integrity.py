"""fhir.referentialIntegrity over HTTP: docs/interactions/update.md and delete.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gitstore import Settings, Store
from tests.api.conftest import Client, Clock

PATIENT = {
    "resourceType": "Patient",
    "id": "ada",
    "managingOrganization": {"reference": "Organization/clinic"},
}
CLINIC = {"resourceType": "Organization", "id": "clinic"}


@pytest.fixture
def strict(
    repository: Path, settings: Settings, clock: Clock, make_client: Callable[..., Client]
) -> Iterator[Client]:
    enforced = replace(settings, referential_integrity="enforce")
    with Store.open(repository, enforced, clock=clock) as store:
        yield make_client(enforced, store)


def test_a_dangling_reference_is_unprocessable(strict, issue):
    refused = strict.put("Patient/ada", PATIENT)

    assert refused.status_code == 422
    assert issue(refused)[:2] == ("error", "not-found")
    assert strict.get("Patient/ada").status_code == 404


def test_a_delete_of_what_is_referred_to_is_a_conflict(strict, issue):
    """10.8: 409, naming the referrers."""
    strict.put("Organization/clinic", CLINIC)
    strict.put("Patient/ada", PATIENT)

    refused = strict.delete("Organization/clinic")

    assert refused.status_code == 409
    severity, code, text = issue(refused)
    assert (severity, code) == ("error", "conflict")
    assert "Patient/ada" in text
    assert strict.get("Organization/clinic").status_code == 200


def test_a_transaction_names_the_entry_at_fault(strict):
    entries = [
        {"resource": {"resourceType": "Basic"}, "request": {"method": "POST", "url": "Basic"}},
        {"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/ada"}},
    ]

    refused = strict.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})

    assert refused.status_code == 422
    assert refused.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert strict.get("Basic?_summary=count").json["total"] == 0


@pytest.mark.parametrize("enforced", [True, False])
def test_the_capability_statement_says_which_policy_holds(strict, client, enforced):
    statement = (strict if enforced else client).get("metadata").json

    policy = statement["rest"][0]["resource"][0]["referencePolicy"]
    assert ("enforced" in policy) == enforced
