"""patch over HTTP. https://hl7.org/fhir/R4/http.html#patch"""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from gitstore import Settings, Store

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
FHIR_JSON = "application/fhir+json"
ACCEPTED = {
    JSON_PATCH,
    MERGE_PATCH,
    "application/xml-patch+xml",
    FHIR_JSON,
    "application/fhir+xml",
}
BASE = "http://localhost:8080/fhir"
NARRATIVE = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Active.</div>'}


def operation(type, path, **parts):
    """A FHIRPath Patch of one operation. https://hl7.org/fhir/R4/fhirpatch.html"""
    named = [
        {"name": "type", "valueCode": type},
        {"name": "path", "valueString": path},
        *({"name": name} | value for name, value in parts.items()),
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": named}]}


DEACTIVATE = [{"op": "replace", "path": "/active", "value": False}]
DEACTIVATE_IN_XML = (
    b'<diff xmlns:f="http://hl7.org/fhir"><replace sel="f:Patient/f:active/@value">false</replace></diff>'
)
DEACTIVATE_PARAMETERS = operation("replace", "Patient.active", value={"valueBoolean": False})
DEACTIVATE_PARAMETERS_IN_XML = (
    b'<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
    b'<part><name value="type"/><valueCode value="replace"/></part>'
    b'<part><name value="path"/><valueString value="Patient.active"/></part>'
    b'<part><name value="value"/><valueBoolean value="false"/></part></parameter></Parameters>'
)
KINDS = [
    (JSON_PATCH, DEACTIVATE),
    (MERGE_PATCH, {"active": False}),
    ("application/xml-patch+xml", DEACTIVATE_IN_XML),
    (FHIR_JSON, DEACTIVATE_PARAMETERS),
    ("application/fhir+xml", DEACTIVATE_PARAMETERS_IN_XML),
    ("application/json", DEACTIVATE_PARAMETERS),
    ("application/json-patch+json; charset=utf-8", DEACTIVATE),
]


@pytest.fixture
def patch(client):
    """PATCH with a JSON Patch, or with another document and its media type."""

    def send(url, document, media_type=JSON_PATCH, client=client, **headers):
        return client.request("PATCH", url, document, Content_Type=media_type, **headers)

    return send


@pytest.fixture
def example(client, patient):
    """`Patient/example` at version 1."""
    client.put("Patient/example", patient)
    return patient


def types_of(header):
    return {each.strip() for each in header.split(",")}


@pytest.mark.parametrize(("media_type", "document"), KINDS)
def test_every_kind_of_document_changes_the_resource(client, example, patch, media_type, document):
    """9.1, 9.2, 9.8, 9.9: 200 and the next version, as an update. A merge patch is this server's addition."""
    response = patch("Patient/example", document, media_type)

    assert response.status_code == 200, response.text
    assert response.headers["ETag"] == 'W/"2"'
    assert "Location" not in response.headers
    assert response.json["active"] is False
    assert response.json["meta"]["versionId"] == "2"
    assert client.get("Patient/example").json == response.json
    assert client.get("Patient/example/_history/1").json["active"] is True


def test_an_element_without_a_type_of_its_own_is_given_in_parts(example, patch):
    """9.10"""
    parts = [
        {"name": "gender", "valueCode": "female"},
        {"name": "name", "valueHumanName": {"family": "King"}},
    ]
    document = operation("add", "Patient", name={"valueString": "contact"}, value={"part": parts})

    response = patch("Patient/example", document, FHIR_JSON)

    assert response.status_code == 200, response.text
    assert response.json["contact"] == [{"gender": "female", "name": {"family": "King"}}]


@pytest.mark.parametrize(
    ("media_type", "document"),
    [
        ("application/json", DEACTIVATE),
        ("text/plain", "active: false"),
        ("application/x-www-form-urlencoded", "active=false"),
        ("", DEACTIVATE),
        (JSON_PATCH + "; charset=latin1", DEACTIVATE),
        (FHIR_JSON + "; fhirVersion=5.0", DEACTIVATE_PARAMETERS),
    ],
)
def test_other_documents_are_refused(client, example, patch, issue, media_type, document):
    """9.1: 415, and Accept-Patch says what can be read. RFC 5789, section 2.2"""
    response = patch("Patient/example", document, media_type)

    assert response.status_code == 415
    assert types_of(response.headers["Accept-Patch"]) == ACCEPTED
    assert issue(response)[:2] == ("error", "not-supported")
    assert client.get("Patient/example").headers["ETag"] == 'W/"1"'


def test_options_of_an_instance_tell_of_patches(client):
    """3.9: Allow, and Accept-Patch. RFC 5789, section 3.1"""
    response = client.request("OPTIONS", "Patient/example")

    assert "PATCH" in response.headers["Allow"]
    assert types_of(response.headers["Accept-Patch"]) == ACCEPTED


def test_what_accept_patch_says_is_what_is_claimed(client):
    """13.3: CapabilityStatement.patchFormat."""
    assert set(client.get("metadata").json["patchFormat"]) == ACCEPTED


@pytest.mark.parametrize("tag", ['W/"2"', '"2"', "2", "*", 'W/"1", W/"2"'])
def test_if_match_of_the_current_version_lets_it_through(client, example, patch, tag):
    """7.2, 7.7, 9.2"""
    client.put("Patient/example", example)

    assert patch("Patient/example", DEACTIVATE, If_Match=tag).headers["ETag"] == 'W/"3"'


@pytest.mark.parametrize("document", [DEACTIVATE, [{"op": "test", "path": "/active", "value": False}]])
def test_a_stale_if_match_is_refused(client, example, patch, issue, document):
    """7.1, 7.6, 7.7: 412 and nothing written, also where the patch could not be applied anyway."""
    client.put("Patient/example", example)

    response = patch("Patient/example", document, If_Match='W/"1"')

    assert response.status_code == 412
    assert issue(response)[:2] == ("error", "conflict")
    assert client.get("Patient/example").headers["ETag"] == 'W/"2"'


def test_a_malformed_if_match_is_refused(example, patch):
    """7.3"""
    assert patch("Patient/example", DEACTIVATE, If_Match='W/"').status_code == 400


@pytest.mark.parametrize("header", [{}, {"If_Match": "*"}])
def test_an_unknown_resource_is_not_found(client, patch, issue, header):
    """9.3: 404, and none comes into being."""
    response = patch("Patient/nobody", DEACTIVATE, **header)

    assert response.status_code == 404
    assert issue(response)[:2] == ("error", "not-found")
    assert client.get("Patient/nobody").status_code == 404
    assert patch("Gurke/1", DEACTIVATE).status_code == 404
    assert patch("Patient/_", DEACTIVATE).status_code == 400


def test_a_deleted_resource_is_gone(client, example, patch, issue):
    """9.3: 410 with the ETag of the deletion; a patch brings nothing back."""
    client.delete("Patient/example")

    response = patch("Patient/example", DEACTIVATE)

    assert response.status_code == 410
    assert response.headers["ETag"] == 'W/"2"'
    assert issue(response)[:2] == ("error", "deleted")
    assert client.get("Patient/example").status_code == 410


@pytest.mark.parametrize(
    ("document", "media_type", "status"),
    [
        ("[{", JSON_PATCH, 400),
        ("", JSON_PATCH, 400),
        ({"op": "test"}, JSON_PATCH, 400),
        ([{"op": "paint", "path": "/active"}], JSON_PATCH, 400),
        ([{"op": "remove"}], JSON_PATCH, 400),
        ({"resourceType": "Patient"}, FHIR_JSON, 400),
        ("<diff", "application/xml-patch+xml", 400),
        ([{"op": "test", "path": "/active", "value": False}], JSON_PATCH, 422),
        ([{"op": "remove", "path": "/name"}], JSON_PATCH, 422),
        ([{"op": "add", "path": "/name/0/family", "value": "x"}], JSON_PATCH, 422),
        ([*DEACTIVATE, {"op": "remove", "path": "/name"}], JSON_PATCH, 422),
        (operation("replace", "Patient.name.family", value={"valueString": "x"}), FHIR_JSON, 422),
        ([{"op": "replace", "path": "/id", "value": "other"}], JSON_PATCH, 422),
        ([{"op": "replace", "path": "/resourceType", "value": "Group"}], JSON_PATCH, 422),
    ],
)
def test_a_patch_that_can_not_be_applied_is_refused(client, example, patch, document, media_type, status):
    """9.4, 9.5, 9.7, 9.9: 400 for what can't be read, 422 for what doesn't fit; all operations or none."""
    response = patch("Patient/example", document, media_type)

    assert response.status_code == status
    assert response.json["resourceType"] == "OperationOutcome"
    assert client.get("Patient/example").json["active"] is True
    assert client.get("Patient/example").headers["ETag"] == 'W/"1"'


def test_a_test_may_look_at_the_version(example, patch):
    """9.6: the patch sees the resource as it is read, with its meta."""
    first = [{"op": "test", "path": "/meta/versionId", "value": "1"}, *DEACTIVATE]

    assert patch("Patient/example", first).status_code == 200
    assert patch("Patient/example", first).status_code == 422


def test_what_the_server_maintains_in_meta_stays_its_own(example, patch):
    """9.7: versionId and lastUpdated are ignored, tags are not."""
    response = patch(
        "Patient/example",
        [
            {"op": "replace", "path": "/meta/versionId", "value": "77"},
            {"op": "add", "path": "/meta/tag", "value": [{"code": "seen"}]},
        ],
    )

    assert response.json["meta"]["versionId"] == "2"
    assert response.json["meta"]["tag"] == [{"code": "seen"}]


def test_a_patch_above_the_limit_is_refused(example, patch, settings):
    """413: fhir.maxBody."""
    large = [{"op": "add", "path": "/language", "value": "x" * settings.max_body}]

    assert patch("Patient/example", large).status_code == 413


def test_an_unknown_parameter_is_refused(example, patch):
    """1.12"""
    assert patch("Patient/example?name=x", DEACTIVATE).status_code == 400


@pytest.mark.parametrize("document", [[], [{"op": "test", "path": "/active", "value": True}]])
def test_a_patch_that_changes_nothing_is_a_version(client, example, patch, document):
    """6.10, 9.12: the choice of this server, as with updates."""
    assert patch("Patient/example", document).headers["ETag"] == 'W/"2"'


def test_a_patch_that_changes_nothing_can_be_left_out(
    example, repository, settings, make_client, patch, clock
):
    """9.12: with fhir.unchangedUpdate = skip, 200 with the version there is, and no commit."""
    skipping = replace(settings, unchanged_update="skip")
    with Store.open(repository, skipping, clock=clock) as store:
        client = make_client(skipping, store)
        before = store.snapshot().commit
        response = patch("Patient/example", [], client=client)
        assert (response.status_code, response.headers["ETag"]) == (200, 'W/"1"')
        assert store.snapshot().commit == before
        assert patch("Patient/example", DEACTIVATE, client=client).headers["ETag"] == 'W/"2"'


def test_the_history_shows_an_update(client, store, example, patch):
    """9.13: PUT and 200; the commit says patch."""
    patch("Patient/example", DEACTIVATE)

    newest = client.get("Patient/example/_history").json["entry"][0]
    assert newest["request"] == {"method": "PUT", "url": "Patient/example"}
    assert newest["response"]["status"].startswith("200")
    assert store.snapshot().commit.interaction == "patch"


@pytest.mark.parametrize(
    ("preference", "kind"),
    [
        ("return=minimal", None),
        ("return=representation", "Patient"),
        ("return=OperationOutcome", "OperationOutcome"),
        ("", "Patient"),
    ],
)
def test_prefer_is_honoured(example, patch, preference, kind):
    """3.11.5"""
    response = patch("Patient/example", DEACTIVATE, Prefer=preference)

    assert (response.status_code, response.headers["ETag"]) == (200, 'W/"2"')
    assert (response.json["resourceType"] if response.content else None) == kind


# Narrative


@pytest.fixture
def told(client, patient):
    """`Patient/example` with a narrative."""
    client.put("Patient/example", patient | {"text": NARRATIVE})


def test_a_narrative_that_may_be_wrong_now_is_removed(client, told, patch):
    """9.11: and who asks for the OperationOutcome is warned."""
    response = patch("Patient/example", DEACTIVATE, Prefer="return=OperationOutcome")

    assert [each["severity"] for each in response.json["issue"]] == ["information", "warning"]
    assert "narrative" in response.json["issue"][1]["details"]["text"]
    assert "text" not in client.get("Patient/example").json


def test_a_narrative_that_is_patched_too_stays(client, told, patch):
    """9.11"""
    new = NARRATIVE | {"div": '<div xmlns="http://www.w3.org/1999/xhtml">Not active.</div>'}

    response = patch("Patient/example", [*DEACTIVATE, {"op": "replace", "path": "/text", "value": new}])

    assert response.json["text"] == new


@pytest.mark.parametrize(("mode", "status", "has_text"), [("keep", 200, True), ("reject", 422, True)])
def test_what_becomes_of_a_narrative_is_a_setting(make_client, settings, told, patch, mode, status, has_text):
    """9.11: fhir.patchNarrative, also in Bundles."""
    client = make_client(replace(settings, patch_narrative=mode))
    entry = {
        "request": {"method": "PATCH", "url": "Patient/example"},
        "resource": DEACTIVATE_PARAMETERS,
    }

    assert patch("Patient/example", DEACTIVATE, client=client).status_code == status
    for kind in ("batch", "transaction"):
        response = client.post("", {"resourceType": "Bundle", "type": kind, "entry": [entry]})
        found = response.json["entry"][0]["response"]["status"] if kind == "batch" else response.status_code
        assert str(found).startswith(str(status))
    assert ("text" in client.get("Patient/example").json) is has_text


# What comes out is validated as any write is


@pytest.fixture
def strict(make_client, repository, clock):
    settings = Settings(durability="off")
    with Store.open(repository, settings, clock=clock) as store:
        yield make_client(settings, store)


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "add", "path": "/banana", "value": 1}, 400),
        ({"op": "replace", "path": "/active", "value": "yes"}, 400),
        ({"op": "add", "path": "/gender", "value": "banana"}, 422),
        ({"op": "add", "path": "/contact", "value": [{"gender": "male"}]}, 422),
    ],
)
def test_an_invalid_result_is_refused(strict, example, patch, operation, status):
    """9.7: 400 for what is no FHIR, 422 for what breaks a rule."""
    response = patch("Patient/example", [operation], client=strict)

    assert response.status_code == status, response.text
    assert strict.get("Patient/example").headers["ETag"] == 'W/"1"'


