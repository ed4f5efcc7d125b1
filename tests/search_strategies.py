"""Small records and questions about them for hypothesis: few values, so that questions have answers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from searches import concept, reference, resource

from gitstore.fhir.json import Number

LOINC, LOCAL, UCUM = "http://loinc.org", "http://acme.org/codes", "http://unitsofmeasure.org"
IDS = ("a", "b", "c", "d", "e")
NAMES = (
    "Müller",
    "Mu\u0308ller",
    "MULLER",
    "Mull, er",
    "O'Neil",
    "oneil",
    "Straße",
    "Strasse",
    "Ng",
    "Ng Ng",
    "a\\b",
    "100% $|_",
)
CODES = ("1", "2", "a", "A", "x,y")
SYSTEMS = (LOINC, LOCAL, UCUM, None)
DATES = (
    "2019",
    "2020",
    "2020-02",
    "2020-02-29",
    "2020-03-01",
    "2020-02-29T12:00:00Z",
    "2020-02-29T12:00:00+02:00",
    "2020-03-01T00:00:00-05:00",
    "2020-02-29T23:59:59.999Z",
    "2016-12-31T23:59:60Z",
    "2017-01-01",
)
DAYS = tuple(date for date in DATES if len(date) <= 10)
NUMBERS = ("5", "5.0", "5.4", "5.40", "5.45", "-1", "0", "100", "0.054", "37", "98.6")
UNITS = (
    ("mg", UCUM),
    ("g", UCUM),
    ("mg/dL", UCUM),
    ("g/L", UCUM),
    ("Cel", UCUM),
    ("[degF]", UCUM),
    ("mg", LOCAL),
    None,
)
URLS = (
    "http://acme.org/vs",
    "http://acme.org/vs/1",
    "http://acme.org/vs/12",
    "http://acme.org/VS",
    "urn:oid:1.2",
)
GENDERS = ("male", "female", "other")


def some(**elements: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of any of these elements."""
    return st.fixed_dictionaries({}, optional=elements)


