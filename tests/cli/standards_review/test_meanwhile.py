"""What others do during a review, and what disks and databases do to it."""

import json
import shutil

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from tests.cli.conftest import Cli
from tests.cli.standards import ASKED, FLAKY, files_of, save, standards_of
from tests.cli.standards_review.conftest import REVIEW, document
from tests.cli.terminals import on_terminal, talking_to


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
