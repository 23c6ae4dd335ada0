import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from inline_snapshot import snapshot
from sqlalchemy import text

from server.standards.catalogue import list_standards
from server.standards.indexer import index_standards
from server.standards.search import search_standards
from server.standards.shapes import Hit, IndexReport, Skipped, StandardSummary
from server.work import App, Caller, Work
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Index, Project, using

pytestmark = pytest.mark.anyio

SHOWN = ".agent-os/standards"
TWO_TITLES = """\
Alpha.

# First

Beta.

## Deep

Gamma.

# Zebra

Delta.

## Deep

Epsilon.

# First

Zeta.
"""


class Shelf:
    """What is in the index, read beside the services."""

    def __init__(self, app: App, caller: Caller) -> None:
        self._app = app
        self._caller = caller

    async def select(self, query: str) -> list[tuple[Any, ...]]:
        async def read(work: Work) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await work.session.execute(text(query))]

        return await using(self._app, self._caller, read)

    async def change(self, statement: str) -> None:
        async def write(work: Work) -> None:
            await work.session.execute(text(statement))

        await using(self._app, self._caller, write)

    async def passages(self) -> list[tuple[Any, ...]]:
        """Return path, line, section and text of every passage."""
        return await self.select(
            "SELECT path, line, section, text FROM dramatis.passages p"
            " JOIN dramatis.standards s ON s.id = p.standard_id ORDER BY path, p.id"
        )

    async def postings(self) -> list[tuple[Any, ...]]:
        return await self.select(
            "SELECT path, section, term, tf, o.length FROM dramatis.postings o"
            " JOIN dramatis.passages p ON p.id = o.passage_id"
            " JOIN dramatis.standards s ON s.id = o.standard_id ORDER BY path, p.id, term"
        )

    async def versions(self) -> dict[str, tuple[Any, ...]]:
        """Return where each row of a standard lies, which a change moves, and ids of passages."""
        rows = await self.select(
            "SELECT path, s.ctid::text, array_agg(p.id ORDER BY p.id) FROM dramatis.standards s"
            " JOIN dramatis.passages p ON p.standard_id = s.id GROUP BY path, s.ctid::text"
        )
        return {path: tuple(version) for path, *version in rows}

    async def generation(self) -> int:
        ((generation,),) = await self.select("SELECT generation FROM dramatis.projects")
        return generation

    async def found(self, query: str, **filters: Any) -> Sequence[Hit]:
        result = await search_standards(self._app, self._caller, query, **filters)
        assert result.found_by == "full text"
        return result.hits

    async def listed(self) -> list[StandardSummary]:
        return (await using(self._app, self._caller, list_standards)).standards

    async def counts(self) -> dict[str, int]:
        return {one.file.removeprefix(f"{SHOWN}/"): one.query_count for one in await self.listed()}


@pytest.fixture
def shelf(app: App, agent: Caller) -> Shelf:
    return Shelf(app, agent)


def shown(*paths: str) -> list[str]:
    return [f"{SHOWN}/{path}" for path in paths]


async def test_a_file_is_indexed_by_its_sections(project: Project, index: Index, shelf: Shelf):
    project.write("testing/flaky-tests.md")

    report = await index()

    assert report == IndexReport(
        files=1, changed=shown("testing/flaky-tests.md"), removed=[], passages=2, skipped=[]
    )
    assert await shelf.passages() == snapshot(
        [
            (
                "testing/flaky-tests.md",
                5,
                "Context",
                "A test that fails now and then is worse than none: people stop reading the red.",
            ),
            (
                "testing/flaky-tests.md",
                9,
                "Pattern",
                "Pass the clock in. A test that reads the time twice fails around midnight.",
            ),
        ]
    )
    (hit,) = await shelf.found("midnight")
    assert (hit.file, hit.section, hit.line) == (
        f"{SHOWN}/testing/flaky-tests.md",
        "Pattern",
        9,
    )


async def test_nothing_to_index_is_reported_as_such(index: Index, shelf: Shelf):
    assert await index() == IndexReport(files=0, changed=[], removed=[], passages=0, skipped=[])
    assert await shelf.select("SELECT id FROM dramatis.projects") == []


