from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log

import pytest
from dirty_equals import IsApprox
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot
from sqlalchemy import text

from server.standards.projects import the_project
from server.standards.ranking import Filters, by_words
from server.work import App, Work
from tests.standards.conftest import Index, Project, agent_of, using

pytestmark = pytest.mark.anyio

EVERYTHING = Filters(domain=None, tags=(), layer=None)
WORDS = ("clock", "seed", "retry", "queue", "cache", "nowhere")
CORPUS = {
    "testing/clocks.md": "# Clock\n\nclock clock seed\n\n## Seed\n\nseed retry retry retry clock\n",
    "testing/seeds.md": "# Seed\n\nseed queue queue clock cache\n\n## Queue\n\nqueue\n",
    "data/queues.md": "# Queue\n\nretry queue cache cache seed\n\n## Cache\n\ncache clock\n",
    "data/empty.md": "",
}


async def ranked(
    app: App, *queries: str, filters: Filters = EVERYTHING, limit: int = 50
) -> list[tuple[str, float]]:
    """Rank, and name each passage by its topic and section."""

    async def rank(work: Work) -> list[tuple[str, float]]:
        project = await the_project(work)
        found = await by_words(work, project.id, queries, filters, limit)
        rows = await work.session.execute(text(_NAMES))
        names = {row.id: row.name for row in rows}
        return [(names[passage_id], relevance) for passage_id, relevance in found]

    return await using(app, agent_of(app), rank)


_NAMES = """
SELECT p.id, concat_ws(' > ', s.topic, nullif(p.section, '')) AS name
FROM dramatis.passages p JOIN dramatis.standards s ON s.id = p.standard_id
"""


async def names(app: App, *queries: str) -> list[str]:
    return [name for name, _ in await ranked(app, *queries)]


@pytest.fixture
async def corpus(project: Project, app: App, index: Index) -> App:
    for path, content in CORPUS.items():
        project.write(path, content)
    await index()
    return app


class Reference:
    """BM25 with a prior for documents, as one would write it down."""

    def __init__(self, postings: Sequence[tuple[str, str, str, float]]) -> None:
        self.passages: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.documents: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.standard_of: dict[str, str] = {}
        for standard, passage, term, tf in postings:
            self.passages[passage][term] += int(tf)
            self.documents[standard][term] += int(tf)
            self.standard_of[passage] = standard

    def rank(self, weights: Counter[str]) -> dict[str, float]:
        passages, most_of_passages = _bm25(self.passages, weights)
        documents, most_of_documents = _bm25(self.documents, weights)
        most = most_of_passages + 0.6 * most_of_documents
        relevance = {
            passage: (score + 0.6 * documents[self.standard_of[passage]]) / most
            for passage, score in passages.items()
            if score
        }
        before = Counter[str]()
        for passage in sorted(relevance, key=lambda one: -relevance[one]):
            relevance[passage] *= 0.8 ** before[self.standard_of[passage]]
            before[self.standard_of[passage]] += 1
        return relevance


def _bm25(texts: dict[str, Counter[str]], weights: Counter[str]) -> tuple[dict[str, float], float]:
    """Score every text, and say what the highest possible score is."""
    average = sum(one.total() for one in texts.values()) / len(texts)
    found = {term: sum(term in one for one in texts.values()) for term in weights}
    idf = {
        term: weight * log(1 + (len(texts) - found[term] + 0.5) / (found[term] + 0.5))
        for term, weight in weights.items()
    }
    scores = {
        name: sum(
            idf[term] * one[term] * 2.5 / (one[term] + 1.5 * (0.25 + 0.75 * one.total() / average))
            for term in weights
        )
        for name, one in texts.items()
    }
    return scores, sum(2.5 * one for one in idf.values())


