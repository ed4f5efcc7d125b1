"""Whatever is asked for over HTTP in whatever order: status, version, body and history are those of a plain dictionary.

`GIT_FHIR_MODEL_EXAMPLES=2000 pytest tests/test_http_model.py` is the documented run.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from api.app import create_app
from gitstore import Settings, Store, init
from tests.api.conftest import Client
from tests.conftest import copy_record
from tests.http_model import (
    BASE,
    FAMILIES,
    IDS,
    NUMBERS,
    ORDER,
    PATCHES,
    TYPES,
    Answer,
    Content,
    Expected,
    Model,
    Name,
    RefusedError,
    Step,
    answer_in,
    answer_of,
    attempt,
    entry,
    refused_before,
    request,
)

EXAMPLES = os.environ.get("GIT_FHIR_MODEL_EXAMPLES")
SETTINGS = Settings(durability="off", validation="off")
START = 1_767_268_800_000_000

# The stories

TYPE, ID, NUMBER = st.sampled_from(TYPES), st.sampled_from(IDS), st.sampled_from(NUMBERS)
TARGET = st.one_of(
    st.fixed_dictionaries({"id": ID}),
    st.fixed_dictionaries({"id": ID}),
    st.fixed_dictionaries({"where": NUMBER, "given": st.one_of(st.none(), st.none(), ID)}),
)
TAG = st.sampled_from([None, None, None, "current", "1", "2", "9", "*"])
BODY = {"number": NUMBER, "family": st.sampled_from(FAMILIES), "active": st.sampled_from([None, True, False])}


def steps_of(kinds: Sequence[str], where: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]) -> Any:
    drawn = st.fixed_dictionaries({"kind": st.sampled_from(kinds), "type": TYPE, **BODY, **more})
    return st.tuples(drawn, where).map(lambda both: Step(**both[0], **both[1]))


CREATE = steps_of(["create"], st.fixed_dictionaries({"where": st.one_of(st.none(), NUMBER)}))
UPDATE = steps_of(["update"], TARGET, tag=TAG, fresh=st.sampled_from([False, False, False, True]))
CHANGE = steps_of(["delete", *PATCHES], TARGET, tag=TAG)
READ = steps_of(["read", "vread"], st.fixed_dictionaries({"id": ID}), tag=TAG)
LIST = steps_of(["history", "search"], st.fixed_dictionaries({"id": ID}))
WRITE = st.one_of(CREATE, UPDATE, UPDATE, CHANGE)
STEP = st.one_of(WRITE, WRITE, READ, LIST)


@st.composite
def entries(draw: st.DrawFn) -> list[Step]:
    """Steps of any kind, or writes that get in one another's way: to one type, by the same criteria."""
    if draw(st.booleans()):
        return draw(st.lists(STEP, max_size=5))
    type, number = draw(TYPE), draw(NUMBER)
    steps = draw(st.lists(st.one_of(CREATE, UPDATE, CHANGE), min_size=2, max_size=4))
    return [replace(each, type=type, where=each.where and number, number=number, tag=None) for each in steps]


BUNDLE = entries()


