"""Rank passages by their words: BM25 with a prior for the whole document, as one statement.

The parameters are k1 = 1.5 and b = 0.75, with 0.6 of the document's own score added to that of
each of its passages. They were chosen on a set of questions of its own and held on others; weights
for headings, prefixes and a bonus for the share of words found made it worse. Each further passage
of the same document counts 0.8 of the one before, so that an answer draws on more documents: on both
halves of the questions of the benchmark that found as much or more, and put it higher.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from server.standards.shapes import Layer
from server.work import Work


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is confined to. `domain` is folded, `tags` are all wanted."""

    domain: str | None
    tags: tuple[str, ...]
    layer: Layer | None


async def by_words(
    work: Work, project_id: int, queries: Sequence[str], filters: Filters, limit: int
) -> list[tuple[int, float]]:
    """Rank passages.

    A word counts once for each of the queries that it stands in. Any text is a query.

    Returns:
        Ids of passages, best first, with their relevance: the score as a share of the highest that
        these words can reach, so 0 to 1. Words that stand nowhere lower it.
    """
    rows = await work.session.execute(
        _BM25,
        {
            "project_id": project_id,
            # The text search of Postgres takes no NUL; shapes refuse it.
            "queries": [query[:LONGEST_QUERY] for query in queries],
            "domain": filters.domain,
            "tags": list(filters.tags),
            "layer": filters.layer,
            "limit": limit,
        },
    )
    return [(passage_id, float(relevance)) for passage_id, relevance in rows]


# What is longer says nothing more: each word in it costs a look into the index.
LONGEST_QUERY = 2_000

# OFFSET keeps a planner without statistics, as after the first index run, from reading all postings,
# and the numbers of the words are compared faster than the words.
_BM25 = text("""
WITH corpus AS MATERIALIZED (
  SELECT count(*)::float8 AS documents, avg(length)::float8 AS document_length,
    sum(passage_count)::float8 AS passages, sum(length)::float8 / sum(passage_count) AS length
  FROM dramatis.standards
  WHERE project_id = :project_id AND present AND passage_count > 0
), words AS MATERIALIZED (
  SELECT row_number() OVER ()::integer AS word, lexeme AS term, count(*)::float8 AS weight
  FROM unnest(CAST(:queries AS text[])) query, unnest(to_tsvector('english', query))
  GROUP BY lexeme
), found AS MATERIALIZED (
  SELECT words.word, p.passage_id, p.standard_id, p.tf,
    p.tf * 2.5 / (p.tf + 1.5 * (0.25 + 0.75 * p.length / c.length)) AS share
  FROM corpus c, words CROSS JOIN LATERAL (
    SELECT passage_id, standard_id, tf, length FROM dramatis.postings
    WHERE project_id = :project_id AND term = words.term OFFSET 0
  ) p
), in_documents AS MATERIALIZED (
  SELECT word, standard_id, sum(tf) AS tf, count(*) AS passages FROM found GROUP BY 1, 2
), idf AS MATERIALIZED (
  SELECT word,
    weight * ln(1 + (c.passages - known.n + 0.5) / (known.n + 0.5)) AS passage,
    weight * ln(1 + (c.documents - known.d + 0.5) / (known.d + 0.5)) AS document
  FROM words
  LEFT JOIN (
    SELECT word, sum(passages)::float8 AS n, count(*)::float8 AS d FROM in_documents GROUP BY 1
  ) counts USING (word)
  CROSS JOIN corpus c
  CROSS JOIN LATERAL (SELECT coalesce(counts.n, 0) AS n, coalesce(counts.d, 0) AS d) known
), documents AS MATERIALIZED (
  SELECT i.standard_id,
    sum(idf.document * i.tf * 2.5 / (i.tf + 1.5 * (0.25 + 0.75 * s.length / c.document_length)))
      AS score
  FROM in_documents i
  JOIN idf USING (word)
  JOIN dramatis.standards s ON s.id = i.standard_id
  CROSS JOIN corpus c
  WHERE (CAST(:domain AS text) IS NULL OR split_part(s.key, '/', 1) = CAST(:domain AS text))
    AND s.tags @> CAST(:tags AS text[])
    AND (CAST(:layer AS text) IS NULL OR s.layer = CAST(:layer AS text))
  GROUP BY 1
), scored AS MATERIALIZED (
  SELECT passage_id, standard_id, sum(idf.passage * share) AS score
  FROM found f JOIN idf USING (word)
  GROUP BY 1, 2
), best AS (
  SELECT passage_id, standard_id,
    (scored.score + 0.6 * documents.score)
      / (SELECT sum(2.5 * passage + 0.6 * 2.5 * document) FROM idf) AS score
  FROM scored JOIN documents USING (standard_id)
  ORDER BY score DESC, passage_id
  LIMIT :limit
)
SELECT passage_id, score * 0.8 ^ (row_number() OVER (
    PARTITION BY standard_id ORDER BY score DESC, passage_id
  ) - 1) AS relevance
FROM best ORDER BY relevance DESC, passage_id
""")