def few(one: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(one, min_size=1, max_size=most)


def to(*types: str) -> st.SearchStrategy[dict[str, Any]]:
    """A Reference to a resource that may be there or not, or elsewhere."""
    here = [f"{type}/{id}" for type in types for id in (*IDS, *IDS, "z")]
    return st.sampled_from([*here, f"http://other.org/fhir/{types[0]}/a"]).map(reference)


def codeable() -> st.SearchStrategy[dict[str, Any]]:
    one = st.builds(
        lambda system, code: f"{system or ''}|{code}", st.sampled_from(SYSTEMS), st.sampled_from(CODES)
    )
    texts = st.none() | st.sampled_from(NAMES)
    return st.builds(lambda codings, text: concept(*codings, text=text), few(one), texts)


def quantity() -> st.SearchStrategy[dict[str, Any]]:
    def make(number: str, unit: tuple[str, str] | None, text: str | None) -> dict[str, Any]:
        made: dict[str, Any] = {"value": Number(number)}
        if text:
            made["unit"] = text
        return made | ({"system": unit[1], "code": unit[0]} if unit else {})

    return st.builds(
        make, st.sampled_from(NUMBERS), st.sampled_from(UNITS), st.sampled_from((None, "mg", "MG"))
    )


names = st.sampled_from(NAMES)
dates, days = st.sampled_from(DATES), st.sampled_from(DAYS)
period = st.fixed_dictionaries({"start": dates}, optional={"end": st.just("2021")}) | st.fixed_dictionaries(
    {"end": dates}
)
human_name = some(family=names, given=few(names), use=st.just("usual"))
identifier = st.fixed_dictionaries(
    {"value": st.sampled_from(CODES)}, optional={"system": st.sampled_from((LOINC, LOCAL))}
)
meta = some(
    tag=few(st.fixed_dictionaries({"code": st.sampled_from(CODES)}, optional={"system": st.just(LOCAL)})),
    profile=few(st.sampled_from(URLS)),
)
component = st.fixed_dictionaries(
    {"code": codeable()}, optional={"valueQuantity": quantity()}
) | st.fixed_dictionaries({"code": codeable(), "valueCodeableConcept": codeable()})
address = some(city=names, line=few(names), state=names)


def choice(name: str, **kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """One value of name[x], or none."""
    return st.one_of(
        st.just({}), *(kind.map(lambda value, key=name + type: {key: value}) for type, kind in kinds.items())
    )


ELEMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "Patient": some(
        name=few(human_name),
        gender=st.sampled_from(GENDERS),
        birthDate=days,
        active=st.booleans(),
        identifier=few(identifier),
        generalPractitioner=few(to("Practitioner", "Organization")),
        managingOrganization=to("Organization"),
        meta=meta,
        address=few(address, 1),
    ),
    "Observation": st.builds(
        lambda *parts: {name: value for part in parts for name, value in part.items()},
        some(
            status=st.sampled_from(("final", "amended")),
            code=codeable(),
            category=few(codeable(), 1),
            subject=to("Patient"),
            encounter=to("Encounter"),
            performer=few(to("Practitioner", "Organization", "Patient")),
            hasMember=few(to("Observation")),
            component=few(component),
            meta=meta,
        ),
        choice("effective", DateTime=dates, Period=period),
        choice("value", Quantity=quantity(), CodeableConcept=codeable(), String=names, DateTime=dates),
    ),
    "Encounter": some(
        status=st.sampled_from(("planned", "finished")),
        subject=to("Patient"),
        period=period,
        serviceProvider=to("Organization"),
        partOf=to("Encounter"),
        location=few(st.fixed_dictionaries({"location": to("Location")}), 1),
    ),
    "Organization": some(
        name=names, partOf=to("Organization"), identifier=few(identifier), active=st.booleans()
    ),
    "Practitioner": some(
        name=few(human_name, 1), gender=st.sampled_from(GENDERS), identifier=few(identifier)
    ),
    "Condition": st.builds(
        lambda one, other: one | other,
        some(subject=to("Patient"), code=codeable(), encounter=to("Encounter"), recordedDate=dates),
        choice("onset", DateTime=dates, Period=period, String=names, Age=quantity()),
    ),
    "MedicationRequest": some(
        status=st.sampled_from(("active", "stopped")),
        subject=to("Patient"),
        requester=to("Practitioner", "Organization"),
        authoredOn=dates,
        medicationCodeableConcept=codeable(),
    ),
    "Location": some(
        name=names, alias=few(names), partOf=to("Location"), address=address, status=st.just("active")
    ),
    "ValueSet": some(url=st.sampled_from(URLS), version=st.sampled_from(CODES), title=names, date=dates),
}

OFTEN = ("Patient",) * 4 + ("Observation",) * 6 + ("Encounter", "Condition", "Organization") * 2
"""Some types come often, so that there are several of them to choose from."""

one_resource = st.sampled_from((*OFTEN, *sorted(ELEMENTS))).flatmap(
    lambda type: st.builds(
        lambda id, elements: resource(type, id, **elements), st.sampled_from(IDS), ELEMENTS[type]
    )
)
records = st.lists(
    one_resource, min_size=15, max_size=30, unique_by=lambda one: (one["resourceType"], one["id"])
)


# Questions


PARAMETERS: dict[str, dict[str, str]] = {
    "Patient": {
        "name": "string",
        "family": "string",
        "given": "string",
        "address": "string",
        "address-city": "string",
        "gender": "gender",
        "birthdate": "date",
        "active": "boolean",
        "identifier": "identifier",
        "_tag": "token",
        "_profile": "uri",
    },
    "Observation": {
        "status": "status",
        "code": "concept",
        "category": "concept",
        "combo-code": "concept",
        "date": "date",
        "value-quantity": "quantity",
        "combo-value-quantity": "quantity",
        "value-concept": "concept",
        "value-string": "string",
        "value-date": "date",
        "component-code": "concept",
        "code-value-quantity": "token$quantity",
        "code-value-concept": "token$token",
        "code-value-string": "token$string",
        "code-value-date": "token$date",
        "component-code-value-quantity": "token$quantity",
        "combo-code-value-quantity": "token$quantity",
        "combo-code-value-concept": "token$token",
        "_tag": "token",
    },
    "Encounter": {"status": "status", "date": "date"},
    "Organization": {"name": "string", "identifier": "identifier", "active": "boolean"},
    "Practitioner": {"name": "string", "family": "string", "gender": "gender", "identifier": "identifier"},
    "Condition": {
        "code": "concept",
        "onset-date": "date",
        "onset-info": "string",
        "onset-age": "quantity",
        "recorded-date": "date",
    },
    "MedicationRequest": {"status": "status", "code": "concept", "authoredon": "date"},
    "Location": {"name": "string", "address": "string", "status": "status"},
    "ValueSet": {"url": "uri", "version": "plain", "title": "string", "date": "date"},
}
for _parameters in PARAMETERS.values():
    _parameters.update({"_id": "id", "_lastUpdated": "updated"})

REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "Patient": {"general-practitioner": ("Practitioner", "Organization"), "organization": ("Organization",)},
    "Observation": {
        "subject": ("Patient",),
        "patient": ("Patient",),
        "encounter": ("Encounter",),
        "performer": ("Practitioner", "Organization", "Patient"),
        "has-member": ("Observation",),
    },
    "Encounter": {
        "subject": ("Patient",),
        "patient": ("Patient",),
        "service-provider": ("Organization",),
        "part-of": ("Encounter",),
        "location": ("Location",),
    },
    "Organization": {"partof": ("Organization",)},
    "Practitioner": {},
    "Condition": {"subject": ("Patient",), "patient": ("Patient",), "encounter": ("Encounter",)},
    "MedicationRequest": {
        "subject": ("Patient",),
        "patient": ("Patient",),
        "requester": ("Practitioner", "Organization"),
    },
    "Location": {"partof": ("Location",)},
    "ValueSet": {},
}
"""Parameters and those of their targets that the records hold."""

