"""Requests that are almost right: a grammar of FHIR's REST whose every part may be something else.

Each is made of a random source alone, so that its number is enough to see it again.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

ODD = (
    "", " ", ".", "..", "/", "%", "%00", "%2e%2e", "%ff", "%C3%28", "\x00", "\t", "\r\n", "ä", "é", "\u202e", "\ud7ff", "𝒜", "null",
    "true", "-1", "0", "1", "01", "1e999", "9" * 30, "NaN", "a" * 65, "a" * 3000, "'", '"', "\\", ";", "--", "$", "*", "|", "||", ",", "(",
    ")", "{}", "[]", "<x/>", "&lt;", "=", "?", "#", "_", ":", "@", "~", "urn:uuid:1", "http://[", "http://a/Patient/1", "Patient/ada",
    "2026", "2026-02-30", "9999-12-31T23:59:60Z", "0000", "Patient?identifier=1", "identifier=urn:mrn|1",
)  # fmt: skip

TYPES = (
    "Patient",
    "Observation",
    "Binary",
    "Bundle",
    "Parameters",
    "SearchParameter",
    "ValueSet",
    "Subscription",
    "Gurke",
    "patient",
)
IDS = ("ada", "o1", "b1", "new-1", "nobody", "a.b-c", "A" * 64)
STORED = (("Patient", "ada"), ("Observation", "o1"), ("Binary", "b1"), ("Patient", "new-1"))
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPERATIONS = ("$validate", "$meta", "$everything", "$meta-add", "$", "$$", "$x")

NAMES = (
    "_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_text", "_content", "_list", "_has:Observation:subject:code", "_type",
    "_query", "_filter", "_sort", "_include", "_revinclude", "_include:iterate", "_count", "_total", "_summary", "_elements", "_contained",
    "_containedType", "_format", "_pretty", "_since", "_at", "_page", "mode", "profile", "name", "family", "birthdate", "gender",
    "identifier", "code", "subject", "patient", "value-quantity", "code-value-quantity", "near", "url", "subject:Patient.name",
    "patient.general-practitioner.name", "_has:Observation:patient:_has:Provenance:target:agent", "x",
)  # fmt: skip
MODIFIERS = ("", "", "", "", ":exact", ":contains", ":missing", ":not", ":text", ":in", ":not-in", ":below", ":above", ":of-type", ":identifier",
             ":Patient", ":iterate", ":x", ":", ".", "..", ":Patient.", "[", "%")  # fmt: skip
VALUES = (
    "ada", "Byron", "Patient/ada", "http://localhost:8080/fhir/Patient/ada", "http://loinc.org|29463-7", "urn:mrn|1", "ge2026-01", "lt", "sa9999-12-31",
    "ap2026-01-02T10:00:00+01:00", "5.4||mg", "1|http://unitsofmeasure.org|kg", "eq1e400", "-0", "a$b", "\\,", "a\\|b", "-date,_id", "Observation:subject",
    "Observation:*:Patient", "name eq x", "(name co a or gender eq b) and not (_id eq c)", "((((((((", 'a NEAR b', "a* OR (b", "count", "none", "both",
    "contained", "1|2|3|km", "91|0|1|m", "json", "xml", "application/fhir+xml", "ttl", "1.o1.0", "text", "data", "create", "delete",
)  # fmt: skip

HEADERS: dict[str, tuple[str, ...]] = {
    "If-Match": ('W/"1"', '"2"', "3", "*", 'W/"1", W/"2"', '"*"', "W/", '"'),
    "If-None-Match": ('W/"1"', "*", '"1', ",", 'W/"999999999999999999999"'),
    "If-None-Exist": ("identifier=urn:mrn|1", "?identifier=urn:mrn|9", "_count=1", "x=y", "identifier", "=", "name=%ff"),
    "If-Modified-Since": ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 99 Nov 99999 08:49:37 GMT", "1", "Thu, 01 Jan 1970 00:00:00 +9999"),
    "If-Unmodified-Since": ("Sun, 06 Nov 1994 08:49:37 GMT",),
    "Prefer": ("return=minimal", "return=OperationOutcome", "return=representation", "handling=strict", "respond-async", 'return="', ";;;,,="),
    "Accept": ("application/fhir+xml", "application/json;q=0", "*/*;q=2", "text/html", "application/fhir+json; fhirVersion=3.0", ";;,", "image/png"),
    "Accept-Encoding": ("gzip", "gzip;q=0", "br", "*", "identity;q=0, *;q=0"),
    "Content-Encoding": ("gzip", "deflate", "br", "gzip, gzip"),
    "Content-Type": (
        "application/fhir+json", "application/json", "application/fhir+xml", "application/json-patch+json", "application/xml-patch+xml",
        "application/merge-patch+json", "application/x-www-form-urlencoded", "application/pdf", "text/plain", "application/json; charset=latin-1",
        "application/json; fhirVersion=5.0", "multipart/form-data; boundary=x", ";", "/",
    ),
    "X-Request-Id": ("abc", "a" * 65, "a b", "ü"),
    "X-Commit-Message": ("why", "=?utf-8?B?!?=", "=?x?Q?a?=", "UTF-8''%ff", "a" * 501, "Ã¼", "\x1b[31m"),
    "X-Security-Context": ("x",),
    "X-Provenance": ('{"resourceType":"Provenance"}', "{", ""),
    "Idempotency-Key": ("a", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', '"' * 3, "a" * 300),
    "Host": ("localhost:8080", "localhost", "127.0.0.1", "[::1]:8080", "evil.example", "localhost:x", "", "[", "a@localhost"),
    "Origin": ("https://app.example", "https://evil.example", "null", "https://app.example, x"),
    "Access-Control-Request-Method": ("PUT", "GET", "get", "X" * 200),
    "Access-Control-Request-Headers": ("content-type, if-match", ",", "x" * 2000),
    "X-Forwarded-Host": ("clinic.example", "evil/../x", "a, b", "[::1"),
    "X-Forwarded-Proto": ("https", "javascript", "http, https"),
    "X-Forwarded-Prefix": ("/records", "records", "/a/../b", "//evil"),
    "X-Forwarded-For": ("10.0.0.1", "x", "10.0.0.1, 127.0.0.1"),
    "Forwarded": ("for=10.0.0.1;proto=https;host=clinic.example", 'for="[::1', ";;=", "host=a;host=b"),
    "Authorization": ("Bearer x", "Basic !", ""),
    "Cookie": ("a=b", ";=;"),
    "Range": ("bytes=0-1", "bytes=-", "x"),
}  # fmt: skip

PATIENT = {
    "resourceType": "Patient",
    "id": "ada",
    "meta": {"versionId": "1", "tag": [{"system": "urn:t", "code": "x"}]},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada</div>'},
    "identifier": [{"system": "urn:mrn", "value": "1"}],
    "name": [
        {"family": "Byron", "given": ["Ada"], "_given": [{"extension": [{"url": "urn:x", "valueCode": "a"}]}]}
    ],
    "birthDate": "1815-12-10",
    "deceasedBoolean": False,
    "contained": [{"resourceType": "Practitioner", "id": "p"}],
    "generalPractitioner": [{"reference": "#p"}],
}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
    "subject": {"reference": "Patient/ada"},
    "effectivePeriod": {"start": "2026-01-01", "end": "2026-01-02T10:00:00+01:00"},
    "valueQuantity": {"value": 60.50, "code": "kg", "system": "http://unitsofmeasure.org"},
}
BINARY = {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": "QQ=="}
PARAMETER = {
    "resourceType": "SearchParameter", "id": "sp", "url": "urn:sp", "name": "sp", "status": "active", "description": "x", "code": "shoe",
    "base": ["Patient"], "type": "string", "expression": "Patient.extension('urn:x').value",
}  # fmt: skip
RESOURCES = (PATIENT, OBSERVATION, BINARY, PARAMETER)

JSON_PATCHES: tuple[Any, ...] = (
    [{"op": "replace", "path": "/birthDate", "value": "1815-12-11"}],
    [{"op": "test", "path": "/name/0/family", "value": "Byron"}, {"op": "remove", "path": "/name/0/given/-"}],
    [{"op": "move", "from": "/name", "path": "/name/0"}, {"op": "copy", "from": "", "path": "/contained/0"}],
    [{"op": "add", "path": "/meta/versionId", "value": "9"}, {"op": "add", "path": "/~2", "value": None}],
)
XML_PATCHES = (
    '<diff xmlns:f="http://hl7.org/fhir"><replace sel="f:Patient/f:birthDate/@value">1815-12-11</replace></diff>',
    '<diff><remove sel="Patient/name[1]/text()"/><add sel="Patient" pos="before"><x/></add></diff>',
    '<diff><add sel="//*[@value=\'1\']" type="@x">y</add></diff>',
)
FHIRPATHS = (
    "Patient.birthDate", "Patient.name[0].given", "Patient.name.where(family = 'Byron').first()", "Patient.extension('urn:x').value", "Patient",
    "Patient.contained.ofType(Practitioner)", "Patient.name.repeat(given)", "%resource", "Patient.name[", "1 + 1", "(((((((((((((((((((((((((((((",
    "Patient.descendants().descendants().descendants()",
)  # fmt: skip
PATCH_VALUES = {
    "type": "valueCode",
    "path": "valueString",
    "name": "valueString",
    "value": "valueString",
    "index": "valueInteger",
}


@dataclass
class Sent:
    """One request; `url` is below /fhir unless it begins with a slash."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class Grammar:
    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def sometimes(self, chance: float) -> bool:
        return self.random.random() < chance

    def one(self, several: Any) -> Any:
        return self.random.choice(several)

    def odd(self, usual: str, chance: float = 0.08) -> str:
        """As usual, or something else; or both in one."""
        if not self.sometimes(chance):
            return usual
        odd: str = self.one(ODD)
        return self.one((odd, usual + odd, odd + usual, usual[: self.random.randint(0, len(usual))]))

    def request(self) -> Sent:
        kinds = (
            self.search,
            self.search,
            self.write,
            self.write,
            self.patch,
            self.bundle,
            self.bundle,
            self.read,
            self.operation,
            self.form,
        )
        sent: Sent = self.one(kinds)()
        for _ in range(self.one((0, 0, 1, 2, 4))):
            name = self.one(tuple(HEADERS))
            sent.headers[name] = self.header(name)
        if self.sometimes(0.03):
            sent.method = self.one((*METHODS, "TRACE"))
        if self.sometimes(0.03):
            sent.url = f"/{sent.url}"
        sent.url = re.sub(r"\?{2,}", "?", sent.url)  # falcon.testing wants one
        if sent.body is not None and self.sometimes(0.05):
            sent.body = self.packed(sent.body, sent.headers)
        return sent

    def header(self, name: str) -> str:
        value = self.odd(self.one(HEADERS[name]), 0.15)
        # What no client can send in one: line ends, NUL, and what is no Latin-1.
        kept = "".join(each for each in value if each not in "\r\n\x00")
        return kept.encode("utf-8", "replace").decode("latin-1").strip()

    def packed(self, body: bytes, headers: dict[str, str]) -> bytes:
        headers["Content-Encoding"] = "gzip"
        data = gzip.compress(body * self.one((1, 1, 2000)), 1)
        return self.one((data, data[:-3], data + b"x", body))

    # Paths and parameters

    def segment(self, usual: str) -> str:
        return quote(self.odd(usual), safe="$%*;:@")

    def place(self) -> str:
        type, id = self.one(STORED) if self.sometimes(0.7) else (self.one(TYPES), self.one(IDS))
        return f"{self.segment(type)}/{self.segment(id)}"

    def query(self, most: int = 4) -> str:
        pairs = []
        for _ in range(self.random.randint(0, most)):
            name = self.odd(self.one(NAMES) + self.one(MODIFIERS))
            pairs.append((name, self.odd(self.one(VALUES), 0.25)))
        text = urlencode(pairs)
        return self.odd(text, 0.05).replace("\r\n", "%0d%0a").replace("\x00", "%00")

    def search(self) -> Sent:
        places = (
            "",
            self.segment(self.one(TYPES)),
            f"{self.place()}/{self.segment(self.one(TYPES))}",
            f"{self.place()}/*",
            "Patient",
            "Observation",
        )
        headers = {"Prefer": "handling=strict"} if self.sometimes(0.2) else {}
        return Sent("GET", f"{self.one(places)}?{self.query()}", headers)

    def form(self) -> Sent:
        places = (
            "_search",
            "Patient/_search",
            f"{self.place()}/_search",
            f"{self.place()}/Observation/_search",
        )
        body = self.garbled(self.query().encode()) if self.sometimes(0.2) else self.query().encode()
        return Sent(
            "POST",
            f"{self.one(places)}?{self.query(1)}",
            {"Content-Type": "application/x-www-form-urlencoded"},
            body,
        )

    def read(self) -> Sent:
        version = self.odd(self.one(("1", "2", "3", "99")), 0.2)
        places = (
            self.place(), f"{self.place()}/_history/{quote(version)}", f"{self.place()}/_history", f"{self.segment('Patient')}/_history", "_history",
            "metadata", f"{self.place()}/{self.segment('x')}/{self.segment('y')}/z", "/health", f"/{self.segment('fhir')}", "/", "//fhir/Patient",
        )  # fmt: skip
        tail = f"?{self.query(2)}" if self.sometimes(0.4) else ""
        return Sent(self.one(("GET", "GET", "HEAD", "OPTIONS", "DELETE")), self.one(places) + tail)

    def operation(self) -> Sent:
        place = self.one(
            (
                "",
                "Patient/",
                "Patient/",
                f"{self.place()}/",
                f"{self.place()}/",
                f"{self.place()}/_history/1/",
            )
        )
        tail = f"?{self.query(2)}" if self.sometimes(0.3) else ""
        url = f"{place}{self.odd(self.one(OPERATIONS + OPERATIONS[:2] * 2))}{tail}".replace(
            "\r\n", "%0d%0a"
        ).replace("\x00", "%00")
        if self.sometimes(0.3):
            return Sent("GET", quote(url, safe="/?&=%$:;*@"))
        parameters = [
            {"name": "resource", "resource": self.resource()},
            {"name": self.odd("mode", 0.2), "valueCode": self.odd("update", 0.3)},
            {"name": "profile", "valueUri": self.odd("http://hl7.org/fhir/StructureDefinition/Patient", 0.3)},
        ]
        wrapped = {
            "resourceType": "Parameters",
            "parameter": self.random.sample(parameters, self.random.randint(0, 3)),
        }
        return Sent(
            "POST", quote(url, safe="/?&=%$:;*@"), *self.printed(self.one((wrapped, self.resource())))
        )

    # Bodies

    def value(self, depth: int = 0) -> Any:
        plain = (
            None,
            True,
            False,
            0,
            -1,
            1.5,
            10**40,
            1e300,
            self.one(ODD),
            self.one(VALUES),
            "Patient",
            [],
            {},
        )
        if depth > 3 or self.sometimes(0.7):
            return self.one(plain)
        if self.sometimes(0.5):
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        names = (
            "resourceType",
            "id",
            "meta",
            "extension",
            "url",
            "valueCode",
            "reference",
            "_id",
            "x",
            "",
            "contained",
            "div",
        )
        return {self.one(names): self.value(depth + 1) for _ in range(self.random.randint(0, 3))}

    def changed(self, value: Any, chance: float = 0.02) -> Any:
        """The same, with something else in a few places."""
        if self.sometimes(chance):
            return self.value()
        if isinstance(value, dict):
            kept = {
                name: self.changed(each, chance) for name, each in value.items() if not self.sometimes(chance)
            }
            return {**kept, self.odd("x", 0.5): self.value()} if self.sometimes(chance) else kept
        if isinstance(value, list):
            return [
                self.changed(each, chance)
                for each in value
                for _ in range(2 if self.sometimes(chance) else 1)
            ]
        return value

    def resource(self) -> Any:
        return self.changed(self.one(RESOURCES), self.one((0, 0.01, 0.05)))

    def garbled(self, body: bytes) -> bytes:
        place, length = self.random.randint(0, len(body)), self.random.randint(0, 8)
        pieces = (
            b"",
            b"\x00",
            b"\xff",
            b"\xef\xbb\xbf",
            b'"',
            b"{",
            b"[" * 2000,
            b"<!DOCTYPE x>",
            b"&x;",
            b"1" * 5000,
            b"\\ud800",
            b",",
            b"\r\n",
        )
        return body[:place] + self.one(pieces) + body[place + length :]

    def printed(self, value: Any) -> tuple[dict[str, str], bytes]:
        """Headers and body: JSON as a rule, sometimes XML, sometimes broken."""
        kind = self.one(("application/fhir+json",) * 6 + ("application/json", "application/fhir+xml"))
        if kind.endswith("xml"):
            body = self.as_xml(value).encode("utf-8", "replace")
        else:
            body = json.dumps(value, ensure_ascii=self.sometimes(0.5)).encode("utf-8", "surrogatepass")
        if self.sometimes(0.1):
            body = self.garbled(body)
        return {"Content-Type": kind}, body

    def as_xml(self, value: Any, name: str | None = None) -> str:
        """Roughly FHIR's XML: what does not fit stands there all the same."""
        if name is None:
            name = value.get("resourceType", "Patient") if isinstance(value, dict) else "Patient"
            inner = (
                "".join(self.as_xml(each, key) for key, each in value.items() if key != "resourceType")
                if isinstance(value, dict)
                else ""
            )
            return f'<{name} xmlns="http://hl7.org/fhir">{inner}</{name}>'
        if isinstance(value, list):
            return "".join(self.as_xml(each, name) for each in value)
        if isinstance(value, dict):
            return f"<{name}>{''.join(self.as_xml(each, key) for key, each in value.items())}</{name}>"
        return value if name == "div" and isinstance(value, str) else f'<{name} value="{value}"/>'

    def write(self) -> Sent:
        resource = self.resource()
        type = resource.get("resourceType", "Patient") if isinstance(resource, dict) else "Patient"
        id = resource.get("id", "ada") if isinstance(resource, dict) else "ada"
        headers, body = self.printed(resource)
        type, id = self.segment(str(type)[:80]), self.segment(str(id)[:80])
        forms = (
            ("POST", type), ("PUT", f"{type}/{id}"), ("PUT", f"{type}/{id}"), ("PUT", f"{type}?identifier=urn:mrn|1"), ("PUT", f"{type}?{self.query(2)}"),
            ("DELETE", f"{type}/{id}"), ("DELETE", f"{type}?{self.query(2)}"), ("PUT", "Binary/b1"), ("POST", "Binary"),
        )  # fmt: skip
        return Sent(*self.one(forms), headers, body)

    def patch(self) -> Sent:
        kind, document = self.one((
            ("application/json-patch+json", self.changed(self.one(JSON_PATCHES))),
            ("application/merge-patch+json", self.changed(self.one((PATIENT, {"birthDate": None}, {"active": True}, [])), 0.1)),
            ("application/xml-patch+xml", self.one(XML_PATCHES)),
            ("application/fhir+json", self.fhirpath_patch()),
            ("application/fhir+xml", self.as_xml(self.fhirpath_patch())),
        ))  # fmt: skip
        body = (
            document if kind.endswith("xml") and isinstance(document, str) else json.dumps(document)
        ).encode("utf-8", "surrogatepass")
        if self.sometimes(0.15):
            body = self.garbled(body)
        url = self.one(
            (
                "Patient/ada",
                "Observation/o1",
                self.place(),
                "Patient?identifier=urn:mrn|1",
                f"Patient?{self.query(2)}",
            )
        )
        return Sent("PATCH", url, {"Content-Type": kind}, body)

    def fhirpath_patch(self) -> Any:
        family = {"type": "replace", "path": "Patient.name[0].family", "value": "Hopper"}
        added = {"type": "add", "path": "Patient", "name": "gender", "value": "female"}
        usual = self.one((family, added))
        odd = {
            "type": self.one(("add", "replace", "delete", "insert", "move")),
            "path": self.one(FHIRPATHS),
            "name": self.one(("birthDate", "name", "contact")),
            "value": self.value(),
            "index": self.one((0, 1, -1, 10**12, "x")),
        }
        parts = [
            {
                "name": self.odd(name, 0.02),
                PATCH_VALUES[name]: self.one((usual.get(name, odd[name]),) * 4 + (odd[name],)),
            }
            for name in (odd if self.sometimes(0.3) else usual)
            if not self.sometimes(0.05)
        ]
        operation = {"name": "operation", "part": parts}
        return self.changed(
            {"resourceType": "Parameters", "parameter": [operation] * self.one((1, 1, 1, 2))}, 0.01
        )

    def bundle(self) -> Sent:
        kind = self.odd(self.one(("batch", "transaction", "transaction")), 0.05)
        value = {
            "resourceType": "Bundle",
            "type": kind,
            "entry": [self.entry() for _ in range(self.random.randint(0, 5))],
        }
        return Sent(
            "POST",
            self.odd("", 0.03).strip("\r\n\x00"),
            *self.printed(self.changed(value, self.one((0, 0, 0.01, 0.04)))),
        )

    def entry(self) -> Any:
        inner = self.one((self.write, self.read, self.search, self.patch))()
        request: dict[str, Any] = {"method": inner.method, "url": inner.url}
        for name in ("ifMatch", "ifNoneMatch", "ifNoneExist", "ifModifiedSince"):
            if self.sometimes(0.08):
                header = "If-" + name[2:].replace("None", "None-").replace("Modified", "Modified-")
                request[name] = self.odd(self.one(HEADERS[header]), 0.2)
        entry: dict[str, Any] = {"request": request}
        if inner.method == "PATCH" and inner.body is not None:
            data = base64.b64encode(inner.body).decode()
            entry["resource"] = self.one(
                (
                    self.fhirpath_patch(),
                    {"resourceType": "Binary", "contentType": inner.headers["Content-Type"], "data": data},
                )
            )
        elif inner.method in ("PUT", "POST"):
            entry["resource"] = self.resource()
        if self.sometimes(0.4):
            entry["fullUrl"] = self.odd(
                self.one(("urn:uuid:1", "urn:uuid:2", "http://localhost:8080/fhir/Patient/ada"))
            )
            entry.setdefault(
                "resource", {"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}}
            )
        return entry
