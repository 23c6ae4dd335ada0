import json

import pytest
from dirty_equals import IsPartialDict, IsStr
from inline_snapshot import snapshot

from tests.cli.conftest import Cli
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
    standards_of,
)
from tests.cli.terminals import on_terminal, talking_to
from tests.standards.tiny_model import make_model

TAGGED = f"---\ntags: [time]\n---\n\n{FLAKY}"


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project without standards."""
    return in_project(cli)


def refused_hint(cli: Cli, *arguments: str, stdin: str = "") -> str:
    return json.loads(cli.run(*arguments, "--json", stdin=stdin).stdout)["error"]["hint"]


def test_what_was_just_saved_is_found_and_is_said_to_be_unreviewed(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    assert stable(shop.said("standards", "search", "test", "fails", "around", "midnight")) == (
        snapshot("""\
1. .agent-os/standards/testing/flaky-tests.md:5, Pattern
   relevance 0.44, unreviewed
  │ Pass the clock in. A test that reads the time twice fails around midnight.

Found by full text in MS, 19 tokens.
""")
    )


def test_a_search_is_a_document(shop: Cli):
    save(shop, "testing/flaky-tests.md", TAGGED)

    answer = shop.answer("standards", "search", "midnight", "--tag", "time", "--domain", "testing")

    assert answer == IsPartialDict(
        found_by="full text",
        hits=[IsPartialDict(file=".agent-os/standards/testing/flaky-tests.md", section="Pattern")],
    )


def test_other_wordings_find_what_the_first_one_does_not(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    save(shop, "development/retries.md", RETRIES)

    once = shop.answer("standards", "search", "midnight")
    both = shop.answer("standards", "search", "midnight", "--also", "jitter")

    assert [hit["topic"] for hit in once["hits"]] == ["flaky-tests"]
    assert {hit["topic"] for hit in both["hits"]} == {"flaky-tests", "retries"}


def test_what_does_not_fit_the_filters_is_not_found(shop: Cli):
    save(shop, "testing/flaky-tests.md", TAGGED)
    line = ("standards", "search", "midnight")

    assert shop.answer(*line, "--tag", "money")["hits"] == []
    assert shop.answer(*line, "--layer", "universal")["hits"] == []
    assert shop.answer(*line, "--limit", "1", "--layer", "project")["hits"] != []


def test_a_search_that_finds_nothing_says_what_there_is(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    assert stable(shop.said("standards", "search", "zebra")) == snapshot(
        "Found by full text in MS, 0 tokens. Nothing fits. There are standards on testing: try other words for it.\n"
    )


def test_any_text_is_a_query_but_a_blank_one(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    for query in ("'; DROP TABLE standards", "%", "(a & | b"):
        assert shop.answer("standards", "search", query)["found_by"] == "full text"
    assert "Nothing fits." in shop.said("standards", "search", "--", "-e")
    assert shop.refusal("standards", "search", " ")[:2] == (2, "invalid")
    assert shop.refusal("standards", "search")[:2] == (2, "usage")


def test_a_found_text_cannot_drive_the_terminal_or_look_like_ours(shop: Cli):
    save(shop, "testing/flaky-tests.md", f"{FLAKY}\n2. midnight \x1b[2J {'x ' * 40}\n")

    seen = on_terminal(shop, "standards", "search", "midnight", columns=40).seen

    passage = seen.partition("unreviewed\n")[2].partition("\n\nFound by")[0]
    assert "2. midnight \\x1b[2J" in passage
    assert all(line.startswith(("  │", "  ┊")) for line in passage.splitlines())


def test_standards_are_listed_with_who_approved_them_and_what_is_wrong(shop: Cli):
    save(shop, "testing/flaky-tests.md", TAGGED)
    save(shop, "data/money.md", "---\ntags: [\n---\n\n# Money\n")

    assert stable(shop.said("standards", "list")) == snapshot("""\
STANDARD  LAYER  REVIEW  FOUND  UPDATED  TAGS  TITLE
data/money  project  unreviewed  0  TIME  Money
testing/flaky-tests  project  unreviewed  0  TIME  time  Flaky tests