COMPARISONS = ("", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")


def escaped(text: str) -> str:
    for character in "\\,|$":
        text = text.replace(character, "\\" + character)
    return text


def string_value() -> st.SearchStrategy[str]:
    """A name, or its beginning, in any case. Never nothing but punctuation, which stands for nothing."""
    return st.builds(
        lambda name, length, change: escaped(change(name[:length])),
        names,
        st.integers(2, 12),
        st.sampled_from((str, str.upper, str.lower)),
    )


def token_value(systems: tuple[str | None, ...] = (LOINC, LOCAL, UCUM)) -> st.SearchStrategy[str]:
    code = st.sampled_from(CODES).map(escaped)
    system = st.sampled_from([one for one in systems if one])
    return st.one_of(
        code, code.map("|{}".format), st.builds("{}|{}".format, system, code), system.map("{}|".format)
    )


def quantity_value() -> st.SearchStrategy[str]:
    units = [
        "",
        *(f"|{unit[1]}|{unit[0]}" for unit in UNITS if unit),
        "||mg",
        "||MG",
        f"|{UCUM}|kg",
        f"|{UCUM}|K",
    ]
    numbers = st.builds(
        "{}{}".format, st.sampled_from(COMPARISONS), st.sampled_from((*NUMBERS, "1e2" + "0", "0.0054"))
    )
    near = st.sampled_from(("ap5", "ap95", "ap5.2"))
    return st.builds("{}{}".format, numbers | near, st.sampled_from(units))


def date_value() -> st.SearchStrategy[str]:
    return st.builds("{}{}".format, st.sampled_from(COMPARISONS), dates)


VALUES: dict[str, st.SearchStrategy[str]] = {
    "string": string_value(),
    "token": token_value(),
    "concept": token_value(),
    "identifier": token_value((LOINC, LOCAL)),
    "plain": st.sampled_from(CODES).map(escaped),
    "gender": st.sampled_from((*GENDERS, "http://hl7.org/fhir/administrative-gender|male")),
    "status": st.sampled_from(("final", "amended", "planned", "finished", "active", "stopped")),
    "boolean": st.sampled_from(("true", "false")),
    "date": date_value(),
    "updated": st.sampled_from(
        ("gt2000", "lt2000", "2026-01-01", "ge2026-01-01T12:00:20Z", "le2026-01-01T12:00:20Z")
    ),
    "quantity": quantity_value(),
    "uri": st.sampled_from((*URLS, "http://acme.org/vs/1/2")),
    "id": st.sampled_from((*IDS, "z", "A")),
    "token$quantity": st.builds("{}${}".format, token_value(), quantity_value()),
    "token$token": st.builds("{}${}".format, token_value(), token_value()),
    "token$string": st.builds("{}${}".format, token_value(), string_value()),
    "token$date": st.builds("{}${}".format, token_value(), date_value()),
}
MODIFIERS: dict[str, tuple[str, ...]] = {
    "string": ("", "", ":exact", ":contains"),
    "concept": ("", "", "", ":not", ":text"),
    "identifier": ("", "", ":not"),
    "token": ("", "", ":not"),
    "gender": ("", ":not"),
    "status": ("", ":not"),
    "uri": ("", ":below", ":above"),
}


def values_of(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(one, min_size=1, max_size=2).map(",".join)


def simple(type: str) -> st.SearchStrategy[tuple[str, str]]:
    """Name with modifier, and value, of a parameter of this type itself."""

    def build(code: str) -> st.SearchStrategy[tuple[str, str]]:
        kind = PARAMETERS[type][code]
        values = values_of(VALUES[kind])

        def with_modifier(modifier: str) -> st.SearchStrategy[tuple[str, str]]:
            chosen = values_of(VALUES["string"]) if modifier == ":text" else values
            return st.tuples(st.just(code + modifier), chosen)

        asked = st.sampled_from(MODIFIERS.get(kind, ("",))).flatmap(with_modifier)
        if kind in ("id", "updated") or "$" in kind:
            return asked
        return st.one_of(asked, asked, asked, asked, st.tuples(st.just(f"{code}:missing"), VALUES["boolean"]))

    return st.sampled_from(sorted(PARAMETERS[type])).flatmap(build)


def by_reference(type: str) -> st.SearchStrategy[tuple[str, str]]:
    def build(code: str) -> st.SearchStrategy[tuple[str, str]]:
        targets = st.sampled_from(REFERENCES[type][code])
        ids = st.sampled_from((*IDS, "z"))
        named = st.builds("{}/{}".format, targets, ids)
        return st.one_of(
            st.tuples(
                st.just(code), values_of(st.one_of(named, ids, named.map("http://other.org/fhir/{}".format)))
            ),
            st.tuples(targets.map(f"{code}:{{}}".format), values_of(ids)),
            st.tuples(st.just(f"{code}:missing"), VALUES["boolean"]),
        )

    return st.sampled_from(sorted(REFERENCES[type])).flatmap(build)


def chained(type: str, depth: int) -> st.SearchStrategy[tuple[str, str]]:
    links = [(code, target) for code, targets in REFERENCES[type].items() for target in targets]

    def build(link: tuple[str, str]) -> st.SearchStrategy[tuple[str, str]]:
        code, target = link
        typed = f"{code}:{target}" if len(REFERENCES[type][code]) > 1 or code == "subject" else code
        return parameter(target, depth - 1).map(lambda pair: (f"{typed}.{pair[0]}", pair[1]))

    return st.sampled_from(links).flatmap(build)


def had(type: str, depth: int) -> st.SearchStrategy[tuple[str, str]]:
    """_has: by what refers to this type."""
    links = [
        (source, code)
        for source, codes in REFERENCES.items()
        for code, targets in codes.items()
        if type in targets
    ]

    def build(link: tuple[str, str]) -> st.SearchStrategy[tuple[str, str]]:
        source, code = link
        return parameter(source, depth - 1).map(lambda pair: (f"_has:{source}:{code}:{pair[0]}", pair[1]))

    return st.sampled_from(links).flatmap(build)


def parameter(type: str, depth: int = 3) -> st.SearchStrategy[tuple[str, str]]:
    """Name and value of anything that may be asked of the type; chains and _has of so many links."""
    kinds = [simple(type), simple(type)]
    if REFERENCES[type]:
        kinds.append(by_reference(type))
    if depth and REFERENCES[type]:
        kinds.append(st.deferred(lambda: chained(type, depth)))
    if depth and any(type in targets for codes in REFERENCES.values() for targets in codes.values()):
        kinds.append(st.deferred(lambda: had(type, depth)))
    return st.one_of(kinds)


def queries(type: str, depth: int = 3) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.sampled_from((1, 1, 1, 2)).flatmap(
        lambda count: st.lists(parameter(type, depth), min_size=count, max_size=count)
    )


SORTS: dict[str, tuple[str, ...]] = {
    "Patient": ("name", "birthdate", "gender", "identifier"),
    "Observation": ("date", "status", "value-string", "code"),
    "Encounter": ("date", "status"),
    "Organization": ("name", "identifier"),
    "Practitioner": ("family", "gender"),
    "Condition": ("onset-date", "code"),
    "MedicationRequest": ("authoredon",),
    "Location": ("name",),
    "ValueSet": ("url", "title", "date"),
}


def sorts(type: str) -> st.SearchStrategy[str]:
    key = st.builds(
        "{}{}".format, st.sampled_from(("", "-")), st.sampled_from((*SORTS[type], "_id", "_lastUpdated"))
    )
    return st.lists(key, min_size=1, max_size=3, unique_by=lambda one: one.lstrip("-")).map(",".join)


types = st.sampled_from((*OFTEN, *sorted(PARAMETERS)))


def asked(depth: int = 3) -> st.SearchStrategy[tuple[str, list[tuple[str, str]]]]:
    """A type and what is asked of it."""
    return types.flatmap(lambda type: st.tuples(st.just(type), queries(type, depth)))
