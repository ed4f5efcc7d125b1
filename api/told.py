"""What of the record one answer gives out, for the access journal."""

from __future__ import annotations

from gitstore import Version, patients_in


class Told:
    """Whose data one answer holds: every stored body that is read for it passes here.

    `more`: others' as well, whom nobody counts.
    """

    more = False

    def __init__(self, base: str) -> None:
        self._bases = (base,)
        self.patients: dict[str, None] = {}

    def __call__(self, version: Version, body: bytes) -> None:
        if version.resource_id.type == "Patient":
            self.patients[version.resource_id.id] = None
        else:
            self.patients.update(dict.fromkeys(patients_in(body, self._bases)))
