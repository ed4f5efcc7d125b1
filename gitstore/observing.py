"""What a store tells whoever watches it: how long things took, and how many they were. It knows nobody who listens."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Called in the thread in which it happened, often under a lock: it returns at once and raises nothing."""

    def queued(self, units: int) -> None:
        """So many units wait in this process for its writing thread, which has not taken them yet."""

    def waited(self, seconds: float) -> None:
        """Somebody of this process has the writer's lock, and waited so long for it."""

    def published(self, commits: int, seconds: float) -> None:
        """One durable write took so long, every fsync included, and moved main by so many commits."""

    def failed(self) -> None:
        """A group of units as a whole could not be written."""

    def maintained(self, seconds: float, *, succeeded: bool) -> None:
        """Maintenance that this process began took so long."""

    def refused_as_too_costly(self) -> None:
        """A search was broken off, because it would take more work than it may. Entries of a batch don't count."""


class Unobserved:
    """Nobody watches."""

    def queued(self, units: int) -> None: ...

    def waited(self, seconds: float) -> None: ...

    def published(self, commits: int, seconds: float) -> None: ...

    def failed(self) -> None: ...

    def maintained(self, seconds: float, *, succeeded: bool) -> None: ...

    def refused_as_too_costly(self) -> None: ...


UNOBSERVED = Unobserved()
