"""Makes gitstore/fhir/definitions.jsonl.xz, the structure of FHIR R4 as data, from HL7's own package (CC0).

    python -m tools.build_definitions [hl7.fhir.r4.examples-4.0.1.tgz]

Without an argument the package comes from the folder FHIR_PACKAGES_CACHE (by default
~/.cache/git-fhir/packages), where `npm pack` puts it if it isn't there yet.

The data is compressed text with one section on each line, a JSON object with one property. Types are sorted
by name, elements stand in the order of FHIR:

    types      name -> kind (resource or complex-type), base, abstract (only where true)
    elements   type or path of a backbone element -> name (`value[x]` for a choice) -> types, min, max

A type with a dot, such as Patient.contact, is the path of the backbone element that has the children, be it
the element itself or the one that its contentReference names.
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
TARGET = Path(__file__).parent.parent / "gitstore" / "fhir" / "definitions.jsonl.xz"

_SHA256 = {
    EXAMPLES: "dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682",
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
_FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"


class PackageMissingError(Exception):
    """A package is neither in the folder of packages nor to be had; the text says why."""


def package(name: str, version: str) -> Path:
    """The .tgz of an npm package, from the folder of packages, downloaded into it if need be.

    Raises PackageMissingError where it isn't there and can't be downloaded.
    """
    folder = Path(os.environ.get("FHIR_PACKAGES_CACHE") or "~/.cache/git-fhir/packages").expanduser()
    path = folder / f"{name}-{version}.tgz"
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


def definitions(tgz: Path) -> bytes:
    """The lines of the data, before compression; the same for the same package."""
    types: dict[str, Any] = {}
    elements: dict[str, dict[str, Any]] = {}
    for name, content in files(tgz):
        if not name.startswith("StructureDefinition-"):
            continue
        structure = json.loads(content)
        if (
            structure["kind"] not in ("resource", "complex-type")
            or structure.get("derivation") == "constraint"
        ):
            continue
        types[structure["type"]] = _type(structure)
        elements |= _elements(structure)
    return _line("types", types) + _line("elements", elements)


def _line(section: str, content: dict[str, Any]) -> bytes:
    sorted_content = dict(sorted(content.items()))
    return json.dumps({section: sorted_content}, separators=(",", ":")).encode() + b"\n"


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
        description = {"types": codes, "min": element["min"], "max": element["max"]}
        children.setdefault(parent, {})[name] = description
    return children


def _code(type: dict[str, Any]) -> str:
    """The name of a FHIR type; where a type of FHIRPath stands, an extension has that of FHIR."""
    for extension in type.get("extension", ()):
        if extension["url"] == _FHIR_TYPE:
            return str(extension["valueUrl"])
    return str(type["code"])


def main(arguments: list[str]) -> None:
    tgz = Path(arguments[0]) if arguments else package(*EXAMPLES)
    data = definitions(tgz)
    compressed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    TARGET.write_bytes(compressed)
    print(f"{TARGET.name}: {len(data):,} bytes, {len(compressed):,} compressed")


if __name__ == "__main__":
    main(sys.argv[1:])
