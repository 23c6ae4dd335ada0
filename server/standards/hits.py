"""Hits: a passage with all that somebody needs to judge it, and who approved its text."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text

from server.markdown import tokens
from server.standards.folder import file_at
from server.standards.ranking import LONGEST_QUERY
from server.standards.scanning import Scanned
from server.standards.shapes import Hit
from server.work import Place, Work

# A whole file can be one block of code, and an answer has to fit into somebody's context.
LONGEST_SHOWN = 8_000


async def details(
    work: Work, queries: Sequence[str], passage_ids: Sequence[int]
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Read passages in this order. One that was indexed anew meanwhile has another id now."""
    if not passage_ids:
        return []
    shown = [query[:LONGEST_QUERY] for query in queries]
    return (await work.session.execute(_DETAILS, {"ids": passage_ids, "queries": shown})).all()


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}\n[read_standard has the other {len(text) - LONGEST_SHOWN:,} characters]"


def indexed_hit(place: Place, row: Row[*tuple[Any, ...]], relevance: float) -> Hit:
    return Hit(
        file=file_at(place, row.layer, row.path).shown,
        domain=row.domain,
        topic=row.topic,
        layer=row.layer,
        section=row.section,
        line=row.line,
        text=_shortened(row.text),
        highlight=" ".join(row.highlight.split()),
        relevance=round(min(1.0, relevance), 4),
        tokens=tokens(_shortened(row.text)),
        review="approved" if row.person else "claimed" if row.claimed_by else "unreviewed",
        approved_by=row.person or row.claimed_by,
    )


def scanned_hit(one: Scanned) -> Hit:
    return Hit(
        file=one.file.shown,
        domain=one.file.domain,
        topic=one.file.topic,
        layer=one.file.layer,
        section=one.passage.section,
        line=one.line,
        text=one.passage.text,
        highlight="",
        relevance=round(one.relevance, 4),
        tokens=tokens(one.passage.text),
        # Who approved it stands in the database alone.
        review="unreviewed",
        approved_by=None,
    )


# What the text search makes of the words, quoted as it wants them, is always a well-formed query.
# OFFSET keeps a planner without statistics from reading all passages of all standards instead.
_DETAILS = text(r"""
WITH words AS MATERIALIZED (
  SELECT CAST(string_agg('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' | ')
    AS tsquery) AS query
  FROM unnest(CAST(:queries AS text[])) query, unnest(to_tsvector('english', query))
)
SELECT p.standard_id, p.line, p.section, p.text, s.layer, s.path, s.domain, s.topic,
  s.claimed_by, approval.person,
  coalesce(ts_headline('english', left(p.text, 8000), words.query,
    'StartSel=«, StopSel=», MaxWords=30, MinWords=10, MaxFragments=1'), '') AS highlight
FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY chosen (id, place)
CROSS JOIN LATERAL (SELECT * FROM dramatis.passages WHERE id = chosen.id OFFSET 0) p
CROSS JOIN LATERAL (SELECT * FROM dramatis.standards WHERE id = p.standard_id OFFSET 0) s
CROSS JOIN words
LEFT JOIN LATERAL (
  SELECT d.person FROM dramatis.approved_files a
  JOIN dramatis.proposal_decisions d ON d.id = a.decision_id
  WHERE a.project_id = s.project_id AND a.sha256 = s.sha256 ORDER BY a.id DESC LIMIT 1
) approval ON true
ORDER BY chosen.place
""")
