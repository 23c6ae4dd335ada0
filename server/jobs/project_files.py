"""What a running persona may read of a project: text below its root, and none of its secrets.

Everything here blocks on the file system: call it in a worker thread. Folders are opened one
within the other, so that nothing can be exchanged between a check and what was checked. Symbolic
links are never followed, not even to a neighbour: where one leads can change at any time.

The rules of ignore files hold for files that Git keeps, too. Rules outside the root are not known:
those of folders above, of a user for all projects, and of a worktree's repository.
"""

import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from errno import ELOOP, ENOENT, ENOTDIR
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from time import monotonic

from server.errors import Forbidden, Invalid, NotFound
from server.jobs.file_text import FileText, lines_between, secret_lines
from server.jobs.ignore_rules import Rule, path_pattern, refusal, rules_of
from server.markdown import may_stand_bare
from server.personas.shapes import Shape, one_line

READS = 200
FILE_BYTES = 2_000_000
LISTED = 500
WALKED = 20_000
DEEPEST = 50
PATH_LENGTH = 4096
# Names near to one that is not there are looked for among so many.
COMPARED = 1_000
# More rules than people write.
RULES_BYTES = 64_000
RULES = 4_000
# Many rules and many names together can still take longer than anybody waits.
WALK_S = 5


class OutsideProject(Forbidden):
    code = "outside_project"


class FileNotFound(NotFound):
    code = "file_not_found"


class FileRefused(Forbidden):
    code = "file_refused"


class ReadingLimit(Forbidden):
    code = "reading_limit"


class ProjectFile(Shape):
    path: str
    size_bytes: int


class FileListing(Shape):
    """Files of a folder and of those below it, in the order of their paths.

    Attributes:
        more: how many were found beyond those that are listed.
        complete: false where there was too much to look through, so that more may be missing.
    """

    files: tuple[ProjectFile, ...]
    more: int
    complete: bool


class ProjectFiles:
    """The files of one project, for one run; calls in several threads may overlap.

    Args:
        root: absolute and resolved.
        walk_s: how long a listing may look for files.
    """

    def __init__(self, root: Path, *, walk_s: float = WALK_S) -> None:
        self._root = root
        self._walk_s = walk_s
        self._reads = count(1)
        # A long file is read page by page.
        self._secret_lines = lru_cache(maxsize=1)(secret_lines)

    def list_files(self, folder: str = "", pattern: str | None = None) -> FileListing:
        """List what can be read, at most 500 files, after a look at 20,000 names or 5 seconds.

        Args:
            folder: relative to the project's, with slashes; empty for all of the project.
            pattern: as in a `.gitignore`, relative to `folder`: `*.py`, `tests/**/test_*`.

        Raises:
            OutsideProject, FileNotFound, FileRefused: by the folder.
            Invalid: by the pattern.
        """
        wanted = path_pattern(pattern or "*")
        if wanted is None:
            raise Invalid(
                "No files can be found by this pattern.",
                hint="Write it as in a .gitignore: `*.py`, `tests/**/test_*`.",
            )
        walk = _Walk(monotonic() + self._walk_s)
        with self._opened(_steps(folder)) as opened:
            start = len(opened.shown(""))
            found = [one for one in walk.files(opened) if wanted.match(one.path[start:])]
        return FileListing(
            files=tuple(found[:LISTED]), more=len(found[LISTED:]), complete=walk.complete
        )

    def read_file(self, path: str, first_line: int = 1, last_line: int | None = None) -> FileText:
        """Read lines of a text file, at most 64 KB of them; lines with secrets are withheld.

        Args:
            path: relative to the project's folder, with slashes.
            last_line: the last one wanted; the end of the file by default, or when it is beyond.

        Raises:
            OutsideProject, FileNotFound, FileRefused: by the path.
            ReadingLimit: after 200 calls, of which those that failed are some.
        """
        if next(self._reads) > READS:
            raise ReadingLimit(
                f"This run has read {READS} files, which is the limit.",
                hint="Answer with what you have read.",
            )
        steps = _steps(path)
        if not steps:
            raise FileRefused("The project itself is a folder.", hint="List it instead.")
        with self._opened(steps[:-1]) as folder:
            folder.find(steps[-1], folder=False)
            shown = folder.shown(steps[-1])
            content = folder.content(steps[-1])
        text = _text(content, shown)
        withheld = self._secret_lines(text)
        return lines_between(shown, text, len(content), withheld, first_line, last_line)

    @contextmanager
    def _opened(self, steps: Sequence[str]) -> Generator["_Folder"]:
        with ExitStack() as stack:
            try:
                fd = os.open(self._root, _SAFELY | os.O_DIRECTORY)
            except OSError as error:
                raise FileNotFound("The project's folder cannot be opened here.") from error
            stack.callback(os.close, fd)
            folder = _Folder(fd, "", (*_excluded(fd), *_rules(fd, ".gitignore", "")))
            for step in steps:
                folder.find(step, folder=True)
                folder = stack.enter_context(folder.below(step))
            yield folder


def _steps(path: str) -> list[str]:
    if not _is_shown(path or "."):
        raise FileRefused(
            "A path must be one line of visible text.", hint="Files with other names stay closed."
        )
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if path.startswith("/") or "\\" in path or ".." in steps:
        raise OutsideProject(
            "Only files of the project can be read.",
            hint="Give a path relative to the project's folder, with slashes and without `..`.",
        )
    if len(steps) > DEEPEST or len(path) > PATH_LENGTH:
        raise FileRefused("This path is too long.", hint=f"At most {DEEPEST} folders deep.")
    return steps


def _is_shown(name: str) -> bool:
    try:
        return bool(one_line(name).encode())
    except ValueError:
        return False


