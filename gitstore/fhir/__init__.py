"""FHIR R4 as functions on dicts. Knows no git, no database, no HTTP."""

from typing import Any, TypeAlias

Resource: TypeAlias = dict[str, Any]
"""A FHIR resource as its JSON object; numbers are int or `json.Number`."""
