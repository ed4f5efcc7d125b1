"""PATCH: documents that say what to change in a resource, and what becomes of the resource.

    >>> birthday = parse("application/merge-patch+json", b'{"birthDate": "1815-12-10"}')
    >>> birthday.apply({"resourceType": "Patient", "id": "ada"})
    {'resourceType': 'Patient', 'id': 'ada', 'birthDate': '1815-12-10'}

Every kind keeps the same promises; they are in `result`. https://hl7.org/fhir/R4/http.html#patch
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gitstore.errors import Invalid, Issue, NotSupported
from gitstore.fhir import Resource, json, xml
from gitstore.fhir.patch import fhirpath_patch, json_patch, merge_patch, xml_patch
from gitstore.fhir.patch.narrative import narrative_after
from gitstore.fhir.xml_elements import shown

__all__ = ["MEDIA_TYPES", "Patch", "narrative_after", "of_binary", "of_parameters", "parse"]

MEDIA_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/xml-patch+xml",
    "application/fhir+json",
    "application/fhir+xml",
)
"""What Accept-Patch says; `parse` also knows the general names of JSON and XML. RFC 5789, section 3.1"""


class Patch(Protocol):
    """A patch document that was understood. It can be applied any number of times."""

    def apply(self, resource: Resource) -> Resource:
        """The resource as the patch makes it; the argument stays as it is, and all operations are done or none.

        The result may share parts with the argument. It is not validated. Raises Unprocessable for what can't
        be done to this resource, and TooLarge for work without proportion.
        """


def parse(media_type: str, body: bytes) -> Patch:
    """The patch in the body of a request; parameters of the media type say nothing more.

    Raises NotSupported for other media types, and for an array as `application/json`, which could be anything;
    Invalid for what is malformed, TooLarge for too many operations.
    """
    name = media_type.partition(";")[0].strip().lower()
    reader = _READERS.get(name)
    if reader is None:
        raise NotSupported(f"A patch can't be `{shown(name)}`; expected one of {', '.join(MEDIA_TYPES)}.")
    return reader(body)


def of_parameters(resource: Resource) -> Patch:
    """The FHIRPath Patch that an entry of a Bundle holds. Raises as `parse` does.

    https://hl7.org/fhir/R4/fhirpatch.html
    """
    return fhirpath_patch.parse(resource)


def of_binary(resource: Resource) -> Patch:
    """The JSON Patch, merge patch or XML Patch that an entry of a Bundle holds as Binary. Raises as `parse` does.

    FHIR has this from R5 on: https://hl7.org/fhir/R5/http.html#jsonpatch-transaction
    """
    type, data = resource.get("contentType"), resource.get("data")
    name = type.partition(";")[0].strip().lower() if isinstance(type, str) else ""
    if resource.get("resourceType") != "Binary" or name not in _IN_BINARY:
        text = f"A patch in a Binary must have as contentType one of {', '.join(sorted(_IN_BINARY))}."
        raise Invalid(Issue("error", "value", text, "Binary.contentType"))
    if not isinstance(data, str):
        raise Invalid(
            Issue("error", "required", "The Binary has no data; a patch is expected.", "Binary.data")
        )
    try:
        body = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        text = f"The data of the Binary are not base64: {error}."
        raise Invalid(Issue("error", "value", text, "Binary.data")) from error
    return _READERS[name](body)


def _json_parameters(body: bytes) -> Patch:
    return fhirpath_patch.parse(json.loads(body))


def _xml_parameters(body: bytes) -> Patch:
    return fhirpath_patch.parse(xml.loads(body))


def _any_json(body: bytes) -> Patch:
    """Clients that can't be told apart by the media type: a widely used one sends merge patches so."""
    document: Any = json.loads(body)
    if isinstance(document, list):
        raise NotSupported("An array is no patch as application/json; is it application/json-patch+json?")
    if isinstance(document, dict) and document.get("resourceType") == "Parameters":
        return fhirpath_patch.parse(document)
    return merge_patch.parse(document)


_READERS: Mapping[str, Callable[[bytes], Patch]] = {
    "application/json-patch+json": lambda body: json_patch.parse(json.loads(body)),
    "application/merge-patch+json": lambda body: merge_patch.parse(json.loads(body)),
    "application/xml-patch+xml": xml_patch.parse,
    "application/fhir+json": _json_parameters,
    "application/fhir+xml": _xml_parameters,
    "application/json": _any_json,
    "text/json": _any_json,
    "application/xml": _xml_parameters,
    "text/xml": _xml_parameters,
}
_IN_BINARY = frozenset(
    {"application/json-patch+json", "application/merge-patch+json", "application/xml-patch+xml"}
)
