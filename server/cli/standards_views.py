"""How the answers of the room of standards look to a person."""

import shlex
import sys
from collections.abc import Iterator, Sequence

from server.cli.output import fields, harmless, table
from server.cli.quoting import columns_of, quoted
from server.standards.shapes import (
    Hit,
    IndexReport,
    SearchResult,
    Skipped,
    StandardListing,
    StandardSummary,
    StandardText,
    Statistics,
)

FILES_NAMED = 20
NONE = "There are no standards yet. `dramatis standards propose` begins one."


def found(result: SearchResult) -> str:
    columns = columns_of(sys.stdout)
    parts = [
        "\n".join([_hit(rank, hit), *quoted(hit.text, columns)])
        for rank, hit in enumerate(result.hits, start=1)
    ]
    how = f"Found by {result.found_by} in {result.took_ms:.1f} ms, {result.tokens:,} tokens."
    said = f"{how} {harmless(result.note)}" if result.note else how
    return "\n\n".join([*parts, said])


def listed(listing: StandardListing) -> str:
    if not listing.standards:
        domains = harmless(", ".join(listing.domains))
        return f"No standard fits. There are some on {domains}." if domains else NONE
    more = f" Next page: --cursor {shlex.quote(listing.next_cursor)}" if listing.next_cursor else ""
    problems = [
        f"{harmless(one.file)}: {harmless(one.problem)}"
        for one in listing.standards
        if one.problem is not None
    ]
    return "\n".join([_table(listing.standards), "", *problems, f"{listing.total:,} in all.{more}"])


def standing(standard: StandardText) -> str:
    """Say in a line what a standard is."""
    return harmless(f"# {standard.file}, {_review(standard)}")


def counted(counts: Statistics) -> str:
    about = fields(
        {
            "Standards": f"{counts.standards:,} with {many(counts.passages, 'passage')}",
            "Unreviewed": counts.unreviewed,
            "Not searchable": counts.unsearchable,
            "Proposals": waiting(counts.waiting_proposals),
            "Not written": f"{counts.not_written:,} approved",
            "Indexed": counts.indexed_at or "never",
            "Vectors": counts.vectors,
        }
    )
    lists = (
        ("Most found", counts.most_queried),
        ("Never found", counts.never_queried),
        ("Changed last", counts.recently_changed),
    )
    parts = [f"{name}:\n{_table(standards)}" for name, standards in lists if standards]
    return "\n\n".join([about, *parts])


def indexed(report: IndexReport, vectors_made: int, vectors_problem: str | None) -> str:
    there = f"{many(report.files, 'file')} with {many(report.passages, 'passage')}"
    said = f"{there}: {_changes(report)}."
    lines = [said, *_named("changed", report.changed), *_named("removed", report.removed)]
    lines += skipped(report.skipped)
    if vectors_made:
        lines.append(f"Made {many(vectors_made, 'vector')}.")
    if vectors_problem:
        lines.append(f"Not all vectors are made: {harmless(vectors_problem)}")
    return "\n".join(lines)


def noticed(report: IndexReport) -> str:
    """Say in a line, and one more for each file that cannot be searched, what a run did."""
    names = harmless(", ".join([*report.changed, *report.removed][:FILES_NAMED]))
    said = f"{_changes(report)}{f': {names}' if names else ''}"
    return "\n".join([said, *skipped(report.skipped)])


def skipped(files: Sequence[Skipped]) -> list[str]:
    return [harmless(f"  skipped  {one.file}: {one.reason}") for one in files]


def waiting(number: int) -> str:
    return f"{number:,} wait{'s' if number == 1 else ''} for a person"


def many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _changes(report: IndexReport) -> str:
    return f"{len(report.changed):,} changed, {len(report.removed):,} removed"


def _named(what: str, files: Sequence[str]) -> Iterator[str]:
    for file in files[:FILES_NAMED]:
        yield harmless(f"  {what}  {file}")
    if (more := len(files) - FILES_NAMED) > 0:
        yield f"  {what}  {more:,} more"


def _hit(rank: int, hit: Hit) -> str:
    section = f", {hit.section}" if hit.section else ""
    place = " ".join(f"{rank}. {hit.file}:{hit.line}{section}".split())
    return harmless(f"{place}\n   relevance {hit.relevance:.2f}, {_review(hit)}")


def _table(standards: Sequence[StandardSummary]) -> str:
    rows = [
        (
            f"{one.domain}/{one.topic}",
            one.layer,
            _review(one),
            one.query_count,
            one.last_updated,
            ", ".join(one.tags),
            one.title,
        )
        for one in standards
    ]
    headers = ("STANDARD", "LAYER", "REVIEW", "FOUND", "UPDATED", "TAGS", "TITLE")
    return table(headers, rows, cuttable=("TITLE", "TAGS", "REVIEW"))


def _review(one: Hit | StandardSummary | StandardText) -> str:
    """Say who stands behind a text, which a file can only claim."""
    name = " ".join((one.approved_by or "").split())
    match one.review:
        case "approved":
            return f"approved by {name}"
        case "claimed":
            return f"approved by {name}, says the file"
        case "unreviewed":
            return "unreviewed"
