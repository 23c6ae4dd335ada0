"""A spec as people write it, YAML or JSON, and as it is stored: canonical JSON and its digest."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from server.errors import Invalid, refused
from server.specs.document import Example, Module, PersonaSpec, Rules
from server.specs.yaml_dialect import Dumper, Loader, brief_key, read_integer

DOCUMENT_BYTES = 1_000_000
PROBLEM_LENGTH = 200

_PARTS: Mapping[str, type[BaseModel]] = {
    "procedural_modules": Module,
    "canonical_examples": Example,
    "anti_examples": Example,
    "deterministic_rules": Rules,
}


class SpecTooLarge(Invalid):
    code = "spec_too_large"


class SpecNotReadable(Invalid):
    code = "spec_not_readable"


def read_spec(written: str | Mapping[str, Any]) -> PersonaSpec:
    """Read a spec: YAML or JSON text, or what a JSON client sent.

    YAML is read as YAML 1.2 does: `no` and `2026-01-01` are texts.

    Raises:
        SpecNotReadable: the text is neither YAML nor JSON, or uses aliases or a key twice.
        SpecTooLarge: it has more than a million bytes.
        Invalid: fields break rules; each is named by its path.
    """
    content = parse_text(written) if isinstance(written, str) else dict(written)
    if not isinstance(content, dict):
        raise SpecNotReadable(
            "A spec is a mapping of fields.", hint=f"Known: {', '.join(PersonaSpec.model_fields)}."
        )
    try:
        spec = PersonaSpec.model_validate(content)
    except ValidationError as error:
        if any(p["type"].startswith("recursion") for p in error.errors(include_input=False)):
            raise SpecNotReadable("The spec is nested too deeply.") from None
        raise refused(error, _known(error)) from None
    _limit(canonical(spec))
    return spec


def parse_text(text: str) -> Any:
    """Parse YAML or JSON.

    Raises:
        SpecNotReadable, SpecTooLarge: see `read_spec`.
    """
    _limit(text)
    try:
        return _parsed(text)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        line = f"line {at.line + 1}, column {at.column + 1}: " if at else ""
        raise SpecNotReadable(f"This is no YAML: {line}{_brief(error.problem)}.") from None
    except yaml.YAMLError as error:
        raise SpecNotReadable(f"This is no YAML: {str(error).splitlines()[0]}.") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise SpecNotReadable(f"This is no JSON: {at}: {error.msg}.") from None
    except ValueError as error:
        raise SpecNotReadable(f"This cannot be read: {_brief(error)}.") from None
    except RecursionError:
        raise SpecNotReadable("The text is nested too deeply.") from None


def _parsed(text: str) -> Any:
    # YAML has brackets too, and would take JSON that lacks a comma for something else. JSON with
    # anything in it comes to a quotation mark first.
    if re.match(r'\s*[\[{][\[{\s]*"', text):
        return json.loads(text, object_pairs_hook=_pairs_once, parse_int=read_integer)
    return yaml.load(text, Loader)  # noqa: S506  # a SafeLoader


def canonical(spec: PersonaSpec) -> str:
    """Write a spec as it is stored and hashed: JSON with sorted keys at every depth."""
    return json.dumps(
        spec.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )


def digest(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=16)
def stored_spec(document: str) -> PersonaSpec:
    """Read a stored document back. The result is shared: treat it as frozen all the way down.

    Raises:
        ValidationError: somebody changed it by hand, or it is of another release.
    """
    return PersonaSpec.model_validate_json(document)


def as_yaml(spec: PersonaSpec) -> str:
    """Write a spec for people, without the fields that were left out; reading it gives it back."""
    content = spec.model_dump(mode="json", exclude_defaults=True)
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=96)


def _limit(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise SpecNotReadable("The text is not valid Unicode.") from None
    if size > DOCUMENT_BYTES:
        raise SpecTooLarge(f"The spec is {size:,} bytes; the limit is {DOCUMENT_BYTES:,}.")


def _known(error: ValidationError) -> list[str]:
    """List the fields there are where the first unknown one was given."""
    for problem in error.errors(include_url=False, include_input=False):
        if problem["type"] == "extra_forbidden":
            model = _PARTS.get(str(problem["loc"][0])) if len(problem["loc"]) > 1 else None
            return list((model or PersonaSpec).model_fields)
    return []


def _pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {brief_key(key)} is given twice")
        content[key] = value
    return content


def _brief(problem: object) -> str:
    """Keep a parser from repeating a long text."""
    said = str(problem)
    return said if len(said) <= PROBLEM_LENGTH else f"{said[: PROBLEM_LENGTH - 1]}…"
