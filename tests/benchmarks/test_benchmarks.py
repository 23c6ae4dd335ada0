"""The benchmark runs to its end and has something to say in every section."""

import re
import subprocess
import sys

from tests.db.sessions import REPOSITORY

SECTIONS = 19
NUMBER = re.compile(r"\d")


def test_the_quick_benchmark_prints_numbers_in_every_section() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert run.returncode == 0, run.stderr
    sections = re.split(r"(?m)^(?=\d[a-z]?\. )", run.stdout)[1:]
    assert len(sections) == SECTIONS
    for section in sections:
        _, table = section.split("\n\n", 1)
        rows = table.splitlines()[2:]
        assert any(NUMBER.search(row.split("  ", 1)[-1]) for row in rows), section
