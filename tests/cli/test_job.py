import json
import re
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from dirty_equals import IsPartialDict
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from sqlalchemy import make_url

from server.cli import job_views
from server.cli.invoke import ProgressLine
from server.cli.job import Said, rest_of
from server.jobs.shapes import JobFailed, PersonaUsage, Recommendation, RunRecord, Statistics
from tests.cli.conftest import Cli
from tests.cli.jobs import WAITS, in_shop, invoked, let_go_on, ran, stable, state_of, worker_of
from tests.cli.terminals import Session, on_terminal, talking_to


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project whose personas run on a program; no worker is there."""
    return in_shop(cli)


def hint_of(cli: Cli, *arguments: str) -> str:
    return str(json.loads(cli.run(*arguments, "--json").stdout)["error"]["hint"])


def rename(cli: Cli, admin: psycopg.Connection, job_id: str, new: str) -> None:
    """Give a job an id that a test can count on."""
    name = make_url(cli.database_url or "").database
    with psycopg.connect(
        host=admin.info.host, user="postgres", dbname=name, autocommit=True
    ) as database:
        database.execute(
            "UPDATE dramatis.persona_jobs SET id = %s WHERE id = %s", (UUID(new), UUID(job_id))
        )


def test_jobs_are_listed_newest_first_and_filtered(shop: Cli):
    invoked(shop, "Review the cache")
    invoked(shop, "Find\nwhat is \x1b[31mnot\x1b[0m tested", persona="qa")
    shop.said("job", "cancel", invoked(shop, persona="qa"))

    everything = stable(shop.said("job", "list"))
    some = stable(shop.said("job", "list", "--status", "pending", "--persona", "qa"))
    one = shop.answer("job", "list", "--limit", "1")

    assert (everything, some) == snapshot(
        (
            """\
