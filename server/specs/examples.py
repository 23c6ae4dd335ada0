"""Specs to begin with, shipped beside the templates."""

from pathlib import Path

from db.shipped import shipped
from server.errors import NotFound


class ExampleNotFound(NotFound):
    code = "example_not_found"


def example_names() -> list[str]:
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def example_text(name: str) -> str:
    """Read an example.

    Raises:
        ExampleNotFound: none has this name.
    """
    if name not in example_names():
        raise ExampleNotFound(
            f"No example is called {name!r}.", hint=f"Known: {', '.join(example_names())}."
        )
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Path:
    return shipped("server", "templates") / "specs"
