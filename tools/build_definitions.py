"""Makes the data of gitstore/fhir, the definitions of FHIR R4, from HL7's own packages (CC0).

    python -m tools.build_definitions [hl7.fhir.r4.examples-4.0.1.tgz hl7.fhir.r4.expansions-4.0.1.tgz]

Without arguments the packages come from the folder FHIR_PACKAGES_CACHE (by default
~/.cache/git-fhir/packages), where `npm pack` puts them if they aren't there yet.

The data is compressed text with one section on each line, a JSON object with one property. Types are sorted
by name, elements stand in the order of FHIR.

definitions.jsonl.xz:

    types        name -> kind (resource or complex-type), base, abstract (only where true)
    elements     type or path of a backbone element -> name (`value[x]` for a choice) -> types, min, max and,
                 where there is something to say: summary, modifier, binding ([strength, value set]),
                 targets (Reference or canonical -> the types it may lead to), profiles (type -> profile of it)
    constraints  type, element or profile -> [key, severity, FHIRPath], ...

codes.jsonl.xz:

    caseSensitive  code system -> whether upper and lower case make a difference, where its definition says so
    codes        value set of a required binding -> code system -> codes

search.jsonl.xz:

    parameters   SearchParameter's code, base, type, expression, target, component, modifier, comparator, chain
                 and multipleOr, by its id in the order of the specification
    compartments type -> resource type -> search parameters

A type with a dot, such as Patient.contact, is the path of the backbone element that has the children, be it
the element itself or the one that its contentReference names. `constraints` leave out ele-1, which says that
nothing is empty, and what an element has only because its type has it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = ("hl7.fhir.r4.examples", "4.0.1")
EXPANSIONS = ("hl7.fhir.r4.expansions", "4.0.1")
FOLDER = Path(__file__).parent.parent / "gitstore" / "fhir"

_SHA256 = {
    EXAMPLES: "dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682",
    EXPANSIONS: "18b2b00a6e26328bdbe4b2e273de5be32dfce21be37e0f582d18882bbce24e69",
}

_DEFINITIONS = frozenset(
    [
        "CodeSystem",
        "CompartmentDefinition",
        "ConceptMap",
        "ImplementationGuide",
        "OperationDefinition",
        "SearchParameter",
        "StructureDefinition",
        "ValueSet",
    ]
)
_BUNDLES_OF_DEFINITIONS = frozenset(
    f"Bundle-{name}.json"
    for name in [
        "conceptmaps",
        "dataelements",
        "extensions",
        "profiles-others",
        "resources",
        "searchParams",
        "types",
        "v2-valuesets",
        "v3-valuesets",
        "valueset-expansions",
        "valuesets",
    ]
)
_KINDS = ("resource", "complex-type")
_EVERYWHERE = (
    "ele-1",
    "ext-1",
    "txt-1",
    "txt-2",
)  # all elements; Extension, which keeps it; the narrative's HTML
_OF_A_SEARCH_PARAMETER = (
    "code",
    "base",
    "type",
    "expression",
    "target",
    "component",
    "modifier",
    "comparator",
    "chain",
    "multipleOr",
)
_SIMPLE_QUANTITY = "http://hl7.org/fhir/StructureDefinition/SimpleQuantity"  # the one profile in the base
_TOO_COSTLY = "http://hl7.org/fhir/StructureDefinition/valueset-toocostly"
_FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"


class PackageMissingError(Exception):
    """A package is neither in the folder of packages nor to be had; the text says why."""


def package(name: str, version: str) -> Path:
    """The .tgz of an npm package, from the folder of packages, downloaded into it if need be.

    Raises PackageMissingError where it isn't there and can't be downloaded.
    """
    folder = Path(os.environ.get("FHIR_PACKAGES_CACHE") or "~/.cache/git-fhir/packages").expanduser()
    path = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            os.replace(_download(name, version, Path(temporary)), path)
    return path


def _download(name: str, version: str, folder: Path) -> Path:
    missing = f"the npm package {name} {version} is missing"
    npm = shutil.which("npm")
    if npm is None:
        raise PackageMissingError(f"{missing}, and so is npm to download it with")
    command = [npm, "pack", "--silent", "--fetch-retries=1", f"{name}@{version}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        raise PackageMissingError(f"{missing}: npm pack failed: {error.stderr.strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise PackageMissingError(f"{missing}: npm pack took more than {error.timeout:.0f} s") from error
    [path] = folder.glob("*.tgz")
    expected = _SHA256.get((name, version))
    if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise PackageMissingError(
            f"{missing}: what was downloaded is not the known file (SHA-256 {expected})"
        )
    return path


def files(tgz: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each resource in a FHIR package, in the order in which it holds them."""
    with tarfile.open(tgz, "r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            content = archive.extractfile(member) if name.endswith(".json") else None
            if content is not None and name != "package.json":
                yield name, content.read()


def instances(tgz: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each of the 726 examples in the package, without the definitions around them."""
    for name, content in files(tgz):
        if (
            name.partition("-")[0] not in _DEFINITIONS
            and name not in _BUNDLES_OF_DEFINITIONS
            and name != "ig-r4.json"
        ):
            yield name, content


def data(examples: Path, expansions: Path) -> dict[str, bytes]:
    """The files of the data before compression, by name; the same for the same packages."""
    types: dict[str, Any] = {}
    elements: dict[str, dict[str, Any]] = {}
    constraints: dict[str, list[list[str]]] = {}
    search: dict[str, Any] = {}
    compartments: dict[str, Any] = {}
    case_sensitive: dict[str, bool] = {}
    for name, content in files(examples):
        if name.startswith("StructureDefinition-"):
            structure = json.loads(content)
            if structure["url"] == _SIMPLE_QUANTITY:
                constraints["SimpleQuantity"] = _own_constraints(
                    structure["snapshot"]["element"][0], ["sqty-1"]
                )
            elif structure["kind"] in _KINDS and structure.get("derivation") != "constraint":
                types[structure["type"]] = _type(structure)
                elements |= _elements(structure)
                constraints |= _constraints(structure)
        elif name == "Bundle-searchParams.json":
            search = _search_parameters(json.loads(content))
        elif name.startswith("CompartmentDefinition-") and name != "CompartmentDefinition-example.json":
            compartment = json.loads(content)
            compartments[compartment["code"]] = _compartment(compartment)
        elif name.startswith("CodeSystem-"):
            system = json.loads(content)
            if "caseSensitive" in system:
                case_sensitive[system["url"]] = system["caseSensitive"]
    bindings = _required(elements)
    return {
        "definitions.jsonl.xz": _line("types", types)
        + _line("elements", elements)
        + _line("constraints", _without_inherited(constraints, types)),
        "codes.jsonl.xz": _line("caseSensitive", case_sensitive)
        + _line("codes", _codes(expansions, bindings)),
        "search.jsonl.xz": _line("parameters", search, sort=False) + _line("compartments", compartments),
    }


def _line(section: str, content: dict[str, Any], *, sort: bool = True) -> bytes:
    ordered = dict(sorted(content.items())) if sort else content
    return json.dumps({section: ordered}, separators=(",", ":")).encode() + b"\n"


def _type(structure: dict[str, Any]) -> dict[str, Any]:
    description = {"kind": structure["kind"]}
    if "baseDefinition" in structure:
        description["base"] = structure["baseDefinition"].rpartition("/")[2]
    if structure["abstract"]:
        description["abstract"] = True
    return description


def _elements(structure: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The elements of a type and of the backbone elements in it, by the path of what they are children of."""
    snapshot = structure["snapshot"]["element"]
    parents = {element["path"].rpartition(".")[0] for element in snapshot}
    children: dict[str, dict[str, Any]] = {}
    for element in snapshot[1:]:
        path = element["path"]
        parent, _, name = path.rpartition(".")
        if "contentReference" in element:
            codes = [element["contentReference"].removeprefix("#")]
        elif path in parents:
            codes = [path]
        elif structure["kind"] == "resource" and parent == structure["type"] and name == "id":
            codes = ["id"]  # the snapshots say string here
        else:
            codes = [_code(type) for type in element["type"]]
        description = {"types": codes, "min": element["min"], "max": element["max"], **_rules(element)}
        children.setdefault(parent, {})[name] = description
    return children


def _rules(element: dict[str, Any]) -> dict[str, Any]:
    """What an element says beyond types and cardinality; most say nothing."""
    rules: dict[str, Any] = {}
    if element.get("isSummary"):
        rules["summary"] = True
    if element.get("isModifier"):
        rules["modifier"] = True
    binding = element.get("binding")
    if binding and "valueSet" in binding:
        rules["binding"] = [binding["strength"], binding["valueSet"].partition("|")[0]]
    targets = {
        type["code"]: sorted(map(_last_segment, type["targetProfile"]))
        for type in element.get("type", ())
        if "targetProfile" in type
    }
    if targets:
        rules["targets"] = targets
    profiles = {
        type["code"]: _last_segment(type["profile"][0])
        for type in element.get("type", ())
        if "profile" in type
    }
    if profiles:
        rules["profiles"] = profiles
    return rules


def _last_segment(url: str) -> str:
    return url.rpartition("/")[2]


def _required(elements: dict[str, dict[str, Any]]) -> set[str]:
    """The value sets of all required bindings."""
    bindings = (
        rules["binding"]
        for children in elements.values()
        for rules in children.values()
        if "binding" in rules
    )
    return {value_set for strength, value_set in bindings if strength == "required"}


def _constraints(structure: dict[str, Any]) -> dict[str, list[list[str]]]:
    """The invariants of a type and its elements, by path."""
    found: dict[str, list[list[str]]] = {}
    for element in structure["snapshot"]["element"]:
        keys = [
            constraint["key"]
            for constraint in element.get("constraint", ())
            if constraint["key"] not in _EVERYWHERE
        ]
        if element["path"] == "Extension":
            keys.append("ext-1")
        if keys:
            found[element["path"]] = _own_constraints(element, keys)
    return found


def _own_constraints(element: dict[str, Any], keys: list[str]) -> list[list[str]]:
    return [
        [constraint["key"], constraint["severity"], constraint["expression"]]
        for constraint in element["constraint"]
        if constraint["key"] in keys
    ]


def _without_inherited(
    constraints: dict[str, list[list[str]]], types: dict[str, dict[str, Any]]
) -> dict[str, list[list[str]]]:
    """The same, where what a type has from its base stands only there (dom-2 at DomainResource)."""
    own: dict[str, list[list[str]]] = {}
    for path, rules in constraints.items():
        inherited: list[list[str]] = constraints.get(types.get(path, {}).get("base", ""), [])
        if remaining := [rule for rule in rules if rule not in inherited]:
            own[path] = remaining
    return own


def _codes(expansions: Path, value_sets: set[str]) -> dict[str, dict[str, list[str]]]:
    """System and codes of each of the value sets that can be expanded as a whole."""
    codes: dict[str, dict[str, list[str]]] = {}
    for _, content in files(expansions):
        value_set = json.loads(content)
        if value_set["url"] not in value_sets:
            continue
        expansion = value_set["expansion"]
        if any(extension["url"] == _TOO_COSTLY for extension in expansion.get("extension", ())):
            continue
        systems: dict[str, list[str]] = {}
        for concept in _concepts(expansion["contains"]):
            systems.setdefault(concept["system"], []).append(concept["code"])
        codes[value_set["url"]] = systems
    return codes


def _concepts(contains: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for concept in contains:
        if "code" in concept:
            yield concept
        yield from _concepts(concept.get("contains", []))


def _search_parameters(bundle: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parameters = (entry["resource"] for entry in bundle["entry"])
    return {
        _last_segment(parameter["url"]): {
            name: _components(parameter[name]) if name == "component" else parameter[name]
            for name in _OF_A_SEARCH_PARAMETER
            if name in parameter
        }
        for parameter in parameters
    }


def _components(components: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {"definition": _last_segment(component["definition"]), "expression": component["expression"]}
        for component in components
    ]


def _compartment(definition: dict[str, Any]) -> dict[str, list[str]]:
    return {resource["code"]: resource["param"] for resource in definition["resource"] if "param" in resource}


def _code(type: dict[str, Any]) -> str:
    """The name of a FHIR type; where a type of FHIRPath stands, an extension has that of FHIR."""
    for extension in type.get("extension", ()):
        if extension["url"] == _FHIR_TYPE:
            return str(extension["valueUrl"])
    return str(type["code"])


def main(arguments: list[str]) -> None:
    examples, expansions = map(Path, arguments) if arguments else (package(*EXAMPLES), package(*EXPANSIONS))
    for name, content in data(examples, expansions).items():
        compressed = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
        (FOLDER / name).write_bytes(compressed)
        print(f"{name}: {len(content):,} bytes, {len(compressed):,} compressed")


if __name__ == "__main__":
    main(sys.argv[1:])
