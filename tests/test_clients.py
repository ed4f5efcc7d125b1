"""Other people's clients against the server as a process: fhirpy, fhirclient and fhir-kit-client, one story each.

Where a client has no call of its own for an interaction, its HTTP session sends it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fhirpy
import pytest
import requests
from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

from gitstore import init

KIT = Path(__file__).parent / "clients"
"""What npm has to install for fhir-kit-client, each package with its hash, and its story."""

PATIENCE = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base URL of `python -m api` on a free port. It validates as it does without settings."""
    folder = tmp_path_factory.mktemp("clients")
    record = folder / "record.git"
    init(record)
    subprocess.run(["git", "-C", record, "config", "fhir.durability", "off"], check=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api", record, "--allow-anonymous", "--port", "0", "--workers", "1"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"},
        )
    assert process.stdout is not None
    yield process.stdout.readline().rsplit(" ", 1)[1].strip()
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    assert '"status":500' not in (folder / "log").read_text()


def patient(system, value, **more):
    return {
        "identifier": [{"system": system, "value": value}],
        "name": [{"family": f"{value} Byron"}],
        **more,
    }


def weight(system, subject, value):
    return {
        "resourceType": "Observation",
        "identifier": [{"system": system, "value": f"{value}"}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}], "text": "weight"},
        "subject": {"reference": subject},
        "effectiveDateTime": "2026-01-02",
        "valueQuantity": {"value": value, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"},
    }


def bundle(kind, *entries):
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {
                "request": {"method": method, "url": url},
                **({"resource": resource} if resource else {}),
                **more,
            }
            for method, url, resource, more in entries
        ],
    }


def statuses(answer):
    return [entry["response"]["status"][:3] for entry in answer["entry"]]


# fhirpy

URN = "urn:fhirpy"


def test_fhirpy(base):
    """https://github.com/beda-software/fhir-py"""
    client = fhirpy.SyncFHIRClient(base)
    assert client.execute("metadata", method="get").fhirVersion == "4.0.1"
    ada = fhirpy_writes(client)
    fhirpy_reads_versions(client, ada)
    fhirpy_searches(client, ada)
    fhirpy_conditional(client, base)
    fhirpy_bundles(client, ada)
    fhirpy_operates(client, ada)
    fhirpy_deletes(client, ada)


def fhirpy_writes(client):
    ada = client.resource("Patient", **patient(URN, "ada", birthDate="1815-12-10", active=True)).create()
    assert (ada.meta.versionId, ada["birthDate"]) == ("1", "1815-12-10")
    ada["gender"] = "female"
    assert ada.update().meta.versionId == "2"
    assert ada.patch(active=False).meta.versionId == "3"
    assert (ada["active"], ada["gender"]) == (False, "female")
    reference = client.reference("Patient", ada.id)
    assert reference.to_resource().serialize() == ada.serialize()
    assert "birthDate" not in reference.patch(birthDate=None)
    assert ada.refresh().meta.versionId == "4"
    assert ada.refresh().meta.versionId == "4", "304: nothing new"
    return ada.update()


def fhirpy_reads_versions(client, ada):
    path = f"Patient/{ada.id}"
    first = client.execute(f"{path}/_history/1", method="get")
    assert (first.meta.versionId, first.active) == ("1", True)
    history = client.execute(f"{path}/_history", method="get", params={"_count": 2})
    assert [entry.resource.meta.versionId for entry in history.entry] == ["5", "4"]
    assert history.total == 5
    assert client.execute("Patient/_history", method="get").total >= 5
    assert client.execute("_history", method="get", params={"_count": 0}).total >= 5
    with pytest.raises(ResourceNotFound):
        client.execute(f"{path}/_history/9", method="get")
    with pytest.raises(ResourceNotFound):
        client.get("Patient", "nobody")


