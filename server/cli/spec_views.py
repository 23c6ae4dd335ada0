"""How the answers of the room of specs look to a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.cli.output import harmless, moment, table
from server.cli.spec_diff import as_yaml, diff, meaning
from server.specs.shapes import (
    BecomePrompt,
    CheckReport,
    Prospect,
    Publication,
    Published,
    Section,
    SpecDetail,
    SpecDraft,
    SpecListing,
    SpecText,
    Trace,
)

if TYPE_CHECKING:
    from server.specs.checks import Check

__all__ = ["diff"]

SHORT_DIGEST = 12
CHANGES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What is true of a file with a spec. `problem` is `None` when there is none."""

    file: str
    total_tokens: int | None
    tokens: dict[Section, int] | None
    problem: str | None


def overview(listing: SpecListing) -> str:
    if not listing.personas:
        return "No persona has a spec. `dramatis spec new PERSONA` writes one."
    rows = [
        (one.slug, one.name, one.active or "none", one.newest, one.versions)
        for one in listing.personas
    ]
    headers = ("SLUG", "NAME", "ACTIVE", "NEWEST", "VERSIONS")
    return table(headers, rows, cuttable=("NAME",)) + _more(listing)


def versions(persona: str, listing: SpecListing) -> str:
    if not listing.versions:
        return f"No version. `dramatis spec new {persona}` writes one."
    rows = [
        (
            one.version,
            one.status,
            one.origin,
            one.author,
            one.last_published and one.last_published.published_at,
            one.last_published and one.last_published.author,
            one.last_published and one.last_published.note,
        )
        for one in listing.versions
    ]
    headers = ("VERSION", "STATUS", "ORIGIN", "AUTHOR", "PUBLISHED", "BY", "NOTE")
    return table(headers, rows, cuttable=("NOTE", "AUTHOR", "BY")) + _more(listing)


def standing(detail: SpecDetail) -> str:
    """Say in a line what a version is."""
    said = f"# {detail.slug} {detail.version}, {detail.status}"
    return harmless(f"{said}, {_publication(detail.last_published) or f'by {detail.author}'}")


def stored(draft: SpecDraft) -> str:
    sources = f" (from {'; '.join(draft.sources)})" if draft.sources else ""
    preview = draft.preview
    if not preview.text:
        return f"Stored draft {draft.version} of {draft.slug}{sources}. It says nothing."
    return (
        f"Stored draft {draft.version} of {draft.slug}{sources}."
        f" It compiles to {preview.total_tokens:,} tokens:\n\n"
        f"{harmless(preview.text)}\n"
        f"Nothing runs with it until `dramatis spec publish {draft.slug} {draft.version}`."
    )


def made_from(before: SpecText, draft: SpecDraft, *, overtaken: bool) -> str:
    """Say what an edit became.

    Args:
        overtaken: the version after `before` was stored while this one was written.
    """
    meanwhile = (
        f"\nSomebody stored {before.next_version} meanwhile, which it is not made from."
        if overtaken
        else ""
    )
    return (
        f"Stored draft {draft.version} of {draft.slug}, made from {before.version}:"
        f" {draft.preview.total_tokens:,} tokens.{meanwhile}\n"
        f"See `dramatis spec diff {draft.slug} {before.version} {draft.version}`, then"
        f" `dramatis spec publish {draft.slug} {draft.version}`."
    )


def validated(outcomes: Sequence[FileOutcome]) -> str:
    return harmless("\n".join(map(_outcome, outcomes)))


def _outcome(one: FileOutcome) -> str:
    if one.tokens is None:
        return f"{one.file}: {one.problem}"
    sections = ", ".join(
        f"{section} {number:,}" for section, number in one.tokens.items() if number
    )
    return f"{one.file}: valid, {one.total_tokens:,} tokens: {sections or 'it says nothing'}."


def preview(prospect: Prospect) -> str:
    lines = [_replacing(prospect)]
    if prospect.active is not None:
        shown = meaning(prospect.changes[:CHANGES_SHOWN]) or "They mean the same."
        lines += ["", shown]
        if (more := len(prospect.changes) - CHANGES_SHOWN) > 0:
            lines.append(f"And {more} more: `dramatis spec diff {prospect.slug}` has them.")
    lines.append("")
    if prospect.failing:
        lines += ["It fails its checks:", *(f"  {harmless(one)}" for one in prospect.failing), ""]
    return "\n".join(lines)


def published(published: Published) -> str:
    if not published.changed:
        return f"{published.slug} {published.version} is the active version already."
    place = f" in place of {published.replaced}" if published.replaced else ""
    said = f"Published {published.slug} {published.version}{place}."
    if published.overridden:
        said += f" Overridden: {harmless(' '.join(published.overridden))}"
    return said


def report(report: CheckReport) -> str:
    if not report.outcomes:
        remedy = f"`dramatis spec check {report.slug} --set FILE` gives it some."
        return f"{report.slug} has no checks. {remedy}"
    rows = [
        (one.name, "passed" if one.passed else "failed", "; ".join(one.failures))
        for one in report.outcomes
    ]
    verdict = "passes its checks" if report.passed else "fails its checks"
    return (
        f"{table(('CHECK', 'OUTCOME', 'WHY'), rows)}\n\n{report.slug} {report.version} {verdict}."
    )


def checks_set(checks: "Sequence[Check]") -> str:
    if not checks:
        return "The checks are removed."
    names = harmless(", ".join(check.name for check in checks))
    return f"{len(checks)} checks are set: {names}."


def checks_as_yaml(checks: "Sequence[Check]") -> str:
    return as_yaml([check.model_dump(mode="json", exclude_defaults=True) for check in checks])


def trace(slug: str, trace: Trace) -> str:
    """Say in a line which prompt this is."""
    if trace.source == "spec":
        source = f"spec {trace.persona_spec_version}"
    else:
        source = f"settings and skill.md ({trace.reason})"
    return f"{slug}: {source}, prompt {trace.digest[:SHORT_DIGEST]}."


def remarks(prompt: BecomePrompt) -> list[str]:
    return [trace(prompt.slug, prompt.trace), *prompt.cuts]


def _replacing(prospect: Prospect) -> str:
    if prospect.active is None:
        return f"{prospect.slug} {prospect.version} becomes its first active spec."
    said = f"{prospect.slug} {prospect.version} takes the place of {prospect.active}"
    return harmless(f"{said}, {_publication(prospect.published)}")


def _more(listing: SpecListing) -> str:
    return f"\n\nNext page: --cursor {listing.next}" if listing.next else ""


def _publication(publication: Publication | None) -> str:
    if publication is None:
        return ""
    return (
        f"published {moment(publication.published_at)} by {publication.author}: {publication.note}"
    )
