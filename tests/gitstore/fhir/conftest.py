"""HL7's example resources, for the tests that look at real ones."""

from pathlib import Path

import pytest

from tools.build_definitions import EXAMPLES, PackageMissingError, instances, package


@pytest.fixture(scope="session")
def examples_package() -> Path:
    """The official package of definitions and examples; a test without it is skipped and says why."""
    try:
        return package(*EXAMPLES)
    except PackageMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def examples(examples_package: Path) -> dict[str, bytes]:
    """File name and bytes of each official example resource."""
    return dict(instances(examples_package))