def fhirpy_searches(client, ada):
    for value in range(60, 67):
        client.resource("Observation", **weight(URN, f"Patient/{ada.id}", value)).create()
    ours = client.resources("Observation").search(patient=ada.id, identifier=f"{URN}|")
    assert ours.count() == 7
    pages = ours.sort("-value-quantity").limit(3)
    assert [each["valueQuantity"]["value"] for each in pages.fetch_all()] == [66, 65, 64, 63, 62, 61, 60]
    assert len(pages.fetch()) == 3
    assert ours.sort("value-quantity").first()["valueQuantity"]["value"] == 60
    assert len(ours.search(value_quantity__gt="64|http://unitsofmeasure.org|kg").fetch()) == 2
    assert len(ours.search(date__ge="2026-01-02", patient__Patient__name="ada").fetch()) == 7
    with pytest.raises(MultipleResourcesFound):
        ours.get()
    women = client.resources("Patient").search(identifier=f"{URN}|ada", gender="female")
    assert women.get().id == ada.id
    assert women.search(name__contains="byr").has("Observation", "patient", code="29463-7").get().id == ada.id
    assert women.search(gender__not="female").first() is None
    included = ours.limit(1).include("Observation", "subject").fetch_raw()
    assert [(e.resource.resource_type, e.search.mode) for e in included.entry] == [
        ("Observation", "match"),
        ("Patient", "include"),
    ]
    assert len(women.revinclude("Observation", "subject").fetch_raw().entry) == 8
    assert "name" not in women.elements("gender").get()
    assert len(client.execute(f"Patient/{ada.id}/Observation", method="get").entry) == 7
    assert asyncio.run(count_asynchronously(client.url)) == 7


async def count_asynchronously(base):
    """The same client in its other form, which speaks HTTP through aiohttp."""
    found = fhirpy.AsyncFHIRClient(base).resources("Observation").search(identifier=f"{URN}|").limit(3)
    return len([each async for each in found])


def fhirpy_conditional(client, base):
    """Its get_or_create sends the criteria as the URL's query, which is no conditional create of FHIR."""
    bob = client.resource("Patient", **patient(URN, "bob"))
    found = client.resources("Patient").search(identifier=f"{URN}|bob")
    with pytest.raises(OperationOutcome) as refused:
        found.get_or_create(bob)
    assert refused.value.resource["issue"][0]["code"] == "not-supported"
    assert found.count() == 0
    made, created = found.update(bob)
    assert (made.meta.versionId, created) == ("1", True)
    again, created = found.update(bob)
    assert (again.id, again.meta.versionId, created) == (made.id, "2", False)
    assert found.patch(active=True).meta.versionId == "3"
    criteria = {"If-None-Exist": f"identifier={URN}|bob"}
    answer = requests.post(f"{base}/Patient", json=bob.serialize(), headers=criteria, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["id"]) == (200, made.id)
    stale = {"If-Match": 'W/"1"'}
    answer = requests.put(
        f"{base}/Patient/{made.id}", json=again.serialize(), headers=stale, timeout=PATIENCE
    )
    assert answer.status_code == 412
    with pytest.raises(MultipleResourcesFound):
        client.resources("Observation").search(identifier=f"{URN}|").delete()
    assert found.delete() == (None, 204)
    assert found.delete() == (None, 204)
    assert found.count() == 0


def fhirpy_bundles(client, ada):
    eve = {"resourceType": "Patient", **patient(URN, "eve")}
    seen = weight(URN, "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11", 70)
    full_url = {"fullUrl": "urn:uuid:5a1f6d3c-0f0e-4a52-9f5e-0c6f8f3c5b11"}
    done = client.execute(
        "", data=bundle("transaction", ("POST", "Patient", eve, full_url), ("POST", "Observation", seen, {}))
    )
    assert (done.type, statuses(done)) == ("transaction-response", ["201", "201"])
    [stored] = (
        client.resources("Observation")
        .search(identifier=f"{URN}|70")
        .include("Observation", "subject")
        .fetch()
    )
    assert client.reference(**stored.subject).to_resource()["identifier"][0]["value"] == "eve"
    nobody = ("GET", "Patient/nobody", None, {})
    done = client.execute("", data=bundle("batch", nobody, ("GET", f"Patient/{ada.id}", None, {})))
    assert statuses(done) == ["404", "200"]
    with pytest.raises(ResourceNotFound):
        client.execute("", data=bundle("transaction", ("POST", "Patient", eve, {}), nobody))
    assert client.resources("Patient").search(identifier=f"{URN}|eve").count() == 1


