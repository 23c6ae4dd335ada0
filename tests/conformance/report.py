"""One line per check, the output of what failed, and the sum at the end."""

from textwrap import indent


class CannotCheck(Exception):
    """A part of the checks could not begin; the message says why."""


class Report:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, sentence: str, problem: str | None = None) -> None:
        """Count one check. A problem is the output to show; `None` when it held."""
        if problem is None:
            self.passed += 1
            print(f"ok    {sentence}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL  {sentence}\n{indent(problem.strip(), '      ')}", flush=True)

    def close(self) -> int:
        """Print the sum and answer the exit code."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0
