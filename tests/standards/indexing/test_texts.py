"""Of each text all is found, by section and line."""

import pytest
from inline_snapshot import snapshot

from server.standards.indexer import index_standards
from server.standards.shapes import IndexReport
from server.work import App, Caller
from tests.standards.conftest import FLAKY, RETRIES, Index, Project
from tests.standards.indexing.conftest import SHOWN, Shelf, shown

pytestmark = pytest.mark.anyio

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


async def test_names_are_compared_in_one_form(project: Project, index: Index, shelf: Shelf):
    project.write("Code Quality/Error_Handling.md", RETRIES)

    await index()

    assert await shelf.select("SELECT domain, topic, key FROM dramatis.standards") == [
        ("Code Quality", "Error_Handling", "code-quality/error-handling")
    ]
    assert len(await shelf.found("jitter", domain="code-quality")) == 1


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
