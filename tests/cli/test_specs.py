import hashlib
import json
import re

import pytest
from dirty_equals import IsPartialDict, IsStr
from inline_snapshot import snapshot
from wcwidth import wcswidth

from tests.cli.conftest import Cli
from tests.cli.specs import PLAIN, PLAIN_TEXT, WARM
from tests.cli.terminals import on_terminal

CHECKS = """\
- name: short
  max_tokens: 10
- name: says
  must_contain:
    - tests first
"""
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\dZ")


@pytest.fixture
def con(cli: Cli) -> Cli:
    cli.said("persona", "register", "Con", "--role", "developer")
    return cli


@pytest.fixture
def two(con: Cli) -> Cli:
    """Con with an active 1.0.0 and a draft after it."""
    con.said("spec", "new", "con", "-", stdin=PLAIN)
    con.said("spec", "publish", "con", "--note", "First.")
    con.said("spec", "new", "con", "-", stdin=WARM)
    return con


def without_times_and_author(cli: Cli, text: str) -> str:
    author = cli.answer("spec", "list", "con")["versions"][0]["author"]
    text = DATE.sub("TIME", text).replace(author, "ANN")
    # How wide the columns are depends on both.
    return re.sub("  +", "  ", text)


def test_an_empty_list_says_how_to_begin(con: Cli):
    assert con.said("spec", "list") == snapshot(
        "No persona has a spec. `dramatis spec new PERSONA` writes one.\n"
    )
    assert con.said("spec", "list", "con") == snapshot(
        "No version. `dramatis spec new con` writes one.\n"
    )


def test_the_list_of_personas_shows_what_is_active(two: Cli):
    two.said("persona", "register", "Pam", "--role", "product manager")
    two.said("spec", "new", "pam", "-", stdin=PLAIN)

    said = two.said("spec", "list")
    page = two.answer("spec", "list", "--limit", "1")
    rest = two.answer("spec", "list", "--cursor", page["next"])

    assert said == snapshot("""\
SLUG                   NAME  ACTIVE  NEWEST  VERSIONS
developer-con-1        Con   1.0.0   1.0.1   2
product-manager-pam-2  Pam   none    1.0.0   1
""")
    assert [one["slug"] for one in rest["personas"]] == ["product-manager-pam-2"]
    assert two.said("spec", "list", "--limit", "1").endswith(
        "Next page: --cursor developer-con-1\n"
    )


def test_the_versions_are_listed_with_their_publications(two: Cli):
    said = two.said("spec", "list", "con")
    page = two.answer("spec", "list", "con", "--limit", "1")
    rest = two.answer("spec", "list", "con", "--cursor", page["next"])

    assert without_times_and_author(two, said) == snapshot("""\
VERSION  STATUS  ORIGIN  AUTHOR  PUBLISHED  BY  NOTE
1.0.1  draft  written  ANN
1.0.0  active  written  ANN  TIME  ANN  First.
""")
    assert [one["version"] for one in rest["versions"]] == ["1.0.0"]
    assert rest["versions"][0]["last_published"] == IsPartialDict(
        note="First.", confirmed="operator", replaced=None
    )


def test_a_version_is_shown_as_the_yaml_that_makes_it_again(two: Cli):
    active = two.said("spec", "show", "con")
    draft = two.said("spec", "show", "con", "1.0.1")

    assert active.startswith("version: 1.0.0\nconstitution:\n  - Tests first.\n")
    assert "tone: warm" in draft
    two.said("persona", "register", "Cora", "--role", "developer")
    copied = two.answer("spec", "new", "cora", "-", stdin=draft)
    original = two.answer("spec", "show", "con", "1.0.1")
    assert copied["digest"] == original["digest"]
    assert original == IsPartialDict(slug="developer-con-1", status="draft", publications=[])


