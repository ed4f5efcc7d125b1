"""Preparing what is to be imported in processes of their own, ahead of the one that writes.

They are forked before there are threads, or a store: each opens the store for itself when it gets its first task. A
task is some documents; what comes back are the documents' units, each prepared. The one that writes takes them in their
order, and looks again at what they depend on.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeAlias

from msgspec.structs import replace

from cli.documents import Document, Inputs, Read, Refusal
from cli.importing import Importer
from cli.opening import open_store
from cli.units import Item, Planned, Planner, seeded
from gitstore import Interaction, Store, StoreError, Unavailable, hand_over

ENOUGH = 512 * 1024
"""Bytes of input, as files lie on disk, from which on other processes are worth what they cost to begin with."""
_LOT_BYTES = 128 * 1024
_LOT_DOCUMENTS = 100
"""Documents go together up to so much: a message for each small one would cost more than it saves."""
_WINDOW_BYTES = 16 * 1024**2
_WINDOW_LOTS = 256
"""So much is read ahead of what is written, and a document more."""

_Task: TypeAlias = list[tuple[Document, frozenset[int] | None]]
"""Documents, and which of the units of each are wanted; None for all."""


class Helpers:
    """The processes. Each does one task at a time; a thread of ours waits for it."""

    def __init__(self, count: int, planner: Planner) -> None:
        """To be called while this process has no other thread and has opened no store."""
        context = multiprocessing.get_context("fork")
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            # Who keeps another one's end of a pipe open would not let it notice that we are gone.
            process = context.Process(
                target=_help, args=(theirs, tuple(self._connections), planner), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._idle.put(ours)
        self._threads = ThreadPoolExecutor(count, "git-fhir preparing")

    def submit(self, task: _Task) -> Future[bytes]:
        """Have a task done: the result is what `_help` answers. Raises Unavailable where a process has ended."""
        return self._threads.submit(self._ask, task)

    def _ask(self, task: _Task) -> bytes:
        connection = self._idle.get()
        try:
            connection.send_bytes(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
            return connection.recv_bytes()
        except (EOFError, OSError) as error:
            text = "A process that prepares what is imported has ended. What was written is whole; the same command goes on."
            raise Unavailable(text) from error
        finally:
            self._idle.put(connection)

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *exception: object) -> None:
        """They hold nothing that needs to be put in order."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.join()


def _help(connection: Connection, others: Iterable[Connection], planner: Planner) -> None:
    """Do tasks until there are no more: a list of what each document is planned as, prepared, or a StoreError."""
    # Ctrl-C is for the one that writes, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in others:
        other.close()
    # Either says that the one that writes has ended, so there is nobody to work for.
    with suppress(EOFError, ConnectionError), ExitStack() as stack:
        store: Store | None = None
        while True:
            # From nobody but the process that we are a part of.
            task: _Task = pickle.loads(connection.recv_bytes())  # noqa: S301
            answer: list[list[Planned]] | StoreError
            try:
                store = store or stack.enter_context(open_store())
                answer = [_prepared(store, planner, document, wanted) for document, wanted in task]
            except StoreError as error:
                answer = error
            connection.send_bytes(hand_over(answer))


def _prepared(
    store: Store, planner: Planner, document: Document, wanted: frozenset[int] | None
) -> list[Planned]:
    """What a document is planned as, with each unit prepared and without its interactions, which are large."""
    found: list[Planned] = []
    for number, planned in enumerate(planner.outline(document)):
        if wanted is not None and number not in wanted:
            continue
        found.append(planned if isinstance(planned, Refusal) else _prepared_item(store, planned))
    return found


def _prepared_item(store: Store, item: Item) -> Item:
    ahead = store.prepare_ahead(item.unit).without_unit()
    return replace(item, unit=replace(item.unit, interactions=()), ahead=ahead)


class _Elsewhere(Sequence[Interaction]):
    """The interactions of a unit that was prepared elsewhere, planned again where somebody looks at them."""

    def __init__(self, count: int, plan: Callable[[], Sequence[Interaction]]) -> None:
        self._count = count
        self._plan = plan

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._plan()[index]

    def __iter__(self) -> Iterator[Interaction]:
        return iter(self._plan())


class _Lot:
    """Documents that are prepared in one task, and what they are planned as once that is known."""

    def __init__(self, desk: Desk, reads: Sequence[Read] = (), items: Sequence[Item] = ()) -> None:
        """`items` are units that have been prepared before, and are to be once more."""
        self.size = sum(len(read.data) for read in reads if isinstance(read, Document))
        self.size += sum(item.size for item in items)
        self._desk = desk
        self._reads = reads
        self._planned: list[Planned] = list(items)
        self._renewing: list[int] = []
        """Places of what is being prepared once more."""

        documents = [read for read in reads if isinstance(read, Document)]
        self._future = None if items else desk.submit([(each, None) for each in documents])
        if items:
            self._renew(range(len(items)))

    @property
    def is_ready(self) -> bool:
        return self._future is None or self._future.done()

    def planned(self) -> list[Planned]:
        """What the documents are planned as, in their order. Waits for it."""
        if self._future is None:
            return self._planned
        answer = self._desk.answer(self._future)
        self._future = None
        if self._renewing:
            again = (planned for one in answer for planned in one)
            for place in self._renewing:
                self._planned[place] = _with_news(self._planned[place], next(again))
            self._renewing = []
            return self._planned
        for read in self._reads:
            if isinstance(read, Refusal):
                self._planned.append(read)
            else:
                self._planned += [self._desk.received(read, planned) for planned in answer.pop(0)]
        return self._planned

    def renew(self, commit: str) -> None:
        """Prepare once more what is ready and was refused for what the record said before this commit."""
        if self.is_ready:
            self._renew(
                [
                    place
                    for place, planned in enumerate(self.planned())
                    if isinstance(planned, Item) and planned.ahead and planned.ahead.may_change(commit)
                ]
            )

    def _renew(self, places: Sequence[int]) -> None:
        items = [item for place in places if isinstance(item := self._planned[place], Item)]
        if not items:
            return
        wanted: dict[int, tuple[Document, set[int]]] = {}
        for item in items:
            assert item.source is not None
            wanted.setdefault(id(item.source), (item.source, set()))[1].add(item.number)
        self._future = self._desk.submit(
            [(document, frozenset(numbers)) for document, numbers in wanted.values()]
        )
        self._renewing = list(places)


