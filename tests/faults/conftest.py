"""A machine whose workers are started by whoever invokes a persona."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from server.settings import Settings
from server.work import App
from tests.conftest import Databases
from tests.db.sessions import cleared
from tests.jobs.worker_processes import Agents, commanding, left_behind
from tests.jobs.workers import Jobs

IDLE_S = 1


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents.below(tmp_path)
    yield agents
    # Those of killed workers end when they are told to, if not before.
    agents.let_go()


@pytest.fixture
def data_root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path.resolve() / "data"
    root.mkdir()
    with cleared(root), left_behind(root):
        yield root


@pytest.fixture
def settings(own_app: App, agents: Agents, databases: Databases, data_root: Path) -> Settings:
    database = own_app.database.engine.url.database
    assert database
    return Settings.model_validate(
        {
            "database_url": SecretStr(databases.url(database)),
            "data_root": data_root,
            "runner_command": agents.command,
            "worker_idle_s": IDLE_S,
            "worker_jobs": 1,
            "log_level": "INFO",
        }
    )


@pytest.fixture
def jobs(own_app: App, settings: Settings) -> Jobs:
    return Jobs(commanding(own_app, settings))
