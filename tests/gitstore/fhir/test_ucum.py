"""Amounts in different units compare. https://ucum.org/ucum"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.fhir import decimals, json, ucum, ucum_atoms
from gitstore.fhir.ucum import canonical
from tools.build_definitions import files

EQUAL = """
1 g/L = 100 mg/dL                   1 mol/m3 = 1 mmol/L                 1 ug/mL = 1 mg/L
5.5 mmol/L = 5500 umol/L            1 U/L = 1 mU/mL                     1 kat = 6e7 U
1 U = 1 umol/min                    1 10*3/uL = 1 10*9/L                1 10^3/uL = 1 10*6/mL
4.5 10*6/uL = 4.5 10*12/L           1 % = 0.01 1                        1 % = 10 [ppth]
1 [ppm] = 1000 [ppb]                1 [ppb] = 1000 [pptr]               1 {beats}/min = 1 /min
60 /min = 1 Hz                      1 Bq = 1 /s                         1 Ci = 37 GBq
0 Cel = 273.15 K                    37 Cel = 98.6 [degF]                -40 Cel = -40 [degF]
100 Cel = 80 [degRe]                1000 mCel = 1 Cel                   9 [degR] = 5 K
0 K = -459.67 [degF]                1 m = 100 cm                        1 [in_i] = 2.54 cm
1 [ft_i] = 12 [in_i]                1 [yd_i] = 0.9144 m                 1 [mi_i] = 1609.344 m
1 [nmi_i] = 1852 m                  1 [fth_i] = 2 [yd_i]                1 [sft_i] = 144 [sin_i]
1 [kn_i] = 1.852 km/h               1 [cft_i] = 1728 [cin_i]            1 [lb_av] = 453.59237 g
1 [lb_av] = 16 [oz_av]              1 [stone_av] = 14 [lb_av]           1 [ston_av] = 2000 [lb_av]
1 [lton_av] = 2240 [lb_av]          1 [oz_av] = 16 [dr_av]              1 [gr] = 64.79891 mg
1 [oz_tr] = 480 [gr]                1 [lb_ap] = 5760 [gr]               1 t = 1000 kg
1 L = 1 dm3                         1 l = 1 L                           1 mL = 1 cm3
1 mm3 = 1 uL                        1 [gal_us] = 3.785411784 L          1 [gal_us] = 4 [qt_us]
1 [qt_us] = 2 [pt_us]               1 [pt_us] = 16 [foz_us]             1 [cup_us] = 8 [foz_us]
1 [foz_us] = 2 [tbs_us]             1 [tbs_us] = 3 [tsp_us]             1 [gal_br] = 4.54609 L
1 [gal_br] = 160 [foz_br]           1 [tsp_m] = 5 mL                    20 [drp] = 1 mL
1 min = 60 s                        1 h = 3600 s                        1 d = 24 h
1 wk = 7 d                          1 a = 365.25 d                      12 mo = 1 a
1 mo_g = 30.436875 d                1 N = 1 kg.m/s2                     1 N = 100000 dyn
1 Pa = 1 N/m2                       1 bar = 100 kPa                     1 atm = 1013.25 mbar
1 mm[Hg] = 133.322 Pa               1 m[H2O] = 9.80665 kPa              1 [in_i'Hg] = 25.4 mm[Hg]
10 mm[H2O] = 1 cm[H2O]              1 J = 1 N.m                         1 J = 10000000 erg
1 cal = 4.184 J                     1 [Cal] = 1 kcal                    1 cal_IT = 4.1868 J
1 W = 1 J/s                         1 eV = 1.602176634e-19 J            1 V = 1 W/A
1 Ohm = 1 V/A                       1 S = 1 /Ohm                        1 mho = 1 S
1 F = 1 C/V                         1 Wb = 1 V.s                        1 T = 10000 G
1 H = 1 Wb/A                        1 lx = 1 lm/m2                      1 ph = 10000 lx
1 Gy = 100 RAD                      1 Sv = 100 REM                      1 P = 100 mPa.s
1 St = 100 mm2/s                    1 Gal = 0.01 m/s2                   [g] = 9.80665 m/s2
1 deg = 60 '                        1 ' = 60 ''                         1 gon = 0.9 deg
360 deg = 1 circ                    1 circ = 2 [pi].rad                 1 sph = 4 [pi].sr
1 [diop] = 1 m-1                    3 [Ch] = 1 mm                       1 By = 8 bit
1 KiBy = 1024 By                    1 Bd = 1 s-1                        10 dB = 1 B
1 dB[SPL] = 0.1 B[SPL]              1 k[IU]/L = 1 [IU]/mL               1 [iU] = 1 [IU]
1 m[IU]/L = 1 u[iU]/mL              1 osm/kg = 1 osm/(1000.g)           1 eq = 1 mol
1 meq/L = 1 eq/m3                   1 g% = 1 g/dL                       1 mg/kg/d = 1 mg/(kg.d)
24 mL/(24.h) = 1 mL/h               1 [MET] = 3.5 mL/min/kg             1 g/{creat} = 1 g
1 u = 1.66053906660e-24 g           1 AU = 149597870691 m               1 [ly] = 9460730472580800 m
1 Ao = 0.1 nm                       1 b = 100 fm2                       1 ar = 100 m2
1 [acr_us] = 10 [ch_us]2            1200 m = 3937 [ft_us]               1 tex = 9 [den]
1 [HP] = 550 [ft_i].[lbf_av]/s      1 [psi] = 1 [lbf_av]/[in_i]2        [c] = 299792458 m/s
1 [pca] = 12 [pnt]                  1 [bbl_us] = 42 [gal_us]            1 m[Hg] = 1000 mm[Hg]
"""
"""Each side an amount, two blanks or more between the facts."""


def facts() -> list[str]:
    return [fact.strip() for line in EQUAL.splitlines() for fact in line.split("  ") if fact.strip()]


def amount(text: str) -> tuple[str, Decimal]:
    """The canonical unit of `100 mg/dL`, and how much of it that is."""
    number, _, code = text.strip().rpartition(" ")
    unit = canonical(code)
    assert unit is not None, code
    return unit.unit, unit.convert(Decimal(number or "1"))


@pytest.mark.parametrize("fact", facts())
def test_equal_amounts_have_equal_keys(fact):
    (unit, one), (other_unit, other) = map(amount, fact.split(" = "))

    assert unit == other_unit
    assert decimals.key(one) == decimals.key(other)


@pytest.mark.parametrize(
    ("code", "unit", "factor"),
    [
        ("g/L", "g.m-3", 1000),
        ("1", "1", 1),
        ("{score}", "1", 1),
        ("{}", "1", 1),
        ("10*", "1", 10),
        ("10*-3", "1", Fraction(1, 1000)),
        ("/100{WBC}", "1", Fraction(1, 100)),
        ("2.5", "1", 10),
        ("m0", "1", 1),
        ("m+2", "m2", 1),
        ("m/s.g", "g.m.s-1", 1),
        ("m/(s.g)", "g-1.m.s-1", 1),
        ("kg.m2/s2", "g.m2.s-2", 1000),
        ("mmol", "1", 602214076 * 10**12),
        ("U{25Cel}/L", "m-3.s-1", Fraction(602214076 * 10**15 * 1000, 10**6 * 60)),
        ("(10.g){feces}", "g", 10),
        ("[IU]/[arb'U]", "[arb'U]-1.[iU]", 1),
    ],
)
def test_a_code_is_read_as_ucum_has_it(code, unit, factor):
    found = canonical(code)

    assert found is not None
    assert (found.unit, found.factor) == (unit, factor)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "/",
        "//m",
        "m/",
        "m.",
        ".m",
        "m..s",
        "(m",
        "m)",
        "()",
        "(m)2",
        "(/m)",
        "m{a",
        "m}",
        "{a{b}}",
        "m{a}2",
        "m^2",
        "m**2",
        "m-",
        "m2s",
        "10m",
        "0",
        "0.g",
        "-1",
        " m",
        "m s",
        "m\n",
        "µg",
        "２",
        "mEq",
        "mcg",
        "month",
        "ML/hr",
        "kmin",
        "k[lb_av]",
        "m[degF]",
        "k%",
        "kk",
        "kkg",
        "kmm",
        "k",
        "Kg",
        "MM[HG]",
        "[unknown]",
        "[in_i",
        "in_i]",
        "Cel/min",
        "Cel2",
        "dB.m",
        "[pH]/L",
        "m1000",
        "m" * 256,
        "(" * 100 + "m" + ")" * 100,
        "Ym999.Ym999",
        ".".join(["[pi]99"] * 30),
    ],
)
def test_what_is_no_code_has_no_canonical_form(code):
    """Unknown, malformed or beyond all measure, and no prefix where UCUM gives none: None, never an error."""
    assert canonical(code) is None


@cache
def atoms() -> dict[str, bool]:
    """Every unit but the special ones, and whether it takes prefixes."""
    metric = {*ucum_atoms.BASE_UNITS, *ucum_atoms.METRIC_ARBITRARY, *ucum_atoms.units(ucum_atoms.METRIC)}
    other = {*ucum_atoms.ARBITRARY.split(), *ucum_atoms.units(ucum_atoms.OTHER)}
    assert not metric & other
    return dict.fromkeys(sorted(metric), True) | dict.fromkeys(sorted(other), False)


@pytest.mark.parametrize(("atom", "is_metric"), atoms().items())
def test_metric_units_take_every_prefix_and_others_none(atom, is_metric):
    """https://ucum.org/ucum#section-Prefixes"""
    plain = canonical(atom)
    assert plain is not None
    for prefix, factor in ucum_atoms.PREFIXES.items():
        if prefix + atom in atoms():
            continue
        found = canonical(prefix + atom)
        assert (found == ucum.Canonical(plain.unit, plain.factor * factor)) == is_metric, prefix
        assert is_metric or found is None, prefix


def test_no_code_can_be_read_in_two_ways():
    """https://ucum.org/ucum#section-Prefixes"""
    metric = [atom for atom, is_metric in atoms().items() if is_metric] + ["Cel", *ucum_atoms.LEVELS]
    prefixed = Counter(prefix + atom for prefix in ucum_atoms.PREFIXES for atom in metric)

    assert {code for code in prefixed if prefixed[code] > 1} == set()
    assert prefixed.keys() & atoms().keys() == {"cd", "m[H2O]", "m[Hg]", "Pa"} & prefixed.keys()


@pytest.mark.parametrize(
    ("one", "other"),
    [("[iU]", "[arb'U]"), ("[iU]", "1"), ("[pH]", "mol/L"), ("B[SPL]", "B[V]"), ("B", "Np"), ("deg", "1")],
)
def test_some_units_compare_only_with_themselves(one, other):
    """https://ucum.org/ucum#section-Arbitrary-Units"""
    assert canonical(one).unit != canonical(other).unit


codes = st.recursive(
    st.builds(
        lambda prefix, atom, exponent: prefix + atom + exponent,
        st.sampled_from(["", "k", "m", "u", "d"]),
        st.sampled_from(["g", "m", "s", "mol", "L", "Pa", "[iU]", "m[Hg]", "U", "eq"]),
        st.sampled_from(["", "2", "-1", "+3"]),
    )
    | st.sampled_from(["10*3", "min", "[lb_av]", "%", "7", "{x}", "h{x}", "[pi]", "[hp_X]"]),
    lambda inner: st.builds("({}.{})".format, inner, inner) | st.builds("({}/{})".format, inner, inner),
    max_leaves=4,
)


def powers(unit: str) -> Counter[str]:
    if unit == "1":
        return Counter()
    parts = (ucum._SYMBOL.match(part)[0] for part in unit.split("."))
    return Counter(
        {base: int(part[len(base) :] or 1) for base, part in zip(parts, unit.split("."), strict=True)}
    )


def combined(one: ucum.Canonical, other: ucum.Canonical, sign: int) -> tuple[dict[str, int], Fraction]:
    sums = powers(one.unit)
    for base, power in powers(other.unit).items():
        sums[base] += sign * power
    return {base: power for base, power in sums.items() if power}, one.factor * other.factor**sign


@given(codes, codes)
def test_products_and_quotients_are_those_of_their_units(one, other):
    units = canonical(one), canonical(other)
    for code, sign in ((f"{one}.{other}", 1), (f"{one}/{other}", -1)):
        found = canonical(code)
        assert (dict(powers(found.unit)), found.factor) == combined(*units, sign)


@given(codes)
def test_the_inverse_takes_a_unit_away(code):
    assert canonical(f"{code}.(1/{code})") == canonical(f"{code}/{code}") == canonical("1")
    assert canonical(f"/{code}") == canonical(f"1/{code}")


@given(codes)
def test_annotations_and_parentheses_change_nothing(code):
    assert canonical(f"({code}){{of something}}") == canonical(code)


@given(codes)
def test_a_canonical_unit_is_its_own(code):
    unit = canonical(code).unit

    assert canonical(unit) == ucum.Canonical(unit, Fraction(1))


@given(st.text("10*^mgLs[]{}()./'%-+kiU ", max_size=30))
def test_whatever_is_asked_there_is_an_answer(text):
    found = canonical(text)

    assert found is None or found.factor > 0


amounts = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6)


