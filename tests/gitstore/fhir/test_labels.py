"""Labels of resources: what adding and removing them comes to. https://hl7.org/fhir/R4/resource-operation-meta-add.html"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir.labels import LABELS, added, labels_of, relabelled, removed

VALUES = st.one_of(st.none(), st.sampled_from(["a", "b"]), st.lists(st.just("x"), max_size=1))
TAGS = st.fixed_dictionaries({}, optional={"system": VALUES, "code": VALUES, "display": st.text(max_size=2)})
LISTS = st.lists(st.one_of(TAGS, st.sampled_from(["http://p", "http://q"])), max_size=5)


def name(label):
    """What makes a label the same."""
    return repr((label.get("system"), label.get("code")) if isinstance(label, dict) else label)


def names(labels):
    return {name(label) for label in labels}


@given(LISTS, LISTS)
def test_what_is_added_is_there_once(there, given):
    """What was there stays in its place, as it was written, and nothing is added that is there already."""
    found = added(there, given)

    assert found[: len(there)] == there
    assert names(found) == names(there) | names(given)
    assert len(found) - len(there) == len(names(given) - names(there))
    assert added(found, given) == found


@given(LISTS, LISTS)
def test_what_is_removed_is_gone(there, given):
    """Whatever version or display is given; what remains stays in its order."""
    found = removed(there, given)

    assert names(found) == names(there) - names(given)
    assert found == [label for label in there if name(label) not in names(given)]
    assert removed(added(there, given), given) == found


@given(st.dictionaries(st.sampled_from(LABELS), st.lists(TAGS, max_size=3)))
def test_a_resource_keeps_the_rest(lists):
    """The given resource is not touched; a list that is left empty goes, as FHIR has none."""
    meta = {"versionId": "1", "source": "#x", **lists}
    resource = {"resourceType": "Patient", "meta": dict(meta), "active": True}

    emptied = relabelled(resource, lists, removed)

    assert resource["meta"] == meta
    assert emptied["active"] is True
    assert emptied["meta"] == {"versionId": "1", "source": "#x"}


def test_only_labels_of_the_meta_count():
    """Its source and version are not what the operation is about."""
    meta = {"versionId": "9", "source": "#y", "profile": ["http://p"]}

    parameters = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}

    assert labels_of(parameters) == {"profile": ["http://p"]}
