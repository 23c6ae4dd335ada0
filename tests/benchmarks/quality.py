"""Whether a search finds what answers: questions, and the standards that do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter

from server.standards.search import search_standards
from server.work import App, Caller
from tests.benchmarks.report import Row, Section, Verdict
from tests.benchmarks.textsearch import ANY, EVERY, TextSearch

CORPUS = Path(__file__).parent / "standards_corpus"
RECALL_GOAL = 0.85
RATIO_GOAL = 1.4
DEPTH = 10

Find = Callable[["Question"], Awaitable[Sequence[str]]]


class Question(BaseModel, frozen=True):
    """What somebody asks, and the files that answer it.

    Attributes:
        wordings: the same in other words, as the caller of the tool is asked to give them. They
            were written by somebody who saw the questions and none of the standards.
    """

    question: str
    expected: str
    also: tuple[str, ...]
    half: Literal["tuning", "held-out"]
    wordings: tuple[str, ...]

    @property
    def worded(self) -> list[str]:
        return [self.question, *self.wordings]


def questions() -> list[Question]:
    text = (CORPUS / "questions.json").read_text(encoding="utf-8")
    return TypeAdapter(list[Question]).validate_json(text)


@dataclass(frozen=True, slots=True)
class _Quality:
    """Where the first passage of a right file stood, from 1; 0 where it was not found."""

    ranks: dict[Question, int]

    def recall(self, asked: Sequence[Question]) -> float:
        return sum(1 <= self.ranks[one] <= 5 for one in asked) / len(asked)

    def mrr(self, asked: Sequence[Question]) -> float:
        return sum(1 / self.ranks[one] for one in asked if self.ranks[one]) / len(asked)


async def judged(app: App, caller: Caller, baseline: TextSearch, note: str) -> Section:
    async def ours(queries: str | list[str]) -> list[str]:
        result = await search_standards(app, caller, queries, limit=DEPTH)
        return ["/".join(Path(hit.file).parts[-2:]) for hit in result.hits]

    every = await _quality(lambda one: baseline.find(EVERY, one.question, DEPTH))
    any_word = await _quality(lambda one: baseline.find(ANY, one.question, DEPTH))
    found = await _quality(lambda one: ours(one.question))
    any_wording = await _quality(lambda one: baseline.find(ANY, " ".join(one.worded), DEPTH))
    worded = await _quality(lambda one: ours(one.worded))
    rows: list[Row] = []
    for half in ("tuning", "held-out", "both"):
        asked = [one for one in found.ranks if half in (one.half, "both")]
        what = f"{half}, {len(asked)} questions"
        rows += [
            _recall(f"{what}: recall@5", found.recall(asked), every.recall(asked)),
            _beside("  any word of it", found.recall(asked), any_word.recall(asked)),
            _recall("  in three wordings", worded.recall(asked), any_wording.recall(asked)),
            _beside(f"{what}: MRR@{DEPTH}", found.mrr(asked), every.mrr(asked)),
            _beside("  any word of it", found.mrr(asked), any_word.mrr(asked)),
            _beside("  in three wordings", worded.mrr(asked), any_wording.mrr(asked)),
        ]
    return Section(
        "7c. What a search finds",
        f"{note} Recall counts files among five passages. The baseline is websearch_to_tsquery"
        " with ts_rank over the same passages, and below it the same with OR between the words; in"
        " three wordings, with OR between the words of all three.",
        rows,
    )


async def _quality(find: Find) -> _Quality:
    ranks: dict[Question, int] = {}
    for one in questions():
        found = await find(one)
        right = {one.expected, *one.also}
        ranks[one] = next((rank for rank, file in enumerate(found, 1) if file in right), 0)
    return _Quality(ranks)


def _recall(what: str, ours: float, baseline: float) -> Row:
    met = ours >= RECALL_GOAL and ours >= RATIO_GOAL * baseline
    verdict: Verdict = "met" if met else "missed"
    goal = f">= {RECALL_GOAL} and {RATIO_GOAL} x"
    return Row(what, f"{ours:.2f}", f"{baseline:.2f}", _ratio(ours, baseline), goal, verdict)


def _beside(what: str, ours: float, baseline: float) -> Row:
    return Row(what, f"{ours:.2f}", f"{baseline:.2f}", _ratio(ours, baseline))


def _ratio(ours: float, baseline: float) -> str:
    return f"{ours / baseline:.2f} x" if baseline else ""
