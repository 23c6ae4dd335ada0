"""The prompt that makes an agent a persona."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from server.errors import parse
from server.personas import assets
from server.personas.files import entries, read_file
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.personas.shapes import BecomePrompt, Task
from server.work import Work

GUARDRAILS = "guardrails.md"
# A rough English average. The ceiling protects a context window; it bills nobody.
CHARS_PER_TOKEN = 4
NOTE_ROOM = 200


async def become_persona(work: Work, reference: str, task: str = "") -> BecomePrompt:
    """Compile guardrails, identity, skill and experience into one prompt.

    When it would pass the token ceiling of the settings, the oldest experience is cut first,
    then the end of the skill; guardrails, identity and task are always whole.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
    """
    asked = parse(Task, task=task).task
    row = await the_persona(work, reference)
    refuse_archived(row)
    skill = (await read_file(work, row, assets.SKILL)).content
    experience = (await read_file(work, row, assets.EXPERIENCE)).content or ""
    guardrails = await anyio.to_thread.run_sync(_guardrails, work.app.data_root)
    identity = f"Name: {row.name}\nRole: {row.role.label}\nSlug: {row.slug}"
    if row.description:
        identity += f"\nDescription: {row.description}"
    frame = _Frame(work, row.slug, _fenced(guardrails), _fenced(identity), asked)
    return frame.fit({"skill": skill or "", "experience": entries(experience)})


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is never cut, and the ceiling that the rest has to fit under."""

    work: Work
    slug: str
    guardrails: str
    identity: str
    task: str

    def fit(self, sections: dict[str, str]) -> BecomePrompt:
        ceiling = self.work.app.prompt_tokens
        cuts: list[str] = []
        text = self._render(sections, cuts)
        for section in ("experience", "skill"):
            over = len(text) - ceiling * CHARS_PER_TOKEN
            if over <= 0 or not sections[section]:
                continue
            whole = sections[section]
            kept = _first_lines(whole, len(whole) - over - NOTE_ROOM)
            sections = sections | {section: kept or "[cut]"}
            cuts.append(
                f"{section}.md was cut to {len(kept):,} of {len(whole):,} characters to stay under"
                f" {ceiling:,} tokens; read_persona_files has all of it."
            )
            text = self._render(sections, cuts)
        if len(text) > ceiling * CHARS_PER_TOKEN:
            cuts.append(f"The guardrails, identity and task alone pass {ceiling:,} tokens.")
            text = self._render(sections, cuts)
        return BecomePrompt(
            slug=self.slug, text=text, tokens=math.ceil(len(text) / CHARS_PER_TOKEN), cuts=cuts
        )

    def _render(self, sections: dict[str, str], cuts: list[str]) -> str:
        template = self.work.app.templates.get_template("prompts/become_persona.md")
        return template.render(
            slug=self.slug,
            guardrails=self.guardrails,
            identity=self.identity,
            skill=_fenced(sections["skill"]),
            experience=_fenced(sections["experience"]),
            task=self.task,
            cuts=cuts,
        )


def _fenced(text: str) -> str:
    """Fence a text so that nothing in it can close the fence."""
    if not text.strip():
        return ""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.strip()}\n{fence}"


def _first_lines(text: str, size: int) -> str:
    if size <= 0:
        return ""
    return text[:size].rpartition("\n")[0] or text[:size]


def _guardrails(data_root: Path) -> str:
    return assets.read(data_root, GUARDRAILS).content or ""