def test_warnings_about_the_result_come_when_asked_for(strict, example, patch):
    """3.11.3"""
    response = patch("Patient/example", DEACTIVATE, client=strict, Prefer="return=OperationOutcome")

    assert response.status_code == 200
    assert {each["severity"] for each in response.json["issue"]} <= {"information", "warning"}


# In Bundles


def in_binary(document, media_type=JSON_PATCH):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {
        "resourceType": "Binary",
        "contentType": media_type,
        "data": base64.b64encode(data).decode(),
    }


def bundle(kind, *entries):
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {"request": {"method": method, "url": url} | request}
            | ({"resource": resource} if resource else {})
            for method, url, resource, request in entries
        ],
    }


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize(
    "document",
    [
        DEACTIVATE_PARAMETERS,
        in_binary(DEACTIVATE),
        in_binary({"active": False}, MERGE_PATCH),
        in_binary(DEACTIVATE_IN_XML, "application/xml-patch+xml"),
    ],
)
def test_patches_stand_in_bundles(client, example, kind, document):
    """9.15: Parameters as they are, other documents in a Binary."""
    response = client.post(
        "", bundle(kind, ("PATCH", "Patient/example", document, {})), Prefer="return=representation"
    )

    assert response.status_code == 200, response.text
    [entry] = response.json["entry"]
    assert entry["response"]["status"] == "200 OK"
    assert entry["response"]["etag"] == 'W/"2"'
    assert entry["response"]["location"] == f"{BASE}/Patient/example/_history/2"
    assert entry["resource"]["active"] is False