async def reference(app: App) -> Reference:
    async def read(work: Work) -> Reference:
        rows = await work.session.execute(
            text(
                "SELECT s.topic, concat_ws(' > ', s.topic, nullif(p.section, '')), term, tf"
                " FROM dramatis.postings o JOIN dramatis.passages p ON p.id = o.passage_id"
                " JOIN dramatis.standards s ON s.id = o.standard_id"
            )
        )
        return Reference([tuple(row) for row in rows])

    return await using(app, agent_of(app), read)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1).map(" ".join), min_size=1, max_size=5))
async def test_passages_are_ranked_as_the_formula_says(corpus: App, queries: list[str]):
    stems = {"queue": "queue", "cache": "cach", "retry": "retri", "nowhere": "nowher"}
    # A word counts once for each query, however often it stands in it.
    weights = Counter(
        stems.get(word, word) for query in queries for word in dict.fromkeys(query.split())
    )
    expected = (await reference(corpus)).rank(weights)

    found = await ranked(corpus, *queries)

    assert dict(found) == {
        name: IsApprox(relevance, delta=1e-6) for name, relevance in expected.items()
    }
    assert [one for _, one in found] == sorted((one for _, one in found), reverse=True)
    assert all(0 < one <= 1 for _, one in found)


async def test_a_rare_word_weighs_more_than_a_frequent_one(
    project: Project, app: App, index: Index
):
    for topic in ("one", "two", "three"):
        project.write(f"testing/{topic}.md", "# Note\n\nEvery test is short.\n")
    project.write("testing/rare.md", "# Note\n\nEvery clock is short.\n")
    await index()

    assert (await names(app, "test clock"))[0] == "rare"


async def test_a_further_passage_of_a_document_gives_way_to_one_of_another(
    project: Project, app: App, index: Index
):
    twice = "# Note\n\n## One\n\nA clock.\n\n## Two\n\nA clock.\n"
    project.write("testing/a.md", twice)
    project.write("testing/b.md", twice.replace("clock.", "clock by a wall.", 1))
    await index()

    found = await ranked(app, "clock")

    assert [name for name, _ in found] == snapshot(["a > One", "b > Two", "a > Two", "b > One"])
    assert dict(found)["a > Two"] == IsApprox(0.8 * dict(found)["a > One"], delta=1e-6)


async def test_equals_stay_in_the_order_in_which_they_were_indexed(
    project: Project, app: App, index: Index
):
    for topic in ("c", "a", "b"):
        project.write(f"testing/{topic}.md", "# Note\n\nA clock is here.\n")
    await index()

    assert await names(app, "clock") == ["a", "b", "c"]


async def test_a_word_in_two_wordings_counts_twice(corpus: App):
    once = dict(await ranked(corpus, "clock cache"))
    twice = dict(await ranked(corpus, "clock cache", "cache"))

    assert twice["queues > Cache"] > once["queues > Cache"]
    assert twice["clocks"] < once["clocks"]


async def test_words_that_stand_nowhere_lower_the_relevance_and_not_the_order(corpus: App):
    known = await ranked(corpus, "retry")
    partly = await ranked(corpus, "retry nowhere")

    assert [name for name, _ in partly] == [name for name, _ in known]
    assert all(one < other for (_, one), (_, other) in zip(partly, known, strict=True))


@pytest.mark.parametrize("query", ["the of and", "nowhere", "🙂", "  "])
async def test_without_a_word_that_is_known_nothing_is_found(corpus: App, query: str):
    assert await ranked(corpus, query) == []


async def test_filters_leave_the_scores_as_they_are(corpus: App):
    everywhere = dict(await ranked(corpus, "cache"))
    in_data = await ranked(corpus, "cache", filters=Filters("data", (), "project"))

    assert in_data == [(name, everywhere[name]) for name in ("queues > Cache", "queues")]


async def test_no_more_passages_are_ranked_than_asked_for(corpus: App):
    assert len(await ranked(corpus, "clock cache")) == 5
    assert len(await ranked(corpus, "clock cache", limit=2)) == 2


async def test_a_project_that_has_no_passages_has_no_ranking(app: App):
    assert await ranked(app, "clock") == []
