"""Core personas: those that are files instead of rows, the shipped ones and the operator's."""

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, StringConstraints, ValidationError

from db.shipped import shipped
from server.errors import Invalid, refused
from server.markdown import tokens
from server.personas.shapes import PersonaName, Shape, one_line, prose
from server.standards.documents import read_document
from server.standards.shapes import DomainName
from server.visible import visible

BUILT_IN = ("architect", "engineer", "data", "qa", "security", "sre")
SUFFIX = ".md"
PROMPT_TOKENS = 1_500
FILES = 64
FILE_BYTES = 64_000
# Between letters; the two joiners are part of how several scripts are spelled.
_INNER = "-_\u200c\u200d"


def _short_enough(prompt: str) -> str:
    if (length := tokens(prompt)) > PROMPT_TOKENS:
        raise ValueError(f"must be at most {PROMPT_TOKENS:,} tokens, and has about {length:,}")
    return prompt


CoreId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Summary = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(one_line),
]
Tier = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}$")]
Prompt = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1),
    AfterValidator(prose),
    AfterValidator(_short_enough),
]


class _Front(Shape):
    """What the front matter of a prompt file says.

    Attributes:
        summary: when to call this persona.
        domain: of the standards that it looks after and proposes.
        tier: how wide its view is, for people who choose: all shipped ones are a `specialist`, who
            knows one domain and names a colleague for the rest. Nothing else depends on it.
    """

    id: CoreId
    name: PersonaName
    summary: Summary
    domain: DomainName
    tier: Tier = "specialist"


class CorePersona(_Front):
    """A persona that is a prompt file."""

    prompt: Prompt
    source: Literal["built in", "operator"]


@dataclass(frozen=True, slots=True)
class CorePersonas:
    """The core personas there are.

    Attributes:
        personas: the built-in ones in their order, then those that the operator added.
        problems: why a file of the operator's was left out, in a sentence that names no folder.
    """

    personas: tuple[CorePersona, ...]
    problems: tuple[str, ...]


def read_core_personas(operator: Path | None) -> CorePersonas:
    """Read the shipped prompt files and those of the operator's folder.

    One of the operator's replaces the built-in persona that has its id. Their folder is read each
    time, so that a file dropped there counts at once; no link in it is followed. Blocks on the
    file system: call it in a worker thread.
    """
    found = {persona.id: persona for persona in _built_in()}
    if operator is None:
        return CorePersonas(tuple(found.values()), ())
    files, problems = _files(operator)
    seen: dict[str, str] = {}
    for file in files:
        name = _shown(file.name)
        try:
            persona = _persona(_text(file), "operator")
        except Invalid as error:
            problems.append(f"{name}: {error}")
            continue
        if persona.id in seen:
            problems.append(f"{name}: {seen[persona.id]} has the id {persona.id} already.")
            continue
        seen[persona.id] = name
        found[persona.id] = persona
    return CorePersonas(tuple(found.values()), tuple(problems))


def mentioned(text: str) -> str | None:
    """Return the name after the first `@` that mentions somebody, as it is written there.

    Mail addresses, domains and paths such as `@types/node` mention nobody.
    """
    for at in re.finditer("@", text):
        before = text[at.start() - 1 : at.start()]
        if before and (before in "@/." or _in_name(before)):
            continue
        start = end = at.end()
        while end < len(text) and _in_name(text[end]):
            end += 1
        after = text[end : end + 2]
        if after[:1] in ("@", "/") or (after[:1] == "." and after[1:].isalnum()):
            continue
        if text[start:end][:1].isalnum():
            return text[start:end].rstrip(_INNER)
    return None


def addressed(persona: str, task: str) -> tuple[str, str]:
    """Return who is meant and what they are to do, to which the words around a mention belong."""
    name = mentioned(persona)
    if name is None or persona.strip() == f"@{name}":
        return persona, task
    return f"@{name}", f"{persona}\n\n{task}" if task else persona


@cache
def _built_in() -> tuple[CorePersona, ...]:
    folder = shipped("server", "templates") / "personas"
    return tuple(_persona(_text(folder / f"{id_}{SUFFIX}"), "built in") for id_ in BUILT_IN)


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the prompt files of a folder, and say what was passed over."""
    try:
        with os.scandir(folder) as entries:
            named = [one for one in entries if one.name.endswith(SUFFIX) and one.name[0] != "."]
    except OSError as error:
        return [], [f"The folder of personas cannot be read: {error.strerror}."]
    files: list[Path] = []
    problems: list[str] = []
    for entry in sorted(named, key=lambda one: one.name):
        if entry.is_file(follow_symlinks=False):
            files.append(Path(entry))
        else:
            problems.append(
                f"{_shown(entry.name)}: It is no regular file, and no link is followed."
            )
    if len(files) > FILES:
        problems.append(
            f"{_shown(files[FILES].name)} and what follows it was left out:"
            f" at most {FILES} files are read."
        )
    return files[:FILES], problems


def _text(file: Path) -> str:
    """Read a prompt file.

    Raises:
        Invalid: it cannot be read, is too large or is no text.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_BYTES + 1)
        if len(raw) > FILE_BYTES:
            raise Invalid(f"It has more than {FILE_BYTES:,} bytes.")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("It cannot be read as UTF-8 text.") from error


def _persona(text: str, source: Literal["built in", "operator"]) -> CorePersona:
    """Make a persona of a prompt file.

    Raises:
        Invalid: its front matter or its prompt breaks a rule.
    """
    document = read_document(text)
    # Some fields have a meaning in standards. Here they are as unknown as any other.
    of_standards = document.front.model_dump(exclude={"others"}, exclude_unset=True)
    fields = {**document.front.others, **of_standards}
    if document.problem or not fields:
        raise Invalid(document.problem or "It does not begin with front matter.")
    try:
        front = _Front.model_validate(fields)
        return CorePersona(**dict(front), prompt=document.body, source=source)
    except ValidationError as error:
        raise refused(error, list(_Front.model_fields)) from None


def _in_name(char: str) -> bool:
    """Tell whether a character can stand in a name: letters of any script, their marks, digits."""
    return char in _INNER or unicodedata.category(char)[0] in "LMN"


def _shown(name: str) -> str:
    return visible(name).replace("\n", " ")
