"""What a model pays for our tools before it has called one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.report import Row, Section
from tests.benchmarks.wire import DRAMATIS, LEGACY, MODERN, spawned

GOAL_TOKENS = 2_500
# A rough English average; the tokenizers of models differ by more than it errs.
CHARACTERS_PER_TOKEN = 4
SHOWN_TO_MODELS = ("name", "description", "inputSchema")


def measure(data_root: Path) -> Section:
    tools, answer_bytes = _listed(data_root)
    characters = {tool["name"]: _characters(tool) for tool in tools}
    published = {tool["name"]: len(json.dumps(tool, separators=(",", ":"))) for tool in tools}
    rows = [
        Row(name, f"{size / CHARACTERS_PER_TOKEN:,.0f}", f"{published[name]:,}")
        for name, size in characters.items()
    ]
    total = sum(characters.values()) / CHARACTERS_PER_TOKEN
    verdict = "met" if total <= GOAL_TOKENS else "missed"
    rows.append(
        Row(
            f"all {len(tools)} tools",
            f"{total:,.0f}",
            f"{sum(published.values()):,}",
            goal=f"<= {GOAL_TOKENS:,} tokens",
            verdict=verdict,
        )
    )
    rows += [
        Row(f"whole answer to tools/list, {era}", "", f"{size:,}")
        for era, size in answer_bytes.items()
    ]
    return Section(
        "4. Size of tools/list, default toolset",
        "Tokens: characters of name, description and input schema, as compact JSON, by"
        f" {CHARACTERS_PER_TOKEN}. Bytes: all that is published, output schemas included.",
        rows,
        ("", "tokens", "bytes", "", "goal", ""),
    )


def _listed(data_root: Path) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    tools: list[Mapping[str, Any]] = []
    answer_bytes: dict[str, int] = {}
    for era in (LEGACY, MODERN):
        with spawned(DRAMATIS, data_root, era=era) as server:
            server.open()
            tools = server.ask("tools/list")["tools"]
            answer_bytes[era] = server.answer_bytes
    return tools, answer_bytes


def _characters(tool: Mapping[str, Any]) -> int:
    shown = {key: tool[key] for key in SHOWN_TO_MODELS}
    return len(json.dumps(shown, separators=(",", ":"), ensure_ascii=False))
