"""Memory of a server that has attached and has nothing to do."""

import re
from pathlib import Path

from tests.benchmarks.report import Row, Section, at_most
from tests.benchmarks.wire import BARE, DRAMATIS, spawned

SIZE = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)
NAMES = {"Rss": "RSS", "Pss": "PSS, its share of what processes have in common"}


def measure(data_root: Path) -> Section:
    with spawned(DRAMATIS, data_root) as ours, spawned(BARE) as bare:
        ours.open()
        ours.call("lookup_role", {"name": "developer"})
        bare.open()
        bare.call("add", {"a": 1, "b": 2})
        sizes, bare_sizes = megabytes(ours.pid), megabytes(bare.pid)
    rows = [
        at_most(
            NAMES[kind], f"{size:.1f}", f"{bare_sizes[kind]:.1f}", size / bare_sizes[kind], None
        )
        for kind, size in sizes.items()
    ]
    return Section(
        "5. Memory of an idle server, in MB",
        "After its first tool call; the baseline is the one-tool server.",
        rows or [Row("this system has no /proc/PID/smaps_rollup", "")],
    )


def megabytes(pid: int) -> dict[str, float]:
    """Read what the kernel says of a process; nothing where it does not say so."""
    source = Path(f"/proc/{pid}/smaps_rollup")
    if not source.exists():
        return {}
    return {kind: int(size) / 1024 for kind, size in SIZE.findall(source.read_text())}
