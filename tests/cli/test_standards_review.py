import json
import os
import pty
import shutil
import subprocess
from typing import Any

import psycopg
import pytest
from dirty_equals import IsPartialDict
from inline_snapshot import snapshot
from psycopg import sql
from sqlalchemy import make_url

from server.access import login_name
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.specs import editor
from tests.cli.standards import (
    ASKED,
    FLAKY,
    RETRIES,
    files_of,
    in_project,
    proposal,
    propose,
    save,
    stable,
    standards_of,
)
from tests.cli.terminals import on_terminal, talking_to

REVIEW = ("standards", "review")
# Assembled, so that no scanner of secrets stumbles over this file.
SECRET = "password = " + "'hunter2-Zx81-qq7'"


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project with two proposals of a persona's. On its terminals sits Grace."""
    in_project(cli)
    cli.said("persona", "register", "Tessa", "--role", "qa")
    propose(cli, "flaky-tests", FLAKY, "--persona", "tessa")
    propose(cli, "retries", RETRIES, "--persona", "tessa")
    cli.env["LOGNAME"] = "grace"
    return cli


def statuses(cli: Cli) -> list[str]:
    page = cli.answer("standards", "proposals", "--status", "all")
    return [one["status"] for one in reversed(page["proposals"])]


def decisions(cli: Cli, number: int = 1) -> list[tuple[str, str | None]]:
    return [(one["verdict"], one["feedback"]) for one in proposal(cli, number)["decisions"]]


def kept(cli: Cli) -> list[str]:
    """Return the texts that were kept for whoever wrote them."""
    return [file.read_text() for file in cli.folder.glob("*-*.md")]


def document(seen: str) -> Any:
    return json.loads(seen[seen.index("{\n") :])


@pytest.mark.parametrize(
    "line",
    [
        "review",
        "review 1",
        "approve 1",
        "approve 1 --yes",
        "reject 1 --feedback no",
        "reject 1 --feedback no --yes",
    ],
)
def test_nobody_but_a_person_at_a_terminal_decides(shop: Cli, line: str):
    refusal = shop.refusal("standards", *line.split(), stdin="a\ny\n")

    assert refusal[:2] == (5, "needs_person")
    assert statuses(shop) == ["draft", "draft"]
    assert files_of(shop) == []


def test_a_terminal_whose_output_somebody_else_reads_is_none(shop: Cli):
    ours, its = pty.openpty()
    os.write(ours, b"y\n")

    refused = subprocess.run(
        [DRAMATIS, "standards", "approve", "1"],
        stdin=its,
        capture_output=True,
        env=shop.environment(),
        check=False,
    )

    os.close(its)
    os.close(ours)
    assert (refused.returncode, refused.stdout) == (5, b"")
    assert statuses(shop) == ["draft", "draft"]


def test_a_review_goes_through_all_that_wait_and_sums_up(shop: Cli):
    propose(shop, "sleeps", FLAKY.replace("Flaky tests", "Sleeps"))

    with talking_to(shop, *REVIEW) as talk:
        first = talk.answer(ASKED, "a")
        second = talk.answer(ASKED, "s")
        third = talk.answer(ASKED, "r")
        talk.answer("editor): ", "We have one on clocks.")
        end = talk.end()

    assert stable(first) == snapshot("""\

\x1b[1m1 of 3: Proposal 1 makes .agent-os/standards/testing/flaky-tests.md\x1b[0m
  By  qa-tessa-1, TIME
  Why  Seen in three suites.
  Confidence  50%

  │ # Flaky tests
  │
  │ ## Pattern
  │
  │ Pass the clock in. A test that reads the time twice fails around midnight.
  └ .agent-os/standards/testing/flaky-tests.md

[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]: \
""")
    assert second.startswith("a\nStandard created at .agent-os/standards/testing/flaky-tests.md\n")
    assert "2 of 3: Proposal 2 makes .agent-os/standards/testing/retries.md" in second
    assert "3 of 3: Proposal 3 makes .agent-os/standards/testing/sleeps.md" in third
    assert (end.exit_code, end.seen) == snapshot(
        (
            0,
            """\
We have one on clocks.
Proposal 3 is rejected, for good.
1 approved, 1 rejected, 1 left.
""",
        )
    )
    assert statuses(shop) == ["approved", "draft", "rejected"]
    assert files_of(shop) == ["testing/flaky-tests.md"]
    assert decisions(shop, 3) == [("rejected", "We have one on clocks.")]


