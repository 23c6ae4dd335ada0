"""What the database and the tables promise by themselves."""

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from db.tables import PersonaRow, RoleRow
from server.personas import service
from server.work import App
from tests.conftest import operator


@pytest.mark.anyio
async def test_the_database_itself_refuses_a_status_that_there_is_not(app: App):
    caller = operator(app)
    await service.register_persona(app, caller, name="Con", role="developer")

    async with app.work(caller) as work:
        with pytest.raises(IntegrityError, match="ck_personas_status"):
            await work.session.execute(text("UPDATE dramatis.personas SET status = 'gone'"))
        await work.session.rollback()


def test_roles_and_personas_mirror_each_other_and_load_nothing_unasked():
    personas = inspect(RoleRow).relationships["personas"]
    role = inspect(PersonaRow).relationships["role"]

    assert (personas.back_populates, role.back_populates) == ("role", "personas")
    assert (personas.lazy, role.lazy) == ("raise", "raise")
