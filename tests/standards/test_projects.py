import os
import subprocess
import sys
from pathlib import Path

import pytest
from dirty_equals import IsPartialDict
from pydantic import ValidationError
from sqlalchemy import text

from server.settings import Settings
from server.standards.catalogue import list_standards
from server.standards.indexer import index_standards
from server.standards.projects import NoProject, StandardsOutside, find_place, the_place
from server.standards.queries import ProposalNotFound, get_proposal, list_proposals
from server.standards.search import search_standards
from server.work import App, Place, Work
from tests.conftest import but
from tests.standards.conftest import RETRIES, Project, agent_of, proposed, using

pytestmark = pytest.mark.anyio

FIND = """
from server.settings import Settings
from server.standards.projects import find_place

place = find_place(Settings(), host="")
print(place and place.root)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, and no word of the client on where it works."""
    home = (tmp_path / "home").resolve()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CLAUDE_PROJECT_DIR", raising=False)
    return home


def made(folder: Path, mark: str | None = None) -> Path:
    """Make a folder, and with a mark a project."""
    (folder / mark if mark else folder).mkdir(parents=True)
    return folder


def root_of(settings: Settings, folder: Path | None = None) -> Path | None:
    place = find_place(settings, host="", folder=folder)
    return place and place.root


def at(app: App, root: Path, host: str = "") -> App:
    return but(app, place=Place(host, root, root / ".agent-os" / "standards", None))


async def found(app: App, query: str) -> list[str]:
    result = await search_standards(app, agent_of(app), query)
    return [hit.text for hit in result.hits]


async def topics(app: App) -> list[str]:
    listing = await using(app, agent_of(app), list_standards)
    return [standard.topic for standard in listing.standards]


async def count_projects(app: App) -> int | None:
    async def count(work: Work) -> int | None:
        return await work.session.scalar(text("SELECT count(*) FROM dramatis.projects"))

    return await using(app, agent_of(app), count)


def test_the_setting_wins_over_what_the_client_says(home: Path, monkeypatch: pytest.MonkeyPatch):
    here, theirs, asked = (made(home / name, ".git") for name in ("here", "theirs", "asked"))
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(theirs))

    assert root_of(Settings(project_root=asked), here) == asked
    assert root_of(Settings(), here) == theirs


def test_a_server_that_the_client_starts_works_in_the_clients_project(home: Path):
    here, theirs = made(home / "here", ".git"), made(home / "theirs")

    def started(**environment: str) -> str:
        command = [sys.executable, "-c", FIND]
        given = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}
        return subprocess.check_output(command, cwd=here, env=given, text=True).strip()

    assert started() == str(here)
    assert started(CLAUDE_PROJECT_DIR=str(theirs)) == str(theirs)


@pytest.mark.parametrize("mark", [".git", ".agent-os"])
def test_a_project_is_the_nearest_folder_upwards_that_is_marked(home: Path, mark: str):
    outer = made(home / "outer", ".git")
    inner = made(outer / "inner", mark)
    deep = made(inner / "src" / "deep")

    assert root_of(Settings(), deep) == inner
    assert root_of(Settings(), inner) == inner
    assert root_of(Settings(), made(outer / "src")) == outer


def test_a_worktree_whose_git_is_a_file_is_a_project_of_its_own(home: Path):
    worktree = made(made(home / "repository", ".git") / "worktree")
    (worktree / ".git").write_text("gitdir: ../.git/worktrees/worktree\n")

    assert root_of(Settings(), made(worktree / "src")) == worktree


def test_without_a_folder_it_is_the_one_that_we_were_started_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    project = made(home / "project", ".git")

    monkeypatch.chdir(made(project / "src"))
    inside = root_of(Settings())
    (project / "src").rmdir()

    assert inside == project
    assert root_of(Settings()) is None


def test_the_home_directory_is_no_project_whatever_lies_in_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    made(home, ".git")
    made(home, ".agent-os")

    assert root_of(Settings(), home) is None
    assert root_of(Settings(), made(home / "notes")) is None
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(home))
    assert root_of(Settings(), made(home / "project", ".git")) is None
    with pytest.raises(ValidationError, match="not the home directory or /"):
        Settings(project_root=home)


def test_what_lies_above_the_home_directory_is_not_looked_at(home: Path):
    made(home.parent, ".git")

    assert root_of(Settings(), made(home / "notes")) is None


def test_a_link_to_the_home_directory_is_no_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made(home, ".git")
    link = tmp_path / "link"
    link.symlink_to(home)

    assert root_of(Settings(), link) is None
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(link))
    assert root_of(Settings()) is None
    with pytest.raises(ValidationError, match="not the home directory or /"):
        Settings(project_root=link)


def test_the_root_of_the_disk_is_no_project(monkeypatch: pytest.MonkeyPatch):
    assert root_of(Settings(), Path("/")) is None
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", "/")
    assert root_of(Settings()) is None
    with pytest.raises(ValidationError, match="not the home directory or /"):
        Settings(project_root=Path("/"))


@pytest.mark.parametrize("kind", ["missing", "file", "loop"])
def test_what_the_client_names_has_to_be_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("CLAUDE_PROJECT_DIR", str(tmp_path / kind))

    assert root_of(Settings()) is None


def test_a_folder_whose_path_no_database_keeps_is_no_project(tmp_path: Path):
    assert root_of(Settings(), made(tmp_path / os.fsdecode(b"caf\xe9"), ".git")) is None


def test_a_place_says_where_the_standards_are(home: Path, tmp_path: Path):
    project, library = made(home / "project", ".git"), made(tmp_path / "library")
    settings = Settings(standards_root="docs/standards", standards_library=library)

    assert find_place(settings, host="build-7", folder=project) == Place(
        "build-7", project, project / "docs" / "standards", library
    )