def fhirpy_operates(client, ada):
    assert ada.is_valid()
    assert not client.resource("Patient", gender="unheard of").is_valid()
    assert ada.execute("$validate", data=ada.serialize()).resourceType == "OperationOutcome"
    [meta] = ada.execute("$meta", method="get").parameter
    assert (meta.name, meta.valueMeta.versionId) == ("return", "5")
    with pytest.raises(OperationOutcome):
        client.resource("Patient", gender="unheard of").create()


def fhirpy_deletes(client, ada):
    assert ada.delete() is None
    assert client.delete("Patient", ada.id) is None
    with pytest.raises(ResourceNotFound):
        ada.refresh()
    newest = client.execute(f"Patient/{ada.id}/_history", method="get").entry[0]
    assert (newest.request.method, "resource" in newest) == ("DELETE", False)
    assert ada.update().meta.versionId == "7"


# fhirclient

SMART = "urn:fhirclient"


def test_fhirclient(base):
    """https://github.com/smart-on-fhir/client-py, whose models refuse what is no R4 in every answer."""
    smart = FHIRClient({"app_id": "git-fhir", "api_base": base})
    assert smart.prepare(), "no authorization is asked for"
    assert smart.server.capabilityStatement.fhirVersion == "4.0.1"
    ada = fhirclient_writes(smart)
    fhirclient_reads_versions(smart, ada)
    fhirclient_searches(smart, ada)
    fhirclient_conditional(smart.server.session, base)
    fhirclient_bundles(smart, ada)
    fhirclient_operates(smart, ada)
    fhirclient_deletes(smart, ada)


def fhirclient_writes(smart):
    made = Patient({**patient(SMART, "ada", birthDate="1815-12-10"), "resourceType": "Patient"}).create(
        smart.server
    )
    ada = Patient.read(made["id"], smart.server)
    assert ada.as_json() == made
    ada.gender = "female"
    assert ada.update()["meta"]["versionId"] == "2"
    smart.patient_id = ada.id
    assert smart.human_name(smart.patient.name[0]) == "ada Byron"
    return Patient.read(ada.id, smart.server)


def fhirclient_reads_versions(smart, ada):
    assert Patient.read_from(f"Patient/{ada.id}/_history/1", smart.server).gender is None
    history = Bundle.read_from(f"Patient/{ada.id}/_history", smart.server)
    assert [entry.resource.meta.versionId for entry in history.entry] == ["2", "1"]
    assert Bundle.read_from("Patient/_history?_count=1", smart.server).total >= 2
    assert Bundle.read_from("_history?_count=1", smart.server).type == "history"
    with pytest.raises(FHIRNotFoundException):
        Patient.read("nobody", smart.server)


def fhirclient_searches(smart, ada):
    for value in range(60, 67):
        Observation(weight(SMART, f"Patient/{ada.id}", value)).create(smart.server)
    ours = {"patient": ada.id, "identifier": f"{SMART}|"}
    pages = list(
        Observation.where({**ours, "_sort": "-value-quantity", "_count": "3"}).perform_iter(smart.server)
    )
    values = [[entry.resource.valueQuantity.value for entry in page.entry] for page in pages]
    assert values == [[66, 65, 64], [63, 62, 61], [60]]
    found = list(
        Observation.where({**ours, "date": {"$and": ["ge2026", "lt2027"]}}).perform_resources_iter(
            smart.server
        )
    )
    assert {each.subject.resolved(Patient).id for each in found} == {ada.id}
    either = Patient.where(
        {"identifier": {"$or": [f"{SMART}|ada", f"{SMART}|bob"]}, "family": {"$exact": "ada Byron"}}
    )
    assert [each.id for each in either.perform_resources_iter(smart.server)] == [ada.id]
    chained = Observation.where({"subject": {"$type": "Patient", "identifier": f"{SMART}|ada"}}).include(
        "subject"
    )
    modes = [entry.search.mode for page in chained.perform_iter(smart.server) for entry in page.entry]
    assert modes == ["match"] * 7 + ["include"]
    missing = Patient.where({"identifier": f"{SMART}|ada", "gender": {"$missing": "true"}})
    assert list(missing.perform_resources_iter(smart.server)) == []
    form = {"identifier": f"{SMART}|ada", "_revinclude": "Observation:subject"}
    answer = smart.server.post_as_form(f"{smart.server.base_uri}Patient/_search", form)
    assert len(Bundle(answer.json()).entry) == 8


