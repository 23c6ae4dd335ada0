"""Asset directories: what the templates seed and people and agents then edit.

Everything here blocks on the file system: call it in a worker thread.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment

from server.errors import Conflict
from server.personas.shapes import FILE_BYTES, AssetFile, AssetState
from server.rendering import render

SKILL = "skill.md"
EXPERIENCE = "experience.md"
FILES = (SKILL, EXPERIENCE)

SKILL_TEMPLATES = {"standard": "assets/skill.md", "detailed": "assets/skill-detailed.md"}


class FileNotText(Conflict):
    code = "file_not_text"


class FileNotReadable(Conflict):
    code = "file_not_readable"


class FileTooLarge(Conflict):
    code = "file_too_large"


def directory(data_root: Path, slug: str) -> Path:
    return data_root / "personas" / slug


def state(folder: Path) -> AssetState:
    try:
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return AssetState(directory=False, skill=False, experience=False)
    return AssetState(directory=True, skill=SKILL in files, experience=EXPERIENCE in files)


def seed(
    templates: Environment, folder: Path, *, name: str, role: str, skill_template: str
) -> list[str]:
    """Write the files that are missing; an existing one is never touched.

    Returns:
        The names of the files this call made.

    Raises:
        OSError: some file could not be written; the others may have been.
        TemplateBroken: a template of the operator's is; nothing was written.
    """
    sources = {SKILL: SKILL_TEMPLATES[skill_template], EXPERIENCE: "assets/experience.md"}
    rendered = {
        file: render(templates, source, name=name, role=role)
        for file, source in sources.items()
        if not (folder / file).exists()
    }
    _make(folder)
    return [file for file, text in rendered.items() if _place(folder / file, text, os.link)]


def read(folder: Path, file: str) -> AssetFile:
    """Read a file as it is.

    Raises:
        FileNotText: it is not UTF-8 text.
        FileNotReadable: the file system refuses.
        FileTooLarge: somebody made it larger than a tool may write.
    """
    path = folder / file
    try:
        raw, status = _read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return AssetFile(exists=False, path=str(path))
    except OSError as error:
        raise FileNotReadable(
            f"{file} of {folder.name} cannot be read: {reason(error)}.",
            hint="Check its permissions, and that it is a file.",
        ) from error
    if status.st_size > FILE_BYTES:
        raise FileTooLarge(
            f"{file} of {folder.name} is {status.st_size:,} bytes; the limit is {FILE_BYTES:,}.",
            hint="Shorten it in an editor.",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise FileNotText(
            f"{file} of {folder.name} is not UTF-8 text.", hint="Save it as UTF-8 in an editor."
        )
    return AssetFile(
        exists=True,
        path=str(path),
        content=text,
        sha256=sha256(text),
        size_bytes=len(raw),
        last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def create(folder: Path, file: str, text: str) -> bool:
    """Make a file whole, unless something is there already, which then stays.

    Raises:
        OSError: nothing was made.
    """
    _make(folder)
    return _place(folder / file, text, _link_durably)


def replace(folder: Path, file: str, text: str) -> datetime:
    """Put a new text in the place of whatever is there: readers see the old or the new, whole.

    Returns:
        When the file was last modified, which is now.

    Raises:
        OSError: nothing was changed.
    """
    _make(folder)
    _place(folder / file, text, _replace_durably)
    return datetime.fromtimestamp((folder / file).stat().st_mtime, UTC)


def reason(error: OSError) -> str:
    """Say why the file system refused, without the path that the error names."""
    return (error.strerror or "the disk refused").lower()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_regular(path: Path) -> tuple[bytes, os.stat_result]:
    """Read at most the limit and one byte more; a pipe or a device would never end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(FILE_BYTES + 1), status


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        # Following it would write outside the data root.
        raise NotADirectoryError(20, "is a symbolic link")


def _place(path: Path, text: str, into_place: Callable[[Path, Path], None]) -> bool:
    """Write beside `path`, then move into place. False when a file was made there meanwhile."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
        into_place(beside, path)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def _link_durably(beside: Path, path: Path) -> None:
    _sync(beside)
    os.link(beside, path)


def _replace_durably(beside: Path, path: Path) -> None:
    """Rename over what people wrote only when the new text has reached the disk."""
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)
    _sync(beside)
    beside.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
