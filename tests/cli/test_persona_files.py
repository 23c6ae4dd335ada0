import hashlib
import re
from pathlib import Path

import pytest
from dirty_equals import IsStr
from inline_snapshot import snapshot

from tests.cli.conftest import Cli


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def con(cli: Cli) -> Cli:
    cli.said("persona", "register", "Con", "--role", "developer")
    return cli


def editor(cli: Cli, script: str) -> dict[str, str]:
    """Make an editor that runs a shell script on the file `$1`."""
    program = cli.folder / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"EDITOR": str(program), "TMPDIR": str(cli.folder)}


def kept_text(stderr: str) -> str:
    found = re.search(r"What you wrote is kept in (.+)", stderr)
    assert found
    return Path(found[1]).read_text()


def drafts(cli: Cli) -> list[Path]:
    return list(cli.folder.glob("developer-con-1-*.md"))


def test_a_skill_comes_out_exactly_as_it_was_put_in(con: Cli):
    text = "# Con\r\n\nÜber 王芳, no final newline"

    said = con.said("persona", "skill", "con", "--set", "-", stdin=text.encode())

    assert said == IsStr(
        regex=r"Replaced skill\.md of developer-con-1\. The text before is kept as [0-9a-f]{12}\.\n"
    )
    assert con.process("persona", "skill", "con").stdout == text.encode()


def test_a_skill_is_set_from_a_file_once(con: Cli):
    file = con.folder / "skill.md"
    file.write_text("new\n")

    first = con.answer("persona", "skill", "con", "--set", str(file))
    again = con.said("persona", "skill", "con", "--set", str(file))

    assert first == {
        "slug": "developer-con-1",
        "path": str(con.data_root / "personas/developer-con-1/skill.md"),
        "sha256": sha256("new\n"),
        "replaced_sha256": IsStr(regex=r"[0-9a-f]{64}"),
        "changed": True,
    }
    assert again == "skill.md of developer-con-1 is that text already.\n"


def test_a_skill_is_a_document_with_its_hash(con: Cli):
    con.said("persona", "skill", "con", "--set", "-", stdin="new\n")

    answer = con.answer("persona", "skill", "con")

    assert answer == {
        "slug": "developer-con-1",
        "exists": True,
        "path": str(con.data_root / "personas/developer-con-1/skill.md"),
        "content": "new\n",
        "sha256": sha256("new\n"),
        "size_bytes": 4,
        "last_modified": IsStr(),
    }


def test_an_absent_skill_is_no_failure(con: Cli):
    (con.data_root / "personas/developer-con-1/skill.md").unlink()

    result = con.run("persona", "skill", "con")

    assert (result.exit_code, result.stdout, result.stderr) == snapshot(
        (
            0,
            "",
            "developer-con-1 has no skill.md. `dramatis persona repair developer-con-1` makes it.\n",
        )
    )
    assert con.answer("persona", "skill", "con")["exists"] is False
    said = con.said("persona", "skill", "con", "--set", "-", stdin="new\n")
    assert said == "Replaced skill.md of developer-con-1.\n"


def test_kept_texts_are_listed_and_restored(con: Cli):
    assert con.said("persona", "skill", "con", "--versions") == snapshot(
        "No earlier text is kept: skill.md was never replaced by a command or tool.\n"
    )
    con.said("persona", "skill", "con", "--set", "-", stdin="one\n")
    con.said("persona", "skill", "con", "--set", "-", stdin="two\n")

    listed = con.said("persona", "skill", "con", "--versions").splitlines()

    assert [line.split()[0] for line in listed[:3]] == [
        "HASH",
        sha256("two\n")[:12],
        sha256("one\n")[:12],
    ]
    hashes = [
        one["sha256"] for one in con.answer("persona", "skill", "1", "--versions")["skill_versions"]
    ]
    assert hashes[:2] == [sha256("two\n"), sha256("one\n")]
    con.said("persona", "skill", "con", "--restore", sha256("one\n")[:12])
    assert con.said("persona", "skill", "con") == "one\n"


