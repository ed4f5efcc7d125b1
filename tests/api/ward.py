"""A small ward to search over HTTP, as fixtures, and what tests read in the Bundles that come back."""

from __future__ import annotations

import pytest

from api.app import create_app
from gitstore import ANONYMOUS, Store, Update
from gitstore.fhir.ids import ResourceId
from tests.api.conftest import START, Client
from tests.conftest import copy_record

BASE = "http://localhost:8080/fhir"


PATIENTS = [
    {"resourceType": "Patient", "id": "ada", "name": [{"family": "Byron"}]},
    {"resourceType": "Patient", "id": "bob", "name": [{"family": "Müller"}]},
]
OBSERVATIONS = [
    {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": "Patient/ada"},
        "effectiveDateTime": f"2026-01-0{number}T10:00:00+01:00",
    }
    for number in (1, 2, 3)
]


@pytest.fixture(scope="module")
def ward(empty_record, settings, tmp_path_factory):
    """A record of two patients and three observations of the first, in one commit."""
    path = copy_record(empty_record, tmp_path_factory.mktemp("ward") / "record.git")
    with Store.open(path, settings, clock=lambda: START, new_id=lambda: "new") as store:
        updates = [Update(ResourceId(one["resourceType"], one["id"]), one) for one in PATIENTS + OBSERVATIONS]
        store.commit(updates, ANONYMOUS)
    return path


@pytest.fixture
def repository(ward, tmp_path):
    """A copy, for tests that write."""
    return copy_record(ward, tmp_path / "record.git")


@pytest.fixture(scope="module")
def reader(ward, settings):
    """A client of the record itself, for tests that don't."""
    with Store.open(ward, settings) as store:
        yield client_of(store, settings)


def client_of(store, settings):
    return Client(create_app(store, settings))


def ids(bundle, mode="match"):
    return [each["resource"]["id"] for each in bundle.get("entry", []) if each["search"]["mode"] == mode]


def link(bundle, relation):
    """The URL of a link; None where there is none."""
    found = [each["url"] for each in bundle["link"] if each["relation"] == relation]
    assert len(found) < 2
    return found[0] if found else None
