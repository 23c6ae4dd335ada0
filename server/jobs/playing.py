"""The prompt that makes an agent any persona there is, registered or core."""

from server.errors import parse
from server.jobs.prompting import core_persona, core_trace
from server.markdown import fenced, tokens
from server.personas.shapes import Task
from server.rendering import render
from server.specs import becoming
from server.specs.shapes import BecomePrompt
from server.work import Work


async def become_persona(work: Work, reference: str, task: str = "") -> BecomePrompt:
    """Compile what makes an agent a persona, until it is told to stop.

    Raises:
        PersonaNotFound: nobody is meant.
        AmbiguousPersona: several are. `core:architect` always means the core persona.
        PersonaArchived: restore it first.
        Invalid: the task breaks a rule.
    """
    asked = parse(Task, task=task).task
    persona = await core_persona(work, reference.strip().removeprefix("@"))
    if persona is None:
        return await becoming.become_persona(work, reference, task)
    trace = core_trace(persona)
    text = render(
        work.app.templates,
        "prompts/become_persona.md",
        slug=persona.id,
        guardrails=fenced(await becoming.guardrails(work.app)),
        identity=fenced(f"Name: {persona.name}\nRole: core persona for {persona.domain}"),
        character=persona.prompt,
        experience="",
        task=fenced(asked),
        cuts=[],
        trace=trace,
    )
    return BecomePrompt(slug=persona.id, text=text, tokens=tokens(text), cuts=[], trace=trace)
