"""How far a run on a model is. Nobody knows how much will follow, so it comes ever closer to the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.jobs.running import Reporting
from server.jobs.shapes import Phase

NAME_SHOWN = 80
DOING = {
    "search": "searching the",
    "list": "listing the",
    "read": "reading the",
    "propose": "proposing a",
}


@dataclass(slots=True)
class ModelProgress:
    """Reports it; the percentage never falls, although a model may search again after it thought."""

    reporting: Reporting
    calls: int = 0
    _told: tuple[Phase, int, str] = ("initializing", 0, "")

    async def asking(self, model: str) -> None:
        await self._tell("initializing", 2, f"asking {model}")

    async def calling(self, tool: str, arguments: Mapping[str, Any]) -> None:
        self.calls += 1
        if tool.startswith(("search", "list", "read")):
            await self._tell("searching", 40 - 35 * 0.8**self.calls, doing(tool, arguments))
        else:
            await self._tell("analyzing", 60 - 20 * 0.8**self.calls, doing(tool, arguments))

    async def thinking(self) -> None:
        if self.calls:
            far = 60 - 20 * 0.8**self.calls
            await self._tell("analyzing", far, "thinking about what it found")
        else:
            await self._tell("analyzing", 5, "thinking")

    async def writing(self, tokens: int) -> None:
        await self._tell("generating", 99 - 39 * math.exp(-tokens / 1000), "writing the answer")

    async def _tell(self, phase: Phase, percent: float, message: str) -> None:
        # An answer comes in more pieces than there are percents.
        telling = (phase, max(int(percent), self._told[1]), message)
        if telling != self._told:
            self._told = telling
            await self.reporting.progress(*telling)


def doing(tool: str, arguments: Mapping[str, Any]) -> str:
    """Say what a call does."""
    verb, _, rest = tool.partition("_")
    named = arguments.get("path") or arguments.get("topic")
    if verb == "read" and named:
        return f"reading {named}"[:NAME_SHOWN]
    return f"{DOING[verb]} {rest.replace('_', ' ')}" if verb in DOING else f"using {tool}"
