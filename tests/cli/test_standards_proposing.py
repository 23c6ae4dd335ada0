import json
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from inline_snapshot import snapshot

from tests.cli.conftest import Cli
from tests.cli.specs import editor
from tests.cli.standards import (
    FLAKY,
    RETRIES,
    files_of,
    in_project,
    proposal,
    propose,
    save,
    save_others,
    stable,
)
from tests.cli.terminals import on_terminal

PROPOSE = ("standards", "propose", "testing", "flaky-tests")
REASON = ("--reason", "Seen in three suites.")
# Assembled, so that no scanner of secrets stumbles over this file.
SECRET = "password = " + "'hunter2-Zx81-qq7'"


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project without standards."""
    return in_project(cli)


def drafts(cli: Cli) -> list[str]:
    """Return the texts that were kept for whoever wrote them."""
    return [file.read_text() for file in cli.folder.glob("*-*.md")]


def ids(cli: Cli) -> list[int]:
    page = cli.answer("standards", "proposals", "--status", "all")
    return [one["id"] for one in page["proposals"]]


def hint(cli: Cli, *arguments: str, stdin: str = "") -> Any:
    return json.loads(cli.run(*arguments, "--json", stdin=stdin).stdout)["error"]["hint"]


def test_a_proposal_waits_for_a_person_and_writes_nothing(shop: Cli):
    said = shop.said(*PROPOSE, "-", *REASON, stdin=FLAKY)

    assert said == snapshot("""\
Proposal 1, revision 1, waits for a person: .agent-os/standards/testing/flaky-tests.md
Decide with `dramatis standards review 1`.
""")
    assert files_of(shop) == []
    assert shop.answer("standards", "search", "midnight")["hits"] == []


def test_a_proposal_is_a_document_with_all_that_was_given(shop: Cli):
    shop.said("persona", "register", "Tessa", "--role", "qa")
    file = shop.folder / "draft.md"
    file.write_text(FLAKY)

    more = ("--evidence", "tests/a.py:1-3:two: clocks", "--evidence", "tests/b.py::late", "--json")
    answer = shop.answer(
        *PROPOSE,
        str(file),
        *REASON,
        *more,
        "--tag",
        "Time",
        "--confidence",
        "0.9",
        "--persona",
        "tessa",
    )

    assert answer == IsPartialDict(id=1, revision=1, status="draft")
    assert proposal(shop) == IsPartialDict(
        content=FLAKY.strip(),
        reason="Seen in three suites.",
        evidence=[
            {"file": "tests/a.py", "lines": "1-3", "note": "two: clocks"},
            {"file": "tests/b.py", "lines": None, "note": "late"},
        ],
        tags=["time"],
        confidence=0.9,
        created_by="qa-tessa-1",
    )


def test_a_proposal_says_what_is_close_to_it(shop: Cli):
    save(shop, "testing/clocks.md")
    save_others(shop)
    shop.said("standards", "index")
    propose(shop)

    said = shop.said(*PROPOSE, "-", *REASON, stdin=f"{FLAKY}\nAlways.\n")

    assert said == snapshot("""\
