"""Which project is meant: its standards, proposals and index never mix with another's."""

import os
from pathlib import Path

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from db.tables import ProjectRow
from server.errors import Conflict, NotFound
from server.settings import Settings, client_project, is_everything
from server.standards.folder import stays_inside
from server.work import App, Place, Work

MARKS = (".git", ".agent-os")


class NoProject(NotFound):
    code = "no_project"


class StandardsOutside(Conflict):
    code = "standards_outside_project"


def find_place(settings: Settings, *, host: str, folder: Path | None = None) -> Place | None:
    """Find the project: the setting's, else the client's, else the one that `folder` is in.

    A home directory and `/` are never one, whatever lies in them, and nor is a folder whose path is
    not UTF-8, which no database keeps.

    Args:
        folder: where we were started, if left out.
    """
    root = settings.project_root or client_project() or _marked(folder)
    if root is None:
        return None
    try:
        root = root.resolve(strict=True)
        str(root).encode()
    except (OSError, RuntimeError, UnicodeEncodeError):
        # A runtime error is what Python before 3.13 calls links that lead in a circle.
        return None
    if is_everything(root) or not root.is_dir():
        return None
    return Place(host, root, root / settings.standards_root, settings.standards_library)


def the_place(app: App) -> Place:
    """Return where the project's standards are.

    Raises:
        NoProject: this was not started in a project.
        StandardsOutside: the folder of standards is a link that leads out of the project.
    """
    return checked(app.place)


def checked(place: Place | None) -> Place:
    """Return the place, if standards may be read and written there.

    Raises:
        NoProject, StandardsOutside: see `the_place`.
    """
    if place is None:
        raise NoProject(
            "There is no project here, so there are no standards.",
            hint="Start in a folder with .git or .agent-os in it or above it, or name the project"
            " with DRAMATIS_PROJECT_ROOT. The home directory and / are no projects.",
        )
    if not stays_inside(place.standards, place.root):
        raise StandardsOutside(
            "The folder of standards leads out of the project by a symbolic link.",
            hint="Make it a folder of the project, or set DRAMATIS_STANDARDS_ROOT to another one.",
        )
    return place


async def find_project(work: Work) -> ProjectRow | None:
    """Find the row of the project; one that was never indexed and never proposed to has none."""
    place = the_place(work.app)
    return await work.session.scalar(_SELECT, {"host": place.host, "root": str(place.root)})


async def the_project(work: Work) -> ProjectRow:
    """Find or make the row of the project. In a race the loser's insert does nothing."""
    row = await find_project(work)
    if row is not None:
        return row
    place = the_place(work.app)
    values = {"host": place.host, "root": str(place.root)}
    await work.session.execute(_INSERT, values)
    return (await work.session.scalars(_SELECT, values)).one()


def _marked(folder: Path | None) -> Path | None:
    try:
        start = (folder or Path.cwd()).resolve()
    except FileNotFoundError:
        # Somebody removed the folder that we were started in.
        return None
    for candidate in (start, *start.parents):
        if is_everything(candidate):
            return None
        # `Path.exists` raises where a folder above is closed to us.
        if any(os.access(candidate / mark, os.F_OK) for mark in MARKS):
            return candidate
    return None


_SELECT = select(ProjectRow).where(
    ProjectRow.host == bindparam("host"), ProjectRow.root == bindparam("root")
)
_INSERT = insert(ProjectRow).on_conflict_do_nothing(index_elements=["tenant_id", "host", "root"])