async def test_without_a_change_no_row_is_touched(project: Project, index: Index, shelf: Shelf):
    written = [project.write("testing/flaky-tests.md"), project.write("ops/retries.md", RETRIES)]
    await index()
    before = (await shelf.versions(), await shelf.generation())

    again = await index()
    for file in written:
        os.utime(file, (1, 1))
    touched = await index()

    assert again == IndexReport(files=2, changed=[], removed=[], passages=3, skipped=[])
    assert touched == again
    assert (await shelf.versions(), await shelf.generation()) == before


async def test_a_change_of_one_file_changes_its_rows_alone(
    project: Project, index: Index, shelf: Shelf
):
    written = project.write("testing/flaky-tests.md")
    project.write("ops/retries.md", RETRIES)
    await index()
    before, generation = await shelf.versions(), await shelf.generation()

    # The same size at the same time: what it holds is what counts.
    moment = written.stat().st_mtime_ns
    project.write("testing/flaky-tests.md", FLAKY.replace("midnight", "Xmas-day"))
    os.utime(written, ns=(moment, moment))
    report = await index()

    after = await shelf.versions()
    assert report == IndexReport(
        files=2, changed=shown("testing/flaky-tests.md"), removed=[], passages=3, skipped=[]
    )
    assert after["ops/retries.md"] == before["ops/retries.md"]
    assert after["testing/flaky-tests.md"] != before["testing/flaky-tests.md"]
    assert await shelf.generation() > generation
    assert len(await shelf.found("xmas")) == 1
    assert await shelf.found("midnight") == []


async def test_a_file_that_is_gone_is_found_no_more(project: Project, index: Index, shelf: Shelf):
    file = project.write("testing/flaky-tests.md")
    project.write("ops/retries.md", RETRIES)
    await index()
    assert len(await shelf.found("midnight")) == 1

    file.unlink()
    report = await index()

    assert report == IndexReport(
        files=1, changed=[], removed=shown("testing/flaky-tests.md"), passages=1, skipped=[]
    )
    assert await shelf.found("midnight") == []
    assert await shelf.counts() == {"ops/retries.md": 0}
    assert {row[0] for row in await shelf.postings()} == {"ops/retries.md"}
    assert (await index()).removed == []


async def test_a_file_that_comes_to_be_a_dead_link_is_gone(
    project: Project, index: Index, shelf: Shelf
):
    file = project.write("testing/flaky-tests.md")
    await index()
    file.unlink()
    file.symlink_to("elsewhere.md")

    assert (await index()).removed == shown("testing/flaky-tests.md")
    assert await shelf.passages() == []


async def test_a_file_that_moves_to_another_domain_takes_its_count_along(
    project: Project, index: Index, shelf: Shelf
):
    file = project.write("testing/flaky-tests.md")
    await index()
    await shelf.found("midnight")

    target = project.place.standards / "quality" / "unsteady.md"
    target.parent.mkdir()
    file.rename(target)
    report = await index()

    assert (report.changed, report.removed) == (shown("quality/unsteady.md"), [])
    (listed,) = await shelf.listed()
    assert (listed.domain, listed.topic, listed.query_count) == ("quality", "unsteady", 1)
    assert [hit.domain for hit in await shelf.found("midnight", domain="quality")] == ["quality"]
    assert await shelf.found("midnight", domain="testing") == []


async def test_a_copy_counts_for_itself(project: Project, index: Index, shelf: Shelf):
    project.write("testing/flaky-tests.md")
    await index()
    await shelf.found("midnight")

    project.write("quality/flaky-tests.md")
    await index()

    assert await shelf.counts() == {"testing/flaky-tests.md": 1, "quality/flaky-tests.md": 0}


async def test_two_files_of_one_text_move_and_each_takes_a_count_along(
    project: Project, index: Index, shelf: Shelf
):
    for domain in ("a", "b"):
        project.write(f"{domain}/flaky-tests.md")
    await index()
    await shelf.found("midnight")

    for domain in ("a", "b"):
        (project.place.standards / domain).rename(project.place.standards / f"{domain}{domain}")
    report = await index()

    assert report.removed == []
    assert await shelf.counts() == {"aa/flaky-tests.md": 1, "bb/flaky-tests.md": 1}


