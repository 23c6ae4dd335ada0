"""The baseline: what Postgres and the disk cost when nobody but psycopg stands before them."""

import itertools
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

_folders = itertools.count(1)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Statement:
    text: bytes
    parameters: Any


@dataclass(frozen=True, slots=True)
class Files:
    """What a registration leaves on the disk, to be written again beside it."""

    parent: Path
    texts: dict[str, str]

    @classmethod
    def like(cls, folder: Path) -> "Files":
        texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
        return cls(folder.parent, texts)

    def write(self) -> None:
        folder = self.parent / f"raw-{next(_folders)}"
        folder.mkdir(parents=True)
        for name, text in self.texts.items():
            beside = folder / f".{name}.tmp"
            with beside.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
            os.link(beside, folder / name)
            beside.unlink()


@dataclass(frozen=True, slots=True)
class Replay:
    """One of our use cases as its statements, in a transaction, and its files in a thread."""

    statements: list[Statement]
    files: Files | None

    async def run(self, connection: Connection) -> None:
        async with connection.transaction():
            for statement in self.statements:
                cursor = await connection.execute(statement.text, statement.parameters)
                if cursor.description:
                    await cursor.fetchall()
        if self.files is not None:
            await anyio.to_thread.run_sync(self.files.write)


@contextmanager
def recorded(engine: AsyncEngine) -> Generator[list[Statement]]:
    """Collect the statements our code sends, so that the baseline sends the same."""
    statements: list[Statement] = []

    def record(_c: object, _k: object, text: str, parameters: Any, *_: object) -> None:
        statements.append(Statement(text.encode(), parameters or None))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)


@dataclass(frozen=True, slots=True)
class Pool:
    """Open connections, handed out one at a time."""

    idle: list[Connection]
    places: anyio.Semaphore

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        async with self.places:
            connection = self.idle.pop()
            try:
                yield connection
            finally:
                self.idle.append(connection)


@asynccontextmanager
async def pool(host: str, size: int) -> AsyncGenerator[Pool]:
    """Open `size` connections as the login that serves, which row-level security binds."""
    async with AsyncExitStack() as opened:
        idle: list[Connection] = []
        for _ in range(size):
            connection = await psycopg.AsyncConnection.connect(
                host=host, port=5432, user="dramatis_app", dbname="dramatis", autocommit=True
            )
            idle.append(await opened.enter_async_context(connection))
        yield Pool(idle, anyio.Semaphore(size))
