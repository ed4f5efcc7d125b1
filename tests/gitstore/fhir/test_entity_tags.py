"""Entity tags as FHIR uses them. https://hl7.org/fhir/R4/http.html#concurrency"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.errors import Invalid
from gitstore.fhir.conditions import format_etag, version_tags

TAGS = {
    # what the header says: the versions it names
    'W/"3"': {"3"},
    '"3"': {"3"},
    "3": {"3"},
    'W/"3", "4"': {"3", "4"},
    'W/"3",W/"3"': {"3"},
    "3,4": {"3", "4"},
    ' \tW/"3" ': {"3"},
    ', ,"3",,"4", ': {"3", "4"},
    "*": {"*"},
    " * ": {"*"},
    'W/"abc-1.2"': {"abc-1.2"},
    '"01"': {"01"},
    '"3-gzip!"': {"3-gzip!"},
    '"\xe9"': {"\xe9"},
}

MALFORMED = [
    "",
    " ",
    ",",
    '"',
    '""',
    'W/""',
    'W/"3',
    'W/3"',
    "W/3",
    'w/"3"',
    'W/ "3"',
    "'3'",
    '"3" "4"',
    '"3";"4"',
    '"a b"',
    '"a\nb"',
    "3 4",
    "3/4",
    "a" * 65,
    '*, "3"',
    '"3", *',
    "**",
    '"*"',
    'W/"*"',
    "٣",
]


@pytest.mark.parametrize(("header", "expected"), TAGS.items())
def test_weak_strong_bare_and_listed_tags_name_versions(header, expected):
    assert version_tags(header) == expected


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_condition_is_refused(header):
    """It must never be passed over, or the write would happen unconditionally; nor may `"*"` become `*`."""
    with pytest.raises(Invalid) as refused:
        version_tags(header)

    [issue] = refused.value.issues
    assert (issue.severity, issue.code) == ("error", "value")
    assert header[:80] in issue.text


@given(st.integers(min_value=1))
def test_version_tags_undoes_format_etag(version_id):
    assert format_etag(version_id) == f'W/"{version_id}"'
    assert version_tags(format_etag(version_id)) == {str(version_id)}


@given(st.text('W/"*, 3a\t') | st.text())
def test_any_text_is_a_set_of_tags_or_invalid(header):
    try:
        tags = version_tags(header)
    except Invalid:
        return
    assert tags
    assert ("*" in tags) == (header.strip(" \t") == "*")
