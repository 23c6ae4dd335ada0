from dirty_equals import IsPositiveInt, IsStr
from inline_snapshot import snapshot

from tests.cli.conftest import Cli


def test_roles_are_listed_by_name(cli: Cli):
    assert cli.said("role", "list") == (
        "There are no roles yet. Registering a persona makes its role.\n"
    )
    cli.said("persona", "register", "Con", "--role", "Developer")
    cli.said("persona", "register", "Ada", "--role", "architect")

    assert cli.said("role", "list") == snapshot("""\
ROLE       LABEL      PERSONAS  DESCRIPTION
architect  architect  1
developer  Developer  1
""")
    assert cli.answer("role", "list") == {
        "roles": [
            {
                "name": name,
                "label": label,
                "description": None,
                "created_at": IsStr(),
                "persona_count": 1,
            }
            for name, label in (("architect", "architect"), ("developer", "Developer"))
        ]
    }


def test_a_role_is_looked_up_in_any_case_with_its_personas(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "Developer")

    said = cli.said("role", "lookup", "DEVELOPER")
    found = cli.answer("role", "lookup", "DEVELOPER")

    assert [line.rpartition("  ")[0] for line in said.splitlines()] == snapshot(
        [
            "Role    ",
            "Label   ",
            "Created ",
            "Personas",
            "",
            "ID  SLUG             NAME  ROLE       STATUS  FILES   ",
            "1   developer-con-1  Con   developer  active  complete",
        ]
    )
    assert found["role"]["name"] == "developer"
    assert [one["slug"] for one in found["personas"]] == ["developer-con-1"]


def test_an_unknown_role_is_an_answer_with_the_nearest(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    assert cli.said("role", "lookup", "develper") == snapshot(
        "No role is called 'develper'. Known ones like it: developer. Register a persona with this role: the role is made along with it.\n"
    )
    assert cli.said("role", "lookup", "zzz") == snapshot(
        "No role is called 'zzz'. Register a persona with this role: the role is made along with it.\n"
    )


def test_a_tenant_is_made_once_and_listed(cli: Cli):
    made = cli.answer("tenant", "add", "acme")

    assert made == {"id": IsPositiveInt(), "name": "acme", "created_at": IsStr()}
    assert cli.refusal("tenant", "add", "acme") == snapshot(
        (4, "tenant_exists", "The tenant 'acme' exists already.")
    )
    assert [one["name"] for one in cli.answer("tenant", "list")["tenants"]] == ["acme", "default"]
    assert cli.said("tenant", "list").split()[:3] == ["TENANT", "ID", "CREATED"]


def test_a_tenant_does_not_see_the_personas_of_another(cli: Cli):
    assert cli.said("tenant", "add", "acme") == "Added the tenant acme.\n"
    cli.said("persona", "register", "Con", "--role", "developer", "--tenant", "acme")

    assert cli.refusal("persona", "show", "con")[0] == 3
    assert cli.answer("persona", "show", "con", "--tenant", "acme")["name"] == "Con"
    assert cli.answer("persona", "show", "con", env={"DRAMATIS_TENANT": "acme"})["name"] == "Con"


def test_an_unknown_tenant_is_refused(cli: Cli):
    assert cli.refusal("role", "list", "--tenant", "nobody") == snapshot(
        (3, "tenant_not_found", "The tenant that DRAMATIS_TENANT or --tenant names does not exist.")
    )
