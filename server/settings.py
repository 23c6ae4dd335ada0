"""Everything an operator may set. The only reader of the environment."""

import os
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SkillTemplate = Literal["standard", "detailed"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


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


def _parts(value: object) -> object:
    if not isinstance(value, str):
        return value
    return list(dict.fromkeys(part.strip() for part in value.split(",")))


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


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

    @property
    def linger(self) -> timedelta:
        return timedelta(seconds=self.linger_s)
