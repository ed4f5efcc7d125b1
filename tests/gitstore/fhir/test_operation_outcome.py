"""OperationOutcome. https://hl7.org/fhir/R4/operationoutcome.html"""

import pytest

from gitstore.errors import Invalid, Issue
from gitstore.fhir.outcome import operation_outcome


def test_an_issue_tells_everything_it_knows():
    outcome = operation_outcome([Issue("warning", "value", "What is wrong.", "name[0]", "line 3")])

    assert outcome == {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "warning",
                "code": "value",
                "details": {"text": "What is wrong."},
                "diagnostics": "line 3",
                "expression": ["name[0]"],
            }
        ],
    }


def test_details_and_diagnostics_are_always_there():
    """Some clients show only the one, some only the other."""
    [issue] = operation_outcome(Invalid("What is wrong.").issues)["issue"]

    assert (issue["details"], issue["diagnostics"]) == ({"text": "What is wrong."}, "What is wrong.")
    assert "expression" not in issue


def test_issues_stay_in_their_order():
    outcome = operation_outcome([Issue("error", "invalid", text) for text in ("one", "two", "three")])

    assert [issue["diagnostics"] for issue in outcome["issue"]] == ["one", "two", "three"]


def test_an_outcome_without_issues_is_none():
    """OperationOutcome.issue is 1..*."""
    with pytest.raises(ValueError, match="at least one"):
        operation_outcome([])