def test_on_a_terminal_a_version_has_a_heading(two: Cli):
    active = on_terminal(two, "spec", "show", "con").seen
    draft = on_terminal(two, "spec", "show", "con", "1.0.1").seen

    lines = [active.splitlines()[0], draft.splitlines()[0]]
    assert without_times_and_author(two, "\n".join(lines)) == snapshot("""\
# developer-con-1 1.0.0, active, published TIME by ANN: First.
# developer-con-1 1.0.1, draft, by ANN\
""")


def test_nothing_active_is_answered_with_what_there_is(con: Cli):
    con.said("spec", "new", "con", "-", stdin=PLAIN)

    assert con.refusal("spec", "show", "con")[:2] == (3, "no_active_spec")
    assert con.refusal("spec", "show", "con", "1.0.7")[:2] == (3, "spec_not_found")
    assert con.refusal("spec", "show", "con", "1.0")[:2] == (2, "invalid")


def test_a_difference_is_told_by_meaning_and_then_by_text(two: Cli):
    assert two.said("spec", "diff", "con") == snapshot("""\
developer-con-1: 1.0.0 → 1.0.1

+ constitution
    + Small steps.
~ identity_voice.tone
    - calm
    + warm

Compiled

  ## Constitution

  1. Tests first.
+ 2. Small steps.

  ## Voice

- - tone: calm
+ - tone: warm

  ## Procedures

  … 25 lines that are the same
""")


def test_a_difference_of_parts_shows_them_as_they_are_written(two: Cli):
    other = PLAIN.partition("procedural_modules")[0] + "stance_values: {speed: '', tests: true}"
    two.said("spec", "new", "con", "-", stdin=other)

    assert two.said("spec", "diff", "con", "1.0.0", "1.0.2").partition("Compiled")[0] == snapshot("""\
developer-con-1: 1.0.0 → 1.0.2

- canonical_examples.not-yet
    - intent_label: review
    - prompt: Ready to merge?
    - response: Not yet.
- deterministic_rules.banned_phrases
    - obviously
- procedural_modules.review
    - intent_labels:
    -   - review
    - do:
    -   - Read the whole change.
    - few_shot_ids:
    -   - not-yet
    - priority: 100
    - active: true
+ stance_values.speed
    + ""
+ stance_values.tests
    + true

""")


def test_a_difference_is_a_document(two: Cli):
    answer = two.answer("spec", "diff", "con", "1.0.1", "1.0.0")

    assert answer == IsPartialDict(slug="developer-con-1", before="1.0.1", after="1.0.0")
    assert answer["changes"][0] == {
        "kind": "removed",
        "path": "constitution",
        "before": "Small steps.",
        "after": None,
    }


def test_what_does_not_differ_is_said(two: Cli):
    two.said("spec", "new", "con", "-", stdin=PLAIN)
    two.said("spec", "new", "con", "-", stdin=f"{PLAIN}metadata: {{owner: Ann}}")

    same = two.said("spec", "diff", "con", "1.0.0", "1.0.2")
    itself = two.said("spec", "diff", "con", "1.0.0", "1.0.0")
    unseen = two.said("spec", "diff", "con", "1.0.0", "1.0.3")

    assert (same, itself, unseen) == snapshot(
        (
            """\
developer-con-1: 1.0.0 → 1.0.2

They mean the same.
""",
            """\
developer-con-1: 1.0.0 → 1.0.0

That is one version. `dramatis spec list developer-con-1` has others to name.
""",
            """\
developer-con-1: 1.0.0 → 1.0.3

+ metadata.owner
    + Ann

They compile to the same prompt.
""",
        )
    )


def test_a_terminal_gets_colours_unless_it_is_asked_not_to(two: Cli):
    coloured = on_terminal(two, "spec", "diff", "con").seen
    plain = on_terminal(two, "spec", "diff", "con", "--no-color").seen
    two.env["NO_COLOR"] = "0"
    asked = on_terminal(two, "spec", "diff", "con").seen

    assert "\x1b[31m    - calm\x1b[0m\n\x1b[32m    + warm\x1b[0m" in coloured
    assert plain == asked == two.said("spec", "diff", "con")