Proposal 2, revision 1, waits for a person: .agent-os/standards/testing/flaky-tests.md
It is close to .agent-os/standards/testing/clocks.md.
The same file is in proposal 1 too.
Decide with `dramatis standards review 2`.
""")


@pytest.mark.parametrize(
    "line",
    [
        (*PROPOSE, "-"),
        (*PROPOSE, *REASON),
        (*PROPOSE, "-", *REASON, "--evidence", ":1-3"),
        (*PROPOSE, "-", *REASON, "--confidence", "2"),
        ("standards", "propose", "testing", "../x", "-", *REASON),
    ],
)
def test_what_is_missing_or_cannot_be_is_refused(shop: Cli, line: tuple[str, ...]):
    assert shop.refusal(*line, stdin=FLAKY)[0] == 2
    assert ids(shop) == []


def test_a_secret_is_refused_with_its_line(shop: Cli):
    refusal = shop.refusal(*PROPOSE, "-", *REASON, stdin=f"{FLAKY}\n{SECRET}\n")

    assert refusal[:2] == (2, "secret_found")
    assert "line 7" in refusal[2]


def test_a_standard_that_is_there_is_changed_only_when_that_is_meant(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    assert shop.refusal(*PROPOSE, "-", *REASON, stdin=RETRIES)[:2] == (4, "standard_exists")
    assert hint(shop, *PROPOSE, "-", *REASON, stdin=RETRIES) == snapshot(
        "`dramatis standards show` prints it. Work the change into its text, without its front matter, and propose that with --change."
    )
    shop.said(*PROPOSE, "-", *REASON, "--change", stdin=RETRIES)
    assert proposal(shop) == IsPartialDict(changes_existing=True, stale=None)


def test_a_standard_that_is_not_there_cannot_be_changed(shop: Cli):
    assert shop.refusal(*PROPOSE, "-", *REASON, "--change", stdin=FLAKY)[:2] == (
        3,
        "standard_not_found",
    )


def test_front_matter_is_refused_in_words_of_the_command(shop: Cli):
    tagged = f"---\ntags: [time]\n---\n\n{FLAKY}"

    assert hint(shop, *PROPOSE, "-", *REASON, stdin=tagged) == snapshot(
        "Take it out, and give tags with --tag; who proposed and who approved is added by itself."
    )


def test_on_a_terminal_the_editor_opens_on_an_outline(shop: Cli):
    shop.env |= editor(shop, 'cp "$1" seen; echo "Pass the clock in." >> "$1"')

    shown = on_terminal(shop, *PROPOSE, typed="Seen in three suites.\n")

    outline = (shop.folder / "seen").read_text()
    assert outline.startswith("# Flaky tests\n")
    assert [line for line in outline.splitlines() if line.startswith("## ")] == snapshot(
        ["## Context", "## Pattern", "## Examples", "## Anti-patterns", "## When to revisit"]
    )
    assert shown.exit_code == 0
    assert "Why should the team always do this?: " in shown.seen
    assert proposal(shop)["content"] == f"{outline}Pass the clock in."
    assert drafts(shop) == []


def test_on_a_terminal_the_editor_opens_on_the_text_that_is_there(shop: Cli):
    save(shop, "testing/flaky-tests.md", f"---\ntags: [time]\n---\n\n{FLAKY}")
    shop.env |= editor(shop, 'sed -i s/midnight/noon/ "$1"')

    shown = on_terminal(shop, *PROPOSE, *REASON)

    assert shown.exit_code == 0
    assert [line for line in proposal(shop)["diff"][2:] if line[0] in "+-"] == snapshot(
        [
            "-Pass the clock in. A test that reads the time twice fails around midnight.",
            "+Pass the clock in. A test that reads the time twice fails around noon.",
        ]
    )


def test_an_outline_that_is_left_as_it_is_proposes_nothing(shop: Cli):
    shop.env |= editor(shop, "true")

    shown = on_terminal(shop, *PROPOSE, *REASON)

    assert (shown.exit_code, shown.seen) == (0, "Nothing was changed, and nothing proposed.\n")


def test_what_cannot_be_read_is_not_opened(shop: Cli):
    save(shop, "testing/flaky-tests.md").write_bytes(b"\xff")
    shop.env |= editor(shop, "true")

    shown = on_terminal(shop, *PROPOSE, *REASON)

    assert shown.exit_code == 4
    assert shown.seen.startswith("Error: ")


def test_what_is_refused_can_be_edited_again_and_is_kept_otherwise(shop: Cli):
    shop.env |= editor(shop, f'echo "{SECRET}" >> "$1"')

    shown = on_terminal(shop, *PROPOSE, *REASON, typed="n\n")

    assert shown.exit_code == 1
    assert "Edit it again? [Y/n]: What you wrote is kept in " in shown.seen
    assert [SECRET in text for text in drafts(shop)] == [True]
    assert ids(shop) == []


def test_what_the_disk_has_overtaken_is_kept(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    other = save(shop, "testing/other.md", RETRIES)
    shop.env |= editor(shop, f'echo More. >> "$1"; cp {other} {other.parent}/flaky-tests.md')

    shown = on_terminal(shop, *PROPOSE, *REASON)

    assert shown.exit_code == 4
    assert "has changed since it was read" in shown.seen
    assert [text.endswith("More.\n") for text in drafts(shop)] == [True]


def test_a_revision_keeps_what_is_left_out(shop: Cli):
    propose(shop, "flaky-tests", FLAKY, "--tag", "time")

    said = shop.said("standards", "revise", "1", "-", stdin=f"{FLAKY}\nAlways.\n")
    shop.said("standards", "revise", "1", "--confidence", "1", "--evidence", "tests/a.py")

    assert said == snapshot("""\
Proposal 1, revision 2, waits for a person: .agent-os/standards/testing/flaky-tests.md
Decide with `dramatis standards review 1`.
""")
    assert proposal(shop) == IsPartialDict(
        revision=3,
        content=f"{FLAKY}\nAlways.",
        reason="Seen in three suites.",
        tags=["time"],
        confidence=1.0,
        evidence=[{"file": "tests/a.py", "lines": None, "note": None}],
    )


def test_on_a_terminal_a_revision_is_made_in_the_editor(shop: Cli):
    propose(shop)
    shop.env |= editor(shop, 'sed -i s/midnight/noon/ "$1"')

    shown = on_terminal(shop, "standards", "revise", "1")

    assert (shown.exit_code, proposal(shop)["content"]) == (
        0,
        FLAKY.replace("midnight", "noon").strip(),
    )


def test_a_text_that_is_left_as_it_is_can_have_another_reason(shop: Cli):
    propose(shop)
    shop.env |= editor(shop, "true")

    nothing = on_terminal(shop, "standards", "revise", "1")
    reason = on_terminal(shop, "standards", "revise", "1", "--reason", "Seen everywhere.")

    assert nothing.seen == "Nothing was changed, and nothing proposed.\n"
    assert (reason.exit_code, proposal(shop)["reason"]) == (0, "Seen everywhere.")


def test_a_revision_needs_something_to_revise(shop: Cli):
    propose(shop)

    assert shop.refusal("standards", "revise", "1")[:2] == (2, "usage")
    assert shop.refusal("standards", "revise", "1", "-", stdin=FLAKY)[:2] == (
        2,
        "nothing_to_change",
    )
    assert shop.refusal("standards", "revise", "7", "-", stdin=FLAKY)[:2] == (
        3,
        "proposal_not_found",
    )


def test_a_revision_against_a_changed_file_has_to_know_it(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    propose(shop, "flaky-tests", RETRIES, "--change")
    save(shop, "testing/flaky-tests.md", f"{FLAKY}\nBy hand.\n")
    line = ("standards", "revise", "1", "-")

    assert shop.refusal(*line, stdin=f"{RETRIES}\nMore.")[:2] == (4, "standard_changed")
    assert stable(hint(shop, *line, stdin=f"{RETRIES}\nMore.")) == snapshot(
        "See what it is now with `dramatis standards show`, work that into the text, and add --rebase."
    )
    shop.said(*line, "--rebase", stdin=f"{RETRIES}\nMore.")
    assert proposal(shop) == IsPartialDict(revision=2, stale=None)