@pytest.mark.parametrize("path", ["testing/flaky-tests.md", "quality/flaky-tests.md"])
async def test_a_file_that_returns_has_the_count_it_had(
    project: Project, index: Index, shelf: Shelf, path: str
):
    file = project.write("testing/flaky-tests.md")
    await index()
    await shelf.found("midnight")
    file.unlink()
    await index()

    project.write(path)
    report = await index()

    assert report.changed == shown(path)
    assert await shelf.counts() == {path: 1}
    assert len(await shelf.found("midnight")) == 1


async def test_front_matter_is_no_text_and_lines_count_in_the_file(
    project: Project, index: Index, shelf: Shelf
):
    front = "---\ntags: [Flaky, slow]\ncreated_by: ada\nnotes: xylophone\n---\n\n"
    project.write("testing/flaky-tests.md", front + FLAKY)

    await index()

    lines = project.read("testing/flaky-tests.md").splitlines()
    passages = await shelf.passages()
    assert [lines[line - 1] for _, line, _, _ in passages] == [
        words.splitlines()[0] for _, _, _, words in passages
    ]
    assert await shelf.found("xylophone") == []
    (listed,) = await shelf.listed()
    assert (listed.tags, listed.created_by) == (["flaky", "slow"], "ada")
    assert len(await shelf.found("midnight", tags=["slow"])) == 1
    assert await shelf.found("midnight", tags=["fast"]) == []


async def test_the_title_above_a_section_is_found_where_it_is_not_the_first(
    project: Project, index: Index, shelf: Shelf
):
    project.write("testing/two.md", TWO_TITLES)

    await index()

    assert await shelf.passages() == [
        ("testing/two.md", 1, "", "Alpha."),
        ("testing/two.md", 5, "", "Beta."),
        ("testing/two.md", 9, "Deep", "Gamma."),
        ("testing/two.md", 13, "Zebra", "Delta."),
        ("testing/two.md", 17, "Zebra > Deep", "Epsilon."),
        ("testing/two.md", 21, "", "Zeta."),
    ]
    assert sorted(hit.text for hit in await shelf.found("zebra")) == ["Delta.", "Epsilon."]
    assert len(await shelf.found("first", limit=20)) == 6


async def test_without_a_title_a_text_is_found_by_its_topic(
    project: Project, index: Index, shelf: Shelf
):
    project.write("testing/snapshots.md", "Keep them small.\n")

    await index()

    assert [hit.text for hit in await shelf.found("snapshots")] == ["Keep them small."]


async def test_layers_are_indexed_beside_each_other(
    app: App, agent: Caller, project: Project, tmp_path: Path
):
    library = tmp_path / "library"
    for folder, path in (
        ("universal", "testing/flaky-tests.md"),
        ("languages", "python/retries.md"),
    ):
        (library / folder / path).parent.mkdir(parents=True)
        (library / folder / path).write_text(RETRIES)
    project.write("testing/flaky-tests.md", RETRIES)
    app = but(app, place=but(project.place, library=library))

    report = await index_standards(app, agent)

    files = {
        "project": f"{SHOWN}/testing/flaky-tests.md",
        "universal": "universal/testing/flaky-tests.md",
        "language": "languages/python/retries.md",
    }
    assert report.changed == list(files.values())
    assert (await index_standards(app, agent)).changed == []
    shelf = Shelf(app, agent)
    for layer, file in files.items():
        assert [hit.file for hit in await shelf.found("jitter", layer=layer)] == [file]


async def test_a_file_that_is_gone_from_one_layer_stays_in_the_other(
    app: App, agent: Caller, project: Project, tmp_path: Path
):
    library = tmp_path / "library"
    (library / "universal" / "testing").mkdir(parents=True)
    (library / "universal" / "testing" / "retries.md").write_text(RETRIES)
    file = project.write("testing/retries.md", RETRIES)
    app = but(app, place=but(project.place, library=library))
    await index_standards(app, agent)

    file.unlink()
    report = await index_standards(app, agent)

    assert report.removed == shown("testing/retries.md")
    hits = await Shelf(app, agent).found("jitter")
    assert [hit.layer for hit in hits] == ["universal"]


