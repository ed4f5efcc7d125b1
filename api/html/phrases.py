"""FHIR's data types as one would say them: a name, an address, a code, an amount. https://hl7.org/fhir/R4/datatypes.html"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from gitstore.fhir.json import Number

_SYSTEMS = {
    "http://loinc.org": "LOINC",
    "http://snomed.info/sct": "SNOMED CT",
    "http://unitsofmeasure.org": "UCUM",
    "http://hl7.org/fhir/sid/icd-10": "ICD-10",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://www.whocc.no/atc": "ATC",
}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)(?:\.0+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_CODING = frozenset({"system", "code", "display"})


class Phrase(Struct, frozen=True):
    """A value in words, a note beside it, and the note in full. `target` is a reference, `web` a place elsewhere."""

    text: str
    note: str = ""
    title: str = ""
    target: str = ""
    web: str = ""


class Parts:
    """The elements of a value; `used` are the names of those that were said. What has another form than FHIR's isn't."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._value = value
        self.used: set[str] = set()

    def one(self, name: str) -> str:
        """A primitive, "" where there is none."""
        value = self._value.get(name)
        if value is None or isinstance(value, dict | list):
            return ""
        self.used.add(name)
        return primitive(value)

    def many(self, name: str) -> list[str]:
        """A list of primitives."""
        value = self._value.get(name)
        if not isinstance(value, list) or any(
            each is None or isinstance(each, dict | list) for each in value
        ):
            return []
        self.used.add(name)
        return [primitive(each) for each in value]

    def within(self, name: str, phrase: Callable[[Parts], Phrase]) -> str:
        """The words for a value in this one, where they say all of it; else "", and it isn't used."""
        value = self._value.get(name)
        if not isinstance(value, dict):
            return ""
        parts = Parts(value)
        said = phrase(parts)
        if parts.used != set(value):
            return ""
        self.used.add(name)
        return f"{said.text} ({said.note})" if said.note else said.text

    def objects(self, name: str, known: frozenset[str]) -> list[Parts]:
        """A list of values that have none but known elements, all of them primitives."""
        value = self._value.get(name)
        if not isinstance(value, list) or not all(_is_flat(each, known) for each in value):
            return []
        self.used.add(name)
        return [Parts(each) for each in value]


