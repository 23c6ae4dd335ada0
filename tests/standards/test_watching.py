import resource
import shutil
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import text

from server.standards.search import search_standards
from server.standards.shapes import IndexReport
from server.standards.watcher import changes, keep_indexed
from server.work import App, Embedding, Work
from tests.conftest import but
from tests.standards.conftest import (
    DEADLINE_S,
    Project,
    agent_of,
    eventually,
    using,
    watching,
)
from tests.standards.tiny_model import make_model

pytestmark = pytest.mark.anyio

BURST = 50


def saying(words: str) -> str:
    return f"# A title\n\n{words}\n"


def save_atomically(file: Path, words: str) -> None:
    """Save as editors do: beside, under another name, and then over the old one."""
    beside = file.with_name(f"{file.name}.tmp")
    beside.write_text(saying(words))
    beside.replace(file)


async def query_counts(app: App) -> list[int]:
    async def read(work: Work) -> list[int]:
        rows = await work.session.scalars(text("SELECT query_count FROM dramatis.standard_uses"))
        return [*rows]

    return await using(app, agent_of(app), read)


async def vectors(app: App, wanted: int) -> bool:
    async def count(work: Work) -> int | None:
        return await work.session.scalar(text("SELECT count(embedding) FROM dramatis.passages"))

    return await using(app, agent_of(app), count) == wanted


