"""The app behind the server, opened in the background so that no client waits for it to start."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from server.errors import Unavailable
from server.surfaces.mcp.audience import Audience

if TYPE_CHECKING:
    from server.work import App, OpenApp, Place

_log = logging.getLogger(__name__)

# What runs beside the server for as long as its app is open.
Companion = Callable[["App", Audience], Awaitable[None]]

# Where the project's standards are, without asking the database.
FindPlace = Callable[[], "Place | None"]


def nowhere() -> None:
    return None


# Somebody who waits for an answer gets one within the 10 seconds of SPEC 3.6.
PATIENCE_S = 9


class StillStarting(Unavailable):
    code = "still_starting"


@dataclass(eq=False)
class _Attempt:
    settled: anyio.Event = field(default_factory=anyio.Event)
    app: "App | None" = None
    error: Exception | None = None


class Attachment:
    """Holds the app from the first use until the server stops.

    A database that is away does not keep the server from starting: the call that needs it gets
    the error, and the next call tries again.
    """

    def __init__(
        self,
        open_app: "OpenApp",
        audience: Audience,
        *,
        read_only: bool,
        companions: Sequence[Companion] = (),
        find_place: FindPlace = nowhere,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._open_app = open_app
        self._companions = companions
        self.find_place = find_place
        self._patience_s = patience_s
        self._wanted = anyio.Event()
        self._attempt: _Attempt | None = None
        self.read_only = read_only
        self.audience = audience

    def begin(self) -> None:
        """Start attaching, if nobody has yet, and return at once."""
        if self._attempt is None:
            self._try()

    async def app(self) -> "App":
        """Wait for the app.

        Raises:
            DramatisError: it cannot be opened now.
        """
        attempt = self._attempt
        if attempt is None or attempt.error is not None:
            attempt = self._try()
        with anyio.move_on_after(self._patience_s):
            await attempt.settled.wait()
        if not attempt.settled.is_set():
            raise StillStarting(
                "The database is still being started.", hint="Try again in a few seconds."
            )
        if attempt.error is not None:
            raise attempt.error
        assert attempt.app is not None
        return attempt.app

    async def hold(self) -> None:
        """Open the app when it is wanted and keep it open until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            attempt = self._attempt
            assert attempt is not None
            try:
                async with self._open_app() as app:
                    attempt.app = app
                    attempt.settled.set()
                    async with anyio.create_task_group() as beside:
                        for companion in self._companions:
                            beside.start_soon(self._accompany, companion, app)
                        await anyio.sleep_forever()
            # A refusal is for the calls that wait, and so is a bug: here it would end the server.
            except Exception as error:  # noqa: BLE001
                attempt.error = error
            attempt.settled.set()

    async def _accompany(self, companion: Companion, app: "App") -> None:
        try:
            await companion(app, self.audience)
        # The server answers without it, and its bugs are for the log.
        except Exception:  # noqa: BLE001
            _log.exception("what runs beside the server has stopped")

    def _try(self) -> _Attempt:
        self._attempt = _Attempt()
        self._wanted.set()
        return self._attempt