def _with_news(old: Planned, new: Planned) -> Planned:
    assert isinstance(old, Item)
    assert isinstance(new, Item)
    return replace(old, ahead=new.ahead)


class Desk:
    """Where documents are given out to be prepared, and what comes back is put in their order."""

    def __init__(self, helpers: Helpers, planner: Planner, store: Store, importer: Importer) -> None:
        self._helpers = helpers
        self._planner = planner
        self._store = store
        self._importer = importer
        self._outline: tuple[Document, list[Planned]] | None = None
        importer.again = self._again

    def steps(self, inputs: Inputs) -> Iterator[None]:
        """Prepare and write all of the inputs; a step now and then."""
        begun = 0
        reads = iter(inputs)
        if inputs.size is None:
            # It may be little, and it may come slowly.
            for read in reads:
                planned = [read] if isinstance(read, Refusal) else self._planner.plan(read)
                for each in planned:
                    self._importer.add(each)
                yield
                begun += len(read.data) if isinstance(read, Document) else 0
                if begun >= ENOUGH:
                    break
        window: deque[_Lot] = deque()
        for lot in self._ahead((_Lot(self, reads) for reads in _lots(reads)), window):
            self._write(lot, window)
            yield
        self._importer.finish()

    def _ahead(self, lots: Iterable[_Lot], window: deque[_Lot]) -> Iterator[_Lot]:
        """The lots in their order, with as many of them in the window behind as it holds."""
        for lot in lots:
            window.append(lot)
            while len(window) > _WINDOW_LOTS or sum(each.size for each in window) > _WINDOW_BYTES:
                yield window.popleft()
            while window and window[0].is_ready:
                yield window.popleft()
        while window:
            yield window.popleft()

    def _write(self, lot: _Lot, window: Iterable[_Lot]) -> None:
        planned = lot.planned()
        if any(isinstance(each, Item) and each.ahead and each.ahead.may_change("") for each in planned):
            # What it lacked may be there by now, and so for others.
            self._importer.flush()
            commit = self._store.snapshot().commit.id
            for each in (lot, *window):
                each.renew(commit)
            planned = lot.planned()
        for one in planned:
            self._importer.add(self._in_turn(one))

    def _in_turn(self, planned: Planned) -> Planned:
        planned = self._planner.counted(planned)
        return planned if isinstance(planned, Refusal) else _whole(planned)

    def _again(self, items: Sequence[Item]) -> Iterator[Item]:
        elsewhere = [item for item in items if item.source is not None]
        yield from (item for item in items if item.source is None)
        lots = (
            _Lot(self, items=elsewhere[start : start + _LOT_DOCUMENTS])
            for start in range(0, len(elsewhere), _LOT_DOCUMENTS)
        )
        for lot in self._ahead(lots, deque()):
            for planned in lot.planned():
                assert isinstance(planned, Item)
                yield _whole(planned)

    def submit(self, task: _Task) -> Future[bytes]:
        return self._helpers.submit(task)

    def answer(self, future: Future[bytes]) -> list[list[Planned]]:
        """What has come of a task. Raises StoreError where it couldn't be done."""
        answer: Any = self._store.handed_over(future.result())
        if isinstance(answer, StoreError):
            raise answer
        found: list[list[Planned]] = answer
        return found

    def received(self, document: Document, planned: Planned) -> Planned:
        """What was planned elsewhere, as if it had been planned here."""
        if isinstance(planned, Refusal):
            return planned
        number = planned.number
        interactions = _Elsewhere(len(planned.kinds), lambda: self._interactions(document, number))
        return replace(planned, unit=replace(planned.unit, interactions=interactions), source=document)

    def _interactions(self, document: Document, number: int) -> Sequence[Interaction]:
        if self._outline is None or self._outline[0] is not document:
            self._outline = document, list(self._planner.outline(document))
        planned = self._outline[1][number]
        assert isinstance(planned, Item)
        return planned.unit.interactions


def _whole(item: Item) -> Item:
    """With the unit in what it was prepared to, in the state in which it is to be written."""
    return item if item.ahead is None else replace(item, ahead=item.ahead.of(item.unit))


def _lots(reads: Iterable[Read]) -> Iterator[list[Read]]:
    """What belongs into one task."""
    lot: list[Read] = []
    size = 0
    for read in reads:
        lot.append(seeded(read) if isinstance(read, Document) else read)
        size += len(read.data) if isinstance(read, Document) else 0
        if size >= _LOT_BYTES or len(lot) >= _LOT_DOCUMENTS:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot
