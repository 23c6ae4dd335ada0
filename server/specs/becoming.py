"""The prompt that makes an agent a persona: rules of the house, then who it is, then the task."""

from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from server.errors import parse
from server.markdown import BYTES_PER_TOKEN, fenced, size_bytes, tokens
from server.personas import assets
from server.personas.files import entries
from server.personas.shapes import Task
from server.rendering import render
from server.specs.runtime import NOTE_ROOM, Character, FromSpec, Who, beginning, character_of, cut
from server.specs.shapes import BecomePrompt, Compiled
from server.work import App, Work

GUARDRAILS = "guardrails.md"


async def become_persona(work: Work, reference: str, task: str = "") -> BecomePrompt:
    """Compile guardrails, identity, the persona's run-time prompt and experience into one prompt.

    When it would pass the token ceiling of the settings, the oldest experience is cut first, then
    what the run-time prompt can spare; guardrails, identity and task are always whole. A task also
    picks the examples of the spec that have to do with it.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
    """
    asked = parse(Task, task=task).task
    character = await character_of(work, reference)
    return await _framed(work, character, asked, shows_task=True)


async def prompt_for_run(work: Work, reference: str, task: str) -> tuple[BecomePrompt, Who]:
    """Compile the same prompt for a run, which gets its task as a message of its own.

    Raises:
        PersonaNotFound, AmbiguousPersona, PersonaArchived: see `become_persona`.
    """
    character = await character_of(work, reference)
    return await _framed(work, character, task, shows_task=False), character.who


async def guardrails(app: App) -> str:
    """Read the operator's rules, which come before everything; empty where there are none."""
    read = partial(assets.read, app.data_root, GUARDRAILS)
    return (await anyio.to_thread.run_sync(read)).content or ""


async def _framed(work: Work, character: Character, task: str, *, shows_task: bool) -> BecomePrompt:
    folder = assets.directory(work.app.data_root, character.who.slug)
    rules = await guardrails(work.app)
    read = partial(assets.read, folder, assets.EXPERIENCE)
    experience = (await anyio.to_thread.run_sync(read)).content or ""
    frame = _Frame(work, character, rules, task, shows_task)
    return frame.fitted(entries(experience))


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is never cut, and the ceiling that the rest has to fit under."""

    work: Work
    character: Character
    guardrails: str
    task: str
    shows_task: bool

    def fitted(self, experience: str) -> BecomePrompt:
        ceiling = self.work.app.prompt_tokens
        cuts: list[str] = []
        compiled = self._compiled(None)
        text = self._rendered(compiled, experience, cuts)
        if experience and (over := _over(text, ceiling)) > 0:
            kept = beginning(experience, size_bytes(experience) - over - NOTE_ROOM)
            cuts.append(cut("experience.md", kept, experience, ceiling))
            experience = kept or "[cut]"
            text = self._rendered(compiled, experience, cuts)
        # To say what was left out takes room itself, which shows only when it is said.
        while (over := _over(text, ceiling)) > 0:
            room = size_bytes(compiled.text) - over
            smaller = self._compiled(max(1, room // BYTES_PER_TOKEN))
            if size_bytes(smaller.text) >= size_bytes(compiled.text):
                break
            compiled = smaller
            text = self._rendered(compiled, experience, [*cuts, *compiled.cuts])
        cuts += compiled.cuts
        if _over(text, ceiling) > 0:
            cuts.append(f"What must not be cut passes {ceiling:,} tokens by itself.")
            text = self._rendered(compiled, experience, cuts)
        return BecomePrompt(
            slug=self.character.who.slug,
            text=text,
            tokens=tokens(text),
            cuts=cuts,
            trace=compiled.trace,
        )

    def _compiled(self, budget: int | None) -> Compiled:
        return self.character.compiled(query=self.task or None, budget=budget)

    def _rendered(self, compiled: Compiled, experience: str, cuts: list[str]) -> str:
        return render(
            self.work.app.templates,
            "prompts/become_persona.md",
            slug=self.character.who.slug,
            guardrails=fenced(self.guardrails),
            identity=fenced(_identity(self.character)),
            character=compiled.text,
            experience=fenced(experience),
            task=fenced(self.task) if self.shows_task else "",
            cuts=cuts,
            trace=compiled.trace,
        )


def _identity(character: Character) -> str:
    who = character.who
    identity = f"Name: {who.name}\nRole: {who.role}\nSlug: {who.slug}"
    # Without a spec, the settings have it.
    if who.description and isinstance(character, FromSpec):
        # Indented, so that no line of it looks like another field.
        identity += "\nDescription: " + who.description.replace("\n", "\n  ")
    return identity


def _over(text: str, ceiling: int) -> int:
    return size_bytes(text) - ceiling * BYTES_PER_TOKEN