async def test_names_are_compared_in_one_form(project: Project, index: Index, shelf: Shelf):
    project.write("Code Quality/Error_Handling.md", RETRIES)

    await index()

    assert await shelf.select("SELECT domain, topic, key FROM dramatis.standards") == [
        ("Code Quality", "Error_Handling", "code-quality/error-handling")
    ]
    assert len(await shelf.found("jitter", domain="code-quality")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM dramatis.postings WHERE standard_id = (SELECT min(id) FROM dramatis.standards)",
        "DELETE FROM dramatis.passages WHERE id = (SELECT min(id) FROM dramatis.passages)",
        "DELETE FROM dramatis.passages",
        "DELETE FROM dramatis.standards",
        "DELETE FROM dramatis.projects",
    ],
)
async def test_what_somebody_takes_out_of_the_index_is_put_back(
    project: Project, index: Index, shelf: Shelf, statement: str
):
    project.write("testing/flaky-tests.md")
    project.write("testing/retries.md", RETRIES)
    await index()
    before = await shelf.passages(), await shelf.postings()

    await shelf.change(statement)
    assert (await shelf.passages(), await shelf.postings()) != before
    await index()

    assert (await shelf.passages(), await shelf.postings()) == before
    assert (await index()).changed == []


async def test_only_what_was_taken_out_is_put_back(project: Project, index: Index, shelf: Shelf):
    project.write("testing/flaky-tests.md")
    project.write("testing/retries.md", RETRIES)
    await index()

    await shelf.change(
        "DELETE FROM dramatis.postings WHERE standard_id ="
        " (SELECT id FROM dramatis.standards WHERE path = 'testing/retries.md')"
    )

    assert (await index()).changed == shown("testing/retries.md")


async def test_what_is_no_standard_is_skipped_with_its_reason_and_harms_nothing(
    project: Project, index: Index, shelf: Shelf, tmp_path: Path
):
    project.write("testing/flaky-tests.md")
    project.write("testing/large.md", b"a" * 5_000_000)
    project.write("testing/latin.md", b"# Caf\xe9\n")
    project.write("testing/nul.md", b"# A\0B\n")
    project.write("testing/front.md", "---\ntags: [\n---\n\n# Bracket\n\nUnclosed.\n")
    project.write("testing/folder.md/notes.txt")
    project.write(os.fsdecode(b"testing/caf\xe9.md"))
    os.mkfifo(project.place.standards / "testing" / "pipe.md")
    outside = tmp_path / "outside.md"
    outside.write_text("# Secret\n\nWalrus.\n")
    (project.place.standards / "testing" / "link.md").symlink_to(outside)
    (project.place.standards / "testing" / "loop.md").symlink_to("loop.md")

    report = await index()
    again = await index()

    assert report.skipped == snapshot(
        [
            Skipped(
                file=".agent-os/standards/testing/front.md",
                reason="The front matter cannot be used: it is no YAML (line 3).",
            ),
            Skipped(
                file=".agent-os/standards/testing/large.md",
                reason="large.md of testing is 5,000,000 bytes; the limit is 1,000,000.",
            ),
            Skipped(
                file=".agent-os/standards/testing/latin.md",
                reason="latin.md of testing is not UTF-8 text.",
            ),
            Skipped(
                file=".agent-os/standards/testing/nul.md",
                reason="nul.md of testing is not UTF-8 text.",
            ),
            Skipped(
                file=".agent-os/standards/testing/pipe.md",
                reason="pipe.md of testing cannot be read: not a regular file.",
            ),
        ]
    )
    assert sorted(report.changed) == shown(
        "testing/flaky-tests.md",
        "testing/front.md",
        "testing/large.md",
        "testing/latin.md",
        "testing/nul.md",
        "testing/pipe.md",
    )
    assert dict(again) == IsPartialDict(changed=[], removed=[], skipped=report.skipped)
    assert [len(await shelf.found(word)) for word in ("midnight", "unclosed")] == [1, 1]
    assert await shelf.found("walrus") == []
    assert {row[0] for row in await shelf.passages()} == {
        "testing/flaky-tests.md",
        "testing/front.md",
    }
    problems = {one.topic: one.problem for one in await shelf.listed()}
    assert {name for name, problem in problems.items() if not problem} == {"flaky-tests"}


async def test_a_link_that_leads_out_takes_the_place_of_a_file_and_is_not_read(
    project: Project, index: Index, shelf: Shelf, tmp_path: Path
):
    file = project.write("testing/flaky-tests.md")
    await index()
    outside = tmp_path / "outside.md"
    outside.write_text("# Secret\n\nWalrus.\n")
    file.unlink()
    file.symlink_to(outside)

    report = await index()

    assert (report.changed, report.removed) == ([], shown("testing/flaky-tests.md"))
    assert await shelf.passages() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_that_may_not_be_read_is_skipped(project: Project, index: Index):
    project.write("testing/retries.md").chmod(0)

    report = await index()

    assert [one.reason for one in report.skipped] == [
        "retries.md of testing cannot be read: permission denied."
    ]


