"""The files of standards on the disk.

Everything here blocks on the file system: call it in a worker thread. Nothing a caller names is
ever made a path as it is: files are found by comparing names with those there are.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from server.errors import Conflict, DramatisError
from server.personas import assets
from server.personas.shapes import AssetFile, one_line
from server.standards.shapes import Layer, folded
from server.work import Place

SUFFIX = ".md"
# Files that lie in no domain's folder.
NO_DOMAIN = "general"


class StandardChanged(Conflict):
    code = "standard_changed"


class StandardLinked(Conflict):
    code = "standard_linked"


@dataclass(frozen=True, slots=True)
class StandardFile:
    """A file of standards.

    Attributes:
        path: relative to the folder of its layer, with slashes.
        shown: what people and agents are told: relative to the project, or to the library.
    """

    layer: Layer
    path: str
    shown: str
    file: Path

    @property
    def domain(self) -> str:
        parts = PurePosixPath(self.path).parts
        return parts[0] if len(parts) > 1 else NO_DOMAIN

    @property
    def topic(self) -> str:
        below = self.path.partition("/")[2] or self.path
        return below.removesuffix(SUFFIX)

    @property
    def key(self) -> str:
        return f"{folded(self.domain)}/{folded(self.topic)}"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, or why that cannot be known. `text` is empty where there is a problem."""

    text: str
    sha256: str
    size_bytes: int
    modified_at: datetime
    problem: str | None


def find_files(place: Place) -> list[StandardFile]:
    """List the files of standards, those of the project first. Hidden ones are none."""
    found = [*_below(place.standards, "project", _shown(place))]
    if place.library is not None:
        found += _below(place.library / "universal", "universal", "universal")
        found += _below(place.library / "languages", "language", "languages")
    return found


def file_at(place: Place, layer: str, path: str) -> StandardFile:
    """Return the file of an indexed path, whether it is there or not."""
    if layer == "project":
        return StandardFile("project", path, f"{_shown(place)}/{path}", place.standards / path)
    library = place.library or place.standards
    if layer == "language":
        return StandardFile("language", path, f"languages/{path}", library / "languages" / path)
    return StandardFile("universal", path, f"universal/{path}", library / "universal" / path)


def named(place: Place, domain: str, topic: str) -> StandardFile:
    """Return the project's file of a domain and topic, in whatever spelling it is there.

    A new one gets the spelling of its domain's folder, if there is such a folder already.
    """
    key = f"{folded(domain)}/{folded(topic)}"
    files = [*_below(place.standards, "project", _shown(place))]
    for file in files:
        if file.key == key:
            return file
    folders = sorted(_folders(place.standards))
    folder = next((name for name in folders if folded(name) == folded(domain)), domain)
    return file_at(place, "project", f"{folder}/{topic}{SUFFIX}")


def read(file: StandardFile) -> Content | None:
    """Read a file; `None` when it is not there (any more)."""
    try:
        found = assets.read(file.file.parent, file.file.name)
    except DramatisError as error:
        return _unreadable(file, str(error.args[0]))
    return _content(found) if found.exists else None


def write(file: StandardFile, place: Place, text: str, base_sha256: str | None) -> None:
    """Put an approved text into its place, whole. Writing what is there already changes nothing.

    Args:
        base_sha256: of the text it takes the place of; without one there must be no file.

    Raises:
        StandardChanged: the file is another than when it was approved; it stays as it is.
        StandardLinked: its folder leads out of the standards by a symbolic link.
        OSError: the disk refused; what was there still is.
    """
    refuse_outside(file, place)
    now = read(file)
    if now is not None and now.sha256 == assets.sha256(text):
        return
    if (now and now.sha256) != base_sha256:
        raise _changed(file)
    folder, name = file.file.parent, file.file.name
    if base_sha256 is not None:
        assets.replace(folder, name, text)
    elif not assets.create(folder, name, text):
        made = read(file)
        if made is None or made.sha256 != assets.sha256(text):
            raise _changed(file)


def refuse_outside(file: StandardFile, place: Place) -> None:
    """Refuse to write through a symbolic link, wherever it leads: it may lead elsewhere next time.

    Raises:
        StandardLinked: the file, or a folder of it below that of standards, is one.
    """
    below = file.file.relative_to(place.standards)
    steps = [place.standards / step for step in (below, *below.parents[:-1])]
    if any(step.is_symlink() for step in steps):
        raise StandardLinked(
            f"{file.shown} is behind a symbolic link, and nothing is written through one.",
            hint="Replace the link by a folder or a file.",
        )


def stays_inside(path: Path, folder: Path) -> bool:
    """Tell whether a path, there or not, lies in a folder when all symbolic links are followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:
        # What Python before 3.13 calls links that lead in a circle.
        return False


def _changed(file: StandardFile) -> StandardChanged:
    return StandardChanged(
        f"{file.shown} is not what it was when this was decided, so it was left as it is.",
        hint="Propose the change against the file as it is now.",
    )


def _below(folder: Path, layer: Layer, shown: str) -> Iterator[StandardFile]:
    inside = folder.resolve()
    for at, folders, names in os.walk(folder):
        # In place, so that the walk leaves hidden folders out and keeps to one order.
        folders[:] = sorted(name for name in folders if _is_shown(name))
        for name in sorted(names):
            file = Path(at) / name
            if not name.endswith(SUFFIX) or not _is_shown(name):
                continue
            if file.is_symlink() and not _leads_into(inside, file):
                continue
            path = file.relative_to(folder).as_posix()
            yield StandardFile(layer, path, f"{shown}/{path}", file)


def _is_shown(name: str) -> bool:
    """Tell whether a name is not hidden, and one line of visible UTF-8."""
    try:
        return bool(one_line(name).encode()) and not name.startswith(".")
    except ValueError:
        return False


def _leads_into(folder: Path, link: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):
        # To nothing that is there, through a folder that is closed to us, or in a circle.
        return False


def _folders(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _shown(place: Place) -> str:
    return place.standards.relative_to(place.root).as_posix()


def _content(found: AssetFile) -> Content:
    assert found.content is not None
    assert found.sha256 is not None
    assert found.size_bytes is not None
    assert found.last_modified is not None
    return Content(found.content, found.sha256, found.size_bytes, found.last_modified, problem=None)


def _unreadable(file: StandardFile, problem: str) -> Content | None:
    """Tell what little is known of a file that cannot be read; its hash stands for the reason."""
    try:
        status = file.file.stat()
    except OSError:
        return None
    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
    return Content(
        "", assets.sha256(f"{problem}\0{status.st_mtime_ns}"), status.st_size, modified_at, problem
    )
