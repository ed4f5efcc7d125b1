"""What an access sees of the past in searches: what it would have seen then, and sees now."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from searches import ADA, id_of, reference, resource

from gitstore import Access, Delete, Grant, Settings, Store, Update, View
from gitstore.fhir import json
from gitstore.fhir.ids import ResourceId

UNCHECKED = Settings(durability="off", validation="off", maintenance="off", min_free=1)
RESTRICTED = {"system": "urn:s", "code": "R"}
READ = frozenset("rs")
OF_ANN = Access((Grant(None, READ, patient="ann"),))
UNLABELLED = Access((Grant(None, READ),), withheld=("urn:s|R",))
FINAL = Access((Grant("Observation", READ, query=(("status", "final"),)), Grant("Patient", READ)))
NO_SEARCHES = Access((Grant("Observation", frozenset("r")), Grant("Patient", READ, patient="ann")))

PATIENTS, OBSERVATIONS = ("ann", "ben"), ("a", "b", "c")
observations = st.builds(
    lambda id, of, status, label: resource(
        "Observation",
        id,
        subject=reference(f"Patient/{of}"),
        status=status,
        **({"meta": {"security": [RESTRICTED]}} if label else {}),
    ),
    st.sampled_from(OBSERVATIONS),
    st.sampled_from(PATIENTS),
    st.sampled_from(("final", "amended")),
    st.booleans(),
)
patients = st.builds(
    lambda id, label: resource("Patient", id, **({"meta": {"security": [RESTRICTED]}} if label else {})),
    st.sampled_from(PATIENTS),
    st.booleans(),
)
deletions = st.builds(ResourceId, st.just("Observation"), st.sampled_from(OBSERVATIONS))
steps = st.lists(st.one_of(observations, observations, patients, deletions), min_size=3, max_size=12)


def write(store: Store, one: Any) -> None:
    store.commit([Delete(one) if isinstance(one, ResourceId) else Update(id_of(one), one)], ADA)


def ids(view: View, type: str, *pairs: tuple[str, str]) -> set[str]:
    """What a search finds; the total has to say how many these are."""
    with view.reading() as snapshot:
        page = snapshot.search((type,), pairs)
        assert page.total == len(page.matches)
        return {match.version.resource_id.id for match in page.matches}


def seen_now(store: Store, access: Access, type: str, ids: set[str]) -> set[str]:
    snapshot = store.snapshot(access=access)
    return {id for id in ids if snapshot.newest(ResourceId(type, id)) is not None}


@pytest.mark.parametrize("access", [OF_ANN, UNLABELLED, FINAL], ids=["compartment", "labels", "query"])
def test_what_is_seen_of_the_past_was_seen_then_and_is_seen_now(
    new_record: Callable[[], str], access: Access
) -> None:
    """Matches, totals, and what chains and _has look at on their way; looked at again after each write."""

    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )
    @given(steps, steps)
    def run(before: list[Any], after: list[Any]) -> None:
        ticks = itertools.count(1_767_268_810_000_000, 10_000_000)
        with Store.open(new_record(), UNCHECKED, clock=lambda: next(ticks)) as store:
            for one in before:
                write(store, one)
            at = store.snapshot().commit
            live = View(store, access)
            then = {type: ids(live, type) for type in ("Observation", "Patient")}
            with store.reading() as snapshot:
                contents = {
                    version.resource_id.id: json.loads_trusted(snapshot.body(version))
                    for version in snapshot.resources("Observation")
                }
            for one in after:
                write(store, one)
                past = View(store.past(at, None), access)
                expected = {
                    type: found & seen_now(store, access, type, found) for type, found in then.items()
                }
                for type, found in expected.items():
                    assert ids(past, type) == found
                final = {id for id in expected["Observation"] if contents[id]["status"] == "final"}
                having = {contents[id]["subject"]["reference"].partition("/")[2] for id in final}
                assert (
                    ids(past, "Patient", ("_has:Observation:patient:status", "final"))
                    == having & expected["Patient"]
                )
                chained = {
                    id
                    for id in expected["Observation"]
                    if contents[id]["subject"]["reference"].partition("/")[2] in expected["Patient"]
                }
                assert ids(past, "Observation", ("patient._id", "ann,ben")) == chained

    run()


def test_included_and_read_resources_are_judged_by_the_letter_for_reading(store: Store) -> None:
    """What may be read and not searched can be brought along. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""
    write(store, resource("Patient", "ann"))
    for id in ("a", "b"):
        write(store, resource("Observation", id, subject=reference("Patient/ann")))
    at = store.snapshot().commit
    write(store, resource("Observation", "b", subject=reference("Patient/ben")))
    past = View(store.past(at, None), NO_SEARCHES)

    with past.reading() as snapshot:
        page = snapshot.search(("Patient",), [("_revinclude", "Observation:subject")])

    assert {version.resource_id.id for version in page.included} == {"a", "b"}


def test_what_nobody_may_see_now_is_hidden_from_labels_and_everything(store: Store) -> None:
    """$meta of a type, $everything: they look through the same index."""
    write(store, resource("Patient", "ann"))
    tagged = {"tag": [{"code": "x"}]}
    write(store, resource("Observation", "a", subject=reference("Patient/ann"), meta=tagged))
    at = store.snapshot().commit
    view = View(store.past(at, None), UNLABELLED)
    with view.reading() as snapshot:
        assert snapshot.labels("Observation") == {"tag": [{"code": "x"}]}

    write(
        store,
        resource(
            "Observation", "a", subject=reference("Patient/ann"), meta=tagged | {"security": [RESTRICTED]}
        ),
    )

    with view.reading() as snapshot:
        assert snapshot.labels("Observation") == {}
        assert snapshot.newest(ResourceId("Observation", "a")) is None
    assert ids(View(store.past(at, None)), "Observation") == {"a"}