async def test_a_file_that_breaks_is_found_no_more_until_it_is_mended(
    project: Project, index: Index, shelf: Shelf
):
    project.write("testing/flaky-tests.md")
    await index()
    await shelf.found("midnight")

    project.write("testing/flaky-tests.md", FLAKY.encode() + b"\xff")
    broken = await index()
    passages = await shelf.passages()
    project.write("testing/flaky-tests.md")
    mended = await index()

    reason = "flaky-tests.md of testing is not UTF-8 text."
    assert broken.skipped == [Skipped(file=f"{SHOWN}/testing/flaky-tests.md", reason=reason)]
    assert passages == []
    assert (mended.changed, mended.skipped) == (shown("testing/flaky-tests.md"), [])
    assert await shelf.counts() == {"testing/flaky-tests.md": 1}
    assert len(await shelf.found("midnight")) == 1


@pytest.mark.parametrize("content", ["", "\n \n", "---\ntags: [a]\n---\n"])
async def test_a_file_without_a_text_is_a_standard_that_nothing_finds(
    project: Project, index: Index, shelf: Shelf, content: str
):
    project.write("testing/empty.md", content)
    project.write("testing/retries.md", RETRIES)

    report = await index()
    again = await index()

    assert (report.passages, report.skipped, again.changed) == (1, [], [])
    assert [one.topic for one in await shelf.listed()] == ["empty", "retries"]
    assert len(await shelf.found("jitter")) == 1


async def test_files_are_indexed_a_few_at_a_time_and_it_is_told_how_far_it_is(
    app: App, agent: Caller, project: Project, shelf: Shelf
):
    for number in range(60):
        project.write(f"testing/{number:02}.md", f"# {number}\n\nNumber{number}.\n")
    told: list[tuple[int, int]] = []

    report = await index_standards(
        app, agent, progress=lambda done, there_are: told.append((done, there_are))
    )

    assert told == [(25, 60), (50, 60), (60, 60)]
    assert (len(report.changed), report.passages) == (60, 60)
    assert [hit.topic for hit in await shelf.found("number59")] == ["59"]


async def test_large_files_are_indexed_in_transactions_of_their_own(
    app: App, agent: Caller, project: Project
):
    # Two of the smaller ones fit within half a megabyte, and with a third they do not.
    for name, size in (("a", 200_000), ("b", 200_000), ("c", 200_000), ("d", 600_000), ("e", 1)):
        project.write(f"testing/{name}.md", f"```\n{'x' * size}\n```\n")
    told: list[int] = []

    report = await index_standards(app, agent, progress=lambda done, _: told.append(done))

    assert told == [2, 3, 4, 5]
    assert report.passages == 5


async def test_of_code_that_is_one_long_passage_a_part_is_found(
    project: Project, index: Index, shelf: Shelf
):
    lines = "\n".join(f"call_{number}(argument_{number})" for number in range(30_000))
    project.write("testing/code.md", f"# Code\n\n```\naardvark\n{lines}\nzyzzyva\n```\n")

    report = await index()

    assert (report.passages, report.skipped) == (1, [])
    (hit,) = await shelf.found("aardvark")
    assert len(hit.text) < 9_000
    assert "[read_standard has the other " in hit.text
    assert await shelf.found("zyzzyva") == []


async def test_a_text_of_a_hundred_thousand_words_is_found_to_its_end(
    project: Project, index: Index, shelf: Shelf
):
    words = [f"w{number % 5_000}" for number in range(100_000)]
    paragraphs = [" ".join(words[at : at + 100]) for at in range(0, len(words), 100)]
    project.write("testing/long.md", "# Long\n\n" + "\n\n".join(paragraphs) + "\n\nZyzzyva.\n")

    report = await index()

    assert (report.files, report.skipped) == (1, [])
    (hit,) = await shelf.found("zyzzyva")
    assert hit.line > 1_000
    assert hit.text.endswith("Zyzzyva.")