def test_what_is_approved_is_found_with_the_name_of_the_person(shop: Cli):
    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "approve")
        talk.end()

    hit = shop.answer("standards", "search", "midnight")["hits"][0]
    assert hit == IsPartialDict(review="approved", approved_by="grace")
    assert proposal(shop)["decisions"] == [
        IsPartialDict(person="grace", channel="terminal", self_approved=False)
    ]


def test_a_proposal_of_ones_own_is_approved_as_such(shop: Cli):
    shop.env["LOGNAME"] = login_name()

    seen = on_terminal(shop, "standards", "approve", "1", "--yes").seen

    assert seen.endswith(
        "Standard created at .agent-os/standards/testing/flaky-tests.md (your own proposal)\n"
    )
    assert proposal(shop)["decisions"] == [IsPartialDict(self_approved=True)]


def test_who_asks_for_changes_sees_the_revision_with_what_they_said(shop: Cli):
    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "c")
        talk.answer("editor): ", "Say what to do about sleeps.")
        end = talk.end()
    waiting = shop.answer("standards", "proposals")["waiting"]
    shop.said("standards", "revise", "1", "-", stdin=f"{FLAKY}\nNever sleep.\n")
    with talking_to(shop, *REVIEW, "1") as talk:
        again = talk.answer(ASKED, "q")
        talk.end()

    assert end.seen.endswith("Proposal 1 goes back to its persona.\n1 sent back.\n")
    assert waiting == 1
    assert stable(again) == snapshot("""\

\x1b[1mProposal 1 makes .agent-os/standards/testing/flaky-tests.md\x1b[0m
  By  qa-tessa-1, TIME, revision 2 by ada
  Why  Seen in three suites.
  Confidence  50%
  Before  TIME grace asked for changes of revision 1: Say what
              to do about sleeps.

Since revision 1:
\x1b[2m  @@ -3,3 +3,5 @@\x1b[0m
  │  ## Pattern
  │
  │  Pass the clock in. A test that reads the time twice fails around midnight.
\x1b[32m  │+\x1b[0m
\x1b[32m  │+ Never sleep.\x1b[0m

  │ # Flaky tests
  │
  │ ## Pattern
  │
  │ Pass the clock in. A test that reads the time twice fails around midnight.
  │
  │ Never sleep.
  └ .agent-os/standards/testing/flaky-tests.md

[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]: \
""")


def test_feedback_of_several_lines_is_written_in_the_editor(shop: Cli):
    shop.env |= editor(shop, 'printf "Two things:\\n- shorter\\n" > "$1"')

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "c")
        talk.answer("editor): ", "")
        talk.end()

    assert decisions(shop) == [("changes", "Two things:\n- shorter")]


def test_no_feedback_is_no_decision(shop: Cli):
    shop.env |= editor(shop, "true")

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "r")
        talk.answer("editor): ", "")
        talk.answer(ASKED, "s")
        end = talk.end()

    assert end.seen == "s\n1 left.\n"
    assert statuses(shop) == ["draft", "draft"]


def test_a_change_is_shown_as_a_diff_and_whole_on_request(shop: Cli):
    on_terminal(shop, "standards", "approve", "1", "--yes")
    propose(shop, "flaky-tests", FLAKY.replace("midnight", "noon"), "--change")

    with talking_to(shop, *REVIEW, "3") as talk:
        diff = talk.answer(ASKED, "t")
        text = talk.answer(ASKED, "d")
        again = talk.answer(ASKED, "a")
        end = talk.end()

    assert stable(diff) == snapshot("""\

\x1b[1mProposal 3 changes .agent-os/standards/testing/flaky-tests.md\x1b[0m
  By  ada, TIME
  Why  Seen in three suites.
  Confidence  50%

\x1b[2m  @@ -2,4 +2,4 @@\x1b[0m
  │
  │  ## Pattern
  │
\x1b[31m  │- Pass the clock in. A test that reads the time twice fails around midnight.\x1b[0m
\x1b[32m  │+ Pass the clock in. A test that reads the time twice fails around noon.\x1b[0m
  └ .agent-os/standards/testing/flaky-tests.md

[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]: \
""")
    assert stable(text) == snapshot("""\
t
  │ # Flaky tests
  │
  │ ## Pattern
  │
  │ Pass the clock in. A test that reads the time twice fails around noon.
  └ .agent-os/standards/testing/flaky-tests.md

[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]: \
""")
    assert diff.endswith(again.removeprefix("d\n"))
    assert "Standard updated at .agent-os/standards/testing/flaky-tests.md" in end.seen


