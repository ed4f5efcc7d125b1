"""Units of work as what there is to write, by the rules of a store and the record as it stands; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from gitstore.ahead import Ahead, prepare_ahead, taken_over
from gitstore.aims import Rules
from gitstore.canonicals import Canonicals, Judge
from gitstore.interactions import Unit, Validate
from gitstore.preparation import Prepared, prepare
from gitstore.reading import Reading
from gitstore.search.index import Connection, Index
from gitstore.settings import Settings


class Rehearsing:
    """Of one store. Any thread may call. What the methods with a name of Store's mean stands there."""

    def __init__(
        self,
        search_index: Index,
        reading: Reading,
        canonicals: Canonicals,
        validate: Validate | None,
        settings: Settings,
        new_id: Callable[[], str],
    ) -> None:
        self._index = search_index
        self._reading = reading
        self._canonicals = canonicals
        self._validate = validate
        self._settings = settings
        self._new_id = new_id

    def rules(self, connection: Connection) -> Rules:
        """Those for a unit that is prepared now, by what the index behind a connection knows."""
        settings = self._settings
        return Rules(
            self._new_id,
            Judge(self._canonicals) if settings.validation == "full" else self._validate,
            self._index.registry(connection),
            skip_unchanged=settings.unchanged_update == "skip",
            max_deletes=settings.max_entries if settings.conditional_delete == "multiple" else 1,
        )

    def rehearse(self, unit: Unit) -> Prepared:
        with ExitStack() as stack:
            rules = self.rules(self._index.reader())
            return prepare(unit, rules, lambda: stack.enter_context(self._reading.reading(unit.access)))

    def prepare_ahead(self, unit: Unit) -> Ahead:
        with ExitStack() as stack:
            rules = self.rules(self._index.reader())
            return prepare_ahead(unit, rules, lambda: stack.enter_context(self._reading.reading(unit.access)))

    def holds(self, ahead: Ahead) -> bool:
        """Whether preparing it now would come to the same, but for what the writer looks at."""
        with ExitStack() as stack:
            return ahead.holds(
                self._canonicals.state,
                lambda ahead: stack.enter_context(self._reading.reading(ahead.unit.access)),
            )

    def handed_over(self, data: bytes) -> object:
        return taken_over(data, self._index.registry(self._index.reader()))
