"""The prompt that runs, and proof of what it was made from. Every feature takes it from here."""

import logging
from dataclasses import dataclass

from db.tables import PersonaRow, PersonaSpecRow
from server.errors import parse
from server.markdown import BYTES_PER_TOKEN, fenced, size_bytes, tokens
from server.personas import assets
from server.personas.files import read_file
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs.compiler import compile_spec, left_out, over_budget
from server.specs.document import PersonaSpec
from server.specs.notation import digest
from server.specs.queries import SpecCorrupted, active_row, loaded, the_version
from server.specs.selection import known_intents
from server.specs.settings_prompt import settings_prompt
from server.specs.shapes import Compiled, PlanRequest
from server.specs.trace import Trace
from server.work import Work

_log = logging.getLogger(__name__)

NOTE_ROOM = 200


async def compiled_prompt(
    work: Work,
    reference: str,
    version: str | None = None,
    *,
    intent: str | None = None,
    query: str | None = None,
    variant: str = "baseline",
    budget: int | None = None,
) -> Compiled:
    """Compile one version, whatever its status, or without one what the persona runs with now.

    A version is a preview of what it would run as, so nothing falls back.

    Raises:
        SpecNotFound: the persona has no such version.
        SpecCorrupted: the version is not what was stored.
        PersonaNotFound, AmbiguousPersona, PersonaArchived, Invalid: see `runtime_prompt`.
    """
    if version is None:
        compiled = await runtime_prompt(
            work, reference, intent=intent, query=query, variant=variant, budget=budget
        )
    else:
        persona = await the_persona(work, reference)
        character = _from_spec(persona, await the_version(work, persona, version))
        compiled = character.compiled(intent=intent, query=query, variant=variant, budget=budget)
    over = over_budget(compiled.tokens, budget)
    cuts = [*compiled.cuts, over] if over else compiled.cuts
    return compiled.model_copy(update={"cuts": cuts})


async def runtime_prompt(
    work: Work,
    reference: str,
    *,
    intent: str | None = None,
    query: str | None = None,
    variant: str = "baseline",
    budget: int | None = None,
) -> Compiled:
    """Compile what a persona runs with now: its active spec, else its settings and skill.md.

    Drafts never count. A stored spec that cannot be read is logged, and the trace says why; one
    that can be read always compiles.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
        Invalid: an unknown variant, or an argument out of its range.
    """
    character = await character_of(work, reference)
    return character.compiled(intent=intent, query=query, variant=variant, budget=budget)


async def character_of(work: Work, reference: str) -> "Character":
    """Read what a persona's prompt is made from, once: a run keeps to it.

    Raises:
        PersonaNotFound, AmbiguousPersona, PersonaArchived: see `usable_persona`.
    """
    persona = await usable_persona(work, reference)
    reason = "no active spec"
    active = await active_row(work, persona)
    if active is not None:
        try:
            return _from_spec(persona, active)
        except SpecCorrupted as error:
            reason = str(error.args[0]).rstrip(".")
            _log.error("falling back to settings and skill.md: %s", reason)
    skill = await read_file(work, persona, assets.SKILL)
    return FromSettings(_who(persona), skill.content, reason)


async def usable_persona(work: Work, reference: str) -> PersonaRow:
    """Find a persona that is to work, or to get what it works with.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
    """
    persona = await the_persona(work, reference)
    refuse_archived(persona)
    return persona


@dataclass(frozen=True, slots=True)
class Who:
    slug: str
    name: str
    role: str
    description: str | None


@dataclass(frozen=True, slots=True)
class FromSpec:
    who: Who
    spec: PersonaSpec
    version: str
    digest: str

    def compiled(
        self,
        *,
        intent: str | None = None,
        query: str | None = None,
        variant: str = "baseline",
        budget: int | None = None,
    ) -> Compiled:
        plan = compile_spec(self.spec, intent=intent, query=query, variant=variant, budget=budget)
        cut_away = left_out(plan)
        return Compiled(
            slug=self.who.slug,
            text=plan.text,
            tokens=plan.total_tokens,
            plan=plan,
            known_intents=known_intents(self.spec),
            cuts=[cut_away] if cut_away else [],
            trace=Trace(
                source="spec",
                persona_spec_version=self.version,
                spec_digest=self.digest,
                digest=plan.digest,
                reason=None,
            ),
        )


@dataclass(frozen=True, slots=True)
class FromSettings:
    who: Who
    skill: str | None
    reason: str

    def compiled(
        self,
        *,
        intent: str | None = None,
        query: str | None = None,
        variant: str = "baseline",
        budget: int | None = None,
    ) -> Compiled:
        """Put settings and skill together; intent, query and variant have nothing to choose from."""
        parse(PlanRequest, intent=intent, query=query, variant=variant, budget=budget)
        text, cuts = self._text(self.skill), list[str]()
        over = 0 if budget is None else size_bytes(text) - budget * BYTES_PER_TOKEN
        if self.skill and over > 0:
            kept = beginning(self.skill, size_bytes(self.skill) - over - NOTE_ROOM)
            text = self._text(kept or "[cut]")
            cuts = [cut("skill.md", kept, self.skill, budget or 0)]
        return Compiled(
            slug=self.who.slug,
            text=text,
            tokens=tokens(text),
            plan=None,
            known_intents=[],
            cuts=cuts,
            trace=Trace(
                source="fallback",
                persona_spec_version=None,
                spec_digest=None,
                digest=digest(text),
                reason=self.reason,
            ),
        )

    def _text(self, skill: str | None) -> str:
        if skill is None:
            said = f"{self.who.slug} has no skill.md: work from the settings alone and say so."
        else:
            said = f"From skill.md of {self.who.slug}.\n\n{fenced(skill) or fenced('(empty)')}"
        settings = settings_prompt(
            name=self.who.name, role=self.who.role, description=self.who.description
        )
        return f"## Settings\n\n{fenced(settings)}\n\n## Skill\n\n{said}\n"


Character = FromSpec | FromSettings


def _from_spec(persona: PersonaRow, row: PersonaSpecRow) -> FromSpec:
    return FromSpec(_who(persona), loaded(row), row.version, row.digest)


def _who(row: PersonaRow) -> Who:
    return Who(row.slug, row.name, row.role.label, row.description)


def beginning(text: str, room_bytes: int) -> str:
    """Cut at the end of a line, or within one when that would lose more than half."""
    kept = text.encode()[: max(0, room_bytes)].decode(errors="ignore")
    whole_lines = kept.rpartition("\n")[0]
    return whole_lines if len(whole_lines) > len(kept) / 2 else kept


def cut(file: str, kept: str, whole: str, ceiling: int) -> str:
    """Say that a file was cut, and where all of it is."""
    return (
        f"{file} was cut to {len(kept):,} of {len(whole):,} characters to stay under"
        f" {ceiling:,} tokens; read_persona_files has all of it."
    )
