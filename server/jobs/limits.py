"""Refuse what would be too much, before anything is spent."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Row, text

from server.errors import Conflict
from server.work import JobLimits, Work


class QueueFull(Conflict):
    code = "queue_full"


class TooManyInvocations(Conflict):
    code = "too_many_invocations"


class BudgetExhausted(Conflict):
    code = "budget_exhausted"


async def admit(work: Work, persona: str) -> date:
    """Let one more job of a persona in, set aside what it may spend, and return of which day.

    Whoever else invokes in this tenant waits until this transaction ends, so that no two can pass
    one check.

    Args:
        persona: its id or slug.

    Raises:
        QueueFull: too many jobs wait already.
        TooManyInvocations: there were too many in the last minute.
        BudgetExhausted: the persona's day has not enough left for a whole run.
    """
    limits = work.app.jobs.limits
    await keep_others_out(work)
    seen = (await work.session.execute(_SEEN)).one()
    if seen.pending >= limits.queue_length:
        raise QueueFull(
            f"The queue is full: {seen.pending} jobs wait, and {limits.queue_length} may.",
            hint="Wait for some to finish, or cancel one with cancel_persona_job. The limit is"
            " DRAMATIS_QUEUE_LENGTH.",
        )
    if seen.recent >= limits.per_minute:
        raise TooManyInvocations(
            f"There were {seen.recent} invocations in the last minute, and {limits.per_minute} may"
            " be.",
            hint="Try again in a minute. The limit is DRAMATIS_JOBS_PER_MINUTE.",
        )
    day = (
        await work.session.execute(
            _RESERVE,
            {"persona": persona, "tokens": limits.run_tokens, "usd": limits.run_usd or 0},
        )
    ).one()
    _refuse_overspent(_Day.of(day, persona), limits)
    return day.day


async def keep_others_out(work: Work) -> None:
    """Wait for whoever invokes in this tenant, and let nobody do it until this transaction ends."""
    await work.session.execute(_LOCK, {"tenant": work.caller.tenant_id})


@dataclass(frozen=True, slots=True)
class _Day:
    """A persona's day, with what the run in question set aside."""

    persona: str
    tokens: int
    reserved_tokens: int
    usd: float
    reserved_usd: float

    @classmethod
    def of(cls, row: Row[tuple[Any, ...]], persona: str) -> "_Day":
        return cls(
            persona, row.tokens, row.reserved_tokens, float(row.usd), float(row.reserved_usd)
        )


def _refuse_overspent(day: _Day, limits: JobLimits) -> None:
    reserved = day.reserved_tokens - limits.run_tokens
    if limits.day_tokens is not None and day.tokens + day.reserved_tokens > limits.day_tokens:
        raise BudgetExhausted(
            f"{day.persona} may spend {limits.day_tokens:,} tokens a day; {day.tokens:,} are spent,"
            f" {reserved:,} are set aside for runs that are not over, and a run may take"
            f" {limits.run_tokens:,}.",
            hint="Wait until tomorrow (UTC) or for runs to end, or raise"
            " DRAMATIS_PERSONA_DAY_TOKENS or lower DRAMATIS_RUN_TOKENS.",
        )
    share = limits.run_usd or 0
    if limits.day_usd is not None and day.usd + day.reserved_usd > limits.day_usd:
        raise BudgetExhausted(
            f"{day.persona} may spend ${limits.day_usd:,.2f} a day; ${day.usd:,.2f} are spent,"
            f" ${day.reserved_usd - share:,.2f} are set aside for runs that are not over, and a run"
            f" may take ${share:,.2f}.",
            hint="Wait until tomorrow (UTC) or for runs to end, or raise DRAMATIS_PERSONA_DAY_USD"
            " or lower DRAMATIS_RUN_USD.",
        )


_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('dramatis.jobs'), :tenant)")
# A reset removes jobs, and notes how many of them count here.
_SEEN = text("""
SELECT
  (SELECT count(*) FROM dramatis.persona_jobs WHERE status = 'pending') AS pending,
  (SELECT count(*) FROM dramatis.persona_jobs
    WHERE created_at > clock_timestamp() - interval '1 minute')
  + (SELECT coalesce(sum(CAST(details->>'recent' AS int)), 0) FROM dramatis.audit_log
    WHERE subject = 'jobs' AND action = 'jobs.reset'
      AND at > clock_timestamp() - interval '1 minute') AS recent
""")
_RESERVE = text("""
INSERT INTO dramatis.persona_spending AS spending (persona, day, reserved_tokens, reserved_usd)
VALUES (:persona, (clock_timestamp() AT TIME ZONE 'UTC')::date, :tokens, :usd)
ON CONFLICT (tenant_id, persona, day) DO UPDATE SET
  reserved_tokens = spending.reserved_tokens + excluded.reserved_tokens,
  reserved_usd = spending.reserved_usd + excluded.reserved_usd
RETURNING day, input_tokens + output_tokens AS tokens, reserved_tokens, usd, reserved_usd
""")
