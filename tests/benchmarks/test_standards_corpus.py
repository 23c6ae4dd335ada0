"""What the benchmark of search stands on: standards, questions about them, and distractors."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot
from pydantic import BaseModel, Field, TypeAdapter

from tests.benchmarks.distractors import DOMAINS, HEADINGS, distractors, write_distractors

CORPUS = Path(__file__).parent / "standards_corpus"
STANDARD = r"[a-z]+/[a-z-]+\.md"
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


class Question(BaseModel, frozen=True, extra="forbid", strict=True):
    question: Annotated[str, Field(min_length=8, max_length=160)]
    expected: Annotated[str, Field(pattern=f"^{STANDARD}$")]
    also: list[Annotated[str, Field(pattern=f"^{STANDARD}$")]]
    half: Literal["tuning", "held-out"]
    wordings: Annotated[list[str], Field(min_length=2, max_length=2)]


def headings(text: str) -> list[str]:
    return HEADING.findall(FENCED.sub("", text))


def sections(texts: Iterable[str]) -> list[str]:
    return [section for text in texts for section in re.split(r"(?m)^(?=#{2,3} )", text)[1:]]


@pytest.fixture(scope="module")
def standards() -> dict[str, str]:
    return {
        path.relative_to(CORPUS).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(CORPUS.rglob("*.md"))
    }


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    text = (CORPUS / "questions.json").read_text(encoding="utf-8")
    return TypeAdapter(list[Question]).validate_json(text)


def test_every_domain_has_standards(standards: dict[str, str]):
    assert Counter(path.split("/")[0] for path in standards) == snapshot(
        {
            "architecture": 8,
            "data": 8,
            "development": 9,
            "operations": 9,
            "security": 8,
            "testing": 7,
        }
    )


def test_standards_follow_the_template(standards: dict[str, str]):
    odd = {
        path: (headings(text), len(text.encode()))
        for path, text in standards.items()
        if not text.startswith("# ")
        or not 5 <= len(headings(text)) <= 9
        or [heading for heading in headings(text) if heading in HEADINGS] != [*HEADINGS]
        or not 2_000 <= len(text.encode()) <= 6_000
        or "```" not in text
    }

    assert odd == {}


def test_no_question_is_asked_twice(questions: list[Question]):
    asked = Counter(question.question.casefold() for question in questions)

    assert len(questions) >= 60
    assert asked.most_common(1)[0][1] == 1


def test_questions_ask_for_standards_that_exist(
    questions: list[Question], standards: dict[str, str]
):
    expected = {question.expected for question in questions}
    accepted = {path for question in questions for path in question.also}

    assert len(expected) >= 35
    assert expected | accepted <= standards.keys()
    assert [one for one in questions if one.expected in one.also] == []


def test_the_halves_alternate_and_each_covers_every_domain(questions: list[Question]):
    halves = cycle(("tuning", "held-out"))

    assert [(one.half, one.question) for one in questions] == [
        (half, one.question) for half, one in zip(halves, questions, strict=False)
    ]
    for half in ("tuning", "held-out"):
        covered = {one.expected.split("/")[0] for one in questions if one.half == half}
        assert covered == {*DOMAINS}


def test_distractors_are_the_same_for_the_same_seed():
    made = distractors(passages=300, seed=7)

    assert distractors(passages=300, seed=7) == made
    assert distractors(passages=300, seed=8) != made


@settings(max_examples=20, deadline=None)
@given(passages=st.integers(0, 1_500), seed=st.integers(0, 2**32))
def test_there_are_as_many_distracting_passages_as_asked_for(passages: int, seed: int):
    made = distractors(passages=passages, seed=seed)

    found = sections(made.values())
    assert len(made) == min(passages, 100)
    assert len(found) == passages
    assert [section for section in found if not 300 <= len(section) <= 1_100] == []


def test_distractors_are_written_beside_the_standards(tmp_path: Path, standards: dict[str, str]):
    write_distractors(tmp_path, passages=250)

    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*.*")
    }
    assert written == distractors(passages=250)
    assert {path.split("/")[0] for path in written} == {*DOMAINS}
    assert not written.keys() & standards.keys()


def test_distractors_use_the_words_of_the_standards(standards: dict[str, str]):
    # Names of components are capitalised, and so left out.
    words = re.compile(r"\b[a-z]+\b")
    known = {*words.findall(" ".join(standards.values()).lower())}

    used = words.findall(" ".join(distractors(passages=500).values()))

    assert sum(word in known for word in used) > 0.9 * len(used)


def test_few_words_make_most_of_the_distractors():
    texts = distractors(passages=500).values()

    used = Counter(re.findall(r"\w+", " ".join(texts).lower()))

    frequent = sum(count for _, count in used.most_common(len(used) // 10))
    assert frequent > used.total() / 2
