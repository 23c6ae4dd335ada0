"""The app behind the server, opened in the background so that no client waits for it to start."""

from typing import TYPE_CHECKING

import anyio

from server.errors import DramatisError

if TYPE_CHECKING:
    from server.work import App, OpenApp


class Attachment:
    """Holds the app from the first use until the server stops.

    A database that is away does not keep the server from starting: the call that needs it gets
    the error, and the next call tries again.
    """

    def __init__(self, open_app: "OpenApp", *, read_only: bool) -> None:
        self._open_app = open_app
        self._wanted = anyio.Event()
        self._settled = anyio.Event()
        self._outcome: App | Exception | None = None
        self.read_only = read_only
        # Resources an older client asked to be told of. Over stdio a process has one client.
        self.subscribed: set[str] = set()

    def begin(self) -> None:
        """Start attaching, if nobody has, and return at once."""
        self._wanted.set()

    async def app(self) -> "App":
        """Wait for the app.

        Raises:
            DramatisError: it cannot be opened now.
        """
        self.begin()
        await self._settled.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    async def hold(self) -> None:
        """Open the app when it is wanted and keep it open until cancelled."""
        while True:
            await self._wanted.wait()
            self._settled = anyio.Event()
            try:
                async with self._open_app() as app:
                    self._settle(app)
                    await anyio.sleep_forever()
            except DramatisError as error:
                self._settle(error)
            # A bug in opening belongs to the calls that wait for it: here it would end the server.
            except Exception as error:  # noqa: BLE001
                self._settle(error)

    def _settle(self, outcome: "App | Exception") -> None:
        self._outcome = outcome
        if isinstance(outcome, Exception):
            self._wanted = anyio.Event()
        self._settled.set()
