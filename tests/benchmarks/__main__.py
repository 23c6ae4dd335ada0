"""`make bench`: our numbers beside raw baselines, measured in the same run.

Nothing here fails for being slow: a goal that is missed is printed as missed.
"""

import argparse
import compileall
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio

from db.embedded import EmbeddedPostgres
from tests.benchmarks import (
    compiling,
    jobs,
    listing,
    memory,
    specs,
    standards,
    starting,
    throughput,
    verbs,
)
from tests.benchmarks.report import Section
from tests.benchmarks.wire import DRAMATIS, spawned
from tests.db.sessions import REPOSITORY, cleared


@dataclass(frozen=True, slots=True)
class Extent:
    starts: int
    sizes: list[int]
    calls: int
    registrations: int
    rounds: int
    factors: list[int]
    standards: standards.Sizes
    jobs: jobs.Sizes


FULL = Extent(
    starts=11,
    sizes=[100, 10_000, 100_000],
    calls=150,
    registrations=400,
    rounds=3,
    factors=[1, 5, 10, 25, 50],
    standards=standards.Sizes(indexed=3_000, searched=10_000),
    jobs=jobs.Sizes(drained=1_000, drains=5, starts=5),
)
QUICK = Extent(
    starts=1,
    sizes=[100, 1_000],
    calls=5,
    registrations=40,
    rounds=1,
    factors=[1, 5],
    standards=standards.Sizes(indexed=100, searched=100),
    jobs=jobs.Sizes(drained=20, drains=1, starts=1),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Prove that it works; measures little")
    extent = QUICK if parser.parse_args().quick else FULL
    began = time.monotonic()
    prepare()
    with database() as (host, data_root):
        show(starting.measure(data_root, rounds=extent.starts))
        show(*anyio.run(measure_verbs, host, data_root, extent))
        show(anyio.run(measure_throughput, host, data_root, extent))
        show(listing.measure(data_root))
        show(memory.measure(data_root))
        show(*anyio.run(measure_specs, host, data_root, extent))
        show(*anyio.run(measure_standards, host, data_root, extent))
        show(*anyio.run(measure_jobs, host, data_root, extent))
    print(f"Took {time.monotonic() - began:.0f} s.")


async def measure_verbs(host: str, data_root: Path, extent: Extent) -> list[Section]:
    return await verbs.measure(host, data_root, extent.sizes, rounds=extent.calls)


async def measure_throughput(host: str, data_root: Path, extent: Extent) -> Section:
    return await throughput.measure(
        host, data_root, registrations=extent.registrations, rounds=extent.rounds
    )


async def measure_specs(host: str, data_root: Path, extent: Extent) -> list[Section]:
    return [
        *await compiling.measure(extent.factors, rounds=extent.calls),
        *await specs.measure(host, data_root, rounds=extent.calls),
    ]


async def measure_standards(host: str, data_root: Path, extent: Extent) -> list[Section]:
    return await standards.measure(host, data_root, extent.standards, rounds=extent.calls)


async def measure_jobs(host: str, data_root: Path, extent: Extent) -> list[Section]:
    return await jobs.measure(host, data_root, extent.jobs, rounds=extent.calls)


def prepare() -> None:
    """Start from what a user has: no settings of one's own, and everything compiled.

    A start without bytecode takes twice as long, and would hide what is ours.
    """
    for name in list(os.environ):
        if name.startswith("DRAMATIS_") or name == "PYTHONDONTWRITEBYTECODE":
            del os.environ[name]
    os.environ["DRAMATIS_LINGER_S"] = "0"
    for package in ("server", "db"):
        compileall.compile_dir(REPOSITORY / package, quiet=1)


@contextmanager
def database() -> Generator[tuple[str, Path]]:
    """A fresh embedded server with our schema, held until the end, and gone then."""
    with (
        tempfile.TemporaryDirectory(prefix="dramatis-bench-") as folder,
        cleared(Path(folder) / "data") as data_root,
    ):
        server = EmbeddedPostgres(data_root, linger=timedelta(0))
        host = server.acquire().host
        try:
            with spawned(DRAMATIS, data_root) as first:
                first.open()
                first.call("register_persona", {"name": "Con", "role": "developer"})
            yield host, data_root
        finally:
            server.release()


def show(*sections: Section) -> None:
    for section in sections:
        print(section, flush=True)


if __name__ == "__main__":
    main()