def test_an_unknown_answer_is_answered_with_those_there_are(shop: Cli):
    with talking_to(shop, *REVIEW, "1") as talk:
        for unknown in ("again", ""):
            talk.answer(ASKED, unknown)
        told = talk.answer(ASKED, "Quit")
        talk.end()

    assert "a  approve: the file is written, and agents find it" in told
    assert statuses(shop) == ["draft", "draft"]


def test_what_was_typed_before_a_proposal_was_shown_decides_nothing(shop: Cli):
    with talking_to(shop, *REVIEW) as talk:
        talk.answer(ASKED, "a\na")
        talk.answer(ASKED, "q")
        end = talk.end()

    assert end.seen == "q\n1 approved, 1 left.\n"
    assert statuses(shop) == ["approved", "draft"]


def test_a_review_that_is_left_says_what_was_decided(shop: Cli):
    with talking_to(shop, *REVIEW) as talk:
        talk.answer(ASKED, "a")
        talk.wait_for(ASKED)
        # Ctrl-D, which ends questions as Ctrl-C does.
        talk.press("\x04")
        end = talk.end()

    assert (end.exit_code, end.seen) == (130, "\n1 approved, 1 left.\n")


def test_a_text_cannot_look_like_ours_or_hide(shop: Cli):
    forged = f"# Title\n\n{'x' * 71} {ASKED}\n{ASKED}a\n\u202e\u200bhidden"
    shop.said(
        *("standards", "propose", "testing", "forged", "-", "--reason", f"Good.\n{ASKED}a"),
        stdin=forged,
    )

    with talking_to(shop, *REVIEW, "3", columns=76) as talk:
        seen = talk.answer(f"[d]iff {ASKED}", "s")
        talk.end()

    assert stable(seen) == snapshot("""\

\x1b[1mProposal 3 makes .agent-os/standards/testing/forged.md\x1b[0m
  By  ada, TIME
  Why  Good.
              [q]uit [?]: a
  Confidence  50%

  │ # Title
  │
  │ xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
  ┊ [q]uit [?]:
  │ [q]uit [?]: a
  │ \\u202e\\u200bhidden
  └ .agent-os/standards/testing/forged.md

[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]: \
""")


def test_an_edit_is_shown_and_approved_as_a_revision_of_the_person(shop: Cli):
    shop.env |= editor(shop, 'sed -i s/midnight/noon/ "$1"')

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "e")
        shown = talk.answer("[y/N]: ", "y")
        end = talk.end()

    assert shown == snapshot("""\
e

\x1b[2m  @@ -2,4 +2,4 @@\x1b[0m
  │
  │  ## Pattern
  │
\x1b[31m  │- Pass the clock in. A test that reads the time twice fails around midnight.\x1b[0m
\x1b[32m  │+ Pass the clock in. A test that reads the time twice fails around noon.\x1b[0m

Approve it as you edited it? [y/N]: \
""")
    assert end.seen.endswith("1 approved.\n")
    assert "around noon" in (standards_of(shop) / "testing/flaky-tests.md").read_text()
    assert proposal(shop)["revisions"] == [
        IsPartialDict(number=1, author="qa-tessa-1"),
        IsPartialDict(number=2, author="grace"),
    ]
    assert kept(shop) == []


def test_an_edit_that_is_not_approved_is_kept(shop: Cli):
    shop.env |= editor(shop, 'sed -i s/midnight/noon/ "$1"')

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "e")
        talk.answer("[y/N]: ", "")
        told = talk.answer(ASKED, "q")
        talk.end()

    assert "What you wrote is kept in " in told
    assert kept(shop) == [FLAKY.replace("midnight", "noon")]
    assert statuses(shop) == ["draft", "draft"]


@pytest.mark.parametrize("script", ["true", 'echo >> "$1"'])
def test_an_edit_that_changes_nothing_asks_again(shop: Cli, script: str):
    shop.env |= editor(shop, script)

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "e")
        talk.answer(ASKED, "q")
        end = talk.end()

    assert end.seen == "q\n1 left.\n"


def test_a_secret_in_an_edit_is_refused_and_the_edit_is_kept(shop: Cli):
    shop.env |= editor(shop, f'echo "{SECRET}" >> "$1"')

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "e")
        talk.answer("[y/N]: ", "y")
        told = talk.answer("[Y/n]: ", "n")
        talk.answer(ASKED, "q")
        talk.end()

    assert "This looks like a secret" in told
    assert [SECRET in text for text in kept(shop)] == [True]
    assert files_of(shop) == []


