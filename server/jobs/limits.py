"""Refuse what would be too much, before anything is spent."""

from datetime import date

from sqlalchemy import text

from server.errors import Conflict
from server.work import Work


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
    _refuse_overspent(
        persona,
        "{:,} tokens",
        limit=limits.day_tokens,
        spent=day.tokens,
        reserved=day.reserved_tokens,
        share=limits.run_tokens,
        settings="DRAMATIS_PERSONA_DAY_TOKENS or lower DRAMATIS_RUN_TOKENS",
    )
    _refuse_overspent(
        persona,
        "${:,.2f}",
        limit=limits.day_usd,
        spent=float(day.usd),
        reserved=float(day.reserved_usd),
        share=limits.run_usd or 0,
        settings="DRAMATIS_PERSONA_DAY_USD or lower DRAMATIS_RUN_USD",
    )
    return day.day


async def keep_others_out(work: Work) -> None:
    """Wait for whoever invokes in this tenant, and let nobody do it until this transaction ends."""
    await work.session.execute(_LOCK, {"tenant": work.caller.tenant_id})


def _refuse_overspent(
    persona: str,
    amount: str,
    *,
    limit: float | None,
    spent: float,
    reserved: float,
    share: float,
    settings: str,
) -> None:
    """Refuse a run whose share, which is reserved already, would take a day over its limit."""
    if limit is None or spent + reserved <= limit:
        return
    others = reserved - share
    raise BudgetExhausted(
        f"{persona} may spend {amount.format(limit)} a day; {amount.format(spent)} are spent,"
        f" {amount.format(others)} are set aside for runs that are not over, and a run may take"
        f" {amount.format(share)}.",
        hint=f"Wait until tomorrow (UTC) or for runs to end, or raise {settings}.",
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
