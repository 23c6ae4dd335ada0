"""Search the files themselves, for when the index cannot be had."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, log

from server.standards import folder
from server.standards.documents import read_document
from server.standards.folder import StandardFile
from server.standards.passages import Passage, passages
from server.standards.ranking import Filters
from server.standards.shapes import folded
from server.work import Place

WORD = re.compile(r"\w{2,}")
# What a query and a text may differ in; the index has a stemmer for that.
ENDING = re.compile(r"(?<=\w{3})(?:ing|ies|i?ed|es|[esy])$")
STEM = 6


@dataclass(frozen=True, slots=True)
class Scanned:
    file: StandardFile
    passage: Passage
    line: int
    relevance: float


def scan(place: Place, queries: Sequence[str], filters: Filters, limit: int) -> list[Scanned]:
    """Find the passages that have most of the words, best first. Blocks on the disk.

    Relevance is the share of the words that stand in the passage, where a rare one counts more.
    """
    wanted = {stem for query in queries for stem in _stems(query)}
    if not wanted:
        return []
    there = [*_passages(place, filters)]
    had = [wanted & {*_stems(words)} for _, _, _, words in there]
    known = Counter(stem for stems in had for stem in stems)
    weights = {
        stem: log(1 + (len(there) - known[stem] + 0.5) / (known[stem] + 0.5)) for stem in wanted
    }
    # Exactly, for in another order the same numbers may come to a little more than all of them.
    total = fsum(weights.values())
    found = [
        Scanned(file, passage, line, fsum(weights[stem] for stem in stems) / total)
        for (file, passage, line, _), stems in zip(there, had, strict=True)
        if stems
    ]
    # Sorting keeps the order of files and lines where the relevance is the same.
    return sorted(found, key=lambda one: -one.relevance)[:limit]


def _passages(place: Place, filters: Filters) -> Iterator[tuple[StandardFile, Passage, int, str]]:
    """Read the files, and yield each passage with its line and all that it is found by."""
    for file in folder.find_files(place):
        content = folder.read(file)
        if content is None or content.problem is not None:
            continue
        document = read_document(content.text)
        if not _passes(file, {tag.lower() for tag in document.front.tags}, filters):
            continue
        title = document.title or file.topic
        for passage in passages(document.body, title):
            line = document.body_line + passage.line - 1
            yield file, passage, line, f"{title} {passage.title} {passage.section} {passage.text}"


def _passes(file: StandardFile, tags: set[str], filters: Filters) -> bool:
    return (
        (filters.domain is None or folded(file.domain) == filters.domain)
        and set(filters.tags) <= tags
        and (filters.layer is None or file.layer == filters.layer)
    )


def _stems(text: str) -> list[str]:
    return [ENDING.sub("", word)[:STEM] for word in WORD.findall(text.casefold())]