def test_an_editor_that_is_not_there_is_told_and_asked_again(shop: Cli):
    shop.env["EDITOR"] = "/nowhere/editor"

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "e")
        told = talk.answer(ASKED, "q")
        end = talk.end()

    assert "Error: /nowhere/editor: Editing failed" in told
    assert end.exit_code == 0


def test_a_proposal_that_was_revised_meanwhile_is_shown_again(shop: Cli):
    with talking_to(shop, *REVIEW, "1") as talk:
        talk.wait_for(ASKED)
        shop.said("standards", "revise", "1", "-", stdin=f"{FLAKY}\nNever sleep.\n")
        talk.press("a\n")
        told = talk.answer(ASKED, "a")
        talk.end()

    assert "Error: Proposal 1 was revised since it was shown: revision 2 is the newest." in told
    assert "  │ Never sleep." in told
    assert "Never sleep." in (standards_of(shop) / "testing/flaky-tests.md").read_text()


def test_a_file_that_was_saved_meanwhile_is_said_to_be_in_the_way(shop: Cli):
    with talking_to(shop, *REVIEW) as talk:
        talk.wait_for(ASKED)
        save(shop, "testing/flaky-tests.md", "By hand.\n")
        talk.press("a\n")
        told = talk.answer(ASKED, "s")
        after = talk.answer(ASKED, "a")
        end = talk.end()

    said = ".agent-os/standards/testing/flaky-tests.md has been made since this was proposed."
    assert "so nothing was approved" in told
    assert f"{said}\x1b[0m\n\n[a]pprove" in told
    assert "2 of 2" in after
    assert end.seen.endswith("1 approved, 1 left.\n")
    assert (standards_of(shop) / "testing/flaky-tests.md").read_text() == "By hand.\n"


def test_what_was_decided_elsewhere_is_passed_over(shop: Cli):
    with talking_to(shop, *REVIEW) as talk:
        talk.wait_for(ASKED)
        on_terminal(shop, "standards", "approve", "2", "--yes")
        talk.press("a\n")
        end = talk.end()

    assert end.seen.endswith("Proposal 2 is approved already.\n1 approved.\n")


def test_what_was_decided_while_it_was_shown_is_told(shop: Cli):
    with talking_to(shop, *REVIEW, "1") as talk:
        talk.wait_for(ASKED)
        on_terminal(shop, "standards", "approve", "1", "--yes")
        talk.press("a\n")
        end = talk.end()

    assert "Error: Proposal 1 is approved already, and that is final." in end.seen
    assert end.exit_code == 0


def test_a_file_that_cannot_be_written_is_told_with_the_repair(shop: Cli):
    # Where the folder of the domain belongs, there is a file.
    in_the_way = save(shop, "testing", "")

    with talking_to(shop, *REVIEW, "1") as talk:
        talk.answer(ASKED, "a")
        end = talk.end()
    with talking_to(shop, *REVIEW, "--json") as talk:
        talk.answer(ASKED, "q")
        later = talk.end()
    listed = shop.said("standards", "proposals", "--status", "approved")
    in_the_way.unlink()
    repaired = shop.said("standards", "repair", "1")

    assert "Error: Proposal 1 is approved, but " in end.seen
    assert "1   approved, not written" in listed
    assert end.seen.endswith("is not written: `dramatis standards repair 1`\n")
    assert document(later.seen)["not_written"] == [1]
    assert repaired == "Standard created at .agent-os/standards/testing/flaky-tests.md\n"
    assert files_of(shop) == ["testing/flaky-tests.md"]


def test_doctor_says_what_is_approved_and_not_written(shop: Cli):
    save(shop, "testing", "")
    on_terminal(shop, "standards", "approve", "1", "--yes")

    checks = json.loads(shop.run("doctor", "--json").stdout)["checks"]

    check = next(check for check in checks if check["name"] == "standards")
    assert (check["state"], check["remedy"]) == ("warning", "`dramatis standards repair 1`")


def test_a_database_that_goes_away_ends_the_review_with_what_was_decided(
    shop: Cli, admin: psycopg.Connection
):
    name = make_url(shop.database_url or "").database or ""

    with talking_to(shop, *REVIEW) as talk:
        talk.answer(ASKED, "a")
        talk.wait_for(ASKED)
        admin.execute(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name))
        )
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        talk.press("t\n")
        end = talk.end()

    assert end.exit_code == 6
    assert "Error: The database does not answer." in end.seen
    assert end.seen.endswith("1 approved, 1 left.\n")