# Without waiting for whoever writes to a pipe.
_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class _Folder:
    """An open folder of the project, and all rules that hold in it, the strongest last."""

    fd: int
    path: str
    rules: Sequence[Rule]

    def __post_init__(self) -> None:
        if len(self.rules) > RULES:
            raise FileRefused(
                f"{self.path or 'The project'} has more than {RULES:,} ignore rules.",
                hint="It stays closed.",
            )

    def shown(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    @contextmanager
    def below(self, name: str) -> Generator["_Folder"]:
        path = self.shown(name)
        with self._open(name, os.O_DIRECTORY) as fd:
            yield _Folder(fd, path, (*self.rules, *_rules(fd, ".gitignore", path)))

    def content(self, name: str) -> bytes:
        with self._open(name) as fd:
            return _content(fd, self.shown(name), FILE_BYTES)

    def find(self, name: str, *, folder: bool) -> None:
        """Refuse a name that has to stay closed, or that is not there in just this spelling.

        Some file systems take other spellings too, which ignore rules do not know.
        """
        shown = self.shown(name)
        if reason := refusal(shown, self.rules, folder=folder):
            raise FileRefused(f"{shown} {reason}.", hint="Go on without it.")
        if all(entry.name != name for entry in self.entries()):
            entries = self.entries(COMPARED)
            names = [one.name for one in entries if may_stand_bare(one.name) and self.opens(one)]
            near = ", ".join(map(self.shown, get_close_matches(name, names)))
            hint = f"Near to it: {near}." if near else "List the files to see what there is."
            raise FileNotFound(f"There is no {shown}.", hint=hint)

    @contextmanager
    def _open(self, name: str, flags: int = 0) -> Generator[int]:
        shown = self.shown(name)
        try:
            fd = os.open(name, _SAFELY | flags, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (ELOOP, ENOTDIR):
                what = "a symbolic link, or no folder" if flags else "a symbolic link"
                raise FileRefused(f"{shown} is {what}.", hint="Links are not followed.") from None
            raise FileRefused(f"{shown} cannot be opened.", hint="Go on without it.") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def entries(self, most: int | None = None) -> list[os.DirEntry[str]]:
        """List at most so many names, in no order."""
        with os.scandir(self.fd) as found:
            return [*islice(found, most)]

    def opens(self, entry: os.DirEntry[str]) -> bool:
        folder = _is_folder(entry)
        return (
            (folder or entry.is_file(follow_symlinks=False))
            and "\\" not in entry.name
            and _is_shown(entry.name)
            and refusal(self.shown(entry.name), self.rules, folder=folder) is None
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _content(fd: int, shown: str, most: int) -> bytes:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise FileRefused(f"{shown} is a folder.", hint="List it instead.")
    if not stat.S_ISREG(mode):
        raise FileRefused(f"{shown} is no regular file.", hint="Go on without it.")
    with os.fdopen(fd, "rb", closefd=False) as file:
        # It may grow meanwhile, so what it says of its size is not asked.
        content = file.read(most + 1)
    if len(content) > most:
        raise FileRefused(f"{shown} is larger than {most:,} bytes.", hint="Go on without it.")
    return content


def _text(content: bytes, shown: str) -> str:
    with suppress(UnicodeDecodeError):
        text = content.decode("utf-8-sig")
        if "\0" not in text:
            return text
    raise FileRefused(f"{shown} is not UTF-8 text.", hint="Go on without it.")


@dataclass(slots=True)
class _Walk:
    until: float
    left: int = WALKED
    complete: bool = True

    def files(self, folder: _Folder) -> Iterator[ProjectFile]:
        entries = folder.entries(self.left + 1)
        if len(entries) > self.left:
            self.complete = False
            del entries[self.left :]
        self.left -= len(entries)
        # So that the files of a folder come where their paths do.
        for entry in sorted(entries, key=lambda one: one.name + "/" * _is_folder(one)):
            if monotonic() >= self.until:
                self.complete = False
                return
            # Whatever has gone or has been closed since is left out.
            with suppress(OSError, FileNotFound, FileRefused):
                if not folder.opens(entry):
                    continue
                if _is_folder(entry):
                    yield from self._below(folder, entry.name)
                else:
                    size = entry.stat(follow_symlinks=False).st_size
                    yield ProjectFile(path=folder.shown(entry.name), size_bytes=size)

    def _below(self, folder: _Folder, name: str) -> Iterator[ProjectFile]:
        # The files in it would be one deeper.
        if folder.shown(name).count("/") + 1 == DEEPEST:
            self.complete = False
            return
        with folder.below(name) as below:
            yield from self.files(below)


def _excluded(root: int) -> list[Rule]:
    """Read the rules that a clone keeps to itself. They weigh less than all others."""
    with ExitStack() as stack, suppress(OSError):
        fd = root
        for name in (".git", "info"):
            fd = os.open(name, _SAFELY | os.O_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
        return _rules(fd, "exclude", "")
    return []


def _rules(fd: int, name: str, path: str) -> list[Rule]:
    """Read an ignore file of a folder. Git does not follow a link there either.

    Raises:
        FileRefused: what it says cannot be known, so the folder has to stay closed.
    """
    shown = f"{path}/{name}" if path else name
    try:
        file = os.open(name, _SAFELY, dir_fd=fd)
    except OSError as error:
        if error.errno in (ENOENT, ELOOP):
            return []
        raise FileRefused(f"{shown} cannot be opened.", hint="Its folder stays closed.") from error
    try:
        text = _content(file, shown, RULES_BYTES).decode("utf-8-sig", "surrogateescape")
    finally:
        os.close(file)
    return rules_of(text, path)
