"""Whatever is searched for: 200 with a searchset that holds together, or an OperationOutcome that says why not."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.ward import BASE, ids, link, reader, ward

__all__ = ["reader", "ward"]

PLACE = st.sampled_from(
    ["", "Patient", "Observation", "Location", "ValueSet", "List", "Patient/ada/Observation", "Patient/ada/*"]
)
NAME = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "", "subject:Patient.", "subject.", "patient.general-practitioner.", "_has:Observation:subject:"]),
        st.sampled_from(
            [
                "name", "birthdate", "gender", "identifier", "code", "subject", "patient", "value-quantity", "near", "url",
                "code-value-quantity", "context-type-value", "_id", "_lastUpdated", "_tag", "_profile", "_text", "_content",
                "_list", "_type", "_filter", "_query", "_sort", "_include", "_revinclude", "_count", "_total", "_summary",
                "_elements", "_contained", "_containedType", "_has", "unknown", "",
            ]
        ),
        st.sampled_from(["", "", "", "", ":exact", ":contains", ":missing", ":not", ":text", ":in", ":not-in", ":below", ":above",
                         ":of-type", ":identifier", ":Patient", ":iterate", ":x", ":", ".", ":Patient.name"]),
    ),
)  # fmt: skip
VALUE = st.one_of(
    st.sampled_from(
        [
            "", "x", "ada", "Patient/ada", f"{BASE}/Patient/ada", "urn:uuid:1", "#x", "http://loinc.org|29463-7", "|", "||", "a|b|c",
            "2026", "ge2026-01", "ap2026-01-02T10:00:00+01:00", "lt", "sa9999-12-31", "0001", "5.4", "eq1e400", "-0", "5.4||mg",
            "1|http://unitsofmeasure.org|kg", "ne100", "a$b", "$", "a,b", ",", "\\,", "\\", "true", "false", "-date,_id", "-", "*",
            "Observation:subject", "Provenance:target", "Observation:*:Patient", "name eq x", "(name co a or gender eq b) and not (_id eq c)",
            "name eq", '"', "a NEAR b", "a* OR (b", "-1", "0", "1", "9" * 20, "count", "true", "both", "contained", "1|2|3|km", "91|0", "nan",
            "inf", "http://x/ValueSet/y", "Patient", "Gurke",
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=12),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(PLACE, st.lists(st.tuples(NAME, VALUE), max_size=4), st.sampled_from(["", "handling=strict"]))
def test_every_search_is_answered(reader, place, pairs, prefer):
    response = reader.get(f"{place}?{urlencode(pairs)}", Prefer=prefer)

    assert response.status_code in (200, 400, 422), (pairs, response.text)
    if response.status_code != 200:
        assert response.json["resourceType"] == "OperationOutcome"
        return
    bundle = response.json
    assert bundle["type"] == "searchset"
    assert len(ids(bundle)) <= bundle.get("total", 10)
    for entry in bundle.get("entry", ()):
        assert entry["search"]["mode"] in ("match", "include", "outcome")
        assert entry["fullUrl"].startswith((f"{BASE}/", "urn:uuid:"))
        assert "/_history/" not in entry["fullUrl"]
    again = reader.follow(link(bundle, "self"), Prefer="handling=strict")
    assert again.status_code == 200, (pairs, again.text)
    assert ids(again.json) == ids(bundle)
    assert link(again.json, "self") == link(bundle, "self")
