"""The prompt that runs, and proof of what it was made from. Every feature takes it from here."""

import logging
from dataclasses import dataclass

from server.errors import DramatisError, parse
from server.personas import assets
from server.personas.files import read_file
from server.personas.queries import the_persona
from server.personas.service import refuse_archived
from server.specs.compiler import compile_spec
from server.specs.document import PersonaSpec
from server.specs.layout import BYTES_PER_TOKEN, fenced, size_bytes, tokens
from server.specs.notation import digest
from server.specs.queries import active_row, loaded, the_version
from server.specs.settings_prompt import settings_prompt
from server.specs.shapes import Compiled, PlanRequest, Trace
from server.work import Work

_log = logging.getLogger(__name__)

NOTE_ROOM = 200
DROPPED_NAMED = 10


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

    Drafts never count. A stored spec that cannot be used is logged, and the trace says why.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
        Invalid: an unknown variant, or an argument out of its range.
    """
    character = await character_of(work, reference)
    return character.compiled(intent=intent, query=query, variant=variant, budget=budget)


async def compile_version(
    work: Work,
    reference: str,
    version: str,
    *,
    intent: str | None = None,
    query: str | None = None,
    variant: str = "baseline",
    budget: int | None = None,
) -> Compiled:
    """Compile one version, whatever its status: a preview of what it would run as.

    Raises:
        SpecNotFound: the persona has no such version.
        SpecCorrupted: it is not what was stored; here nothing falls back.
        Invalid: an unknown variant, or an argument out of its range.
    """
    persona = await the_persona(work, reference)
    row = await the_version(work, persona, version)
    who = Who(persona.slug, persona.name, persona.role.label, persona.description)
    return FromSpec(who, loaded(row), row.version, row.digest).compiled(
        intent=intent, query=query, variant=variant, budget=budget
    )


async def character_of(work: Work, reference: str) -> "Character":
    """Read what a persona's prompt is made from, once: a run keeps to it.

    Raises:
        PersonaNotFound, AmbiguousPersona: see `the_persona`.
        PersonaArchived: restore it first.
    """
    row = await the_persona(work, reference)
    refuse_archived(row)
    who = Who(row.slug, row.name, row.role.label, row.description)
    reason = "no active spec"
    active = await active_row(work, row)
    if active is not None:
        try:
            return FromSpec(who, loaded(active), active.version, active.digest)
        except DramatisError as error:
            reason = str(error.args[0]).rstrip(".")
            _log.error("falling back to settings and skill.md: %s", reason)  # expected
    return FromSettings(who, (await read_file(work, row, assets.SKILL)).content, reason)


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
        named = [f"{dropped.section} {dropped.id}" for dropped in plan.dropped[:DROPPED_NAMED]]
        more = len(plan.dropped) - len(named)
        left_out = ", ".join(named) + (f" and {more:,} more" if more else "")
        cuts = [f"Left out of the spec to stay under {budget or 0:,} tokens: {left_out}."]
        return Compiled(
            slug=self.who.slug,
            text=plan.text,
            tokens=plan.total_tokens,
            plan=plan,
            cuts=cuts if plan.dropped else [],
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
        """Put settings and skill together. Intent, query and variant have nothing to choose from."""
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


def beginning(text: str, size_bytes: int) -> str:
    """Cut at the end of a line, or within one when that would lose more than half."""
    kept = text.encode()[: max(0, size_bytes)].decode(errors="ignore")
    whole_lines = kept.rpartition("\n")[0]
    return whole_lines if len(whole_lines) > len(kept) / 2 else kept


def cut(file: str, kept: str, whole: str, ceiling: int) -> str:
    """Say that a file was cut, and where all of it is."""
    return (
        f"{file} was cut to {len(kept):,} of {len(whole):,} characters to stay under"
        f" {ceiling:,} tokens; read_persona_files has all of it."
    )
