"""Conditional create, update, patch and delete over HTTP. https://hl7.org/fhir/R4/http.html#cond-update"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gitstore import Store

BASE = "http://localhost:8080/fhir"
MRN = "urn:mrn"
DEACTIVATE = [{"op": "replace", "path": "/active", "value": False}]


def person(number, **elements):
    """A patient with a number of the ward."""
    return {
        "resourceType": "Patient",
        "active": True,
        "identifier": [{"system": MRN, "value": str(number)}],
    } | elements


def query(number):
    return f"identifier={quote(MRN + '|' + str(number), safe='')}"


@pytest.fixture
def ward(client):
    """Patients a (1), b and c (both 2), and d (9), which is deleted."""
    for id, number in (("a", 1), ("b", 2), ("c", 2), ("d", 9)):
        client.put(f"Patient/{id}", person(number, id=id))
    client.delete("Patient/d")
    return client


@pytest.fixture
def unchanged(store, ward):
    """Nothing may be written in the test."""
    before = store.snapshot().commit
    yield before
    assert store.snapshot().commit == before


def patch(client, url, document=DEACTIVATE, **headers):
    return client.request("PATCH", url, document, Content_Type="application/json-patch+json", **headers)


# Create: https://hl7.org/fhir/R4/http.html#ccreate


@pytest.mark.parametrize("number", [7, 9])
def test_a_create_without_a_match_creates(ward, number):
    """11.8: 201, Location, ETag; what is deleted is no match."""
    response = ward.post("Patient", person(number), If_None_Exist=query(number))

    assert response.status_code == 201
    assert response.headers["Location"] == f"{BASE}/Patient/new-1/_history/1"
    assert response.headers["ETag"] == 'W/"1"'


@pytest.mark.parametrize(
    "header", [query(1), "?" + query(1), "identifier=urn:mrn|1", "identifier=urn:mrn|1&active=true", "_id=a"]
)
def test_a_create_with_one_match_tells_where_it_is(ward, unchanged, header):
    """11.8: 200, Location, ETag and Last-Modified of what is there, and its content; nothing written.
    Encoded or not, with a question mark or without."""
    response = ward.post("Patient", person(1, active=False), If_None_Exist=header)

    assert response.status_code == 200
    assert response.headers["Location"] == f"{BASE}/Patient/a/_history/1"
    assert response.headers["ETag"] == 'W/"1"'
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.headers["Git-Commit"] == unchanged.id
    assert response.json["active"] is True


@pytest.mark.parametrize(
    ("preference", "kind"), [("return=minimal", None), ("return=OperationOutcome", "OperationOutcome")]
)
def test_a_create_with_one_match_honours_prefer(ward, unchanged, preference, kind):
    """11.8: the body is as Prefer says."""
    response = ward.post("Patient", person(1), If_None_Exist=query(1), Prefer=preference)

    assert (response.status_code, response.headers["ETag"]) == (200, 'W/"1"')
    assert (response.json["resourceType"] if response.content else None) == kind


def test_a_create_with_several_matches_is_refused(ward, unchanged, issue):
    """11.8: 412."""
    response = ward.post("Patient", person(2), If_None_Exist=query(2))

    assert response.status_code == 412
    assert issue(response)[:2] == ("error", "multiple-matches")
    assert "Location" not in response.headers


UNUSABLE = [
    "",
    "_count=1",
    "_sort=birthdate",
    "banana=1",
    query(1) + "&banana=1",
    "_format=json",
    "birthdate=x",
    "name=",
]


@pytest.mark.parametrize("criteria", UNUSABLE)
def test_a_create_whose_criteria_select_nothing_is_refused(ward, unchanged, criteria):
    """11.9: 400; criteria are always strict, and never stand for everything."""
    response = ward.post("Patient", person(7), If_None_Exist=criteria, Prefer="handling=lenient")

    assert response.status_code == 400
    assert response.json["issue"][0]["severity"] == "error"


def test_parallel_creates_make_one(ward, store):
    """11.9: of ten at once one answers 201, the others 200 with the same Location."""
    answers = []
    start = threading.Barrier(10)

    def create():
        start.wait()
        answers.append(ward.post("Patient", person(7), If_None_Exist=query(7)))

    threads = [threading.Thread(target=create) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert ward.get(f"Patient?{query(7)}").json["total"] == 1


def test_criteria_may_hold_other_than_ascii(ward):
    """11.8: percent-encoded, or as UTF-8 as it is."""
    ward.put("Patient/e", person(5, id="e", name=[{"family": "Größe"}]))

    for header in ("family=" + quote("Größe"), "family=Größe".encode().decode("latin-1")):
        assert ward.post("Patient", person(5), If_None_Exist=header).status_code == 200


def test_criteria_may_name_a_resource_of_this_server(ward):
    """11.8: by its absolute URL, too, as in a search."""
    ward.put(
        "Observation/o", {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/a"}}
    )
    observation = {"resourceType": "Observation", "subject": {"reference": "Patient/a"}}

    for reference in ("Patient/a", f"{BASE}/Patient/a"):
        response = ward.post("Observation", observation, If_None_Exist=f"subject={reference}")
        assert (response.status_code, response.json["id"]) == (200, "o")


# Update: https://hl7.org/fhir/R4/http.html#cond-update


@pytest.mark.parametrize("id", [None, "free", "d"])
def test_an_update_without_a_match_creates(ward, id):
    """8.1, 8.2, 8.8: 201 and Location, under the id of the resource where it has one; a deleted one comes back to life."""
    response = ward.put(f"Patient?{query(7)}", person(7) | ({"id": id} if id else {}))

    assert response.status_code == 201
    assert response.json["id"] == (id or "new-1")
    version = 3 if id == "d" else 1
    assert response.headers["Location"] == f"{BASE}/Patient/{id or 'new-1'}/_history/{version}"


def test_an_update_without_a_match_does_not_take_anothers_id(ward, unchanged, issue):
    """8.3: 409, as R5 says."""
    response = ward.put(f"Patient?{query(7)}", person(7, id="a"))

    assert response.status_code == 409
    assert issue(response)[:2] == ("error", "conflict")


@pytest.mark.parametrize("id", [None, "a"])
def test_an_update_with_one_match_replaces_it(ward, id):
    """8.4: 200; the id comes from the match."""
    response = ward.put(f"Patient?{query(1)}", person(1, active=False) | ({"id": id} if id else {}))

    assert response.status_code == 200
    assert response.headers["ETag"] == 'W/"2"'
    assert (response.json["id"], response.json["active"]) == ("a", False)


def test_an_update_with_one_match_and_another_id_is_refused(ward, unchanged, issue):
    """8.5: 400."""
    response = ward.put(f"Patient?{query(1)}", person(1, id="z"))

    assert response.status_code == 400
    assert issue(response)[:2] == ("error", "value")


def test_an_update_with_several_matches_is_refused(ward, unchanged, issue):
    """8.6: 412."""
    response = ward.put(f"Patient?{query(2)}", person(2))

    assert response.status_code == 412
    assert issue(response)[:2] == ("error", "multiple-matches")


def test_an_update_of_another_type_is_refused(ward, unchanged):
    """6.5"""
    assert ward.put(f"Patient?{query(1)}", {"resourceType": "Group"}).status_code == 400
    assert ward.put("Gurke?x=1", {"resourceType": "Gurke"}).status_code == 404


def test_an_update_without_criteria_does_not_exist(ward, unchanged):
    """1.11: 405 and what there is."""
    response = ward.put("Patient", person(1))

    assert response.status_code == 405
    assert "PUT" not in response.headers["Allow"]


@pytest.mark.parametrize("criteria", UNUSABLE[1:])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_criteria_that_select_nothing_are_refused(ward, unchanged, method, criteria):
    """8.7, 10.13: 400 for unknown, empty and result parameters; never all there is."""
    headers = {"Prefer": "handling=lenient"}
    if method == "PUT":
        response = ward.put(f"Patient?{criteria}", person(1), **headers)
    elif method == "PATCH":
        response = patch(ward, f"Patient?{criteria}", **headers)
    else:
        response = ward.delete(f"Patient?{criteria}", **headers)

    assert response.status_code == 400
    assert ward.get("Patient").json["total"] == 3


@pytest.mark.parametrize(("tag", "status"), [('W/"1"', 200), ('W/"7"', 412), ("*", 200)])
def test_if_match_counts_for_what_criteria_select(ward, tag, status):
    """7.7: conditional updates, patches and deletes heed it."""
    assert ward.put(f"Patient?{query(1)}", person(1), If_Match=tag).status_code == status
    tag = 'W/"2"' if tag == 'W/"1"' else tag
    assert patch(ward, f"Patient?{query(1)}", If_Match=tag).status_code == status
    tag = 'W/"3"' if tag == 'W/"2"' else tag
    assert ward.delete(f"Patient?{query(1)}", If_Match=tag).status_code == (204 if status == 200 else status)


def test_if_match_makes_nothing(ward, unchanged):
    """7.3: where nothing is selected there is nothing that could match."""
    for tag in ("*", 'W/"1"'):
        assert ward.put(f"Patient?{query(7)}", person(7), If_Match=tag).status_code == 412
        assert ward.delete(f"Patient?{query(7)}", If_Match=tag).status_code == 412


def test_if_none_match_counts_for_what_criteria_select(ward):
    """7.9: with `*` a conditional update only creates."""
    assert ward.put(f"Patient?{query(1)}", person(1), If_None_Match="*").status_code == 412
    assert ward.put(f"Patient?{query(7)}", person(7), If_None_Match="*").status_code == 201


def test_an_update_that_changes_nothing_can_be_left_out(ward, repository, settings, make_client, clock):
    """8.8: 200, and with fhir.unchangedUpdate = skip no version."""
    skipping = replace(settings, unchanged_update="skip")
    with Store.open(repository, skipping, clock=clock) as store:
        response = make_client(skipping, store).put(f"Patient?{query(1)}", person(1))

    assert (response.status_code, response.headers["ETag"]) == (200, 'W/"1"')


def test_the_form_of_the_answer_is_no_criterion(ward):
    """2.9"""
    response = ward.put(f"Patient?{query(1)}&_format=json&_pretty=true", person(1))

    assert response.status_code == 200
    assert response.text.startswith("{\n")


def test_a_content_of_a_binary_may_have_criteria(client):
    """2.18, 8.4: the body is the content, and the id is that of the match."""
    made = client.post("Binary", b"one", Content_Type="text/plain")
    id = made.headers["Location"].split("/")[-3]

    response = client.put(f"Binary?_id={id}", b"two", Content_Type="text/plain")

    assert response.status_code == 200, response.text
    assert client.get(f"Binary/{id}", Accept="text/plain").content == b"two"


# Patch: https://hl7.org/fhir/R4/http.html#patch


def test_a_patch_with_one_match_changes_it(ward):
    """9.14: 200."""
    response = patch(ward, f"Patient?{query(1)}")

    assert response.status_code == 200
    assert (response.json["id"], response.json["active"]) == ("a", False)
    assert response.headers["ETag"] == 'W/"2"'


@pytest.mark.parametrize(
    ("number", "status", "code"), [(7, 404, "not-found"), (9, 404, "not-found"), (2, 412, "multiple-matches")]
)
def test_a_patch_needs_one_match(ward, unchanged, issue, number, status, code):
    """9.14: none 404, several 412; what is deleted is no match."""
    response = patch(ward, f"Patient?{query(number)}")

    assert response.status_code == status
    assert issue(response)[:2] == ("error", code)


def test_a_patch_without_criteria_does_not_exist(ward, unchanged):
    """1.11"""
    assert patch(ward, "Patient").status_code == 405


# Delete: https://hl7.org/fhir/R4/http.html#3.1.0.7.1


@pytest.mark.parametrize("number", [7, 9])
def test_a_delete_without_a_match_has_nothing_to_do(ward, unchanged, number):
    """10.11: 204, the literal reading of R4, as with an id that never was."""
    response = ward.delete(f"Patient?{query(number)}")

    assert (response.status_code, response.content) == (204, b"")
    assert "ETag" not in response.headers


def test_a_delete_with_one_match_deletes_it(ward):
    """10.11: 204 and the ETag of the deletion."""
    response = ward.delete(f"Patient?{query(1)}")

    assert (response.status_code, response.headers["ETag"]) == (204, 'W/"2"')
    assert ward.get("Patient/a").status_code == 410


def test_a_delete_with_several_matches_is_refused(ward, unchanged, issue):
    """10.11: 412, unless a setting says otherwise."""
    response = ward.delete(f"Patient?{query(2)}")

    assert response.status_code == 412
    assert issue(response)[:2] == ("error", "multiple-matches")


@pytest.fixture
def multiple(ward, repository, settings, make_client, clock):
    """A client of a server with fhir.conditionalDelete = multiple, over the ward."""
    several = replace(settings, conditional_delete="multiple", max_entries=3)
    with Store.open(repository, several, clock=clock) as store:
        yield make_client(several, store)


def test_a_delete_may_take_several(multiple, store):
    """10.11: fhir.conditionalDelete = multiple, all in one commit; there is no ETag of several."""
    response = multiple.delete(f"Patient?{query(2)}")

    assert (response.status_code, response.content) == (204, b"")
    assert "ETag" not in response.headers
    assert [multiple.get(f"Patient/{id}").status_code for id in "abc"] == [200, 410, 410]
    commit = store.snapshot().commit
    assert response.headers["Git-Commit"] == commit.id
    assert (commit.interaction, len(store.snapshot().changes(commit))) == ("delete", 2)


def test_a_delete_of_several_says_how_many(multiple):
    """3.11.5: when asked for an OperationOutcome."""
    response = multiple.delete(f"Patient?{query(2)}", Prefer="return=OperationOutcome")

    assert response.status_code == 200
    assert "2 resources" in response.json["issue"][0]["details"]["text"]


def test_a_delete_of_several_has_a_limit(multiple, issue):
    """10.11: fhir.maxEntries; above it 412, and nothing is deleted."""
    for id in "xy":
        multiple.put(f"Patient/{id}", person(2, id=id))

    response = multiple.delete(f"Patient?{query(2)}")

    assert response.status_code == 412
    assert issue(response)[1] == "multiple-matches"
    assert multiple.get(f"Patient?{query(2)}").json["total"] == 4


def test_a_delete_of_several_heeds_if_match(multiple):
    """10.14: each of them must be at that version, or none is deleted."""
    multiple.put("Patient/c", person(2, id="c"))

    assert multiple.delete(f"Patient?{query(2)}", If_Match='W/"1"').status_code == 412
    assert multiple.get(f"Patient?{query(2)}").json["total"] == 2
    assert multiple.delete(f"Patient?{query(2)}", If_Match='W/"1", W/"2"').status_code == 204


def test_several_deleted_ones_come_back_one_by_one(multiple):
    """10.4: each has its own history."""
    multiple.delete(f"Patient?{query(2)}")

    assert multiple.put("Patient/b", person(2, id="b")).headers["ETag"] == 'W/"3"'
    assert multiple.get("Patient/c/_history").json["total"] == 2


@pytest.mark.parametrize("url", ["Patient", "?identifier=1", ""])
def test_neither_a_type_nor_the_server_is_wiped(multiple, url):
    """10.12, 10.13: 405."""
    assert multiple.delete(url).status_code == 405
    assert multiple.get("Patient").json["total"] == 3


@pytest.mark.parametrize("setting", ["single", "multiple"])
def test_what_is_claimed_is_what_is_done(make_client, settings, setting):
    """13.3: conditionalCreate, -Update, -Delete; referencePolicy."""
    claims = make_client(replace(settings, conditional_delete=setting)).get("metadata").json
    for claim in claims["rest"][0]["resource"]:
        assert (claim["conditionalCreate"], claim["conditionalUpdate"]) == (True, True)
        assert claim["conditionalDelete"] == setting
        assert claim["referencePolicy"] == ["literal", "logical"]


def test_without_search_there_are_no_conditions(repository, settings, make_client, tmp_path):
    """`fhir.search = off`: 501, and not claimed."""
    off = replace(settings, search="off")
    with Store.open(repository, off) as store:
        client = make_client(off, store)
        assert client.post("Patient", person(1), If_None_Exist=query(1)).status_code == 501
        assert client.put(f"Patient?{query(1)}", person(1)).status_code == 501
        assert patch(client, f"Patient?{query(1)}").status_code == 501
        assert client.delete(f"Patient?{query(1)}").status_code == 501
        claim = json.loads(client.get("metadata").text)["rest"][0]["resource"][0]
        assert (claim["conditionalCreate"], claim["conditionalDelete"]) == (False, "not-supported")
        assert client.put("Patient/a", person(1, id="a")).status_code == 201
        assert patch(client, "Patient/a").status_code == 200


NAMES = [
    "identifier",
    "_id",
    "name",
    "birthdate",
    "active",
    "organization.name",
    "_filter",
    "_count",
    "_id:missing",
]
VALUES = ["urn:mrn|1", "urn:mrn|", "|", "", "a,b", "true", "ge2020", "$", "\\", "active eq true", "Patient/a"]
CRITERIA = st.lists(
    st.tuples(st.sampled_from(NAMES) | st.text(max_size=9), st.sampled_from(VALUES) | st.text(max_size=9)),
    max_size=3,
).map(lambda pairs: "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs))


@examples(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CRITERIA, st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]))
def test_no_criteria_do_more_than_they_may(ward, sent, method):
    """8.7, 10.13: whatever is sent, the server has an answer, and at most one resource is written."""
    before = ward.get("_history").json["total"]

    if method == "POST":
        response = ward.post("Patient", person(1), If_None_Exist=sent)
    elif method == "PUT":
        response = ward.put(f"Patient?{sent}", person(1))
    elif method == "PATCH":
        response = patch(ward, f"Patient?{sent}")
    else:
        response = ward.delete(f"Patient?{sent}")

    assert response.status_code < 500, response.text
    written = ward.get("_history").json["total"] - before
    assert written == 0 if response.status_code >= 400 else written <= 1
