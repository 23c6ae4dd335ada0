import json

import psycopg
import pytest
from inline_snapshot import snapshot

from tests.cli.conftest import Cli
from tests.cli.specs import PLAIN, WARM
from tests.cli.terminals import on_terminal

STRICT = "- name: short\n  max_tokens: 10\n"


@pytest.fixture
def con(cli: Cli) -> Cli:
    """Con with a draft 1.0.0."""
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("spec", "new", "con", "-", stdin=PLAIN)
    return cli


@pytest.fixture
def two(con: Cli) -> Cli:
    """Con with an active 1.0.0 and a draft after it."""
    con.said("spec", "publish", "con", "--note", "First.")
    con.said("spec", "new", "con", "-", stdin=WARM)
    return con


def active(cli: Cli) -> str | None:
    return cli.answer("spec", "list", "con")["personas"][0]["active"]


def notes(cli: Cli, version: str) -> list[tuple[str, str, str | None]]:
    publications = cli.answer("spec", "show", "con", version)["publications"]
    return [(one["note"], one["confirmed"], one["replaced"]) for one in publications]


def change_by_hand(cli: Cli, admin: psycopg.Connection, version: str) -> None:
    name = (cli.database_url or "").partition("@/")[2].partition("?")[0]
    with psycopg.connect(host=admin.info.host, user="postgres", dbname=name) as database:
        database.execute(
            "UPDATE dramatis.persona_specs SET document = '{}' WHERE version = %s", [version]
        )


def test_the_highest_draft_is_published_and_says_what_it_replaced(con: Cli):
    first = con.said("spec", "publish", "con", "--note", "First.")
    con.said("spec", "new", "con", "-", stdin=WARM)
    second = con.said("spec", "publish", "con", "--note", "Warmer.")

    assert (first, second) == snapshot(
        (
            "Published developer-con-1 1.0.0.\n",
            "Published developer-con-1 1.0.1 in place of 1.0.0.\n",
        )
    )
    assert notes(con, "1.0.1") == [("Warmer.", "operator", "1.0.0")]


def test_publishing_is_a_document_and_can_be_repeated(con: Cli):
    line = ("spec", "publish", "con", "1.0.0", "--note", "First.")

    once, again = con.answer(*line), con.answer(*line)

    assert (once["changed"], again["changed"], again["replaced"]) == (True, False, None)
    assert con.said("spec", "publish", "con", "--note", "Again.") == (
        "developer-con-1 1.0.0 is the active version already.\n"
    )
    assert len(notes(con, "1.0.0")) == 1


def test_without_a_terminal_the_note_has_to_be_given(con: Cli):
    assert con.refusal("spec", "publish", "con", "--yes") == snapshot(
        (2, "usage", "Missing option '--note'.")
    )
    assert con.refusal("spec", "publish", "con", "--note", " ") == snapshot(
        (2, "invalid", "note: must not be empty or blank.")
    )
    assert active(con) is None


def test_an_archived_version_is_published_only_by_its_name(two: Cli):
    two.said("spec", "publish", "con", "--note", "Warmer.")
    two.said("spec", "rollback", "con", "--note", "Too warm.")

    result = two.run("spec", "publish", "con", "--note", "x")
    named = two.said("spec", "publish", "con", "1.0.1", "--note", "After all.")

    assert (result.exit_code, result.stderr) == snapshot(
        (
            4,
            "Error: The highest version of developer-con-1, 1.0.1, was active before and is no draft. Name the version to publish, or store a new one.\n",
        )
    )
    assert named == "Published developer-con-1 1.0.1 in place of 1.0.0.\n"