def test_an_empty_no_color_asks_for_nothing(two: Cli):
    two.env["NO_COLOR"] = ""

    assert "\x1b[31m" in on_terminal(two, "spec", "diff", "con").seen


@pytest.mark.parametrize("columns", [60, 100])
def test_two_columns_fit_the_terminal(two: Cli, columns: int):
    long = PLAIN.replace("Tests first.", "王芳 reads every test that a change has touched. " * 4)
    two.said("spec", "new", "con", "-", stdin=long)

    shown = on_terminal(
        two, "spec", "diff", "con", "1.0.0", "--side-by-side", "--no-color", columns=columns
    )

    compiled = shown.seen.partition("Compiled\n\n")[2].splitlines()
    assert max(map(wcswidth, compiled)) <= columns
    changed = [line for line in compiled if " | " in line]
    assert changed[0].startswith("1. Tests first.")
    told = "".join(line.partition("|")[2].strip() for line in compiled if "|" in line)
    assert told.replace(" ", "").count("王芳readseverytest") == 4


def test_two_columns_mark_each_kind_of_change(two: Cli):
    said = two.said("spec", "diff", "con", "--side-by-side", env={"COLUMNS": "60"})
    back = two.said(
        "spec", "diff", "con", "1.0.1", "1.0.0", "--side-by-side", env={"COLUMNS": "60"}
    )

    assert said.partition("Compiled\n\n")[2] == snapshot("""\
## Constitution                ## Constitution

1. Tests first.                1. Tests first.
                             > 2. Small steps.

## Voice                       ## Voice

- tone: calm                 | - tone: warm

## Procedures                  ## Procedures

  … 25 lines that are the same
""")
    assert "2. Small steps.              <\n" in back


def test_a_draft_is_generated_from_what_is_known(con: Cli):
    con.said("persona", "edit", "con", "--description", "Keeps the old code alive.")

    said = con.said("spec", "generate", "con")
    answer = con.answer("spec", "generate", "con")

    assert said == snapshot("""\
Stored draft 1.0.0 of developer-con-1 (from name and role; description). It compiles to 20 tokens:

## Voice

- name: Con
- purpose: Keeps the old code alive.
- role: developer

Nothing runs with it until `dramatis spec publish developer-con-1 1.0.0`.
""")
    assert answer == IsPartialDict(version="1.0.1", status="draft", origin="generated")


def test_the_sha256_of_a_compiled_prompt_is_its_digest(two: Cli):
    done = two.process("spec", "compile", "con")
    answer = two.answer("spec", "compile", "con")

    digest = hashlib.sha256(done.stdout).hexdigest()
    assert done.stdout.decode() == PLAIN_TEXT
    assert done.stderr.decode() == f"developer-con-1: spec 1.0.0, prompt {digest[:12]}.\n"
    assert (answer["text"], answer["trace"]["digest"]) == (PLAIN_TEXT, digest)
    assert answer["known_intents"] == ["review"]


def test_a_version_compiles_as_it_would_run(two: Cli):
    draft = two.run("spec", "compile", "con", "1.0.1", "--variant", "compact", "--intent", "Review")

    assert draft.stdout.count("\n") == snapshot(34)
    assert draft.stderr == IsStr(regex=r"developer-con-1: spec 1\.0\.1, prompt [0-9a-f]{12}\.\n")


def test_what_a_budget_leaves_out_is_said(two: Cli):
    result = two.run("spec", "compile", "con", "--budget", "20")

    assert result.stderr.splitlines()[1] == snapshot(
        "Left out of the spec to stay under 20 tokens: few_shots not-yet, modules review."
    )
    assert two.refusal("spec", "compile", "con", "--budget", "0")[:2] == (2, "invalid")


def test_an_intent_that_means_nothing_is_told_with_those_there_are(two: Cli):
    result = two.run("spec", "compile", "con", "--intent", "reveiw")

    assert result.exit_code == 0
    assert result.stderr.splitlines()[1] == snapshot(
        "No module or example has the intent 'reveiw'. Known: review."
    )


