"""Failures a caller can act on. Anything else is a bug and keeps its traceback."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

MOST_PROBLEMS = 10
NAME_SHOWN = 80


class DramatisError(Exception):
    """Base of every expected failure.

    `code` is part of the public contract; the message may change. `hint` tells the caller,
    often a model, what to try next. Neither holds SQL, connection strings or absolute paths.
    """

    code: ClassVar[str]

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.hint}" if self.hint else message


class NotFound(DramatisError):
    """What was asked for does not exist, or not for this caller."""


class Conflict(DramatisError):
    """The request clashes with what is already there."""


class Invalid(DramatisError):
    """The values cannot be accepted as they are."""

    code = "invalid"


class Forbidden(DramatisError):
    """The caller may not do this."""

    code = "forbidden"


class Unavailable(DramatisError):
    """Something outside us is down; the same call may work later."""


class AssetsFailed(DramatisError):
    """Files of a persona could not be written; its row is there. Repairing is always safe."""

    code = "assets_failed"


def parse(shape: type[M], **values: Any) -> M:
    """Build `shape`, which carries the rules for `values`.

    Raises:
        Invalid: every field that breaks a rule, with the rule.
    """
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        raise refused(error) from None


def refused(error: ValidationError, known: Sequence[str] = ()) -> Invalid:
    """Say in a sentence per field what a validation refused.

    The rejected values are not repeated: they may be long, or secret.

    Args:
        known: the fields there are, for whoever gave one that there is not.
    """
    problems = error.errors(include_url=False, include_input=False)
    sentences: list[str] = []
    for problem in problems[:MOST_PROBLEMS]:
        field = ".".join(_brief(str(part)) for part in problem["loc"])
        rule = _rule(problem["type"], problem["msg"])
        sentences.append(f"{field}: {rule}." if field else f"{rule[0].upper()}{rule[1:]}.")
    if len(problems) > MOST_PROBLEMS:
        sentences.append(f"And {len(problems) - MOST_PROBLEMS} more.")
    unknown = any(problem["type"] == "extra_forbidden" for problem in problems)
    hint = f"Known: {', '.join(known)}." if unknown and known else None
    return Invalid(" ".join(sentences), hint=hint)


def _brief(name: str) -> str:
    """Keep the name of an unknown field, which may be any text, from filling the sentence."""
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"


def _rule(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not known here"
        case "string_too_short":
            return "must not be empty or blank"
        case "string_type":
            return "must be text"
        case "list_type":
            return "must be a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping"
        case "string_unicode":
            return "must be valid Unicode text"
        case _:
            message = message.removeprefix("Value error, ")
            message = message.partition(" after validation")[0]
            return re.sub(r"^(String|Input|List|Tuple|Dictionary) should", "must", message)
