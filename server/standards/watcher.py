"""Follow the folders of standards, so that a text is searchable moments after it was saved.

Whatever changes, the files are compared with the index anew: that costs milliseconds, and no list
of events tells reliably what is on the disk. The watcher collects what happens while an index run
is under way, and hands it over when it is asked again; so nothing is lost.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from sqlalchemy.exc import DBAPIError
from watchfiles import (
    Change,
    awatch,  # pyright: ignore[reportUnknownVariableType]  # an event of any library
)

from server.errors import DramatisError
from server.standards.indexer import Progress, contents, index_standards
from server.standards.projects import the_place
from server.standards.semantic import embed_missing
from server.standards.shapes import IndexReport
from server.work import App, Caller, Place

_log = logging.getLogger(__name__)

# An editor's save is several events; this joins them and is not felt.
DEBOUNCE_MS = 150
STEP_MS = 30
# How often it is looked whether a folder was made, removed or put in another's place.
LOOK_MS = 1_000
# After an index run that failed, with the database away or busy.
RETRY_S = 2

Told = Callable[[IndexReport], Awaitable[None]]


async def keep_indexed(
    app: App, caller: Caller, told: Told, *, progress: Progress | None = None
) -> None:
    """Index what is there and then every change, until cancelled.

    Args:
        told: called after each run that changed something, and after the first.
    """
    place = the_place(app)
    seen: dict[str, str] | None = None
    wake, woken = anyio.create_memory_object_stream[None](1)
    # In this order: whoever reads the stream has to be gone before it is closed.
    async with wake, woken, anyio.create_task_group() as tasks:
        stop = anyio.Event()
        tasks.start_soon(_set_in_the_end, stop)
        tasks.start_soon(_keep_embedded, app, caller, woken)
        async for _ in changes(place, stop):
            report, now = await _index(app, caller, progress)
            if seen is not None:
                # Somebody else may have indexed it first, and these listeners are ours.
                report = report.model_copy(update=_differences(seen, now))
            if seen is None or report.changed or report.removed:
                await told(report)
            seen = now
            # When it is full, it is about to look anyway.
            with suppress(anyio.WouldBlock):
                wake.send_nowait(None)


def _differences(before: dict[str, str], now: dict[str, str]) -> dict[str, list[str]]:
    return {
        "changed": [file for file, sha256 in now.items() if before.get(file) != sha256],
        "removed": [file for file in before if file not in now],
    }


async def changes(place: Place, stop: anyio.Event) -> AsyncGenerator[None]:
    """Yield at once, and then after every change below the folders of standards.

    Where the system cannot watch, which on Linux ends at a number for each user, it yields every
    second.
    """
    seen: dict[Path, int] | None = None
    while True:
        roots = _roots(place)
        if roots or roots != seen:
            yield
        seen = roots
        if not roots:
            await anyio.sleep(LOOK_MS / 1000)
            continue
        try:
            async for _ in _events(place, roots, stop):
                yield
        except (OSError, RuntimeError) as error:
            # Or a folder was removed before it was watched, which the next look will see.
            _log.debug("the standards cannot be watched: %s", error)
            await anyio.sleep(LOOK_MS / 1000)


async def _events(
    place: Place, roots: Mapping[Path, int], stop: anyio.Event
) -> AsyncGenerator[None]:
    """Yield for every batch of events, until the folders are not those any more."""
    watching = False
    async for batch in awatch(
        *roots,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        stop_event=stop,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
    ):
        # One that was made anew can have the number of the old one, which alone is watched.
        gone = any((Change.deleted, str(root)) in batch for root in roots)
        if gone or _roots(place) != roots:
            return
        # The first time also without an event: something may have happened before it watched.
        if batch or not watching:
            yield
        watching = True


async def _set_in_the_end(stop: anyio.Event) -> None:
    """Set an event when this is cancelled: the thread that watches cannot be."""
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


async def _index(
    app: App, caller: Caller, progress: Progress | None
) -> tuple[IndexReport, dict[str, str]]:
    """Run until it succeeds: a database that is away now may be back in a moment.

    Returns:
        What the run did, and what is indexed then.
    """
    while True:
        try:
            report = await index_standards(app, caller, progress=progress)
            async with app.work(caller) as work:
                return report, await contents(work)
        except DramatisError as error:
            _log.warning("the standards are not indexed: %s", error)
        except DBAPIError as error:
            # Somebody took a table away, or is migrating; searches scan the files meanwhile.
            _log.warning("the standards are not indexed: %s", type(error.orig).__name__)
        except OSError as error:
            _log.warning("the standards are not indexed: %s", error.strerror)
        await anyio.sleep(RETRY_S)


async def _keep_embedded(app: App, caller: Caller, woken: MemoryObjectReceiveStream[None]) -> None:
    async for _ in woken:
        try:
            await embed_missing(app, caller)
        except DramatisError as error:
            _log.warning("no vectors of standards are made: %s", error)
        except DBAPIError as error:
            _log.warning("no vectors of standards are made: %s", type(error.orig).__name__)


def _roots(place: Place) -> dict[Path, int]:
    """Return the folders that are there, with what tells each from another of its name."""
    folders = [place.standards, *([place.library] if place.library else [])]
    found: dict[Path, int] = {}
    for folder in folders:
        try:
            found[folder] = folder.stat().st_ino
        except OSError:
            continue
    return found