@pytest.mark.parametrize(
    ("document", "request_", "status"),
    [
        ({"resourceType": "Patient"}, {}, 400),
        (in_binary(DEACTIVATE, "text/plain"), {}, 400),
        (in_binary([{"op": "test", "path": "/active", "value": False}]), {}, 422),
        (DEACTIVATE_PARAMETERS, {"ifMatch": 'W/"7"'}, 412),
        (DEACTIVATE_PARAMETERS, {"url": "Patient/nobody"}, 404),
        (DEACTIVATE_PARAMETERS, {"url": "Patient/gone"}, 410),
        (DEACTIVATE_PARAMETERS, {"url": "Patient"}, 400),
    ],
)
def test_a_refused_patch_refuses_its_transaction(client, store, example, document, request_, status):
    """7.7, 14.4, 14.5, 14.14: and in a batch its entry alone."""
    client.put("Patient/gone", example | {"id": "gone"})
    client.delete("Patient/gone")
    other = ("POST", "Patient", {"resourceType": "Patient"}, {})
    patch = ("PATCH", "Patient/example", document, request_)
    before = store.snapshot().commit

    refused = client.post("", bundle("transaction", other, patch))

    assert refused.status_code == status
    assert refused.json["issue"][0]["expression"][0].startswith("Bundle.entry[1]")
    assert store.snapshot().commit == before
    statuses = [
        each["response"]["status"][:3]
        for each in client.post("", bundle("batch", other, patch)).json["entry"]
    ]
    assert statuses == ["201", str(status)]


def test_a_patch_can_refer_to_what_its_transaction_makes(client, example):
    """14.7, 14.9: its references are resolved as those of other entries are."""
    link = [{"op": "add", "path": "/managingOrganization", "value": {"reference": "urn:uuid:org"}}]
    sent = bundle(
        "transaction",
        ("PATCH", "Patient/example", in_binary(link), {}),
        ("POST", "Organization", {"resourceType": "Organization", "name": "Clinic"}, {}),
    )
    sent["entry"][1]["fullUrl"] = "urn:uuid:org"

    response = client.post("", sent)

    assert response.status_code == 200, response.text
    assert client.get("Patient/example").json["managingOrganization"]["reference"] == "Organization/new-1"


def test_a_patch_and_an_update_of_one_resource_exclude_each_other(client, example):
    """14.8: 400."""
    response = client.post(
        "",
        bundle(
            "transaction",
            ("PATCH", "Patient/example", DEACTIVATE_PARAMETERS, {}),
            ("PUT", "Patient/example", example, {}),
        ),
    )

    assert response.status_code == 400
