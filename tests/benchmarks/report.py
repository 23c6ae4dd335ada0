"""What was measured, and how it is printed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tabulate import tabulate

Verdict = Literal["met", "missed", ""]
HEADERS = ("", "ours", "baseline", "ratio", "goal", "")


@dataclass(frozen=True, slots=True)
class Samples:
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        return sorted(self.values)[math.ceil(0.95 * len(self.values)) - 1]

    def median_and_least(self) -> str:
        return f"{self.median:.0f} [{min(self.values):.0f}]"

    def p50_and_p95(self) -> str:
        return f"{self.median:.2f} / {self.p95:.2f}"


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    ours: str
    baseline: str = ""
    ratio: str = ""
    goal: str = ""
    verdict: Verdict = ""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    note: str
    rows: Sequence[Row]
    headers: tuple[str, str, str, str, str, str] = HEADERS

    def __str__(self) -> str:
        cells = [
            (row.what, row.ours, row.baseline, row.ratio, row.goal, row.verdict)
            for row in self.rows
        ]
        alignment = ("left", "right", "right", "right", "left", "left")
        table = tabulate(
            cells, self.headers, tablefmt="simple", colalign=alignment, disable_numparse=True
        )
        return f"{self.title}\n{self.note}\n\n{table}\n"


def at_most(
    what: str, ours: str, baseline: str, ratio: float, goal: float | None, unit: str = " x"
) -> Row:
    """Judge a ratio that is better the smaller it is; without a goal it is only shown."""
    if goal is None:
        return Row(what, ours, baseline, f"{ratio:.2f}{unit}")
    verdict: Verdict = "met" if ratio <= goal else "missed"
    return Row(what, ours, baseline, f"{ratio:.2f}{unit}", f"<= {goal:g}{unit}", verdict)


def at_least(what: str, ours: str, baseline: str, share: float, goal: float | None) -> Row:
    """Judge a share of the baseline that is better the larger it is."""
    if goal is None:
        return Row(what, ours, baseline, f"{share:.0%}")
    verdict: Verdict = "met" if share >= goal else "missed"
    return Row(what, ours, baseline, f"{share:.0%}", f">= {goal:.0%}", verdict)
