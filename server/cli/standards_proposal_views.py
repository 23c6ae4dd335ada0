"""How a proposal looks to the person who decides on it, and what came of it."""

import json
from collections.abc import Iterator, Sequence

import click

from server.cli.output import harmless, moment, table
from server.cli.quoting import labelled, quoted, quoted_diff
from server.cli.standards_views import waiting
from server.standards.proposals import (
    Decided,
    Decision,
    Evidence,
    ProposalDetail,
    ProposalPage,
    ProposalSummary,
    Proposed,
)
from server.visible import visible

ANSWERED = {"approved": "approved", "changes": "asked for changes of", "rejected": "rejected"}


def page(page: ProposalPage) -> str:
    command = ": `dramatis standards review`" if page.waiting else ""
    waits = f"{waiting(page.waiting)}{command}."
    if not page.proposals:
        return f"No proposal fits. {waits}"
    rows = [
        (one.id, _standing(one), one.file, one.created_by, one.created_at, one.reason)
        for one in page.proposals
    ]
    headers = ("ID", "STATUS", "FILE", "BY", "PROPOSED", "REASON")
    more = f" Next page: --before {page.next_before}" if page.next_before else ""
    return f"{table(headers, rows, cuttable=('REASON', 'BY'))}\n\n{waits}{more}"


def proposal(detail: ProposalDetail, columns: int | None, position: str = "") -> str:
    """Show all that a decision on a proposal is about.

    Args:
        position: which of how many this is.
    """
    change = "changes" if detail.changes_existing else "makes"
    title = f"{position}Proposal {detail.id} {change} {visible(detail.file)}"
    about = labelled(_about(detail), columns)
    since = [*_since(detail, columns), ""] if detail.since_answer else []
    return "\n".join(
        ["", click.style(title, bold=True), *about, "", *since, text(detail, columns), ""]
    )


def text(detail: ProposalDetail, columns: int | None, *, whole: bool = False) -> str:
    """Show the text, or what it changes, and below it what stands above: that may be far up.

    Args:
        whole: the text as it would be, also where it changes one that is there.
    """
    if whole or not detail.shows_change:
        lines = quoted(detail.content, columns)
    else:
        lines = quoted_diff(detail.diff, columns) or ["  The text stays as it is."]
    if detail.base_review in ("claimed", "unreviewed"):
        warning = "The file as it is was never approved here: a yes approves all of this text."
        lines.append(click.style(warning, fg="yellow"))
    lines.append(f"  └ {visible(detail.file)}")
    if detail.stale is not None:
        lines.append(click.style(visible(detail.stale), fg="yellow"))
    return "\n".join(lines)


def _since(detail: ProposalDetail, columns: int | None) -> list[str]:
    """Show what became of a person's feedback, before they read it all once more."""
    answered = detail.decisions[-1].revision
    return [f"Since revision {answered}:", *quoted_diff(detail.since_answer, columns)]


def proposed(answer: Proposed) -> str:
    lines = [
        f"Proposal {answer.id}, revision {answer.revision}, waits for a person: {answer.file}",
        *(f"It is close to {one.file}." for one in answer.similar),
    ]
    if answer.other_proposals:
        lines.append(f"The same file is in {_numbered(answer.other_proposals)} too.")
    return harmless("\n".join([*lines, f"Decide with `dramatis standards review {answer.id}`."]))


def decided(answer: Decided) -> str:
    own = " (your own proposal)" if answer.self_approved else ""
    return harmless(f"{answer.message}{own}")


def reviewed(
    decisions: Sequence[Decided], left: Sequence[int], not_written: Sequence[ProposalSummary]
) -> str:
    """Sum up a review."""
    verdicts = [one.verdict for one in decisions]
    counts = [
        f"{verdicts.count(verdict)} {said}"
        for verdict, said in (
            ("approved", "approved"),
            ("changes", "sent back"),
            ("rejected", "rejected"),
        )
        if verdict in verdicts
    ]
    if left:
        counts.append(f"{len(left)} left")
    said = f"{', '.join(counts)}." if counts else "No proposal waits for a person."
    return "\n".join([said, *map(_not_written, not_written)])


def _not_written(one: ProposalSummary) -> str:
    said = f"Proposal {one.id} is approved, but {one.file} is not written"
    return f"{visible(said)}: `dramatis standards repair {one.id}`"


def _standing(one: ProposalSummary) -> str:
    if one.not_written:
        return "approved, not written"
    return f"waits for {one.waits_for}" if one.status == "draft" else one.status


def _about(detail: ProposalDetail) -> Iterator[tuple[str, str]]:
    newest = detail.revisions[-1]
    revised = f", revision {newest.number} by {newest.author}" if newest.number > 1 else ""
    yield "By", f"{detail.created_by}, {moment(newest.created_at)}{revised}"
    yield "Why", detail.reason
    yield "Seen in", "\n".join(map(_seen, detail.evidence))
    yield "Confidence", f"{detail.confidence:.0%}"
    yield "Tags", ", ".join(detail.tags)
    yield "Stays above", json.dumps(detail.kept, ensure_ascii=False) if detail.kept else ""
    yield "Close to", "\n".join(f"{one.file} ({one.relevance:.2f})" for one in detail.similar)
    if detail.other_proposals:
        yield "Same file", _numbered(detail.other_proposals)
    yield "Before", "\n".join(map(_said, detail.decisions))


def _seen(one: Evidence) -> str:
    place = f"{one.file}:{one.lines}" if one.lines else one.file
    return f"{place}, {one.note}" if one.note else place


def _said(one: Decision) -> str:
    about = f"{one.person} {ANSWERED[one.verdict]} revision {one.revision}"
    feedback = f": {one.feedback}" if one.feedback else ""
    return f"{moment(one.decided_at)} {about}{feedback}"


def _numbered(ids: Sequence[int]) -> str:
    return f"proposal{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"
