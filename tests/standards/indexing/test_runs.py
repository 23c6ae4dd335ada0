"""What an index run changes, and what it leaves alone."""

import os
from pathlib import Path

import pytest

from server.standards.indexer import index_standards
from server.standards.shapes import IndexReport
from server.work import App, Caller
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Index, Project
from tests.standards.indexing.conftest import SHOWN, Shelf, shown

pytestmark = pytest.mark.anyio


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
