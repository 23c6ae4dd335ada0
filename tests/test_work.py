"""What a use case says when the database is in its way."""

import os
import signal

import anyio
import pytest
from sqlalchemy import text

from server.personas import files, service
from server.work import App, DatabaseBusy, DatabaseUnavailable
from tests.conftest import operator

pytestmark = pytest.mark.anyio


async def test_a_database_that_freezes_under_way_is_an_error_within_ten_seconds(own_app: App):
    caller = operator(own_app)
    frozen: list[int] = []

    async def freeze_and_go_on() -> None:
        async with own_app.work(caller) as work:
            frozen.append(await work.session.scalar(text("SELECT pg_backend_pid()")) or 0)
            os.kill(frozen[0], signal.SIGSTOP)
            await work.session.execute(text("SELECT 1"))

    try:
        with anyio.fail_after(10), pytest.raises(DatabaseUnavailable, match="may or may not"):
            await freeze_and_go_on()
    finally:
        os.kill(frozen[0], signal.SIGCONT)

    async with own_app.work(caller) as work:
        assert await work.session.scalar(text("SELECT 1")) == 1


async def test_a_persona_that_somebody_else_holds_is_busy_and_not_the_database_away(own_app: App):
    caller = operator(own_app)
    con = await service.register_persona(own_app, caller, name="Con", role="developer")

    async with own_app.work(caller) as holder:
        await holder.session.execute(text("SELECT FROM dramatis.personas FOR UPDATE"))
        with pytest.raises(DatabaseBusy, match="Somebody else is changing the same thing"):
            async with own_app.work(caller) as work:
                await files.add_experience(work, con.slug, "x")


async def test_what_fails_takes_its_audit_entry_along(app: App):
    caller = operator(app)
    await service.register_persona(app, caller, name="Con", role="developer")
    count = text("SELECT count(*) FROM dramatis.audit_log")

    async def change_and_fail() -> None:
        async with app.work(caller) as work:
            await service.update_persona(work, "con", description="x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await change_and_fail()

    async with app.work(caller) as work:
        assert await work.session.scalar(count) == 1
