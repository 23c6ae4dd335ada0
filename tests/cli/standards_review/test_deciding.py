"""Approving and rejecting one proposal, and who can: a person at a terminal."""

import os
import pty
import subprocess

import pytest

from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.specs import editor
from tests.cli.standards import files_of
from tests.cli.standards_review.conftest import decisions, document, statuses
from tests.cli.terminals import on_terminal, talking_to


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