def primitive(value: object) -> str:
    """A primitive of JSON as a text: numbers with the digits that they have."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.lexeme if isinstance(value, Number) else str(value)


def moment(text: str) -> str:
    """A date with a time, in parts that can stand below one another: `2026-06-29 09:57:00 +01:00`."""
    return _MOMENT.sub(r"\1 \2 \3", text).removesuffix(" Z") + (" UTC" if text.endswith("Z") else "")


def system_name(system: str) -> str:
    """What a code system is called, or the end of its URL."""
    return _SYSTEMS.get(system) or system.rstrip("/").rpartition("/")[2].rpartition(":")[2]


def _is_flat(value: object, known: frozenset[str]) -> bool:
    return isinstance(value, dict) and all(
        name in known and not isinstance(each, dict | list | None) for name, each in value.items()
    )


def _joined(*parts: str, by: str = " ") -> str:
    return by.join(part for part in parts if part)


def _code(parts: Parts) -> tuple[str, str, str]:
    """Display, code with its system, and that in full."""
    system, code, display = parts.one("system"), parts.one("code"), parts.one("display")
    return display, _joined(system_name(system), code), _joined(system, code, by="|")


def coding(parts: Parts) -> Phrase:
    display, short, full = _code(parts)
    return Phrase(display or short, short if display else "", full)


def concept(parts: Parts) -> Phrase:
    codes = [_code(each) for each in parts.objects("coding", _CODING)]
    text = parts.one("text") or next((display for display, _, _ in codes if display), "")
    notes = [_joined(short, display if display != text else "") for display, short, _ in codes]
    full = "\n".join(title for _, _, title in codes)
    if not text and notes:
        return Phrase(notes[0], ", ".join(notes[1:]), full)
    return Phrase(text, ", ".join(filter(None, notes)), full)


def reference(parts: Parts) -> Phrase:
    target, display, type = parts.one("reference"), parts.one("display"), parts.one("type")
    who = parts.within("identifier", identifier)
    text = display or target or who or type
    said = {text, *([type] if target.startswith(f"{type}/") else [])}
    return Phrase(
        text, ", ".join(each for each in (target, who, type) if each and each not in said), target=target
    )


def identifier(parts: Parts) -> Phrase:
    system = parts.one("system")
    kind = parts.within("type", concept)
    notes = (kind, parts.one("use"), system_name(system), parts.within("period", period))
    return Phrase(parts.one("value") or "(no value)", _joined(*notes, by=", "), system)


def human_name(parts: Parts) -> Phrase:
    text, given, family = parts.one("text"), parts.many("given"), parts.one("family")
    built = _joined(*parts.many("prefix"), *given, family, *parts.many("suffix"))
    notes = (built if text and built != text else "", parts.one("use"), parts.within("period", period))
    return Phrase(text or built, _joined(*notes, by=", "))


def address(parts: Parts) -> Phrase:
    text = parts.one("text")
    city = _joined(parts.one("postalCode"), parts.one("city"))
    rest = (parts.one("district"), parts.one("state"), parts.one("country"))
    built = _joined(*parts.many("line"), city, *rest, by=", ")
    if text:
        built = "" if built == text else built
    notes = (
        built if text else "",
        parts.one("use"),
        parts.one("type"),
        parts.within("period", period),
    )
    return Phrase(text or built, _joined(*notes, by=", "))


def contact(parts: Parts) -> Phrase:
    rank = parts.one("rank")
    notes = (
        parts.one("system"),
        parts.one("use"),
        rank and f"rank {rank}",
        parts.within("period", period),
    )
    return Phrase(parts.one("value") or "(no value)", _joined(*notes, by=", "))


def period(parts: Parts) -> Phrase:
    start, end = moment(parts.one("start")), moment(parts.one("end"))
    return Phrase(f"{start} – {end}" if start and end else f"since {start}" if start else f"until {end}")


def quantity(parts: Parts) -> Phrase:
    value, unit, code = parts.one("value"), parts.one("unit"), parts.one("code")
    system = parts.one("system")
    text = _joined(parts.one("comparator"), value, unit or code)
    note = _joined(system_name(system), code) if code and unit and code != unit else ""
    return Phrase(text, note, _joined(system, code, by="|"))


def money(parts: Parts) -> Phrase:
    return Phrase(_joined(parts.one("value"), parts.one("currency")))


def ratio(parts: Parts) -> Phrase:
    return Phrase(
        _joined(parts.within("numerator", quantity), parts.within("denominator", quantity), by=" : ")
    )


def spread(parts: Parts) -> Phrase:
    return Phrase(f"{parts.within('low', quantity) or '…'} – {parts.within('high', quantity) or '…'}")


def annotation(parts: Parts) -> Phrase:
    who = parts.one("authorString") or parts.within("authorReference", reference)
    return Phrase(parts.one("text"), _joined(who, moment(parts.one("time")), by=", "))


def attachment(parts: Parts) -> Phrase:
    title, url, kind = parts.one("title"), parts.one("url"), parts.one("contentType")
    text = title or url or kind or "attachment"
    notes = (kind if kind != text else "", url if url != text else "", moment(parts.one("creation")))
    return Phrase(text, _joined(*notes, by=", "), target=url, web=url)


PHRASES: Mapping[str, Callable[[Parts], Phrase]] = {
    "Address": address,
    "Age": quantity,
    "Annotation": annotation,
    "Attachment": attachment,
    "CodeableConcept": concept,
    "Coding": coding,
    "ContactPoint": contact,
    "Count": quantity,
    "Distance": quantity,
    "Duration": quantity,
    "HumanName": human_name,
    "Identifier": identifier,
    "Money": money,
    "Period": period,
    "Quantity": quantity,
    "Range": spread,
    "Ratio": ratio,
    "Reference": reference,
}
"""By data type, for those that are more than the list of their elements."""
