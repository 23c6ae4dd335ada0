"""Everything an operator may set. The only reader of the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SkillTemplate = Literal["standard", "detailed"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


def _parts(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Settings(BaseSettings):
    """Settings, read once at start from `DRAMATIS_*`; a command line flag wins over them."""

    model_config = SettingsConfigDict(
        env_prefix="DRAMATIS_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_root: AbsolutePath = Field(
        default_factory=lambda: user_data_path("dramatis", appauthor=False),
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
    templates: AbsolutePath | None = Field(
        default=None, description="Folder of templates that replace the shipped ones."
    )
    skill_template: SkillTemplate = Field(
        default="standard", description="Sections a new skill.md starts with."
    )
    prompt_tokens: int = Field(
        default=8000, ge=500, description="Ceiling of a persona's prompt, in tokens."
    )
    pool_size: int = Field(
        default=5, ge=1, le=100, description="Database connections kept; twice as many at most."
    )
    linger_s: float = Field(
        default=300,
        ge=0,
        description="Seconds the embedded server stays up after its last user has left.",
    )
    log_level: LogLevel = Field(default="WARNING", description="What goes to stderr.")

    @property
    def linger(self) -> timedelta:
        return timedelta(seconds=self.linger_s)
