"""The options that every command takes, before or after its name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from server.settings import Settings

PERSONA = click.argument("persona", help="Slug, id, name, or a part of a name that fits only one.")


class Presence(click.types.BoolParamType):
    """A flag that its environment variable sets by being there, as no-color.org has it."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """Take any text for yes; an empty variable counts as none."""
        return bool(value)


def _colour(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    # What is not asked for keeps its colours on a terminal and loses them elsewhere.
    ctx.color = False if value else None


NO_COLOR = click.option(
    "--no-color",
    is_flag=True,
    type=Presence(),
    envvar="NO_COLOR",
    help="Colour nothing, as with NO_COLOR in the environment.",
    expose_value=False,
    callback=_colour,
)


@dataclass(slots=True)
class Given:
    """What the command line said so far. What stands further right wins."""

    data_root: str | None = None
    tenant: str | None = None
    project_root: str | None = None
    as_json: bool = False

    def settings(self, **flags: object) -> "Settings":
        """Read the settings, over which flags win.

        Args:
            flags: of this command alone; `None` is one that was not given.

        Raises:
            Invalid: a flag or a variable breaks a rule. Its value is not repeated.
        """
        from pydantic import ValidationError

        from server.errors import Invalid, refused
        from server.settings import Settings

        flags |= {
            "data_root": self.data_root,
            "tenant": self.tenant,
            "project_root": self.project_root,
        }
        values: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
        try:
            return Settings(**values)
        except ValidationError as error:
            raise Invalid(
                f"A setting cannot be used: {refused(error)}",
                hint="Settings come from flags and from variables named DRAMATIS_<SETTING>.",
            ) from None


class Command(click.Command):
    """A command with the options of every command."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _everywhere()


class Group(click.Group):
    """A group whose commands, and itself, have the options of every command."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _everywhere()


class ProjectCommand(Command):
    """A command on the standards of a project."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_project())


class ProjectGroup(Group):
    """A group of those; its commands, and itself, have the option."""

    command_class = ProjectCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_project())


def _project() -> click.Parameter:
    return click.Option(
        ["--project", "project_root"],
        type=click.Path(),
        metavar="FOLDER",
        help="Project that is meant.",
        expose_value=False,
        callback=_note,
    )


def _everywhere() -> list[click.Parameter]:
    return [
        click.Option(
            ["--data-root"],
            type=click.Path(),
            metavar="FOLDER",
            help="Folder of the personas' files and of the embedded database.",
            expose_value=False,
            callback=_note,
        ),
        click.Option(
            ["--tenant"],
            metavar="NAME",
            help="Tenant to work in.",
            expose_value=False,
            callback=_note,
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            help="Print one JSON document.",
            expose_value=False,
            callback=_note,
        ),
    ]


def _note(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is None or value is False:
        return
    if value == "":
        # An unset variable of a script; falling back to a default would act somewhere else.
        raise click.BadParameter("must not be empty.", ctx=ctx, param=param)
    setattr(ctx.ensure_object(Given), param.name, value)