@contextmanager
def no_more_files() -> Generator[None]:
    """Let this process open nothing, a watch included."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_what_is_there_at_the_start_is_indexed_and_told(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        pass

    assert watch.reports == [
        IndexReport(
            files=1,
            changed=[".agent-os/standards/testing/a.md"],
            removed=[],
            passages=1,
            skipped=[],
        )
    ]


async def test_a_saved_file_is_searchable_moments_later(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        with anyio.fail_after(2):
            project.write("testing/b.md", saying("walrus"))
            await watch.until(a="one", b="walrus")
        found = await search_standards(own_app, agent_of(own_app), "walrus")

    assert [(hit.topic, hit.text) for hit in found.hits] == [("b", "walrus")]


async def test_a_file_that_an_editor_renames_over_another_is_indexed(
    own_app: App, project: Project
):
    file = project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        save_atomically(file, "two")
        await watch.until(a="two")
        save_atomically(file, "three")
        await watch.until(a="three")

    assert project.files() == ["testing/a.md"]


async def test_two_saves_within_a_second_leave_the_second(own_app: App, project: Project):
    file = project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        for first, second in (("two", "three"), ("four", "five")):
            save_atomically(file, first)
            save_atomically(file, second)
            await watch.until(a=second)


async def test_a_burst_of_files_takes_a_few_runs(own_app: App, project: Project):
    project.write("testing/first.md", saying("one"))
    words = {f"n{number}": f"word {number}" for number in range(BURST)}

    def burst() -> None:
        for topic, word in words.items():
            project.write(f"testing/{topic}.md", saying(word))

    async with watching(own_app) as watch:
        # The watcher goes on meanwhile.
        await anyio.to_thread.run_sync(burst)
        await watch.until(first="one", **words)

    assert len(watch.changed) == BURST + 1
    assert len(watch.reports) <= 4


async def test_a_file_that_is_deleted_is_taken_out(own_app: App, project: Project):
    file = project.write("testing/a.md", saying("one"))
    project.write("testing/b.md", saying("two"))

    async with watching(own_app) as watch:
        file.unlink()
        await watch.until(b="two")

    assert watch.reports[-1].removed == [".agent-os/standards/testing/a.md"]


async def test_a_file_that_moves_to_another_domain_keeps_its_count(own_app: App, project: Project):
    file = project.write("testing/a.md", saying("walrus"))

    async with watching(own_app) as watch:
        await search_standards(own_app, agent_of(own_app), "walrus")
        target = project.place.standards / "quality" / "b.md"
        target.parent.mkdir()
        file.rename(target)
        await watch.until(b="walrus")

    assert await query_counts(own_app) == [1]


async def test_what_is_no_standard_is_not_told_of(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        for path in ("testing/a.txt", "testing/.a.md.swp", ".git/HEAD.md", "testing/a.md~"):
            project.write(path, saying("walrus"))
        project.write("testing/b.md", saying("two"))
        await watch.until(a="one", b="two")

    assert watch.changed == [f".agent-os/standards/testing/{name}.md" for name in ("a", "b")]


async def test_a_folder_that_is_made_later_is_watched(own_app: App, project: Project):
    async with watching(own_app) as watch:
        project.write("testing/a.md", saying("one"))
        await watch.until(a="one")
        project.write("testing/b.md", saying("two"))
        await watch.until(a="one", b="two")

    assert watch.reports[0].files == 0


@pytest.mark.parametrize("removed", [".agent-os/standards", ".agent-os"])
async def test_a_folder_that_is_removed_and_made_at_once_is_watched_again(
    own_app: App, project: Project, removed: str
):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        # The new one often gets the number that the old one had on the disk.
        shutil.rmtree(project.place.root / removed)
        project.write("testing/b.md", saying("two"))
        await watch.until(b="two")
        project.write("testing/c.md", saying("three"))
        await watch.until(b="two", c="three")


async def test_a_folder_that_is_removed_for_a_while_is_watched_again(
    own_app: App, project: Project
):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app) as watch:
        shutil.rmtree(project.place.standards)
        await watch.until()
        project.write("testing/b.md", saying("two"))
        await watch.until(b="two")
        project.write("testing/c.md", saying("three"))
        await watch.until(b="two", c="three")


@pytest.mark.parametrize("replaced", [".agent-os/standards", ".agent-os"])
async def test_a_folder_that_takes_the_place_of_another_is_watched(
    own_app: App, project: Project, replaced: str
):
    project.write("testing/a.md", saying("one"))
    folder, old, new = (project.place.root / name for name in (replaced, "old", "new"))
    shutil.copytree(folder, new)

    async with watching(own_app) as watch:
        project.write("testing/a.md", saying("two"))
        await watch.until(a="two")
        folder.rename(old)
        new.rename(folder)
        await watch.until(a="one")
        project.write("testing/b.md", saying("three"))
        await watch.until(a="one", b="three")


async def test_a_library_is_watched_and_so_is_the_folder_that_is_made_later(
    own_app: App, project: Project, tmp_path: Path
):
    library = tmp_path / "library"
    library.mkdir()
    app = but(own_app, place=but(project.place, library=library))

    async with watching(app) as watch:
        file = library / "universal" / "testing" / "a.md"
        file.parent.mkdir(parents=True)
        for words in ("one", "two", "a"):
            file.write_text(saying(words))
            await watch.until(a=words)
        project.write("testing/c.md", saying("c"))
        await watch.until(a="a", c="c")
        project.write("testing/d.md", saying("d"))
        await watch.until(a="a", c="c", d="d")


async def test_the_files_of_a_folder_that_is_moved_in_are_indexed(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))
    outside = project.place.root / "outside"
    outside.mkdir()
    for topic in ("b", "c", "d"):
        (outside / f"{topic}.md").write_text(saying(topic))

    async with watching(own_app) as watch:
        outside.rename(project.place.standards / "quality")
        await watch.until(a="one", b="b", c="c", d="d")
        project.write("quality/b.md", saying("changed"))
        await watch.until(a="one", b="changed", c="c", d="d")


async def test_it_ends_at_once_when_it_is_cancelled(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))

    async with watching(own_app):
        # A thread watches by now, which is not cancelled as a task is.
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()

    assert anyio.current_time() - began < 0.8


async def test_it_ends_at_once_without_a_folder_too(own_app: App):
    async with watching(own_app):
        began = anyio.current_time()

    assert anyio.current_time() - began < 1.5


async def test_progress_is_told(own_app: App, project: Project):
    project.write("testing/a.md", saying("one"))
    told: list[tuple[int, int]] = []
    first = anyio.Event()

    async def after(_: IndexReport) -> None:
        first.set()

    async with anyio.create_task_group() as tasks:
        watch = partial(
            keep_indexed, progress=lambda done, there_are: told.append((done, there_are))
        )
        tasks.start_soon(watch, own_app, agent_of(own_app), after)
        with anyio.fail_after(DEADLINE_S):
            await first.wait()
        tasks.cancel_scope.cancel()

    assert told == [(1, 1)]


async def test_without_room_for_another_watch_it_looks_again_and_again(project: Project):
    project.write("testing/a.md", saying("one"))
    seen = 0

    with no_more_files(), anyio.fail_after(DEADLINE_S):
        async with aclosing(changes(project.place, anyio.Event())) as found:
            async for _ in found:
                seen += 1
                if seen == 3:
                    break

    assert seen == 3


async def test_texts_get_their_vectors_as_they_change(
    own_app: App, project: Project, tmp_path: Path
):
    model = make_model(tmp_path / "model")
    app = but(own_app, embedding=Embedding(str(model), None, None))
    project.write("testing/a.md", saying("retry"))

    async with watching(app) as watch:
        await eventually(lambda: vectors(app, 1))
        project.write("testing/b.md", saying("cache"))
        await watch.until(a="retry", b="cache")
        await eventually(lambda: vectors(app, 2))
