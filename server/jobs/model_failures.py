"""What went wrong with a model, in our words."""

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import cast

from pydantic_ai import exceptions as said

from server.jobs.running import (
    BudgetSpent,
    RunFailed,
    RunThrottled,
    RunTimedOut,
    without_places,
)
from server.standards.secrets import find_secrets

_log = logging.getLogger(__name__)

QUOTED = 200


@contextmanager
def in_our_words(key: str | None) -> Generator[None]:
    """Say what an error of the model library means for the run.

    Args:
        key: kept out of the sentence.

    Raises:
        RunFailed: or one of its kind, instead of the library's.
    """
    try:
        yield
    except said.AgentRunError as error:
        raise _failure(error, key) from error


@contextmanager
def readable() -> Generator[None]:
    """Blame who sent it for an answer that the model library stumbles over.

    Raises:
        RunFailed: instead of the library's error, which is logged.
    """
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        _log.warning("the model library cannot read an answer", exc_info=error)
        raise RunFailed("What the model server sent is no answer that can be read.") from error


def _failure(error: said.AgentRunError, key: str | None) -> RunFailed:
    match error:
        case said.ModelAPIError():
            return _provider_failure(error, _quoted(error, key))
        case said.UsageLimitExceeded():
            return BudgetSpent("The model asked again and again, and came to no answer.")
        case said.ContentFilterError():
            return RunFailed("The model refused to answer.")
        case said.OutputTokenLimitExceeded():
            return RunFailed(
                "The limit of output tokens, of the model or of the run, came before an answer."
            )
        case _:
            # Further sentences of the library tell programmers what to change.
            reason = _short(error.message.partition(". ")[0], key)
            return RunFailed(f"The model gave no usable answer: {reason}.")


def _provider_failure(error: said.ModelAPIError, quoted: str) -> RunFailed:
    match error:
        case said.ModelRateLimitError():
            return RunThrottled(
                f"The model provider asks to slow down{quoted}.", after_s=error.retry_after
            )
        case said.ModelUnavailableError():
            return RunThrottled(f"The model is overloaded{quoted}.", after_s=error.retry_after)
        case said.ModelQuotaExceededError():
            return RunFailed(f"The account at the model provider is used up{quoted}.")
        case said.ModelAuthenticationError():
            # What providers say to this repeats parts of the key.
            return RunFailed(
                "The model provider refused the key.",
                hint="Check DRAMATIS_MODEL_KEY or the provider's variable where the worker runs.",
            )
        case said.ModelNotFoundError():
            return RunFailed(
                f"The model provider does not know the model{quoted}.",
                hint="Check DRAMATIS_MODEL and DRAMATIS_MODEL_URL.",
            )
        case said.ModelContextWindowExceededError():
            return RunFailed(
                "The task and what was read for it are too long for the model.",
                hint="Give less context, or a model with a larger window.",
            )
        case said.ModelConnectionError() | said.ModelRequestTimeout():
            return _lost(error)
        case said.ModelHTTPError():
            return RunFailed(f"The model provider answered {error.status_code}{quoted}.")
        case _:
            return RunFailed(f"What the model server sent is no whole answer{quoted}.")


def _lost(error: said.ModelConnectionError | said.ModelRequestTimeout) -> RunFailed:
    if isinstance(error, said.ModelConnectionError) and error.phase in ("connect", "pool"):
        return RunFailed(
            "The model server does not answer.", hint="Check DRAMATIS_MODEL_URL, and that it runs."
        )
    if isinstance(error, said.ModelRequestTimeout | said.ModelTimeoutError):
        return RunTimedOut("The model took too long to answer.")
    return RunFailed("The model server closed the connection before the answer was complete.")


def _quoted(error: said.ModelAPIError, key: str | None) -> str:
    text = _short(_message(error), key)
    return f": {text}" if text else ""


def _message(error: said.ModelAPIError) -> str:
    """Find the provider's own sentence; the library's names the status and the whole body."""
    body = error.body
    while isinstance(body, Mapping):
        fields = cast("Mapping[str, object]", body)
        body = fields.get("message") or fields.get("error")
    if isinstance(body, str):
        return body
    return "" if isinstance(error, said.ModelHTTPError) else error.message


def _short(text: str, key: str | None) -> str:
    """Put it on one line, without the key, addresses and folders."""
    if key:
        text = text.replace(key, "…")
    line = " ".join(without_places(text).split())
    if find_secrets(line):
        return "it repeats a secret, so it is not shown"
    line = line.rstrip(".")
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"