def test_without_an_active_spec_the_prompt_says_that_it_is_a_fallback(con: Cli):
    con.said("spec", "new", "con", "-", stdin=PLAIN)

    result = con.run("spec", "compile", "con", "--intent", "review")

    digest = hashlib.sha256(result.stdout.encode()).hexdigest()
    assert result.stderr == (
        f"developer-con-1: settings and skill.md (no active spec), prompt {digest[:12]}.\n"
        "No module or example has the intent 'review'.\n"
    )


def test_a_file_compiles_without_a_database(offline: Cli):
    (offline.folder / "con.yaml").write_text(PLAIN)
    line = ("spec", "compile", "--file", "con.yaml")

    dropped = offline.run(*line, "--budget", "20")
    mistyped = offline.run(*line, "--intent", "x")
    answer = offline.answer(*line)

    assert offline.said(*line) == PLAIN_TEXT
    assert offline.run(*line[:3], "-", stdin=PLAIN).stdout == PLAIN_TEXT
    assert (dropped.stderr, mistyped.stderr) == snapshot(
        (
            "Left out of the spec to stay under 20 tokens: few_shots not-yet, modules review.\nWhat is never left out has 27 tokens by itself, more than 20.\n",
            "No module or example has the intent 'x'. Known: review.\n",
        )
    )
    assert answer == IsPartialDict(text=PLAIN_TEXT, known_intents=["review"])
    assert answer["plan"]["digest"] == hashlib.sha256(PLAIN_TEXT.encode()).hexdigest()


@pytest.mark.parametrize("line", ["", "con --file -"])
def test_compiling_takes_either_a_persona_or_a_file(offline: Cli, line: str):
    assert offline.refusal("spec", "compile", *line.split()) == snapshot(
        (2, "usage", "Give either a PERSONA or --file.")
    )


def test_checks_are_set_shown_run_and_removed(two: Cli):
    assert two.said("spec", "check", "con") == snapshot(
        "developer-con-1 has no checks. `dramatis spec check developer-con-1 --set FILE` gives it some.\n"
    )
    nothing = two.run("spec", "check", "con", "--show")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == snapshot(
        (0, "", "There are no checks. `dramatis spec check con --set FILE` gives some.\n")
    )

    assert two.said("spec", "check", "con", "--set", "-", stdin=CHECKS) == snapshot(
        "2 checks are set: short, says.\n"
    )
    assert two.said("spec", "check", "con", "--show") == CHECKS
    failing = two.run("spec", "check", "con")
    assert (failing.exit_code, failing.stdout) == snapshot(
        (
            4,
            """\
CHECK  OUTCOME  WHY
short  failed   has 69 tokens, more than 10
says   passed

developer-con-1 1.0.1 fails its checks.
""",
        )
    )
    report = two.run("spec", "check", "con", "1.0.0", "--json")
    assert report.exit_code == 4
    assert json.loads(report.stdout) == IsPartialDict(version="1.0.0", passed=False)

    assert two.said("spec", "check", "con", "--clear") == "The checks are removed.\n"
    assert two.answer("spec", "check", "con", "--show") == {"checks": []}


def test_checks_that_pass_are_exit_code_0(two: Cli):
    said = two.said("spec", "check", "con", "--set", "-", stdin=CHECKS.replace("10", "100"))

    assert said == snapshot("2 checks are set: short, says.\n")
    assert two.answer("spec", "check", "con")["passed"] is True


def test_checks_that_cannot_be_read_leave_those_there_are(two: Cli):
    two.said("spec", "check", "con", "--set", "-", stdin=CHECKS)

    assert two.refusal("spec", "check", "con", "--set", "-", stdin="- name: x")[:2] == (
        2,
        "invalid",
    )
    assert two.said("spec", "check", "con", "--show") == CHECKS


@pytest.mark.parametrize("line", ["--clear --show", "1.0.0 --clear", "--set - --show"])
def test_one_thing_at_a_time_is_done_with_checks(two: Cli, line: str):
    assert two.refusal("spec", "check", "con", *line.split())[:2] == (2, "usage")
