"""Everything an operator may set. The only reader of the environment."""

import json
import os
import re
import shlex
import sys
from datetime import timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self, cast

from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SkillTemplate = Literal["standard", "detailed"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

# What a worker runs jobs with. All else was decided when they were invoked, and is in their rows.
OF_WORKERS = (
    *("model", "model_url", "model_key", "model_key_file", "model_price", "model_s"),
    *("runner_command", "job_s", "core_personas", "standards_library"),
    *("embedding_model", "embedding_url", "embedding_key"),
    *("running_jobs", "persona_jobs", "worker_jobs", "worker_idle_s"),
)
OF_PROVIDERS = re.compile(
    r"(?!DRAMATIS_).+_(API_KEY|API_TOKEN|BASE_URL|API_BASE)|(AWS|GOOGLE|AZURE|SNOWFLAKE)_.+"
    r"|ANTHROPIC_AUTH_TOKEN|HF_TOKEN|HEROKU_INFERENCE_KEY|VERCEL_OIDC_TOKEN"
    r"|(?i:(HTTPS?|ALL|NO)_PROXY)"
)
# By which a command finds itself and its logins. An editor's differ from window to window.
OF_COMMANDS = re.compile(r"PATH|HOME|(?!DRAMATIS_|VSCODE_).+_(KEY|TOKEN)")


def _absolute(path: Path) -> Path:
    try:
        path = path.expanduser().absolute()
        str(path).encode()
    except RuntimeError:
        raise ValueError("must name a home folder that there is") from None
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    return path


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("must be a folder that there is")
    return path


def _project(path: Path) -> Path:
    try:
        path = path.resolve()
    except RuntimeError:
        # A circle of symbolic links.
        raise ValueError("must be a folder that there is") from None
    path = _folder(path)
    if is_everything(path):
        raise ValueError("must be a project's folder, not the home directory or /")
    return path


def _inside(text: str) -> str:
    folder = PurePosixPath(text)
    if folder.is_absolute() or ".." in folder.parts or not folder.parts or "\\" in text:
        raise ValueError("must be a folder below the project's root, like .agent-os/standards")
    return folder.as_posix()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _parts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",")))


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _price(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(value.split("/"))


def _words(value: object) -> object:
    """Split a command as a shell does, without one."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _starts_anywhere(words: tuple[str, ...]) -> tuple[str, ...]:
    # Each run begins in the project that it is about, which must not bring the program along.
    if "/" in words[0] and not words[0].startswith("/"):
        raise ValueError("must name a program of the PATH, or one by an absolute path")
    return words


Words = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_starts_anywhere)]


def _written(name: str, value: object) -> str:
    """Write a setting as its variable has it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        parts = [str(part) for part in cast("tuple[object, ...]", value)]
        match name:
            case "runner_command":
                return shlex.join(parts)
            case "model_price":
                return "/".join(parts)
            case _:
                return ",".join(parts)
    return str(value)


def is_everything(path: Path) -> bool:
    """Tell whether a folder holds all that a person has, and so is no project."""
    return path in (Path(path.anchor), Path.home().resolve())


def client_project() -> Path | None:
    """Return the project that the client says it works in; Claude Code sets this for its servers."""
    named = os.environ.get("CLAUDE_PROJECT_DIR")
    return Path(named) if named else None


def forget_libpq_environment() -> None:
    """Take libpq's PG* variables out of this process.

    They mean some other server. With the embedded one even a single PGHOSTADDR would lead us
    there, and nothing but the environment itself turns all of them off.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def collector_named() -> bool:
    """Tell whether the variables of OpenTelemetry name somebody to send spans to."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def quiet_libraries() -> None:
    """Keep pydantic-ai from printing a banner when an agent's variables are in the environment."""
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")


def default_data_root() -> Path:
    return user_data_path("dramatis", appauthor=False)


class Settings(BaseSettings):
    """Settings, read once at start from `DRAMATIS_*`; a command line flag wins over them."""

    model_config = SettingsConfigDict(
        env_prefix="DRAMATIS_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_root: AbsolutePath = Field(
        default_factory=default_data_root,
        description="Folder of the personas' files and of the embedded database.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL 16 or newer to use instead of the embedded server.",
    )
    migration_url: SecretStr | None = Field(
        default=None,
        description="Login that owns the schema, for `dramatis migrate`; else `DATABASE_URL`'s.",
    )
    tenant: str = Field(default="default", description="Tenant to work in.")
    toolsets: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)] = Field(
        default=("personas",), description="MCP tool groups to serve, separated by commas."
    )
    read_only: bool = Field(default=False, description="Serve no tool that changes anything.")
    templates: Annotated[AbsolutePath, AfterValidator(_folder)] | None = Field(
        default=None, description="Folder of templates that replace the shipped ones."
    )
    skill_template: SkillTemplate = Field(
        default="standard", description="Sections a new skill.md starts with."
    )
    prompt_tokens: int = Field(
        default=8000, ge=500, description="Ceiling of a persona's prompt, in tokens."
    )
    project_root: Annotated[AbsolutePath, AfterValidator(_project)] | None = Field(
        default=None,
        description="Project whose standards are meant; else `CLAUDE_PROJECT_DIR`, else the nearest"
        " folder upwards with `.git` or `.agent-os`.",
    )
    standards_root: Annotated[str, AfterValidator(_inside)] = Field(
        default=".agent-os/standards", description="Folder of the standards, in the project."
    )
    standards_library: Annotated[AbsolutePath, AfterValidator(_folder)] | None = Field(
        default=None,
        description="Folder of read-only standards for every project: `universal/{domain}` and"
        " `languages/{language}`.",
    )
    embedding_model: str | None = Field(
        default=None,
        description="For search by meaning: folder of an ONNX model, or the model's name at"
        " `EMBEDDING_URL`.",
    )
    embedding_url: str | None = Field(
        default=None, description="OpenAI-compatible endpoint of embeddings, ending in `/v1`."
    )
    embedding_key: SecretStr | None = Field(
        default=None, description="Key for that endpoint, if it wants one."
    )
    model: str | None = Field(
        default=None,
        description="Model that invoked personas run on: `provider:name`, or the name at `MODEL_URL`.",
    )
    model_url: str | None = Field(
        default=None,
        description="OpenAI-compatible server of the model, local or not, ending in `/v1`.",
    )
    model_key: SecretStr | None = Field(
        default=None,
        description="Key for the model; else the variable of its provider, e.g. `OPENAI_API_KEY`.",
    )
    model_key_file: AbsolutePath | None = Field(
        default=None, description="File with that key, read by the worker when it needs it."
    )
    # Inside of a union, `NoDecode` is not seen, and JSON would be read: a number, a quoted word.
    model_price: Annotated[tuple[Price, Price] | None, NoDecode, BeforeValidator(_price)] = Field(
        default=None,
        description="`input/output` in USD per million tokens, where the model's price is not known.",
    )
    runner_command: Annotated[Words | None, NoDecode, BeforeValidator(_words)] = Field(
        default=None,
        description="Without a model: command-line agent that reads the prompt from its input and"
        " prints the answer, e.g. `claude -p`.",
    )
    core_personas: Annotated[AbsolutePath, AfterValidator(_folder)] | None = Field(
        default=None, description="Folder of prompt files that add to the core personas."
    )
    start_worker: bool = Field(
        default=True, description="Start a worker on this machine when a job needs one."
    )
    worker_idle_s: float = Field(
        default=600,
        ge=1,
        le=86_400,
        description="Seconds without a job after which such a worker leaves.",
    )
    worker_jobs: int = Field(
        default=6, ge=1, le=100, description="Jobs that one worker runs at once."
    )
    running_jobs: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="Jobs of a tenant that run at once, on all workers.",
    )
    persona_jobs: int = Field(
        default=4, ge=1, le=10_000, description="Jobs of one persona that run at once."
    )
    queue_length: int = Field(
        default=20, ge=1, le=100_000, description="Jobs that may wait; more are refused."
    )
    jobs_per_minute: int = Field(
        default=60, ge=1, le=100_000, description="Invocations in a minute; more are refused."
    )
    job_s: float = Field(
        default=900, ge=1, le=86_400, description="Seconds that a job may take at most."
    )
    model_s: float = Field(
        default=120, ge=1, le=86_400, description="Seconds that a model may be silent."
    )
    run_tokens: int = Field(
        default=200_000,
        ge=1000,
        le=1_000_000_000,
        description="Tokens that a run may spend, in and out.",
    )
    persona_day_tokens: int | None = Field(
        default=None, ge=1000, description="Tokens that a persona may spend in a day (UTC)."
    )
    run_usd: float | None = Field(
        default=None, gt=0, le=100_000, description="USD that a run may spend."
    )
    persona_day_usd: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="USD that a persona may spend in a day (UTC); needs `RUN_USD`.",
    )
    pool_size: int = Field(
        default=5, ge=1, le=100, description="Database connections kept; twice as many at most."
    )
    linger_s: float = Field(
        default=300,
        ge=0,
        le=86_400,
        description="Seconds the embedded server stays up after its last user has left.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(
        default="WARNING", description="What goes to stderr."
    )

    @model_validator(mode="after")
    def _daily_money_needs_a_share(self) -> Self:
        # What a run may take has to be set aside before it spends anything.
        if self.persona_day_usd is not None and self.run_usd is None:
            raise ValueError("PERSONA_DAY_USD needs RUN_USD, what a single run may spend")
        return self

    def environment(self) -> dict[str, str]:
        """Make the environment for a process of ours that is to have the same settings."""
        said = {
            f"DRAMATIS_{name.upper()}": _written(name, value)
            for name in self.model_fields_set
            if (value := getattr(self, name)) is not None
        }
        return {**os.environ, **said}

    def worker_digest(self) -> str:
        """Tell workers apart that run jobs with other settings or keys, and say none of them."""
        ours = {name: _written(name, getattr(self, name)) for name in OF_WORKERS}
        kinds = [OF_PROVIDERS] if self.runner_command is None else [OF_PROVIDERS, OF_COMMANDS]
        theirs = {
            name: value
            for name, value in os.environ.items()
            if any(kind.fullmatch(name) for kind in kinds)
        }
        # One that was started before an upgrade does not run what the new version invokes.
        whole = [version("dramatis-mcp"), sys.executable, ours, theirs]
        return sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def runner_digest(self) -> str:
        """Tell apart on what jobs run: which command, or models of whom."""
        whose = self.runner_command or ()
        if self.model is not None:
            whose = (self.model_url or self.model.partition(":")[0],)
        return sha256(json.dumps(whose).encode()).hexdigest()

    @property
    def linger(self) -> timedelta:
        return timedelta(seconds=self.linger_s)
