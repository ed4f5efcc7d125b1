"""How codes are compared: which code systems mind upper and lower case.

https://hl7.org/fhir/R4/search.html#token: when in doubt, case does not matter, since leaving a resource out does more
harm than one too many.
"""

from __future__ import annotations

import functools
from typing import Final

from gitstore.fhir import definitions

UCUM: Final = "http://unitsofmeasure.org"
MEDIA_TYPES: Final = "urn:ietf:bcp:13"
MEDIA_TYPES_VALUE_SET: Final = "http://hl7.org/fhir/ValueSet/mimetypes"


@functools.lru_cache(maxsize=4096)
def minds_case(system: str) -> bool:
    """Whether `Mg` and `mg` are two codes of the system; so it is where its own definition in R4 says it."""
    return system == UCUM or definitions.case_sensitive(system) is True


def term_code(system: str, code: str) -> str:
    """A code as the index holds it: folded, unless the system minds case."""
    return code if minds_case(system) else code.casefold()


def type_system(system: str, code: str) -> str:
    """What stands for the system in the rows for :of-type, by system and code of an Identifier.type."""
    return f"{system}|{term_code(system, code)}"
