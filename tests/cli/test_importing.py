import json
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot
from sqlalchemy import make_url

from server.personas.lines import Line, read_lines
from tests.cli.conftest import Cli

TEAM = """\
# The team.
- name: Con
  role: developer
- {name: 王芳, role: tester, description: Finds it.}

- name: 5
  role: developer
- name: Ada
  role: developer
  colour: red
- name: Eve
  name: Eve
  role: pm
- just text
"""


def write(cli: Cli, text: str, name: str = "team.yaml") -> str:
    file = cli.folder / name
    file.write_text(text)
    return str(file)


def slugs(cli: Cli) -> list[str]:
    return [one["slug"] for one in cli.answer("persona", "list")["personas"]]


def test_each_line_reports_its_own_outcome(cli: Cli):
    result = cli.run("persona", "import", write(cli, TEAM))

    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout == snapshot("""\
LINE  NAME  SLUG               OUTCOME
2     Con   developer-con-1    registered
4     王芳  tester-wangfang-2  registered
6                              name: must be text.
8     Ada                      colour: is not known here. Known: name, role, description.
11    Eve                      A key is there twice.
14                             Not a mapping of name, role and description.
""")
    assert slugs(cli) == ["tester-wangfang-2", "developer-con-1"]


def test_outcomes_are_a_document(cli: Cli):
    result = cli.run("persona", "import", write(cli, TEAM), "--json")

    assert json.loads(result.stdout) == snapshot(
        {
            "schemaVersion": 1,
            "outcomes": [
                {"line": 2, "name": "Con", "slug": "developer-con-1", "error": None},
                {"line": 4, "name": "王芳", "slug": "tester-wangfang-2", "error": None},
                {"line": 6, "name": None, "slug": None, "error": "name: must be text."},
                {
                    "line": 8,
                    "name": "Ada",
                    "slug": None,
                    "error": "colour: is not known here. Known: name, role, description.",
                },
                {"line": 11, "name": "Eve", "slug": None, "error": "A key is there twice."},
                {
                    "line": 14,
                    "name": None,
                    "slug": None,
                    "error": "Not a mapping of name, role and description.",
                },
            ],
            "failed": 4,
        }
    )


def test_a_dry_run_registers_nothing(cli: Cli):
    good = cli.said("persona", "import", write(cli, "- {name: Con, role: dev}"), "--dry-run")
    bad = cli.run("persona", "import", write(cli, TEAM), "--dry-run")

    assert good == snapshot("""\
LINE  NAME  SLUG  OUTCOME
1     Con         valid
""")
    assert bad.exit_code == 1
    assert slugs(cli) == []


def test_a_mapping_of_personas_comes_from_the_input_too(cli: Cli):
    answer = cli.answer("persona", "import", "-", stdin="personas:\n- {name: Con, role: dev}\n")

    assert answer == {
        "outcomes": [{"line": 2, "name": "Con", "slug": "dev-con-1", "error": None}],
        "failed": 0,
    }


def test_a_file_without_personas_says_so(cli: Cli):
    assert cli.said("persona", "import", "-", stdin="personas: []") == "No personas are listed.\n"


def test_files_that_cannot_be_written_are_the_outcome_of_their_line(cli: Cli):
    cli.data_root.write_text("a file where a folder should be")

    result = cli.run("persona", "import", "-", "--json", stdin="- {name: Con, role: dev}")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["outcomes"][0]["error"] == snapshot(
        "Persona 1 (dev-con-1) is registered, but not all of its files could be written: not a directory. Make personas/dev-con-1 in the data root writable, then call repair_persona_assets or `dramatis persona repair dev-con-1`."
    )