def fhirclient_conditional(session, base):
    """fhirclient has no such calls."""
    bob = {"resourceType": "Patient", **patient(SMART, "bob")}
    where = f"{base}/Patient?identifier={SMART}|bob"
    unless = {"If-None-Exist": f"identifier={SMART}|bob"}
    assert session.post(f"{base}/Patient", json=bob, headers=unless).status_code == 201
    assert session.post(f"{base}/Patient", json=bob, headers=unless).status_code == 200
    updated = session.put(where, json=bob)
    assert (updated.status_code, updated.headers["ETag"]) == (200, 'W/"2"')
    change = [{"op": "add", "path": "/active", "value": True}]
    kind = {"Content-Type": "application/json-patch+json", "If-Match": updated.headers["ETag"]}
    patched = session.patch(where, json=change, headers=kind)
    assert (patched.status_code, patched.json()["active"]) == (200, True)
    assert session.patch(where, json=change, headers=kind).status_code == 412
    one = f"{base}/Patient/{patched.json()['id']}"
    assert session.get(one, headers={"If-None-Match": patched.headers["ETag"]}).status_code == 304
    assert session.head(one).headers["ETag"] == 'W/"3"'
    assert session.delete(where).status_code == 204
    assert session.get(one).status_code == 410


def fhirclient_bundles(smart, ada):
    urn = "urn:uuid:0c6f8f3c-0f0e-4a52-9f5e-5a1f6d3c5b11"
    eve = {"resourceType": "Patient", **patient(SMART, "eve")}
    entries = [
        ("POST", "Patient", eve, {"fullUrl": urn}),
        ("POST", "Observation", weight(SMART, urn, 70), {}),
    ]
    answer = Bundle(Bundle(bundle("transaction", *entries)).create(smart.server))
    assert [entry.response.status[:3] for entry in answer.entry] == ["201", "201"]
    seen = Observation.read_from(answer.entry[1].response.location, smart.server)
    assert seen.subject.resolved(Patient).identifier[0].value == "eve"
    entries = [("GET", "Patient/nobody", None, {}), ("GET", f"Patient/{ada.id}", None, {})]
    answer = Bundle(Bundle(bundle("batch", *entries)).create(smart.server))
    assert [entry.response.status[:3] for entry in answer.entry] == ["404", "200"]
    assert answer.entry[0].response.outcome.issue[0].code == "not-found"
    assert answer.entry[1].resource.as_json() == ada.as_json()


def fhirclient_operates(smart, ada):
    outcome = smart.server.post_json("Patient/$validate", ada.as_json()).json()
    assert {issue["severity"] for issue in outcome["issue"]} <= {"information", "warning"}
    [meta] = smart.server.request_json(f"Patient/{ada.id}/$meta")["parameter"]
    assert meta["valueMeta"]["versionId"] == "2"
    with pytest.raises(requests.HTTPError, match=r"400|422"):
        smart.server.post_json("Patient", {"resourceType": "Patient", "gender": "unheard of"})


def fhirclient_deletes(smart, ada):
    assert ada.delete() is None
    with pytest.raises(requests.HTTPError, match="410"):
        Patient.read(ada.id, smart.server)
    newest = Bundle.read_from(f"Patient/{ada.id}/_history", smart.server).entry[0]
    assert (newest.request.method, newest.resource) == ("DELETE", None)
    assert ada.update()["meta"]["versionId"] == "4"


# fhir-kit-client


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A folder with fhir-kit-client as package-lock.json has it, hash by hash; it comes from npm's cache where that has it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("fhir-kit-client needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version[1:].partition(".")[0]) < 20:
        pytest.skip(f"fhir-kit-client needs node 20, and this is {version.strip()}")
    folder = shutil.copytree(KIT, tmp_path_factory.mktemp("kit") / "clients")
    command = [
        npm,
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefer-offline",
        "--fetch-retries=1",
    ]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm ci took more than a minute")
    if done.returncode != 0:
        assert "EINTEGRITY" not in done.stderr, done.stderr
        pytest.skip(f"npm ci failed: {done.stderr.strip()[-200:]}")
    return [node, str(folder / "fhir_kit_story.mjs")]


def test_fhir_kit_client(base, kit):
    """https://github.com/Vermonster/fhir-kit-client, with the fetch of node."""
    done = subprocess.run([*kit, base], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "the story is told\n"), done.stderr