@given(amounts, amounts, st.sampled_from(["g", "mg/dL", "/min", "[degF]", "Cel", "[lb_av]", "deg", "mo/7"]))
def test_what_is_more_stays_more(one, other, code):
    unit = canonical(code)
    keys = [decimals.key(unit.convert(value)) for value in (one, other)]

    assert (keys[0] < keys[1]) == (one < other)


@given(amounts)
def test_amounts_that_decimals_can_hold_are_exact(value):
    assert canonical("mg/dL").convert(value) == Fraction(value) * 10
    assert canonical("Cel").convert(value) == Fraction(value) + Fraction("273.15")


def test_other_amounts_have_34_digits():
    """Half to even, as all amounts are rounded, so that none overtakes another."""
    assert canonical("/min").convert(70) == Decimal("1." + "1" + "6" * 31 + "7")
    assert canonical("g").convert(Decimal("1" * 34 + ".5")) == Decimal("1" * 33 + "2")
    assert canonical("g").convert(Decimal("1" * 33 + "2.5")) == Decimal("1" * 33 + "2")


@pytest.mark.parametrize("lexeme", ["1e1000", "-1e-1000", "9" * 64, "0"])
def test_the_largest_and_smallest_numbers_can_be_converted(lexeme):
    for code in ("Ym99", "ys-99", "[degF]"):
        decimals.key(canonical(code).convert(json.Number(lexeme)))


