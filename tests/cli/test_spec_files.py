import json
import re
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr
from inline_snapshot import snapshot

from server.specs.examples import example_names, example_text
from server.specs.schema import json_schema
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.specs import PLAIN, PLAIN_TEXT, WARM, drafts, editor
from tests.cli.terminals import on_terminal


@pytest.fixture
def con(cli: Cli) -> Cli:
    cli.said("persona", "register", "Con", "--role", "developer")
    return cli


@pytest.fixture
def written(con: Cli) -> Cli:
    con.said("spec", "new", "con", "-", stdin=PLAIN)
    return con


def versions(cli: Cli) -> list[str]:
    return [one["version"] for one in cli.answer("spec", "list", "con")["versions"]]


def test_a_new_draft_is_shown_as_the_prompt_it_compiles_to(con: Cli):
    said = con.said("spec", "new", "con", "-", stdin=PLAIN)

    assert said == (
        "Stored draft 1.0.0 of developer-con-1. It compiles to 65 tokens:\n\n"
        f"{PLAIN_TEXT}\n"
        "Nothing runs with it until `dramatis spec publish developer-con-1 1.0.0`.\n"
    )


def test_a_new_draft_is_a_document_with_its_plan(con: Cli):
    file = con.folder / "con.json"
    file.write_text(json.dumps({"constitution": ["Tests first."], "version": "2.0.0"}))

    answer = con.answer("spec", "new", "con", str(file))

    assert answer == {
        "slug": "developer-con-1",
        "version": "2.0.0",
        "status": "draft",
        "origin": "written",
        "sources": [],
        "digest": IsStr(regex="[0-9a-f]{64}"),
        "preview": IsPartialDict(constitution_text="## Constitution\n\n1. Tests first."),
    }


def test_an_empty_draft_is_said_to_say_nothing(con: Cli):
    said = con.said("spec", "new", "con", "-", stdin="metadata: {owner: team}")

    assert said == "Stored draft 1.0.0 of developer-con-1. It says nothing.\n"


@pytest.mark.parametrize("name", example_names())
def test_every_shipped_example_is_one_to_begin_with(con: Cli, name: str):
    assert con.answer("spec", "new", "con", "--example", name)["version"] == "1.0.0"


@pytest.mark.parametrize("name", example_names())
def test_an_example_is_printed_with_its_comments(offline: Cli, name: str):
    text = offline.said("spec", "example", name)

    assert text == example_text(name)
    assert offline.answer("spec", "example", name) == {"name": name, "text": text}


def test_examples_are_listed(offline: Cli):
    assert offline.said("spec", "example").splitlines() == example_names()
    assert offline.answer("spec", "example") == {"examples": example_names()}


def test_an_unknown_example_is_answered_with_those_there_are(con: Cli):
    result = con.run("spec", "new", "con", "--example", "pirate")

    assert (result.exit_code, result.stderr) == (
        3,
        f"Error: No example is called 'pirate'. Known: {', '.join(example_names())}.\n",
    )


def test_examples_are_completed(offline: Cli):
    words = "dramatis spec new con --example "
    env = {"_DRAMATIS_COMPLETE": "bash_complete", "COMP_WORDS": words + "de", "COMP_CWORD": "5"}

    assert offline.process(env=env).stdout == b"plain,developer\n"


def test_a_refused_spec_names_the_field_and_stores_nothing(con: Cli):
    bad = "deterministic_rules:\n  banned_phrases: abc"

    assert con.refusal("spec", "new", "con", "-", stdin=bad) == snapshot(
        (2, "invalid", "deterministic_rules.banned_phrases: must be a list.")
    )
    assert versions(con) == []


def test_a_version_that_is_there_is_a_conflict(written: Cli):
    again = f"version: 1.0.0\n{WARM}"

    assert written.refusal("spec", "new", "con", "-", stdin=again) == snapshot(
        (
            4,
            "spec_version_exists",
            "developer-con-1 has a spec 1.0.0 already, and a stored version never changes.",
        )
    )


def test_a_file_and_an_example_exclude_each_other(con: Cli):
    assert con.refusal("spec", "new", "con", "-", "--example", "support")[:2] == (2, "usage")


def test_without_a_terminal_there_has_to_be_a_file(con: Cli):
    assert con.refusal("spec", "new", "con") == snapshot(
        (2, "usage", "Give a FILE, - for the input, or --example.")
    )


def test_on_a_terminal_the_editor_opens_on_an_outline_that_holds_when_uncommented(con: Cli):
    con.env |= editor(
        con,
        """grep -v dramatis "$1" | sed -n 's/^# \\([a-z ]\\)/\\1/p' > "$1.new"
sed -i '/^[A-Z]/d' "$1.new"; mv "$1.new" "$1" """,
    )

    shown = on_terminal(con, "spec", "new", "con")

    assert shown.exit_code == 0
    assert "Stored draft 1.0.0 of developer-con-1" in shown.seen
    document = con.answer("spec", "show", "con", "1.0.0")["document"]
    assert [field for field, value in document.items() if value] == snapshot(
        [
            "version",
            "constitution",
            "decision_policy",
            "stance_values",
            "identity_voice",
            "interaction_style",
            "procedural_modules",
            "canonical_examples",
            "deterministic_rules",
        ]
    )