.agent-os/standards/data/money.md: The front matter cannot be used: it is no YAML (line 3).
2 in all.
""")


def test_a_list_is_narrowed_and_goes_on_at_its_cursor(shop: Cli):
    for topic in ("one", "two"):
        save(shop, f"testing/{topic}.md")
    save(shop, "data/money.md")

    first = shop.said("standards", "list", "--domain", "testing", "--limit", "1")
    cursor = first.partition("--cursor ")[2].strip().strip("'")
    second = shop.answer(
        "standards", "list", "--domain", "testing", "--limit", "1", "--cursor", cursor
    )

    assert "testing/one" in first
    assert [one["topic"] for one in second["standards"]] == ["two"]


def test_a_list_that_is_empty_says_why(shop: Cli):
    none = shop.said("standards", "list")
    save(shop, "testing/flaky-tests.md")
    other = shop.said("standards", "list", "--domain", "data")

    assert (none, other) == snapshot(
        (
            "There are no standards yet. `dramatis standards propose` begins one.\n",
            "No standard fits. There are some on testing.\n",
        )
    )


def test_a_standard_is_printed_exactly(shop: Cli):
    save(shop, "testing/flaky-tests.md", TAGGED)

    assert shop.said("standards", "show", "testing", "flaky-tests") == TAGGED
    assert shop.said("standards", "show", "testing/flaky-tests") == TAGGED
    assert shop.answer("standards", "show", "Testing", "Flaky tests") == IsPartialDict(
        text=TAGGED, review="unreviewed", sha256=IsStr(regex="[0-9a-f]{64}")
    )


def test_on_a_terminal_it_is_said_who_stands_behind_a_standard(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    seen = on_terminal(shop, "standards", "show", "testing/flaky-tests").seen

    assert seen == f"# .agent-os/standards/testing/flaky-tests.md, unreviewed\n\n{FLAKY}"


def test_a_standard_that_is_not_there_is_answered_with_what_is(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    assert shop.refusal("standards", "show", "testing", "flaky")[:2] == (3, "standard_not_found")
    assert shop.refusal("standards", "show", "testing")[:2] == (2, "usage")
    assert refused_hint(shop, "standards", "show", "testing", "flaky") == snapshot(
        "Did you mean testing/flaky-tests? `dramatis standards list` has those there are."
    )


def test_statistics_say_what_is_found_and_what_never_is(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    save(shop, "development/retries.md", RETRIES)
    propose(shop, "sleeps")
    shop.said("standards", "search", "midnight")

    assert stable(shop.said("standards", "stats")) == snapshot("""\
Standards  2 with 2 passages
Unreviewed  2
Not searchable  0
Proposals  1 waits for a person
Not written  0 approved
Indexed  TIME
Vectors  off: DRAMATIS_EMBEDDING_MODEL names no model

Most found:
STANDARD  LAYER  REVIEW  FOUND  UPDATED  TAGS  TITLE
testing/flaky-tests  project  unreviewed  1  TIME  Flaky tests

Never found:
STANDARD  LAYER  REVIEW  FOUND  UPDATED  TAGS  TITLE
development/retries  project  unreviewed  0  TIME  Retries

Changed last:
STANDARD  LAYER  REVIEW  FOUND  UPDATED  TAGS  TITLE
development/retries  project  unreviewed  0  TIME  Retries
testing/flaky-tests  project  unreviewed  1  TIME  Flaky tests
""")
    assert shop.answer("standards", "stats") == IsPartialDict(standards=2, waiting_proposals=1)


def test_statistics_of_an_empty_project_are_zeros(shop: Cli):
    assert shop.said("standards", "stats") == snapshot("""\
Standards       0 with 0 passages
Unreviewed      0
Not searchable  0
Proposals       0 wait for a person
Not written     0 approved
Indexed         never
Vectors         nothing is indexed yet
""")


def test_an_index_run_says_what_it_did(shop: Cli):
    moved = save(shop, "testing/flaky-tests.md")
    save(shop, "data/money.md", "---\ntags: [\n---\n\n# Money\n\nIn cents.\n")
    first = shop.said("standards", "index")
    moved.unlink()
    second = shop.said("standards", "index")

    assert (first, second) == snapshot(
        (
            """\
2 files with 2 passages: 2 changed, 0 removed.
  changed  .agent-os/standards/data/money.md
  changed  .agent-os/standards/testing/flaky-tests.md
  skipped  .agent-os/standards/data/money.md: The front matter cannot be used: it is no YAML (line 3).