def test_what_cannot_be_published_is_refused(con: Cli):
    con.said("persona", "register", "Pam", "--role", "developer")

    assert con.refusal("spec", "publish", "pam", "--note", "x")[:2] == (3, "no_spec")
    assert con.refusal("spec", "publish", "con", "2.0.0", "--note", "x")[:2] == (
        3,
        "spec_not_found",
    )
    assert con.refusal("spec", "publish", "nobody", "--note", "x")[:2] == (3, "persona_not_found")
    con.said("persona", "archive", "con")
    assert con.refusal("spec", "publish", "developer-con-1", "--note", "x")[:2] == (
        4,
        "persona_archived",
    )


def test_failing_checks_stop_it_until_they_are_overridden(two: Cli):
    two.said("spec", "check", "con", "--set", "-", stdin=STRICT)

    stopped = two.run("spec", "publish", "con", "--note", "Warmer.")
    said = two.said("spec", "publish", "con", "--note", "Warmer.", "--override-checks")

    assert (stopped.exit_code, stopped.stderr) == snapshot(
        (
            4,
            "Error: developer-con-1 1.0.1 fails its checks: short: has 69 tokens, more than 10. Mend the spec as a new version. A person can override the checks with a note that says why: `dramatis spec publish developer-con-1 1.0.1 --override-checks`.\n",
        )
    )
    assert said == snapshot(
        "Published developer-con-1 1.0.1 in place of 1.0.0. Overridden: short: has 69 tokens, more than 10.\n"
    )


def test_on_a_terminal_a_person_sees_what_changes_and_is_asked_why(two: Cli):
    shown = on_terminal(two, "spec", "publish", "con", typed="y\nWarmer.\n")

    seen = shown.seen.partition("published ")
    assert (shown.exit_code, seen[0], seen[2].partition("First.")[2]) == snapshot(
        (
            0,
            """\
y
Warmer.
developer-con-1 1.0.1 takes the place of 1.0.0, \
""",
            """\


\x1b[32m+ constitution\x1b[0m
\x1b[32m    + Small steps.\x1b[0m
\x1b[33m~ identity_voice.tone\x1b[0m
\x1b[31m    - calm\x1b[0m
\x1b[32m    + warm\x1b[0m

Publish it? [y/N]: Why? It is kept with your name: Published developer-con-1 1.0.1 in place of 1.0.0.
""",
        )
    )
    assert notes(two, "1.0.1") == [("Warmer.", "operator", "1.0.0")]


def test_on_a_terminal_a_person_may_say_no(two: Cli):
    shown = on_terminal(two, "spec", "publish", "con", "--note", "Warmer.", typed="\n")

    assert shown.exit_code == 1
    assert shown.seen.endswith("Publish it? [y/N]: Nothing was published.\n")
    assert active(two) == "1.0.0"


def test_the_preview_is_coloured_only_where_that_is_wanted(two: Cli):
    two.env["NO_COLOR"] = "1"

    shown = on_terminal(two, "spec", "publish", "con", typed="n\n")

    assert "    - calm\n    + warm\n" in shown.seen


def test_on_a_terminal_nothing_is_asked_with_yes_but_the_note(two: Cli):
    shown = on_terminal(two, "spec", "publish", "con", "--yes", typed="Warmer.\n")

    assert (shown.exit_code, shown.seen) == snapshot(
        (
            0,
            """\
Warmer.
Why? It is kept with your name: Published developer-con-1 1.0.1 in place of 1.0.0.
""",
        )
    )


def test_on_a_terminal_the_document_stays_apart_from_the_questions(two: Cli):
    shown = on_terminal(two, "spec", "publish", "con", "--note", "x", "--json", typed="y\n")

    assert json.loads(shown.seen[shown.seen.index("{") :])["version"] == "1.0.1"


def test_on_a_terminal_a_first_version_replaces_nothing(con: Cli):
    shown = on_terminal(con, "spec", "publish", "con", "--note", "First.", typed="y\n")

    assert shown.seen == snapshot("""\
y
developer-con-1 1.0.0 becomes its first active spec.

Publish it? [y/N]: Published developer-con-1 1.0.0.
""")


