"""A person edits a proposal during a review."""

import pytest
from dirty_equals import IsPartialDict
from inline_snapshot import snapshot

from tests.cli.conftest import Cli
from tests.cli.specs import editor
from tests.cli.standards import ASKED, FLAKY, files_of, proposal, standards_of
from tests.cli.standards_review.conftest import REVIEW, statuses
from tests.cli.terminals import talking_to

# Assembled, so that no scanner of secrets stumbles over this file.
SECRET = "password = " + "'hunter2-Zx81-qq7'"


def kept(cli: Cli) -> list[str]:
    """Return the texts that were kept for whoever wrote them."""
    return [file.read_text() for file in cli.folder.glob("*-*.md")]


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
