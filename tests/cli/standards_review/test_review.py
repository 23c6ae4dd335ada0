"""A review from its first question to its summary."""

from dirty_equals import IsPartialDict
from inline_snapshot import snapshot

from server.access import login_name
from tests.cli.conftest import Cli
from tests.cli.specs import editor
from tests.cli.standards import ASKED, FLAKY, files_of, in_project, proposal, propose, stable
from tests.cli.standards_review.conftest import REVIEW, decisions, document, statuses
from tests.cli.terminals import on_terminal, talking_to


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