class Machine(RuleBasedStateMachine):
    new_record: Any

    @initialize()
    def start(self) -> None:
        clock, ids = itertools.count(START, 1_000), itertools.count(1)
        self.store = Store.open(
            self.new_record(), SETTINGS, clock=lambda: next(clock), new_id=lambda: f"new-{next(ids)}"
        )
        self.client = Client(create_app(self.store, SETTINGS))
        self.model = Model()
        self.bodies: dict[tuple[Name, int], Content] = {}
        self.agreed = True

    def aimed(self, step: Step) -> Step:
        """With the number of the version that is current, where the story asks for that."""
        self.agreed = False
        if step.tag != "current":
            return step
        found = [Name(step.type, step.id)] if step.id else self.model.having(step.type, step.where)
        return replace(step, tag=str(self.model.number(found[0]) if found else 1))

    # What is done

    @rule(step=STEP)
    def alone(self, step: Step) -> None:
        step = self.aimed(step)
        headers, body = request(step)
        answer = answer_of(self.client.request(step.method, step.url, body, **headers))
        self.compare(step, answer, attempt(self.model.run, step, answer.made))
        self.compare_history()

    @rule(steps=BUNDLE)
    def batch(self, steps: list[Step]) -> None:
        steps = [self.aimed(step) for step in steps]
        before = copy.deepcopy(self.model)
        answers = [answer_in(each) for each in self.send("batch", steps).json.get("entry", [])]
        assert len(answers) == len(steps)
        pairs = zip(steps, answers, strict=True)
        for step, answer in sorted(pairs, key=lambda pair: ORDER.index(pair[0].method)):
            model = before if refused_before(before, step, answer) else self.model
            self.compare(step, answer, attempt(model.run, step, answer.made))
        self.compare_history()

    @rule(steps=BUNDLE)
    def transaction(self, steps: list[Step]) -> None:
        steps = [self.aimed(step) for step in steps]
        response = self.send("transaction", steps)
        draft = copy.deepcopy(self.model)
        if response.status_code == 200:
            answers = [answer_in(each) for each in response.json.get("entry", [])]
            expected = draft.transaction(steps, [answer.made for answer in answers])
            assert not [one for one in expected if isinstance(one, RefusedError)], (steps, expected)
            self.model = draft
            for step, answer, one in zip(steps, answers, expected, strict=True):
                self.compare(step, answer, one)
        else:
            expected = draft.transaction(steps, [f"nobody-{place}" for place in range(len(steps))])
            refusals = {one.status for one in expected if isinstance(one, RefusedError)}
            assert refusals, (steps, response.text)
            # Of several reasons to refuse it, which one is told is the server's choice.
            alone = [attempt(copy.deepcopy(self.model).run, each, "nobody") for each in steps]
            refusals |= {one.status for one in alone if isinstance(one, RefusedError)}
            assert response.status_code in refusals, (response.text, refusals)
            assert response.json["resourceType"] == "OperationOutcome"
        self.compare_history()

    def send(self, kind: str, steps: list[Step]) -> Any:
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry(step) for step in steps]}
        if not steps:
            del bundle["entry"]
        return self.client.post("", bundle, Prefer="return=representation")

    # What must hold

    def compare(self, step: Step, answer: Answer, expected: Expected | RefusedError) -> None:
        assert answer.status == expected.status, (step, answer, expected)
        if isinstance(expected, RefusedError):
            assert answer.resource is not None, (step, answer)
            assert answer.resource["resourceType"] == "OperationOutcome"
            return
        if expected.listed is not None:
            assert answer.resource is not None
            self.compare_list(step, answer.resource, expected.listed)
            return
        name, number = expected.name, expected.number
        assert answer.etag == (f'W/"{number}"' if name else None), (step, answer)
        if name is None or answer.status in (204, 304):
            assert answer.resource is None, (step, answer)
            return
        if step.kind == "create" or answer.status == 201:
            assert answer.location == f"{BASE}/{name.type}/{name.id}/_history/{number}"
        self.compare_body(name, number, answer.resource)

    def compare_body(self, name: Name, number: int, body: Content | None) -> None:
        """It is what the model has, and what was seen of this version before."""
        content = self.model.content(name, number)
        assert (body is None) == (content is None), (name, number)
        if body is None or content is None:
            return
        assert self.bodies.setdefault((name, number), body) == body
        meta = body["meta"]
        assert meta == {"versionId": str(number), "lastUpdated": meta["lastUpdated"]}
        assert {key: value for key, value in body.items() if key != "meta"} == content

    def compare_list(self, step: Step, bundle: Content, expected: list[tuple[Name, int]]) -> None:
        assert bundle["total"] == len(expected), (step, bundle)
        entries = bundle.get("entry", [])
        found = [tuple(each["fullUrl"].removeprefix(f"{BASE}/").split("/")) for each in entries]
        if step.kind == "search":
            entries = [each for _, each in sorted(zip(found, entries, strict=True), key=lambda pair: pair[0])]
        for each, (name, number) in zip(entries, expected, strict=True):
            assert each["fullUrl"] == f"{BASE}/{name.type}/{name.id}"
            self.compare_body(name, number, each.get("resource"))

    def compare_history(self) -> None:
        """Of the whole record: nothing more was written, and nothing less."""
        bundle = self.client.get("_history?_count=1000").json
        entries, history = bundle.get("entry", []), self.model.history
        assert bundle["total"] == len(history)
        # In one commit the order of versions is the record's own.
        found = sorted(
            (*each["fullUrl"].split("/")[-2:], each["response"]["etag"], each["request"]["method"])
            for each in entries
        )
        assert found == sorted((*name, f'W/"{number}"', method) for name, number, method in history)
        times = [each["response"]["lastModified"] for each in entries]
        assert times == sorted(times, reverse=True)
        for each in entries:
            name, tag = Name(*each["fullUrl"].split("/")[-2:]), each["response"]["etag"]
            self.compare_body(name, int(tag[3:-1]), each.get("resource"))
        self.agreed = True

    def teardown(self) -> None:
        """A last look at everything, unless a difference was found before."""
        if getattr(self, "agreed", False):
            for step in self.everything():
                self.compare(step, answer_of(self.client.get(step.url)), attempt(self.model.read, step))
            assert list(self.store.verify()) == []
        if hasattr(self, "store"):
            self.store.close()

    def everything(self) -> Iterator[Step]:
        """Each question about each resource that there ever was."""
        for name in [*self.model.versions, Name("Patient", "never")]:
            for kind in ("read", "history"):
                yield Step(kind, *name)
            for number in range(1, self.model.number(name) + 2):
                yield Step("vread", *name, number=str(number))
        for type, number, family in itertools.product(TYPES, NUMBERS, FAMILIES):
            yield Step("search", type, number=number, family=family)


@pytest.fixture
def new_record(tmp_path):
    empty = tmp_path / "empty.git"
    init(empty, clock=lambda: START - 60_000_000)
    Store.open(empty, SETTINGS).close()
    places = itertools.count(1)
    return lambda: copy_record(empty, tmp_path / f"record-{next(places)}.git")


def test_any_story_is_answered_as_a_dictionary_would(new_record):
    """Alone, in batches and in transactions. https://hl7.org/fhir/R4/http.html"""

    class Bound(Machine):
        pass

    Bound.new_record = staticmethod(new_record)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Bound,
        settings=settings(
            deadline=None,
            max_examples=int(EXAMPLES or 25),
            stateful_step_count=15,
            derandomize=EXAMPLES is None,
            suppress_health_check=list(HealthCheck),
        ),
    )
