"""Becoming any persona there is, in the foreground."""

import pytest

from server.jobs.playing import become_persona
from server.personas.queries import PersonaNotFound
from server.personas.service import register_persona
from server.work import App, Work

pytestmark = pytest.mark.anyio


async def test_an_agent_becomes_a_core_persona(work: Work):
    prompt = await become_persona(work, "@security", "Look at the login.")

    assert (prompt.slug, prompt.trace.source, prompt.cuts) == ("security", "core", [])
    assert "Name: Security\nRole: core persona for security" in prompt.text
    assert "Source: built in core persona, prompt " in prompt.text
    assert prompt.text.endswith("## Task\n\n```text\nLook at the login.\n```\n")


async def test_the_operators_rules_come_first_for_a_core_persona_too(work: Work):
    (work.app.data_root / "guardrails.md").write_text("Never deploy.\n")

    prompt = await become_persona(work, "core:qa")

    assert prompt.text.index("Never deploy.") < prompt.text.index("## Identity")


async def test_a_registered_persona_is_as_before(app: App, work: Work):
    con = await register_persona(app, work.caller, name="Con", role="Developer")

    assert (await become_persona(work, "con")).slug == con.slug


async def test_nobody_is_nobody(work: Work):
    with pytest.raises(PersonaNotFound, match="Register one"):
        await become_persona(work, "nobody")
