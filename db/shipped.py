"""Find the folders that sit beside the packages in a checkout and inside them in a wheel."""

from importlib.resources import files
from pathlib import Path


def shipped(package: str, folder: str) -> Path:
    """Return the directory `folder` that ships with `package`.

    A wheel carries it as `<package>/_shipped/<folder>` (`force-include` in pyproject.toml); a
    checkout keeps it at the repository root, where people edit it.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    home = Path(str(files(package)))
    for candidate in (home / "_shipped" / folder, home.parent / folder):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"The installation of {package!r} lacks its folder {folder!r}.")
