"""The model of a job, the key it is asked with, and what it costs."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

from opentelemetry.trace import TracerProvider
from pydantic import SecretStr
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from server.jobs.running import PriceUnknown, RunFailed, RunJob, RunnerMissing

# Clients refuse to go without a key; servers that want none ignore it.
NO_KEY = "none"
MILLION = 1_000_000
PLAIN_HEADERS = {"Accept", "Content-Type", "User-Agent"}
NAMED = (
    "DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server of"
    " DRAMATIS_MODEL_URL."
)

_SENTENCE_END = re.compile(r"[.:] (?=[A-Z])|\n")
_PATH = re.compile(r"(?<![\w:/])/[^\s`]+")

Price = Callable[[RequestUsage], float | None]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a worker knows about models.

    Attributes:
        model: the worker's own, as in `RunJob.model`; key and price are those of this one.
        key: asked for at every run, so that a key in a file can be replaced.
        price: USD per million tokens, in and out; `None` leaves it to the table of prices.
        silence_s: how long a model may say nothing.
        tracers: makes spans of model calls, which hold nothing of what was said.
    """

    model: str | None = None
    url: str | None = None
    key: Callable[[], SecretStr | None] = field(default=lambda: None, repr=False)
    price: tuple[float, float] | None = None
    silence_s: float = 120
    tracers: TracerProvider | None = None


def model_of(model: str, url: str | None, key: str | None, *, own_url: str | None = None) -> Model:
    """Make a model, which sends nothing yet.

    Args:
        model: as in `RunJob.model`, and `url` as in `RunJob.model_url`.
        key: `None` for the one that the provider's variable holds.
        own_url: the worker's own, where its variables may have headers sent; no other URL gets any.

    Raises:
        RunnerMissing: this worker has no package or no key for the provider.
        RunFailed: there is no such provider.
    """
    if url is not None:
        provider = _compatible(url, key)
        settings = ModelSettings() if url == own_url else _nothing_of_ours(provider)
        return OpenAIChatModel(model, provider=provider, settings=settings)
    # Without a provider, the library would take `test` for a model of its own that makes things up.
    if ":" not in model:
        raise RunFailed(f"The model {model} is of no provider.", hint=NAMED)
    try:
        return infer_model(model, lambda name: _provider(name, key))
    except ImportError as error:
        provider = _provider_of(model)
        raise RunnerMissing(
            f"This worker lacks the package for models of {provider}.",
            hint=f"Install the extra `{provider}` of pydantic-ai-slim beside it.",
        ) from error
    except UserError as error:
        raise _unusable(model, error.message) from error
    except ValueError as error:
        raise RunFailed(
            f"There is no model provider {_provider_of(model)!r}.", hint=NAMED
        ) from error


def key_of(job: RunJob, config: ModelConfig) -> str | None:
    """Give the worker's key to whom it was made for, and to nobody else.

    A job keeps the model of its invocation; the worker that takes it may be set to another one.
    """
    if job.model_url != config.url:
        return None
    if job.model_url is None and _provider_of(job.model) != _provider_of(config.model or ""):
        return None
    key = config.key()
    return key.get_secret_value() if key else None


def price_of(job: RunJob, config: ModelConfig, model: Model) -> Price:
    """Tell what requests to the model cost.

    Raises:
        PriceUnknown: the job limits money, and there is no price.
    """
    if config.price and (job.model, job.model_url) == (config.model, config.url):
        per_input, per_output = config.price
        return lambda used: (
            (used.input_tokens * per_input + used.output_tokens * per_output) / MILLION
        )
    listed = partial(_listed, model, job.model_url)
    if listed(RequestUsage(input_tokens=1, output_tokens=1)) is not None:
        return listed
    if job.usd_limit is not None:
        raise PriceUnknown(
            f"The price of {job.model} is not known, so a limit in USD cannot be kept.",
            hint="Set DRAMATIS_MODEL_PRICE to `input/output` in USD per million tokens.",
        )
    return lambda _: None


def _provider_of(model: str) -> str:
    return model.partition(":")[0]


def _unusable(model: str, message: str) -> RunFailed:
    """Take from what the library says to programmers what an operator can set."""
    variables = re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`", message)
    if not variables:
        reason = _PATH.sub("…", _SENTENCE_END.split(message)[0].rstrip("."))
        return RunFailed(f"The model {model} cannot be used: {reason}.")
    return RunnerMissing(
        f"This worker is not set up for models of {_provider_of(model)}.",
        hint=f"Set {' or '.join(dict.fromkeys(variables))} where it runs.",
    )


def _compatible(url: str, key: str | None) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(
        # With `openai` in it, the table of prices would take it for OpenAI itself.
        "compatible",
        base_url=url,
        api_key=key or NO_KEY,
        # Small servers know one system message and the older name of the limit only.
        profile=OpenAIModelProfile(
            openai_chat_supports_multiple_system_messages=False,
            openai_chat_supports_max_completion_tokens=False,
            # Without this, an answer that broke off in the middle passes for a whole one.
            openai_chat_streaming_requires_finish_reason=True,
        ),
    )


def _nothing_of_ours(provider: OpenAICompatibleProvider) -> ModelSettings:
    """Blank the headers that the client makes of the environment, whatever it is told."""
    made = provider.client.default_headers
    ours = [name for name, value in made.items() if isinstance(value, str)]
    return ModelSettings(extra_headers={name: "" for name in ours if name not in PLAIN_HEADERS})


def _provider(name: str, key: str | None) -> Provider[Any]:
    make: Callable[..., Provider[Any]] = partial(infer_provider_class(name))
    # A few want more than a key, and find it in variables of their own.
    takes_key = "api_key" in signature(make).parameters
    return make(api_key=key) if key and takes_key else infer_provider(name)


def _listed(model: Model, url: str | None, used: RequestUsage) -> float | None:
    answer = ModelResponse(
        parts=[],
        usage=used,
        model_name=model.model_name,
        provider_name=model.system,
        provider_url=url,
    )
    try:
        return float(answer.cost().total_price)
    except LookupError:
        return None
    except ValueError:
        # What was said about caches does not add up; without them it costs more, not less.
        plain = RequestUsage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
        return _listed(model, url, plain)