async def test_without_a_project_there_are_no_standards_and_it_says_what_to_do(app: App):
    with pytest.raises(NoProject) as refused:
        await index_standards(but(app, place=None), agent_of(app))

    assert refused.value.code == "no_project"
    assert "DRAMATIS_PROJECT_ROOT" in (refused.value.hint or "")


@pytest.mark.parametrize("folder", ["..", "../x", "a/../../x", "/x", ".", r"a\..\..\x"])
def test_a_setting_cannot_put_the_standards_outside_the_project(folder: str):
    with pytest.raises(ValidationError, match="must be a folder below the project's root"):
        Settings(standards_root=folder)


@pytest.mark.parametrize("link", [".agent-os/standards", ".agent-os"])
async def test_standards_that_a_link_takes_out_of_the_project_are_refused(
    app: App, project: Project, tmp_path: Path, link: str
):
    outside = made(tmp_path / "outside" / "standards" / "testing")
    (outside / "secret.md").write_text("# Secret\n\nOf somebody else.\n")
    (project.place.root / link).parent.mkdir(exist_ok=True)
    (project.place.root / link).symlink_to(tmp_path / "outside", target_is_directory=True)

    for verb in (
        lambda: index_standards(app, agent_of(app)),
        lambda: search_standards(app, agent_of(app), "secret"),
        lambda: proposed(app, agent_of(app)),
        lambda: using(app, agent_of(app), list_proposals),
    ):
        with pytest.raises(StandardsOutside) as refused:
            await verb()
        assert refused.value.code == "standards_outside_project"

    assert await count_projects(app) == 0


async def test_standards_behind_a_link_within_the_project_are_indexed(app: App, project: Project):
    docs = made(project.place.root / "docs" / "testing")
    (docs / "retries.md").write_text(RETRIES)
    project.place.standards.parent.mkdir()
    project.place.standards.symlink_to(docs.parent, target_is_directory=True)

    report = await index_standards(app, agent_of(app))

    assert report.changed == [".agent-os/standards/testing/retries.md"]


async def test_standards_behind_a_link_to_itself_are_refused(app: App, project: Project):
    project.place.standards.parent.mkdir()
    project.place.standards.symlink_to("standards")

    with pytest.raises(StandardsOutside):
        the_place(app)


async def test_two_repositories_on_one_database_never_mix(app: App, tmp_path: Path):
    ours, theirs = Project(tmp_path / "ours"), Project(tmp_path / "theirs")
    ours.write("testing/flaky-tests.md", "# Flaky tests\n\nOurs: pass the clock in.\n")
    theirs.write("testing/flaky-tests.md", "# Flaky tests\n\nTheirs: stop the clock.\n")
    theirs.write("testing/retries.md", RETRIES)
    here, there = at(app, ours.place.root), at(app, theirs.place.root)

    reports = [await index_standards(one, agent_of(one)) for one in (here, there)]
    proposal = await proposed(here, agent_of(here), topic="clocks")

    assert [report.passages for report in reports] == [1, 2]
    assert await found(here, "clock") == ["Ours: pass the clock in."]
    assert await found(there, "clock") == ["Theirs: stop the clock."]
    assert await found(here, "idempotent") == []
    assert (await topics(here), await topics(there)) == (
        ["flaky-tests"],
        ["flaky-tests", "retries"],
    )
    listed = [(await using(one, agent_of(one), list_proposals)).proposals for one in (here, there)]
    assert [[one.id for one in page] for page in listed] == [[proposal.id], []]
    with pytest.raises(ProposalNotFound):
        await using(there, agent_of(there), lambda work: get_proposal(work, proposal.id))


async def test_removing_the_files_of_one_repository_leaves_the_other_alone(
    app: App, tmp_path: Path
):
    ours, theirs = Project(tmp_path / "ours"), Project(tmp_path / "theirs")
    here, there = at(app, ours.place.root), at(app, theirs.place.root)
    for project, one in ((ours, here), (theirs, there)):
        project.write("testing/retries.md", RETRIES)
        await index_standards(one, agent_of(one))

    (ours.place.standards / "testing" / "retries.md").unlink()
    report = await index_standards(here, agent_of(here))

    assert report.removed == [".agent-os/standards/testing/retries.md"]
    assert (await found(here, "jitter"), len(await found(there, "jitter"))) == ([], 1)


async def test_a_repository_is_the_same_one_through_a_link(
    app: App, project: Project, tmp_path: Path
):
    project.write("testing/retries.md", RETRIES)
    link = tmp_path / "link"
    link.symlink_to(project.place.root, target_is_directory=True)
    straight = find_place(Settings(), host="", folder=project.place.root)
    around = find_place(Settings(project_root=link), host="", folder=tmp_path)

    await index_standards(but(app, place=straight), agent_of(app))
    again = await index_standards(but(app, place=around), agent_of(app))

    assert straight == around == find_place(Settings(), host="", folder=link)
    assert dict(again) == IsPartialDict(files=1, changed=[])
    assert await count_projects(app) == 1


async def test_the_same_path_on_another_host_is_another_project(app: App, project: Project):
    project.write("testing/retries.md", RETRIES)
    one, other = (at(app, project.place.root, host) for host in ("build-7", "build-8"))

    await index_standards(one, agent_of(one))
    before = await topics(other)
    report = await index_standards(other, agent_of(other))

    assert (before, report.changed) == ([], [".agent-os/standards/testing/retries.md"])
    assert await count_projects(app) == 2


def test_a_setting_that_links_to_itself_is_refused(tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(link)

    with pytest.raises(ValidationError, match="must be a folder that there is"):
        Settings(project_root=link)