def test_on_a_terminal_what_is_active_already_is_not_asked_about(con: Cli):
    con.said("spec", "publish", "con", "--note", "First.")

    shown = on_terminal(con, "spec", "publish", "con")

    assert shown.seen == "developer-con-1 1.0.0 is the active version already.\n"


def test_on_a_terminal_failing_checks_can_be_overridden_by_whoever_is_asked(two: Cli):
    two.said("spec", "check", "con", "--set", "-", stdin=STRICT)

    no = on_terminal(two, "spec", "publish", "con", typed="n\n")
    yes = on_terminal(two, "spec", "publish", "con", typed="y\nNeeded today.\n")

    assert (no.exit_code, yes.exit_code) == (1, 0)
    assert yes.seen.partition("It fails")[2] == snapshot("""\
 its checks:
  short: has 69 tokens, more than 10.

Publish it all the same? [y/N]: Why? It is kept with your name: Published developer-con-1 1.0.1 in place of 1.0.0. Overridden: short: has 69 tokens, more than 10.
""")


def test_a_long_list_of_changes_is_cut(two: Cli):
    many = "constitution:\n" + "".join(f"  - Rule {number}.\n" for number in range(30))
    two.said("spec", "new", "con", "-", stdin=many)

    shown = on_terminal(two, "spec", "publish", "con", "--note", "x", typed="n\n")

    assert "And 15 more: `dramatis spec diff developer-con-1` has them." in shown.seen


def test_rolling_back_publishes_the_version_from_before(two: Cli):
    two.said("spec", "publish", "con", "--note", "Warmer.")

    said = two.said("spec", "rollback", "con", "--note", "Too warm.")
    answer = two.answer("spec", "rollback", "con", "1.0.1", "--note", "After all.")

    assert said == "Published developer-con-1 1.0.0 in place of 1.0.1.\n"
    assert (answer["version"], answer["replaced"]) == ("1.0.1", "1.0.0")
    assert [one[0] for one in notes(two, "1.0.1")] == ["After all.", "Warmer."]


def test_on_a_terminal_a_rollback_shows_what_comes_back(two: Cli):
    two.said("spec", "publish", "con", "--note", "Warmer.")

    shown = on_terminal(two, "spec", "rollback", "con", typed="y\nToo warm.\n")

    assert shown.exit_code == 0
    assert "developer-con-1 1.0.0 takes the place of 1.0.1, published" in shown.seen
    assert active(two) == "1.0.0"


def test_there_has_to_be_something_to_go_back_to(two: Cli):
    assert two.refusal("spec", "rollback", "con", "--note", "x") == snapshot(
        (4, "nothing_to_go_back_to", "No version of developer-con-1 was active before.")
    )
    assert two.refusal("spec", "rollback", "con", "1.0.1", "--note", "x") == snapshot(
        (4, "nothing_to_go_back_to", "developer-con-1 1.0.1 is a draft and was never active.")
    )
    assert two.refusal("spec", "rollback", "con", "3.0.0", "--note", "x")[:2] == (
        3,
        "spec_not_found",
    )
    shown = on_terminal(two, "spec", "rollback", "con")
    assert shown.seen.startswith("Error: No version of developer-con-1 was active before.")


def test_a_version_that_was_changed_by_hand_can_be_replaced(two: Cli, admin: psycopg.Connection):
    change_by_hand(two, admin, "1.0.0")

    shown = on_terminal(two, "spec", "publish", "con", typed="y\nMended.\n")

    assert shown.exit_code == 0
    assert active(two) == "1.0.1"


def test_a_version_that_was_changed_by_hand_is_left_by_a_rollback(
    two: Cli, admin: psycopg.Connection
):
    two.said("spec", "publish", "con", "--note", "Warmer.")
    change_by_hand(two, admin, "1.0.1")

    said = two.said("spec", "rollback", "con", "--note", "Somebody changed it.")

    assert said == "Published developer-con-1 1.0.0 in place of 1.0.1.\n"
