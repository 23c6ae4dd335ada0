"""What to say to a line that is no message."""

import json
from dataclasses import dataclass

from mcp.shared.dispatcher import as_request_id
from mcp.types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    RequestId,
)
from pydantic import JsonValue, ValidationError


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong with a line.

    Attributes:
        message: an error, for whoever waits for an answer.
        answers_us: whether that is us, because the line was to answer a request of ours.
    """

    message: JSONRPCError
    answers_us: bool


def refused(error: ValidationError) -> Refusal | None:
    """Say what is wrong; `None` for an empty line, which is nothing to answer."""
    first = error.errors()[0]
    if first["type"] != "json_invalid":
        missing = (one["input"] for one in error.errors() if one["type"] == "missing")
        return _refusal(next(missing, None), INVALID_REQUEST, "This is no message of JSON-RPC 2.0.")
    if not first["input"].strip():
        return None
    why = f"This cannot be read as JSON: {first['msg'].removeprefix('Invalid JSON: ')}."
    try:
        # This takes more than the SDK's parser does, and so often finds out whose answer it is.
        sent = json.loads(first["input"])
    except (ValueError, RecursionError):
        return _refusal(None, PARSE_ERROR, why)
    if "hex escape" in why:
        why = "The message must be valid Unicode text: it has half of a surrogate pair."
    return _refusal(sent, INVALID_PARAMS, why)


def _refusal(sent: JsonValue, code: int, why: str) -> Refusal:
    fields = sent if isinstance(sent, dict) else {}
    error = ErrorData(code=code, message=f"invalid: {why}")
    return Refusal(
        JSONRPCError(jsonrpc="2.0", id=_id(fields.get("id")), error=error),
        answers_us="method" not in fields and ("result" in fields or "error" in fields),
    )


def _id(given: JsonValue) -> RequestId | None:
    number = as_request_id(given)
    try:
        str(number).encode()
    except UnicodeEncodeError:
        return None
    return number
