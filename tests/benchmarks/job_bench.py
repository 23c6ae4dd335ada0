"""Apps that invoke personas without end, and worker processes that run the jobs."""

import subprocess
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from server.app import open_app
from server.jobs.service import reset_jobs
from server.settings import Settings
from server.work import AGENT_SCOPES, App, Caller
from tests.benchmarks.wire import DRAMATIS
from tests.jobs.workers import Jobs

PERSONAS = ("architect", "engineer", "data", "qa", "security", "sre")
TASK = "Review how jobs are taken from the queue."
# What nobody is to reach here, for it is not what is measured.
MANY = 100_000
# No model: the job's prompt is the result.
ECHO = {"runner_command": ("cat",)}


@dataclass(frozen=True, slots=True)
class Bench:
    """An app in an empty project, and its settings, for processes that are to have the same."""

    settings: Settings
    app: App
    caller: Caller
    _invoked: "count[int]" = field(default_factory=count)

    @property
    def jobs(self) -> Jobs:
        return Jobs(self.app)

    async def invoke(self) -> str:
        """Invoke the core personas one after the other."""
        return await self.jobs.invoke(TASK, PERSONAS[next(self._invoked) % len(PERSONAS)])

    async def milliseconds(self, job: str, since: str, until: str) -> float:
        """Measure between two times of a job, as the database's clock has them."""
        began, ended = await self.jobs.stored(job, since, until)
        return (ended - began).total_seconds() * 1000

    async def forget(self) -> None:
        async with self.app.work(self.caller) as work:
            await reset_jobs(work, confirm=True)

    def server(self) -> tuple[str, ...]:
        """Name the command of a server with these settings."""
        said = self.settings.environment().items()
        variables = [f"{name}={value}" for name, value in said if name.startswith("DRAMATIS_")]
        return ("env", *variables, *DRAMATIS, "--toolsets", "jobs")


@asynccontextmanager
async def bench(data_root: Path, **values: Any) -> AsyncGenerator[Bench]:
    """Make a project without standards, and start an app in it; no job is left in the end."""
    usual: dict[str, Any] = {
        "queue_length": MANY,
        "jobs_per_minute": MANY,
        "persona_jobs": 10,
        "start_worker": False,
    }
    with tempfile.TemporaryDirectory(prefix="dramatis-bench-") as folder:
        root = Path(folder).resolve()
        settings = Settings(data_root=data_root, project_root=root, **{**usual, **values})
        async with open_app(settings) as app:
            made = Bench(settings, app, Caller("agent", "benchmark", app.tenant_id, AGENT_SCOPES))
            yield made
            await made.forget()


@contextmanager
def worker_of(made: Bench) -> "Generator[subprocess.Popen[bytes]]":
    """Have a worker process with the bench's settings; what it runs in the end is handed back."""
    process = subprocess.Popen(
        [DRAMATIS[0], "worker", "--drain", "0"],
        env=made.settings.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