ID  PERSONA  STATUS  INVOKED  TOOK  TASK
SHORT  qa  cancelled  TIME  answer
SHORT  qa  pending  TIME  Find what is \\x1b[31mnot\\x1b[0m tested
SHORT  architect  pending  TIME  Review the cache

3 of 3.
""",
            """\
ID  PERSONA  STATUS  INVOKED  TOOK  TASK
SHORT  qa  pending  TIME  Find what is \\x1b[31mnot\\x1b[0m tested

1 of 1, 3 in all.
""",
        )
    )
    assert one == IsPartialDict(
        total_count=3, filtered_count=3, jobs=[IsPartialDict(status="cancelled")]
    )


def test_no_job_is_said_to_fit(shop: Cli):
    none = shop.said("job", "list")
    invoked(shop)
    other = shop.said("job", "list", "--status", "failed")

    assert (none, other) == snapshot(
        ("There are no jobs here. `dramatis invoke` starts one.\n", "No job fits; there are 1.\n")
    )


def test_jobs_belong_to_a_project(shop: Cli):
    invoked(shop)
    other = shop.folder / "other"
    other.mkdir()

    assert shop.answer("job", "list", "--project", str(other))["jobs"] == []
    assert len(shop.answer("job", "list")["jobs"]) == 1


def test_a_job_that_waits_is_shown_with_its_place(shop: Cli):
    invoked(shop)

    assert stable(shop.said("job", "show", invoked(shop))) == snapshot("""\
Job  ID
Persona  architect
Task  answer
Now  pending, N s: Waiting: number 2.
""")


def test_a_job_that_runs_is_shown_with_what_it_says(shop: Cli):
    with worker_of(shop):
        job_id = invoked(shop, "wait")
        with talking_to(shop, "job", "tail", job_id) as talk:
            talk.wait_for(WAITS)
            said = stable(shop.said("job", "show", job_id))
            answer = state_of(shop, job_id)
            let_go_on(shop)
            talk.end()

    assert said == snapshot("""\
Job  ID
Persona  architect
Task  wait
Now  10% generating, N s: python is working, 12 characters so far

  │ First part.
  │
""")
    assert answer == IsPartialDict(
        status="running",
        partial_result="First part.\n",
        record=IsPartialDict(runner="command", unsandboxed=True),
    )


def test_the_record_of_a_run_is_shown_with_its_result(shop: Cli):
    (shop.folder / "context.md").write_text("Words.")

    with worker_of(shop):
        job_id = ran(shop, "answer", "--context", "context.md")

    said = stable(shop.said("job", "show", job_id).replace(str(shop.folder), "HERE"))
    assert said == snapshot("""\
Job  ID
Status  complete
Persona  architect (Architect)
Task  answer
Context  6 bytes
Asked by  ada, TIME, normal priority
Ran  TIME, for N s
Spec  none: built in core persona
Prompt  DIGEST, --prompt prints it
Ran on  a command-line agent, unsandboxed
Project  HERE/shop
Budget  200,000 tokens, N s
Spent  N tokens in, 4 out (estimated), N s
Standards  none was retrieved

AT (UTC)  STEP  NAME  MS  DETAILS
TIME  note  unsandboxed  0  {"program": "python"}

  │ All is well.
""")
    answer = state_of(shop, job_id)
    assert answer == IsPartialDict(
        job_id=job_id, status="complete", result="All is well.", record=IsPartialDict(attempts=1)
    )
    assert "prompt" not in answer["record"]


def test_the_prompt_of_a_run_is_printed_alone(shop: Cli):
    job_id = invoked(shop)

    said = shop.said("job", "show", job_id, "--prompt")

    assert said.startswith("You are the Architect of this project.")
    assert shop.answer("job", "show", job_id, "--prompt") == {"job_id": job_id, "prompt": said}


def test_the_record_of_a_job_that_never_ran_says_so(shop: Cli):
    job_id = invoked(shop)
    shop.said("job", "cancel", job_id)

    said = shop.said("job", "show", job_id)

    assert [line for line in said.splitlines() if line.startswith(("Status", "Ran "))] == snapshot(
        ["Status     cancelled", "Ran        never", "Ran on     a command-line agent"]
    )


def test_the_record_of_a_failure_has_its_error_and_a_retry_names_it(shop: Cli):
    with worker_of(shop):
        failed = ran(shop, "fail")
        again = stable(shop.said("job", "retry", failed))
        result = shop.run("job", "retry", failed, "--wait")
        newest = shop.answer("job", "list")["jobs"][0]["job_id"]

    shown = shop.said("job", "show", failed)
    assert "Error      python ended with code 1. It said: I have no idea. (run_failed)\n" in shown
    assert again.startswith("Job ID: Architect works in the background.")
    assert (result.exit_code, result.stdout) == (6, "")
    assert f"Retry of   {failed}\n" in shop.said("job", "show", newest)


def test_only_what_failed_or_was_cancelled_runs_again(shop: Cli):
    assert shop.refusal("job", "retry", invoked(shop)) == snapshot(
        (
            4,
            "job_not_retryable",
            "The job is pending; only one that failed or was cancelled runs again.",
        )
    )


def test_an_id_may_be_shortened_as_long_as_it_means_one_job(shop: Cli, admin: psycopg.Connection):
    ids = [f"abcd{number}000-0000-4000-8000-000000000000" for number in (1, 2)]
    for one in ids:
        rename(shop, admin, invoked(shop), one)

    assert state_of(shop, "ABCD-1")["job_id"] == ids[0]
    assert state_of(shop, ids[1])["job_id"] == ids[1]
    assert shop.refusal("job", "show", "abcd") == snapshot(
        (4, "ambiguous_job", "Several jobs have ids that begin so.")
    )
    assert hint_of(shop, "job", "show", "abcd") == snapshot(
        "Say which: abcd2000-0000-4000-8000-000000000000 (architect, pending), abcd1000-0000-4000-8000-000000000000 (architect, pending)."
    )


@pytest.mark.parametrize("command", ["show", "tail", "cancel", "retry"])
def test_ids_that_mean_no_job_are_answered_with_the_list(shop: Cli, command: str):
    unknown = "00000000-0000-4000-8000-000000000000"

    assert shop.refusal("job", command, unknown)[:2] == (3, "job_not_found")
    assert hint_of(shop, "job", command, unknown) == ("`dramatis job list` has those there are.")


@pytest.mark.parametrize("malformed", ["abc", "xyz12", "%", "0" * 33, "\N{SUPERSCRIPT TWO}abc"])
def test_malformed_ids_mean_no_job(shop: Cli, malformed: str):
    assert shop.refusal("job", "show", malformed) == snapshot(
        (3, "job_not_found", "That is no id of a job, nor the first characters of one.")
    )


def test_what_a_job_says_is_printed_as_it_comes(shop: Cli):
    with worker_of(shop):
        with talking_to(shop, "job", "tail", invoked(shop, "wait")) as talk:
            first = talk.wait_for(WAITS)
            let_go_on(shop)
            ended = talk.end()
        said = shop.said("job", "tail", shop.answer("job", "list")["jobs"][0]["job_id"])

    assert [line for line in re.split("[\r\n]", first) if "part" in line] == ["First part."]
    assert (ended.exit_code, ended.seen.rpartition("\r")[2]) == (0, "Second part.\n")
    assert said == "First part.\nSecond part.\n"


def test_following_ends_as_the_job_does(shop: Cli):
    with worker_of(shop):
        failed = ran(shop, "fail")
        cancelled = invoked(shop, "wait")
        with talking_to(shop, "job", "tail", cancelled) as talk:
            talk.wait_for(WAITS)
            shop.said("job", "cancel", cancelled)
            ended = talk.end()

    assert shop.run("job", "tail", failed).exit_code == 6
    assert ended.exit_code == 4
    result = shop.run("job", "tail", cancelled, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        4,
        IsPartialDict(status="cancelled", partial_result="First part.\n"),
    )


def test_following_as_a_document_prints_the_end_alone(shop: Cli):
    with worker_of(shop):
        job_id = invoked(shop, "wait")
        let_go_on(shop)
        answer = shop.answer("job", "tail", job_id)

    assert answer == IsPartialDict(status="complete", result="First part.\nSecond part.")


def test_cancelling_says_what_is_kept(shop: Cli):
    with worker_of(shop):
        job_id = invoked(shop, "wait")
        with talking_to(shop, "job", "tail", job_id) as talk:
            talk.wait_for(WAITS)
            said = stable(shop.said("job", "cancel", job_id))
            talk.end()
    again = shop.said("job", "cancel", job_id)

    assert (said, again) == snapshot(
        (
            "Job cancelled after N s. `dramatis job show SHORT` has what it said until then.\n",
            "The job is cancelled already.\n",
        )
    )
    assert shop.answer("job", "cancel", job_id) == IsPartialDict(status="already_finished")


def test_statistics_count_all_jobs(shop: Cli):
    empty = stable(shop.said("job", "stats"))
    invoked(shop)
    shop.said("job", "cancel", invoked(shop))

    assert (empty, stable(shop.said("job", "stats"))) == snapshot(
        (
            """\
Jobs  0
Oldest  none
Size  N MB: healthy
Clean-up  due TIME
""",
            """\
Jobs  2: 1 pending, 1 cancelled
Oldest  0.0 days
Size  N MB: healthy
Clean-up  due TIME
""",
        )
    )
    assert shop.answer("job", "stats") == IsPartialDict(
        total_jobs=2, jobs_by_status={"pending": 1, "cancelled": 1}
    )


@pytest.mark.parametrize(
    ("recommendation", "said"),
    [
        ("healthy", "healthy"),
        ("schedule soon", "schedule a clean-up soon"),
        ("recommended", "a clean-up is recommended, `dramatis job clean`"),
        ("urgent", "a clean-up is urgent, `dramatis job clean`"),
    ],
)
def test_statistics_say_to_people_how_much_a_cleanup_presses(
    recommendation: Recommendation, said: str
):
    counts = Statistics(
        database_size_mb=1234.5,
        total_jobs=0,
        jobs_by_status={},
        oldest_job_days=None,
        next_cleanup=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
        cleanup_recommendation=recommendation,
    )

    assert f"Size      1,234.50 MB: {said}\n" in job_views.counted(counts)


def test_cleaning_says_how_many_went(shop: Cli):
    invoked(shop)

    assert stable(shop.said("job", "clean")) == snapshot("Removed 0 jobs. Next clean-up: TIME.\n")
    assert shop.answer("job", "clean") == IsPartialDict(jobs_deleted=0)


def test_forgetting_all_jobs_asks_first(shop: Cli):
    invoked(shop)

    no = on_terminal(shop, "job", "reset", typed="n\n")
    kept = shop.answer("job", "list")["total_count"]
    yes = on_terminal(shop, "job", "reset", typed="y\n")

    assert (no, kept, yes) == snapshot(
        (
            Session(
                exit_code=1,
                seen="""\
n
Cancel and forget all jobs of this project (1) for good? [y/N]: Nothing was done.
""",
            ),
            1,
            Session(
                exit_code=0,
                seen="""\
y
Cancel and forget all jobs of this project (1) for good? [y/N]: 1 removed, of which 1 had not ended.
""",
            ),
        )
    )


def test_forgetting_all_jobs_needs_yes_where_nobody_can_be_asked(shop: Cli):
    invoked(shop)

    assert shop.refusal("job", "reset") == snapshot(
        (2, "invalid", "Forgetting all jobs needs --yes where nobody can be asked.")
    )
    assert shop.answer("job", "reset", "--yes") == IsPartialDict(status="reset", jobs_deleted=1)


def test_usage_is_shown_by_day_and_persona(shop: Cli):
    nobody = shop.said("usage")
    with worker_of(shop):
        ran(shop)
    shop.env["DRAMATIS_RUN_USD"] = "1.5"
    shop.env["DRAMATIS_PERSONA_DAY_USD"] = "10"
    shop.env["DRAMATIS_PERSONA_DAY_TOKENS"] = "1000000"
    invoked(shop, persona="qa")

    said = re.sub(r"1,\d{3}  4 ", "IN  4 ", stable(shop.said("usage", "--days", "1")))
    assert (nobody, said) == snapshot(
        (
            "Nobody was invoked in these days.\n",
            """\
DAY  PERSONA  RUNS  IN  OUT  USD  SET ASIDE  DAY'S LIMIT
DAY  architect  1  IN  4  unknown  0  1,000,000, $10.0000
DAY  qa  0  0  0  0.0000  200,000, $1.5000  1,000,000, $10.0000
""",
        )
    )
    assert shop.answer("usage")["usage"] == [
        IsPartialDict(persona="architect", usd=None, unpriced=True),
        IsPartialDict(persona="qa", usd=0.0, unpriced=False, reserved_usd=1.5),
    ]
    assert shop.refusal("usage", "--days", "0")[:2] == (2, "usage")


def test_a_cost_that_leaves_runs_out_is_said_to_be_the_least():
    usage = PersonaUsage(
        persona="qa",
        day="2030-01-02",
        runs=2,
        input_tokens=20,
        output_tokens=10,
        usd=0.25,
        unpriced=True,
        reserved_tokens=0,
        reserved_usd=0,
        tokens_limit=None,
        usd_limit=None,
    )

    assert "  at least 0.2500  " in job_views.spent([usage])


LINES = st.lists(st.text("ab \n", max_size=6), max_size=3)


@given(before=LINES, text=st.text("ab \n", max_size=8), length=st.integers(0, 40))
@example(before=["Let me look."], text="The answer", length=17)
def test_a_text_is_printed_to_its_end_whatever_was_said_of_it(
    before: list[str], text: str, length: int
):
    said = "".join([*(f"{line}\n\n" for line in before), text])[:length]

    printed = said + rest_of(text, said)

    assert printed.startswith(said)
    assert printed.rstrip().endswith(text.strip())


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ("", "The answer.\nIt is 42."),
        ("The ans", "wer.\nIt is 42."),
        ("The answer.\nIt is 42.\n", ""),
        ("Let me look.\n\nThe ans", "wer.\nIt is 42."),
        ("Let me look.\n\n", "The answer.\nIt is 42."),
        ("Let me lo", "\n\nThe answer.\nIt is 42."),
    ],
)
def test_what_was_said_is_not_said_again(said: str, rest: str):
    assert rest_of("The answer.\nIt is 42.", said) == rest


def test_another_attempt_begins_its_text_anew(capsys: pytest.CaptureFixture[str]):
    said, line = Said(), ProgressLine()

    for text in ("First", "First part", "", "Fir", "First try"):
        said.up_to(text, line)
    said.finish("First try.", line)

    assert capsys.readouterr().out == "First part\n\nFirst try.\n"


def test_the_record_of_a_model_run_has_all_that_led_to_what_it_said():
    job_id = UUID(int=7)
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    step = {"attempt": 2, "kind": "tool", "began_at": at, "duration_ms": 12.4}
    found = {"query": "clocks", "standards": [{"file": "a.md", "review": "approved"}]}
    run = RunRecord.model_validate(
        {
            "job_id": job_id,
            "status": "failed",
            "persona": "qa-tessa-1",
            "persona_name": "Tessa",
            "task": "Test\nthe \u202eclock",
            "context_bytes": 0,
            "priority": "high",
            "requested_by": "ada",
            "created_at": at,
            "started_at": at,
            "finished_at": at,
            "attempts": 2,
            "retry_of": None,
            "trace": {
                "source": "spec",
                "persona_spec_version": "1.2.0",
                "spec_digest": "d" * 64,
                "digest": "e" * 64,
                "reason": None,
            },
            "runner": "model",
            "model": "openai:gpt-5",
            "unsandboxed": False,
            "project": None,
            "budget": {"tokens": 200_000, "usd": 1, "seconds": 900},
            "spent": {
                "input_tokens": 1200,
                "output_tokens": 34,
                "usd": 0.0123,
                "estimated": False,
                "seconds": 5.6,
            },
            "standards": ["a.md"],
            "steps": [
                {**step, "name": "search_standards", "details": found},
                {**step, "name": "read_file", "error": f"There is no file {'x' * 200}."},
            ],
            "proposals": [
                {"proposal_id": 3, "file": "b.md", "status": "approved", "decided_by": "grace"}
            ],
            "error": "The model said nothing.",
            "error_code": "model_failed",
            "prompt": "You are Tessa.",
        }
    )
    job = JobFailed(
        job_id=job_id,
        persona="qa-tessa-1",
        error="The model said nothing.",
        partial_result="I looked",
        elapsed_seconds=5.6,
    )

    assert job_views.shown(job, run) == snapshot("""\
Job        00000000-0000-0000-0000-000000000007
Status     failed
Error      The model said nothing. (model_failed)
Persona    qa-tessa-1 (Tessa)
Task       Test
           the \\u202eclock
Asked by   ada, 2030-01-02 03:04Z, high priority
Ran        2030-01-02 03:04Z, for 5.6 s, attempt 2
Spec       1.2.0, dddddddddddd
Prompt     eeeeeeeeeeee, --prompt prints it
Ran on     openai:gpt-5
Budget     200,000 tokens, $1.0000, 900.0 s
Spent      1,200 tokens in, 34 out, $0.0123, 5.6 s
Standards  a.md

AT (UTC)  STEP  NAME              MS  DETAILS
03:04:05  tool  search_standards  12  {"query": "clocks", "standards": [{"file": "a.md", "review": "approved"}]}
03:04:05  tool  read_file         12  failed: There is no file xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…

PROPOSAL  FILE  STATUS    DECIDED BY
3         b.md  approved  grace

  │ I looked\
""")