""",
            """\
1 file with 1 passage: 0 changed, 1 removed.
  removed  .agent-os/standards/testing/flaky-tests.md
  skipped  .agent-os/standards/data/money.md: The front matter cannot be used: it is no YAML (line 3).
""",
        )
    )


def test_an_index_run_names_so_many_files_and_counts_the_others(shop: Cli):
    for number in range(22):
        save(shop, f"testing/topic-{number:02}.md", f"# Topic {number}\n\nText {number}.\n")

    said = shop.said("standards", "index")

    assert said.count("  changed  ") == 21
    assert said.endswith("  changed  2 more\n")


def test_an_index_run_without_its_model_indexes_the_words_and_fails(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    shop.env["DRAMATIS_EMBEDDING_MODEL"] = str(shop.folder / "nothing")

    told = shop.run("standards", "index")
    result = shop.run("standards", "index", "--json")

    assert (told.exit_code, result.exit_code) == (6, 6)
    assert "Not all vectors are made: " in told.stdout
    assert json.loads(result.stdout) == IsPartialDict(
        report=IsPartialDict(files=1, passages=1), vectors_made=0, vectors_problem=IsStr()
    )


def test_an_index_run_makes_the_vectors_too(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    make_model(shop.folder / "model")
    shop.env["DRAMATIS_EMBEDDING_MODEL"] = str(shop.folder / "model")

    said = shop.said("standards", "index")
    found = shop.answer("standards", "search", "verify")

    assert said.endswith("  changed  .agent-os/standards/testing/flaky-tests.md\nMade 1 vector.\n")
    assert found["found_by"] == "full text and vectors"


def test_an_index_run_shows_its_progress_to_who_waits(shop: Cli):
    save(shop, "testing/flaky-tests.md")

    seen = on_terminal(shop, "standards", "index").seen

    assert "Indexing  [####################################]  100%" in seen
    assert "Embedding" not in seen


def test_watching_tells_every_change_until_it_is_interrupted(shop: Cli):
    with talking_to(shop, "standards", "watch") as talk:
        first = talk.wait_for("0 changed, 0 removed\n")
        save(shop, "testing/flaky-tests.md")
        second = talk.wait_for("1 changed, 0 removed: .agent-os/standards/testing/flaky-tests.md\n")
        talk.interrupt()
        ended = talk.end()

    assert first.startswith(f"Watching {standards_of(shop)}; Ctrl-C ends it.\n")
    assert second.count("changed") == 1
    assert (ended.exit_code, ended.seen) == (130, "\n")


def test_outside_a_project_every_command_says_how_to_name_one(cli: Cli):
    lines = ["search x", "list", "show a b", "stats", "index", "watch", "proposals", "repair 1"]

    for line in lines:
        assert cli.refusal("standards", *line.split())[:2] == (3, "no_project")
    assert refused_hint(cli, "standards", "list") == snapshot(
        "Start in a folder with .git or .agent-os in it or above it, or name the project with --project or DRAMATIS_PROJECT_ROOT. The home directory and / are no projects."
    )


def test_a_project_is_named_before_or_after_the_command_and_wins_over_the_setting(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    other = shop.folder / "other"
    other.mkdir()

    after = shop.answer("standards", "list", "--project", str(other))
    before = shop.answer("standards", "--project", str(other), "list")

    assert (after["total"], before["total"]) == (0, 0)
    assert shop.answer("standards", "list")["total"] == 1


@pytest.mark.parametrize("named", ["", "nowhere", "home"])
def test_what_can_be_no_project_is_refused(shop: Cli, named: str):
    assert shop.refusal("standards", "list", "--project", named)[0] == 2


def test_proposals_are_listed_with_whose_turn_it_is(shop: Cli):
    shop.said("persona", "register", "Tessa", "--role", "qa")
    propose(shop, "flaky-tests", FLAKY, "--persona", "tessa")
    propose(shop, "retries", RETRIES)

    said = stable(shop.said("standards", "proposals", "--limit", "1"))
    before = shop.answer("standards", "proposals", "--before", "2")

    assert said.replace(proposal(shop, 2)["created_by"], "ada ") == snapshot("""\
