"""OperationOutcome, which tells a client what went wrong. https://hl7.org/fhir/R4/operationoutcome.html"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gitstore.errors import Issue
from gitstore.fhir import Resource


def operation_outcome(issues: Sequence[Issue]) -> Resource:
    """The issues as a resource; there must be at least one, because OperationOutcome.issue is 1..*.

    details.text and diagnostics are both always there, since some clients show only the one and some only the
    other.
    """
    if not issues:
        raise ValueError("an OperationOutcome has at least one issue")
    return {"resourceType": "OperationOutcome", "issue": [_issue(issue) for issue in issues]}


def _issue(issue: Issue) -> dict[str, Any]:
    element: dict[str, Any] = {
        "severity": issue.severity,
        "code": issue.code,
        "details": {"text": issue.text},
        "diagnostics": issue.diagnostics or issue.text,
    }
    if issue.expression:
        element["expression"] = [issue.expression]
    return element