def test_a_file_from_elsewhere_is_said_to_claim_its_approval(shop: Cli):
    on_terminal(shop, "standards", "approve", "1", "--yes")
    other = shop.folder / "other"
    shutil.copytree(shop.folder / "shop", other)

    said = shop.said("standards", "search", "midnight", "--project", str(other))

    assert "approved by grace, says the file\n" in said


def test_nothing_that_waits_is_said_to_be_nothing(cli: Cli):
    in_project(cli)

    seen = on_terminal(cli, *REVIEW).seen

    assert seen == "No proposal waits for a person.\n"


def test_a_review_of_no_proposal_is_refused(shop: Cli):
    shown = on_terminal(shop, *REVIEW, "7", "--json")

    assert (shown.exit_code, document(shown.seen)["error"]["code"]) == (3, "proposal_not_found")


def test_a_review_outside_a_project_is_refused(cli: Cli):
    shown = on_terminal(cli, *REVIEW)

    assert (shown.exit_code, shown.seen[:35]) == (3, "Error: There is no project here, so")


def test_a_review_without_its_database_is_refused(offline: Cli):
    in_project(offline)

    shown = on_terminal(offline, *REVIEW)

    assert (shown.exit_code, shown.seen[:36]) == (6, "Error: The database does not answer.")


def test_a_review_is_one_document_apart_from_the_questions(shop: Cli):
    with talking_to(shop, *REVIEW, "--json") as talk:
        talk.answer(ASKED, "a")
        talk.answer(ASKED, "s")
        end = talk.end()

    assert document(end.seen) == {
        "schemaVersion": 1,
        "decisions": [IsPartialDict(id=1, verdict="approved", created=True)],
        "left": [2],
        "not_written": [],
    }


def test_a_review_is_coloured_only_where_that_is_wanted(shop: Cli):
    shop.env["NO_COLOR"] = "1"

    with talking_to(shop, *REVIEW, "1") as talk:
        seen = talk.answer(ASKED, "q")
        talk.end()

    assert "\x1b" not in seen


def test_approving_one_shows_it_and_asks_once(shop: Cli):
    with talking_to(shop, "standards", "approve", "1") as talk:
        shown = talk.answer("[y/N]: ", "y")
        end = talk.end()

    assert "  │ Pass the clock in." in shown
    assert shown.endswith("Approve it? [y/N]: ")
    assert end.seen == "y\nStandard created at .agent-os/standards/testing/flaky-tests.md\n"


def test_who_says_no_decides_nothing(shop: Cli):
    with talking_to(shop, "standards", "approve", "1") as talk:
        talk.answer("[y/N]: ", "")
        end = talk.end()

    assert (end.exit_code, end.seen) == (1, "\nNothing was decided.\n")
    assert statuses(shop) == ["draft", "draft"]


def test_what_is_decided_cannot_be_decided_again(shop: Cli):
    on_terminal(shop, "standards", "approve", "1", "--yes")

    approved = on_terminal(shop, "standards", "approve", "1")
    rejected = on_terminal(shop, "standards", "reject", "1", "--json")

    assert (approved.exit_code, rejected.exit_code) == (4, 4)
    assert document(rejected.seen)["error"]["code"] == "proposal_decided"


def test_rejecting_asks_why_or_whether(shop: Cli):
    with talking_to(shop, "standards", "reject", "1") as talk:
        talk.answer("editor): ", "We do not.")
        first = talk.end()
    with talking_to(shop, "standards", "reject", "2", "--feedback", "Nor here.") as talk:
        talk.answer("[y/N]: ", "n")
        no = talk.end()
    second = on_terminal(shop, "standards", "reject", "2", "--feedback", "Nor here.", "--yes")

    assert first.seen == "We do not.\nProposal 1 is rejected, for good.\n"
    assert (no.exit_code, second.exit_code) == (1, 0)
    assert [*decisions(shop, 1), *decisions(shop, 2)] == [
        ("rejected", "We do not."),
        ("rejected", "Nor here."),
    ]


def test_rejecting_without_a_reason_decides_nothing(shop: Cli):
    shop.env |= editor(shop, "true")

    with talking_to(shop, "standards", "reject", "1") as talk:
        talk.answer("editor): ", "")
        end = talk.end()

    assert (end.exit_code, end.seen) == (1, "\nNothing was decided.\n")
