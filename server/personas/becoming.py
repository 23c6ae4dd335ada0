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
from server.rendering import render
from server.work import Work

GUARDRAILS = "guardrails.md"
# A rough average that counts other scripts than ASCII for more. The ceiling protects a context
# window; it bills nobody.
BYTES_PER_TOKEN = 4
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
        # Indented, so that no line of it looks like another field.
        identity += "\nDescription: " + row.description.replace("\n", "\n  ")
    frame = _Frame(work, row.slug, _fenced(guardrails), _fenced(identity), asked)
    if skill is not None and not skill.strip():
        skill = "(empty)"
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
            over = _bytes(text) - ceiling * BYTES_PER_TOKEN
            if over <= 0 or not sections[section]:
                continue
            whole = sections[section]
            kept = _beginning(whole, _bytes(whole) - over - NOTE_ROOM)
            sections = sections | {section: kept or "[cut]"}
            cuts.append(
                f"{section}.md was cut to {len(kept):,} of {len(whole):,} characters to stay under"
                f" {ceiling:,} tokens; read_persona_files has all of it."
            )
            text = self._render(sections, cuts)
        if _bytes(text) > ceiling * BYTES_PER_TOKEN:
            cuts.append(f"The guardrails, identity and task alone pass {ceiling:,} tokens.")
            text = self._render(sections, cuts)
        return BecomePrompt(
            slug=self.slug, text=text, tokens=math.ceil(_bytes(text) / BYTES_PER_TOKEN), cuts=cuts
        )

    def _render(self, sections: dict[str, str], cuts: list[str]) -> str:
        return render(
            self.work.app.templates,
            "prompts/become_persona.md",
            slug=self.slug,
            guardrails=self.guardrails,
            identity=self.identity,
            skill=_fenced(sections["skill"]),
            experience=_fenced(sections["experience"]),
            task=_fenced(self.task),
            cuts=cuts,
        )


def _fenced(text: str) -> str:
    """Fence a text so that nothing in it can close the fence."""
    if not text.strip():
        return ""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.strip()}\n{fence}"


def _beginning(text: str, size_bytes: int) -> str:
    """Cut at the end of a line, or within one when that would lose more than half."""
    kept = text.encode()[: max(0, size_bytes)].decode(errors="ignore")
    whole_lines = kept.rpartition("\n")[0]
    return whole_lines if len(whole_lines) > len(kept) / 2 else kept


def _bytes(text: str) -> int:
    return len(text.encode())


def _guardrails(data_root: Path) -> str:
    return assets.read(data_root, GUARDRAILS).content or ""