def test_an_outline_that_is_left_as_it_is_stores_nothing(con: Cli):
    con.env |= editor(con, "true")

    shown = on_terminal(con, "spec", "new", "con")

    assert (shown.exit_code, shown.seen) == (0, "Nothing was changed, and nothing stored.\n")
    assert (versions(con), drafts(con)) == ([], [])


def test_nobody_writes_for_a_persona_that_cannot_have_a_spec(con: Cli):
    con.said("persona", "archive", "con")
    con.env |= editor(con, "touch opened")

    shown = on_terminal(con, "spec", "new", "developer-con-1")

    assert (shown.exit_code, shown.seen) == snapshot(
        (
            4,
            "Error: developer-con-1 is archived. Restore it first with `dramatis persona restore`.\n",
        )
    )
    assert not (con.folder / "opened").exists()


def test_an_edit_makes_the_next_version(written: Cli):
    env = editor(written, """cp "$1" seen; sed -i 's/calm/warm/' "$1" """)

    said = written.said("spec", "edit", "con", env=env)

    assert (written.folder / "seen").read_text() == snapshot("""\
constitution:
  - Tests first.
identity_voice:
  tone: calm
procedural_modules:
  - id: review
    intent_labels:
      - review
    do:
      - Read the whole change.
    few_shot_ids:
      - not-yet
canonical_examples:
  - id: not-yet
    intent_label: review
    prompt: Ready to merge?
    response: Not yet.
deterministic_rules:
  banned_phrases:
    - obviously
""")
    assert said == snapshot("""\
Stored draft 1.0.1 of developer-con-1, made from 1.0.0: 65 tokens.
See `dramatis spec diff developer-con-1 1.0.0 1.0.1`, then `dramatis spec publish developer-con-1 1.0.1`.
""")
    assert versions(written) == ["1.0.1", "1.0.0"]
    assert drafts(written) == []


def test_an_edit_of_an_older_version_still_makes_the_highest(written: Cli):
    written.said("spec", "new", "con", "-", stdin=WARM)

    answer = written.answer(
        "spec", "edit", "con", "1.0.0", env=editor(written, "sed -i s/calm/dry/ $1")
    )

    assert answer["version"] == "1.0.2"
    assert "- tone: dry" in answer["preview"]["style_text"]


def test_an_edit_says_when_somebody_was_faster(written: Cli):
    theirs = written.folder / "theirs.yaml"
    theirs.write_text(WARM)
    script = f"sed -i s/calm/dry/ $1; {DRAMATIS} spec new con {theirs} > /dev/null"

    done = written.process("spec", "edit", "con", env=editor(written, script))

    assert done.stdout.decode() == snapshot("""\
Stored draft 1.0.2 of developer-con-1, made from 1.0.0: 65 tokens.
Somebody stored 1.0.1 meanwhile, which it is not made from.
See `dramatis spec diff developer-con-1 1.0.0 1.0.2`, then `dramatis spec publish developer-con-1 1.0.2`.
""")


def test_an_edit_of_blanks_and_notes_alone_stores_nothing(written: Cli):
    env = editor(written, 'echo "# a note" >> $1')

    assert written.said("spec", "edit", "con", env=env) == (
        "Nothing was changed, and nothing stored.\n"
    )
    assert written.answer("spec", "edit", "con", env=env) == {
        "slug": "developer-con-1",
        "changed": False,
    }
    assert (versions(written), drafts(written)) == (["1.0.0"], [])


def test_a_refused_edit_is_kept_and_its_place_is_said(written: Cli):
    result = written.run("spec", "edit", "con", env=editor(written, "echo 'bad: 1' > $1"))

    assert result.exit_code == 2
    kept = re.search(r"What you wrote is kept in (.+)", result.stderr)
    assert kept
    assert Path(kept[1]).read_text() == "bad: 1\n"
    assert "Error: bad: is not known here." in result.stderr
    assert versions(written) == ["1.0.0"]


def test_an_edit_that_is_no_text_is_kept(written: Cli):
    result = written.run("spec", "edit", "con", env=editor(written, r"printf '\377' > $1"))

    assert result.exit_code == 2
    assert "Error: The text is not UTF-8." in result.stderr
    assert [file.read_bytes() for file in written.folder.glob("*.yaml")] == [b"\xff"]


