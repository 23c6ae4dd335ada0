import pytest
from dirty_equals import IsStr
from inline_snapshot import snapshot

from tests.cli.conftest import Cli

TIME = IsStr(regex=r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
COMPLETE = {"directory": True, "skill": True, "experience": True}


def persona_of(cli: Cli, number: int = 1) -> dict[str, object]:
    slug = f"developer-con-{number}"
    return {
        "id": number,
        "slug": slug,
        "name": "Con",
        "role": "developer",
        "status": "active",
        "created_at": TIME,
        "assets": COMPLETE,
        "description": None,
        "path": str(cli.data_root / "personas" / slug),
        "updated_at": TIME,
    }


def test_registering_answers_with_the_persona(cli: Cli):
    answer = cli.answer("persona", "register", "Con", "--role", "Developer")

    files = ["skill.md", "experience.md"]
    assert answer == {**persona_of(cli), "role_created": True, "files_created": files}


def test_registering_tells_a_person_the_slug_and_where_the_files_are(cli: Cli):
    said = cli.said("persona", "register", "Con", "--role", "developer", "--description", "Codes.")

    assert said.replace(str(cli.data_root), "DATA") == snapshot("""\
Registered developer-con-1 (id 1), the first of its role.
Its files: DATA/personas/developer-con-1
""")


def test_registering_says_that_files_of_the_slug_were_there(cli: Cli):
    folder = cli.data_root / "personas" / "developer-con-1"
    folder.mkdir(parents=True)
    (folder / "skill.md").write_text("of a persona before a restore")

    said = cli.said("persona", "register", "Con", "--role", "developer")

    assert said.endswith(f"Its files: {folder}, which had some already\n")


def test_registering_seeds_the_template_that_is_asked_for(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "dev", "--skill-template", "detailed")

    assert "## Decision Boundaries" in cli.said("persona", "skill", "con")


def test_registering_without_a_role_is_a_usage_error(cli: Cli):
    assert cli.refusal("persona", "register", "Con") == snapshot(
        (2, "usage", "Missing option '--role'.")
    )


def test_registering_a_blank_name_names_the_field(cli: Cli):
    assert cli.refusal("persona", "register", " ", "--role", "developer") == snapshot(
        (2, "invalid", "name: must not be empty or blank.")
    )


def test_registering_where_files_cannot_be_written_says_how_to_repair(cli: Cli):
    cli.data_root.write_text("a file where a folder should be")

    result = cli.run("persona", "register", "Con", "--role", "developer")

    assert (result.exit_code, result.stdout, result.stderr) == snapshot(
        (
            7,
            "",
            "Error: Persona 1 (developer-con-1) is registered, but not all of its files could be written: not a directory. Make personas/developer-con-1 in the data root writable, then call repair_persona_assets or `dramatis persona repair developer-con-1`.\n",
        )
    )


def test_listing_shows_a_page_and_where_the_next_one_begins(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "register", "王芳", "--role", "tester")

    first = cli.answer("persona", "list", "--sort", "role", "--limit", "1")
    second = cli.answer(
        "persona", "list", "--sort", "role", "--limit", "1", "--cursor", first["next_cursor"]
    )

    assert [page["personas"][0]["slug"] for page in (first, second)] == [
        "developer-con-1",
        "tester-wangfang-2",
    ]
    assert second["next_cursor"] is None
    said = cli.said("persona", "list", "--limit", "1")
    assert "Next page: --cursor " in said


def test_listing_keeps_columns_apart_in_every_script(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "register", "王芳", "--role", "tester")

    lines = cli.said("persona", "list").splitlines()

    assert [line.rpartition("  ")[0] for line in lines] == snapshot(
        [
            "ID  SLUG               NAME  ROLE       STATUS  FILES   ",
            "2   tester-wangfang-2  王芳  tester     active  complete",
            "1   developer-con-1    Con   developer  active  complete",
            "",
            "",
        ]
    )


def test_listing_filters(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "register", "Ada", "--role", "tester")
    cli.said("persona", "archive", "ada")

    def slugs(*filters: str) -> list[str]:
        return [one["slug"] for one in cli.answer("persona", "list", *filters)["personas"]]

    assert slugs() == ["developer-con-1"]
    assert slugs("--status", "all") == ["tester-ada-2", "developer-con-1"]
    assert slugs("--status", "archived", "--role", "tester", "--text", "ad") == ["tester-ada-2"]


def test_an_empty_listing_says_so(cli: Cli):
    assert cli.said("persona", "list") == "No persona fits. 0 active, 0 archived in all.\n"


def test_showing_finds_by_part_of_a_name(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    assert cli.answer("persona", "show", "co") == persona_of(cli)


def test_showing_lays_out_every_field(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer", "--description", "One.\nTwo.")
    (cli.data_root / "personas/developer-con-1/skill.md").unlink()

    said = cli.said("persona", "show", "con").replace(str(cli.data_root), "DATA")

    shown = [line for line in said.splitlines() if not line.startswith(("Created", "Updated"))]
    assert shown == snapshot(
        [
            "Slug         developer-con-1",
            "Id           1",
            "Name         Con",
            "Role         developer",
            "Status       active",
            "Files        no skill.md",
            "Folder       DATA/personas/developer-con-1",
            "Description  One.",
            "             Two.",
        ]
    )


def test_several_personas_that_fit_are_listed(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "register", "Con", "--role", "tester")

    result = cli.run("persona", "show", "con")

    assert (result.exit_code, result.stdout, result.stderr) == snapshot(
        (
            4,
            """\
SLUG             NAME  ROLE
developer-con-1  Con   developer
tester-con-2     Con   tester
""",
            "Error: Several personas fit 'con'. Say which by slug: developer-con-1, tester-con-2.\n",
        )
    )
    assert cli.refusal("persona", "show", "con")[:2] == (4, "ambiguous_persona")


def test_a_persona_that_is_not_there_is_exit_code_3(cli: Cli):
    assert cli.refusal("persona", "show", "nobody") == snapshot(
        (3, "persona_not_found", "No persona fits 'nobody'.")
    )


def test_editing_changes_name_and_description_and_keeps_the_slug(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    changed = cli.answer("persona", "edit", "con", "--name", "Connie", "--description", "Codes.")

    assert changed == {**persona_of(cli), "name": "Connie", "description": "Codes."}
    assert cli.answer("persona", "edit", "1", "--description", "")["description"] is None


@pytest.mark.parametrize("change", [(), ("--role", "tester")])
def test_an_edit_that_cannot_be_is_exit_code_2(cli: Cli, change: tuple[str, ...]):
    cli.said("persona", "register", "Con", "--role", "developer")

    assert cli.refusal("persona", "edit", "con", *change)[0] == 2


def test_an_archived_persona_is_restored_by_its_slug(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    assert cli.answer("persona", "archive", "con")["status"] == "archived"
    assert cli.refusal("persona", "show", "con")[0] == 3
    assert cli.answer("persona", "restore", "developer-con-1")["status"] == "active"


def test_deleting_says_that_the_files_stay_and_where(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    said = cli.said("persona", "delete", "con", "--yes")

    kept = cli.data_root / "personas" / "developer-con-1"
    assert said == f"Deleted developer-con-1. Its files stay in {kept}\n"
    assert sorted(path.name for path in kept.iterdir()) == ["experience.md", "skill.md"]
    assert cli.answer("persona", "list", "--status", "all")["personas"] == []


def test_deleting_a_persona_without_files_says_so(cli: Cli):
    cli.data_root.write_text("a file where a folder should be")
    cli.run("persona", "register", "Con", "--role", "developer")

    assert cli.said("persona", "delete", "con", "--yes") == (
        "Deleted developer-con-1. It had no files.\n"
    )


def test_deleting_where_nobody_can_be_asked_needs_yes(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    assert cli.refusal("persona", "delete", "con") == snapshot(
        (2, "invalid", "Deleting needs --yes where nobody can be asked.")
    )
    assert cli.answer("persona", "show", "con") == persona_of(cli)


def test_becoming_prints_the_prompt_for_the_task(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    said = cli.said("persona", "become", "con", "Review the change.")

    answer = cli.answer("persona", "become", "con", "Review the change.")
    assert answer["text"] == said
    assert "Review the change." in said
    assert {**answer, "text": None} == {
        "slug": "developer-con-1",
        "text": None,
        "tokens": -(-len(said) // 4),
        "cuts": [],
        "trace": {
            "source": "fallback",
            "persona_spec_version": None,
            "spec_digest": None,
            "digest": IsStr(regex="[0-9a-f]{64}"),
            "reason": "no active spec",
        },
    }


def test_becoming_an_archived_persona_is_exit_code_4(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "archive", "con")

    assert cli.refusal("persona", "become", "1")[:2] == (4, "persona_archived")