ID  STATUS  FILE  BY  PROPOSED  REASON
2  waits for person  .agent-os/standards/testing/retries.md  ada  TIME  Seen in three suites.

2 wait for a person: `dramatis standards review`. Next page: --before 2
""")
    assert before == IsPartialDict(
        waiting=2, proposals=[IsPartialDict(id=1, created_by="qa-tessa-1", waits_for="person")]
    )


def test_no_proposal_is_said_to_fit(shop: Cli):
    none = shop.said("standards", "proposals")
    propose(shop)
    other = shop.said("standards", "proposals", "--status", "rejected")

    assert (none, other) == snapshot(
        (
            "No proposal fits. 0 wait for a person.\n",
            "No proposal fits. 1 waits for a person: `dramatis standards review`.\n",
        )
    )


def test_a_proposal_is_shown_whole(shop: Cli):
    save(shop, "testing/clocks.md")
    save_others(shop)
    shop.said("standards", "index")
    shop.said("persona", "register", "Tessa", "--role", "qa")
    more = ("--evidence", "tests/a.py:1-3:two: clocks", "--evidence", "tests/b.py", "--tag", "time")
    propose(shop, "flaky-tests", FLAKY, "--persona", "tessa", "--confidence", "0.9", *more)
    propose(shop, "flaky-tests", f"{FLAKY}\nAlways.\n")

    assert stable(shop.said("standards", "proposals", "1")) == snapshot("""\
Proposal 1 makes .agent-os/standards/testing/flaky-tests.md
  By  qa-tessa-1, TIME
  Why  Seen in three suites.
  Seen in  tests/a.py:1-3, two: clocks
              tests/b.py
  Confidence  90%
  Tags  time
  Close to  .agent-os/standards/testing/clocks.md (0.63)
  Same file  proposal 2

  │ # Flaky tests
  │
  │ ## Pattern
  │
  │ Pass the clock in. A test that reads the time twice fails around midnight.
  └ .agent-os/standards/testing/flaky-tests.md
""")


def test_a_proposal_that_is_not_there_is_answered_with_the_list(shop: Cli):
    assert shop.refusal("standards", "proposals", "7") == snapshot(
        (3, "proposal_not_found", "This project has no proposal 7.")
    )
    assert refused_hint(shop, "standards", "proposals", "7") == snapshot(
        "`dramatis standards proposals --status all` has those there are."
    )


def test_nothing_is_repaired_that_nobody_approved(shop: Cli):
    propose(shop)

    assert shop.refusal("standards", "repair", "1")[:2] == (4, "not_approved")
    assert files_of(shop) == []


def examined(cli: Cli) -> tuple[str, str, str | None]:
    checks = json.loads(cli.run("doctor", "--json").stdout)["checks"]
    check = next(check for check in checks if check["name"] == "standards")
    root = str(cli.folder.resolve())
    return check["state"], check["detail"].replace(root, "HERE"), check["remedy"]


def test_doctor_counts_the_standards_of_the_project(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    propose(shop, "sleeps")
    shop.said("standards", "index")

    assert examined(shop) == snapshot(
        (
            "ok",
            "HERE/shop/.agent-os/standards: 1 indexed; proposals: 1 waits for a person; vectors: off: DRAMATIS_EMBEDDING_MODEL names no model",
            None,
        )
    )


def test_doctor_needs_no_project(cli: Cli):
    assert examined(cli) == snapshot(("ok", "no project here", None))


def test_doctor_says_that_vectors_cannot_be_made(shop: Cli):
    save(shop, "testing/flaky-tests.md")
    shop.said("standards", "index")
    shop.env["DRAMATIS_EMBEDDING_MODEL"] = str(shop.folder / "nothing")

    state, detail, remedy = examined(shop)

    assert (state, remedy) == snapshot(
        (
            "warning",
            "See DRAMATIS_EMBEDDING_MODEL and DRAMATIS_EMBEDDING_URL; words are found anyway.",
        )
    )
    assert "vectors: unavailable: " in detail


def test_doctor_says_that_standards_lead_out_of_the_project(shop: Cli):
    standards_of(shop).parent.mkdir()
    standards_of(shop).symlink_to(shop.home)

    assert examined(shop)[0] == "failed"
