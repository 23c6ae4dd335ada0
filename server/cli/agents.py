"""The coding agents that can be started as a persona, and how each takes a prompt."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Linux takes 128 KiB for one argument, with the null that ends it (MAX_ARG_STRLEN in execve(2)).
LARGEST_ARGUMENT = 128 * 1024 - 1


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent.

    Attributes:
        name: as its makers write it.
        program: what it is called on PATH.
        prompted: the arguments that put a text on top of its own prompt.
    """

    name: str
    program: str
    prompted: Callable[[str], list[str]]


def said(arguments: Sequence[str], task: str | None) -> list[str]:
    """Say the task as the first message, which is the last argument of both."""
    if task is None:
        return []
    # Without the dashes it may look like an option, or like one more value of the last of them.
    return [task] if "--" in arguments else ["--", task]


def toml_string(text: str) -> str:
    """Write a basic string of TOML 1.0, which escapes quotes, backslashes and controls only."""
    # JSON has the same escapes, but takes DEL as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007F")


AGENTS = {
    "claude-code": Agent(
        "Claude Code", "claude", lambda prompt: ["--append-system-prompt", prompt]
    ),
    "codex": Agent(
        "Codex", "codex", lambda prompt: ["-c", f"developer_instructions={toml_string(prompt)}"]
    ),
}
