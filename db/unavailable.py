"""Why there is no embedded database to connect to, in words for the person who wants one."""

SET_A_URL = "set DRAMATIS_DATABASE_URL to a Postgres database of your own"


class EmbeddedUnavailable(Exception):
    """The embedded server cannot be used; the message is one sentence fit for a user.

    `hint` says what to do next. Neither names an absolute path.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class EmbeddedInUse(EmbeddedUnavailable):
    """Somebody else is attached to the server that was wanted alone."""