def test_lines_after_the_database_went_away_are_reported_as_not_tried(
    cli: Cli, admin: psycopg.Connection
):
    database = make_url(cli.database_url or "").database
    with psycopg.connect(
        host=admin.info.host, user="postgres", dbname=database, autocommit=True
    ) as trigger:
        trigger.execute(
            "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'"
        )
        trigger.execute(
            "CREATE TRIGGER leave BEFORE INSERT ON dramatis.personas FOR EACH ROW"
            " WHEN (NEW.name = 'Ada') EXECUTE FUNCTION leave()"
        )
    names = ["Con", "Ada", "Eve"]
    lines = "".join(f"- {{name: {name}, role: dev}}\n" for name in names)

    result = cli.run("persona", "import", "-", "--json", stdin=lines)

    assert result.exit_code == 1
    assert [one["error"] for one in json.loads(result.stdout)["outcomes"]] == snapshot(
        [
            None,
            "The database does not answer. It may or may not have been carried out: look first. Try again; if it persists, run `dramatis doctor`.",
            "Not tried: the database went away.",
        ]
    )
    assert slugs(cli) == ["dev-con-1"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff", "The file is not UTF-8 text."),
        (b"x" * 10_000_000, "The file is larger than 1,000,000 bytes."),
        (b"", "The file is neither a list nor a mapping with a list at `personas`."),
        (b"just text", "The file is neither a list nor a mapping with a list at `personas`."),
        (b'{"personas": 5}', "The file is neither a list nor a mapping with a list at `personas`."),
        (b"{}", "The file is neither a list nor a mapping with a list at `personas`."),
        (b"people: []", "people: is not known here."),
        (b'{"personas": [], "people": []}', "people: is not known here."),
        (b"- a\n- [b", None),
        (b"- a\n- \x01", "The file has characters that YAML does not allow."),
        (b"[" * 900_000, "The file nests too deep."),
        (b"a: &a [x]\n? [*a]\n: b", None),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(cli: Cli, raw: bytes, message: str | None):
    exit_code, code, said = cli.refusal("persona", "import", "-", stdin=raw)

    assert (exit_code, code) == (2, "unreadable_file")
    assert said == message or message is None


def test_where_yaml_breaks_is_said(cli: Cli):
    assert cli.refusal("persona", "import", "-", stdin="- a\n- [b") == snapshot(
        (
            2,
            "unreadable_file",
            "The file is no YAML or JSON: expected ',' or ']', but got '<stream end>' in line 2.",
        )
    )


def test_aliases_do_not_multiply():
    bomb = "- &a {name: Con, role: dev}\n" + "".join(
        f"- &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
    )

    lines = read_lines(bomb.encode(), "personas")

    assert lines == [
        Line(1, [("name", "Con"), ("role", "dev")]),
        *(Line(number, None) for number in range(2, 10)),
    ]


def test_tags_make_no_objects():
    lines = read_lines(b"- {name: !!python/object/apply:os.getcwd [], role: !!int '5'}", "personas")

    assert lines == [Line(1, [("name", ()), ("role", ())])]


def test_what_yaml_takes_for_something_else_is_no_text():
    lines = read_lines(b"- {a: no, b: 2026-13-45, c: ~, d: 'no', [e]: f}", "personas")

    assert lines == [
        Line(1, [("a", ()), ("b", ()), ("c", None), ("d", "no"), ("a key that is no text", "f")])
    ]


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)
items = st.lists(st.dictionaries(texts, texts | st.none(), max_size=3), max_size=8)


@given(items, st.sampled_from([None, 1, "\t"]))
@settings(max_examples=50)
def test_json_is_read_whole_and_each_item_at_its_line(items: list[dict[str, str]], indent: str):
    text = json.dumps({"personas": items}, indent=indent)

    lines = read_lines(text.encode(), "personas")

    assert [line.pairs for line in lines] == [list(item.items()) for item in items]
    if indent:
        source = text.splitlines()
        assert all(source[line.number - 1].strip().startswith("{") for line in lines)


def test_repairing_makes_what_is_missing_and_says_it(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    (cli.data_root / "personas/developer-con-1/skill.md").unlink()

    assert cli.said("persona", "repair", "con") == "developer-con-1: made skill.md.\n"
    assert cli.said("persona", "repair", "con") == "developer-con-1: nothing was missing.\n"
    assert cli.answer("persona", "repair", "con") == {
        "slug": "developer-con-1",
        "path": str(cli.data_root / "personas/developer-con-1"),
        "created": [],
        "assets": {"directory": True, "skill": True, "experience": True},
    }


def test_repairing_all_goes_on_past_one_that_fails(cli: Cli):
    for name in ("Con", "Ada", "Eve"):
        cli.said("persona", "register", name, "--role", "dev")
    folders = cli.data_root / "personas"
    (folders / "dev-con-1" / "skill.md").unlink()
    _replace_by_a_file(folders / "dev-ada-2")

    result = cli.run("persona", "repair", "--all", "--json")

    assert result.exit_code == 7
    document = json.loads(result.stdout)
    assert [one["slug"] for one in document["repaired"]] == ["dev-con-1"]
    assert document["failed"] == snapshot(
        [
            "Persona 2 (dev-ada-2) is registered, but not all of its files could be written: file exists. Make personas/dev-ada-2 in the data root writable, then call repair_persona_assets or `dramatis persona repair dev-ada-2`."
        ]
    )
    (folders / "dev-ada-2").unlink()
    assert cli.said("persona", "repair", "--all") == "dev-ada-2: made skill.md, experience.md.\n"
    assert cli.said("persona", "repair", "--all") == "No active persona lacks a file.\n"


def _replace_by_a_file(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")


@pytest.mark.parametrize("which", [(), ("con", "--all")])
def test_repairing_wants_a_persona_or_all(cli: Cli, which: tuple[str, ...]):
    assert cli.refusal("persona", "repair", *which) == (
        2,
        "usage",
        "Give either a persona or --all.",
    )