def test_every_unit_of_the_official_examples_is_known_but_what_is_none(examples):
    """Each of these stands where UCUM is named as the system, and isn't UCUM."""
    found = {code for data in examples.values() for code in ucum_codes(json.loads(data))}

    assert {code for code in found if canonical(code) is None} == {
        "TAB",
        "drop",
        "ea",
        "mEq",
        "mcg",
        "ml/hr",
        "month",
        "tbl",
    }


def test_every_unit_of_hl7s_lists_is_known(examples_package, expansions_package):
    """HL7's 1,000 and more units for clinical use, spaces within annotations included."""
    lists = {"ValueSet-ucum-common.json", "ValueSet-ucum-units.json"}
    found = {
        concept["code"]
        for package in (examples_package, expansions_package)
        for name, data in files(package)
        if name in lists
        for concept in concepts(json.loads(data))
    }

    assert len(found) > 1000
    assert {code for code in found if canonical(code) is None} == set()


def concepts(value_set):
    for include in value_set["compose"]["include"]:
        yield from include.get("concept", [])
    yield from value_set.get("expansion", {}).get("contains", [])


def ucum_codes(value):
    if isinstance(value, dict):
        if value.get("system") == ucum.SYSTEM and isinstance(value.get("code"), str):
            yield value["code"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from ucum_codes(item)