def test_a_skill_that_changed_meanwhile_is_not_overwritten(con: Cli):
    con.said("persona", "skill", "con", "--set", "-", stdin="theirs\n")

    refusal = con.refusal("persona", "skill", "con", "--set", "-", "--expect", "0" * 64, stdin="x")

    assert refusal[:2] == (4, "skill_changed")
    assert con.said("persona", "skill", "con") == "theirs\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"\xff", "The text is not UTF-8."),
        (b"x" * 1_000_001, "The text is too long: at most 1,000,000 bytes are read."),
    ],
)
def test_what_is_no_text_is_refused(con: Cli, given: bytes, message: str):
    assert con.refusal("persona", "skill", "con", "--set", "-", stdin=given) == (
        2,
        "invalid",
        message,
    )


def test_one_act_at_a_time(con: Cli):
    assert con.refusal("persona", "skill", "con", "--edit", "--versions") == snapshot(
        (2, "usage", "--set, --edit, --versions and --restore exclude each other.")
    )


def test_the_editor_gets_the_text_and_its_result_is_stored(con: Cli):
    con.said("persona", "skill", "con", "--set", "-", stdin="one\n")

    said = con.said(
        "persona", "skill", "con", "--edit", env=editor(con, 'cp "$1" seen; echo two > "$1"')
    )

    assert (con.folder / "seen").read_text() == "one\n"
    assert (
        said
        == f"Replaced skill.md of developer-con-1. The text before is kept as {sha256('one' + chr(10))[:12]}.\n"
    )
    assert con.said("persona", "skill", "con") == "two\n"
    assert drafts(con) == []


def test_leaving_the_editor_without_a_change_changes_nothing(con: Cli):
    assert con.said("persona", "skill", "con", "--edit", env=editor(con, "true")) == (
        "Nothing was changed.\n"
    )
    assert drafts(con) == []


def test_a_refused_edit_is_kept_and_its_place_is_said(con: Cli):
    behind = 'echo theirs > "$DRAMATIS_DATA_ROOT/personas/developer-con-1/skill.md"'

    result = con.run(
        "persona", "skill", "con", "--edit", env=editor(con, f'echo mine > "$1"; {behind}')
    )

    assert result.exit_code == 4
    assert kept_text(result.stderr) == "mine\n"
    assert con.said("persona", "skill", "con") == "theirs\n"


def test_an_edit_is_kept_when_the_editor_fails(con: Cli):
    result = con.run(
        "persona", "skill", "con", "--edit", env=editor(con, 'echo mine > "$1"; exit 3')
    )

    assert result.exit_code == 1
    assert kept_text(result.stderr) == "mine\n"


def test_a_missing_editor_leaves_nothing_behind(con: Cli):
    env = {"EDITOR": "/nowhere/editor", "TMPDIR": str(con.folder)}

    assert con.refusal("persona", "skill", "con", "--edit", env=env)[:2] == (1, "failed")
    assert drafts(con) == []


def test_an_entry_goes_on_top_of_the_experience(con: Cli):
    con.said("persona", "experience", "con", "--add", "First.")

    added = con.answer("persona", "experience", "con", "--add", "-", stdin="Second.\n")

    log = con.said("persona", "experience", "con")
    assert re.findall(r"^## (.+)|^(First|Second)\.$", log, re.MULTILINE)[1] == ("", "Second")
    assert added == {
        "slug": "developer-con-1",
        "path": str(con.data_root / "personas/developer-con-1/experience.md"),
        "heading": IsStr(regex=r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ — \w+"),
        "last_modified": IsStr(),
        "size_bytes": len(log.encode()),
    }
    assert added["heading"] in log


def test_adding_tells_a_person_where_and_under_what_heading(con: Cli):
    said = con.said("persona", "experience", "con", "--add", "Learned.")

    assert said == IsStr(
        regex=rf"Added to {con.data_root}/personas/developer-con-1/experience.md under: .+ — \w+\n"
    )


def test_a_blank_entry_is_refused(con: Cli):
    assert con.refusal("persona", "experience", "con", "--add", " ") == snapshot(
        (2, "invalid", "entry: must not be empty or blank.")
    )
