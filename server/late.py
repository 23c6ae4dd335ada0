"""Modules that are imported when they are first called.

The rooms stand on SQLAlchemy, whose import takes half as long as all of the MCP SDK's; the
server answers `initialize`, and a command prints its help, before paying for that.
"""

from importlib import import_module
from typing import Any


class Late:
    """Stands for a module until one of its functions is wanted."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)
