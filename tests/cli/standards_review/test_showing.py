"""How a review shows texts, none of which can pass for ours."""

from inline_snapshot import snapshot

from tests.cli.conftest import Cli
from tests.cli.standards import ASKED, FLAKY, propose, stable
from tests.cli.standards_review.conftest import REVIEW
from tests.cli.terminals import on_terminal, talking_to


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


def test_a_review_is_coloured_only_where_that_is_wanted(shop: Cli):
    shop.env["NO_COLOR"] = "1"

    with talking_to(shop, *REVIEW, "1") as talk:
        seen = talk.answer(ASKED, "q")
        talk.end()

    assert "\x1b" not in seen
