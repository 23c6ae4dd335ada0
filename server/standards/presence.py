"""An index that somebody took away is no bug: searches have another way, and indexing waits."""

from collections.abc import Generator
from contextlib import contextmanager

from psycopg import errors
from sqlalchemy.exc import ProgrammingError

from server.errors import Unavailable

MISSING = (errors.UndefinedTable, errors.UndefinedColumn)


class IndexGone(Unavailable):
    code = "index_gone"


@contextmanager
def expecting_index() -> Generator[None]:
    """Say that the index is gone where one of its tables is.

    Raises:
        IndexGone: it is.
    """
    try:
        yield
    except ProgrammingError as error:
        if isinstance(error.orig, MISSING):
            raise index_gone() from error
        raise


def index_gone() -> IndexGone:
    return IndexGone(
        "The index of standards is gone.",
        hint="`dramatis standards index` makes it anew; a table that is missing comes from a backup.",
    )