def test_on_a_terminal_a_refused_edit_goes_on_where_it_was(written: Cli):
    twice = 'if grep -q tune "$1"; then sed -i s/tune/tone/ "$1"; else sed -i s/tone/tune/ "$1"; fi'
    script = f"""{twice}; sed -i 's/calm/warm/; s/constitution/constitutoin/' "$1"
[ -e first ] && sed -i s/constitutoin/constitution/ "$1"; touch first"""
    written.env |= editor(written, script)

    shown = on_terminal(written, "spec", "edit", "con", typed="\n")

    assert (shown.exit_code, shown.seen) == snapshot(
        (
            0,
            """\

Error: constitutoin: is not known here. Known: version, constitution, decision_policy, stance_values, identity_voice, interaction_style, procedural_modules, canonical_examples, anti_examples, deterministic_rules, metadata.
Edit it again? [Y/n]: Stored draft 1.0.1 of developer-con-1, made from 1.0.0: 65 tokens.
See `dramatis spec diff developer-con-1 1.0.0 1.0.1`, then `dramatis spec publish developer-con-1 1.0.1`.
""",
        )
    )
    assert written.answer("spec", "show", "con", "1.0.1")["document"]["identity_voice"] == {
        "tone": "warm"
    }
    assert drafts(written) == []


def test_on_a_terminal_a_refused_edit_can_be_given_up_and_is_kept(written: Cli):
    written.env |= editor(written, "echo 'bad: 1' > $1")

    shown = on_terminal(written, "spec", "edit", "con", typed="n\n")

    assert shown.exit_code == 1
    assert "Edit it again? [Y/n]: What you wrote is kept in" in shown.seen
    assert drafts(written) == ["bad: 1\n"]


def test_an_edit_needs_something_to_begin_with(con: Cli):
    result = con.run("spec", "edit", "con")

    assert (result.exit_code, result.stderr) == snapshot(
        (
            3,
            "Error: developer-con-1 has no spec. Write one with `dramatis spec generate` or `dramatis spec new developer-con-1`.\n",
        )
    )


def test_files_are_checked_without_a_database(offline: Cli):
    good, bad = offline.folder / "good.yaml", offline.folder / "bad.yaml"
    good.write_text(PLAIN)
    bad.write_text(
        "procedural_modules: [{id: a b}]\ncanonical_examples: [{id: x, intent_label: y}]\n"
    )

    result = offline.run("spec", "validate", "good.yaml", "bad.yaml", "-", stdin="- a\n")

    assert (result.exit_code, result.stdout, result.stderr) == snapshot(
        (
            2,
            """\
good.yaml: valid, 65 tokens: constitution 8, style 6, modules 14, few_shots 24, rules 12.
bad.yaml: procedural_modules.0.id: must match pattern '^[A-Za-z0-9._:-]+$'. canonical_examples.0.prompt: is required. canonical_examples.0.response: is required.
input: A spec is a mapping of fields. Known: version, constitution, decision_policy, stance_values, identity_voice, interaction_style, procedural_modules, canonical_examples, anti_examples, deterministic_rules, metadata.
""",
            "",
        )
    )


def test_checked_files_are_a_document(offline: Cli):
    (offline.folder / "good.yaml").write_text("constitution: [Tests first.]")

    answer = offline.answer("spec", "validate", "good.yaml")
    result = offline.run("spec", "validate", "-", "--json", stdin="")

    assert answer == snapshot(
        {
            "files": [
                {
                    "file": "good.yaml",
                    "total_tokens": 9,
                    "tokens": {
                        "constitution": 8,
                        "decision_policy": 0,
                        "style": 0,
                        "modules": 0,
                        "few_shots": 0,
                        "rules": 0,
                    },
                    "problem": None,
                }
            ],
            "invalid": 0,
        }
    )
    document: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code, document["invalid"]) == (2, 1)
    assert document["files"][0]["problem"].startswith("A spec is a mapping of fields.")


def test_a_file_that_is_not_there_is_a_usage_error(offline: Cli):
    assert offline.refusal("spec", "validate", "nowhere.yaml")[:2] == (2, "usage")


def test_the_schema_is_printed_and_written_without_a_database(offline: Cli):
    printed = offline.said("spec", "schema")
    said = offline.said("spec", "schema", "--output", "spec.schema.json")

    file = offline.folder / "spec.schema.json"
    assert json.loads(printed) == json_schema()
    assert file.read_text() == printed
    assert said == (
        f"Wrote {file}. An editor with a YAML language server checks specs that begin with:\n"
        f"# yaml-language-server: $schema={file}\n"
    )
    assert offline.answer("spec", "schema") == {"schema": json_schema()}
    assert offline.answer("spec", "schema", "--output", str(file)) == {"file": str(file)}


def test_a_schema_that_cannot_be_written_is_a_failure(offline: Cli):
    file = offline.folder / "no" / "spec.json"

    assert offline.refusal("spec", "schema", "--output", str(file)) == (
        1,
        "failed",
        f"Could not open file '{file}': No such file or directory",
    )


@pytest.mark.parametrize("script", ['rm "$1"', 'rm "$1"; mkdir "$1"'])
def test_an_editor_that_leaves_no_file_is_a_refusal_and_no_crash(con: Cli, script: str):
    con.said("spec", "new", "con", "-", stdin=PLAIN)

    result = con.run("spec", "edit", "con", env=editor(con, script))

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: What the editor left cannot be read: ")
    assert len(con.answer("spec", "list", "con")["versions"]) == 1
