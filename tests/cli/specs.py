"""Specs to write, and an editor to write them with."""

from tests.cli.conftest import Cli

PLAIN = """\
constitution:
  - Tests first.
identity_voice:
  tone: calm
procedural_modules:
  - id: review
    intent_labels: [review]
    do: Read the whole change.
    few_shot_ids: [not-yet]
canonical_examples:
  - id: not-yet
    intent_label: review
    prompt: Ready to merge?
    response: Not yet.
deterministic_rules:
  banned_phrases: [obviously]
"""
PLAIN_TEXT = """\
## Constitution

1. Tests first.

## Voice

- tone: calm

## Procedures

### review

- Do: Read the whole change.

## Examples

### not-yet

Asked:

```text
Ready to merge?
```

Answered:

```text
Not yet.
```

## Rules

Never say, write or do:

- obviously
"""
WARM = PLAIN.replace("tone: calm", "tone: warm").replace(
    "  - Tests first.", "  - Tests first.\n  - Small steps."
)


def editor(cli: Cli, script: str) -> dict[str, str]:
    """Make an editor that runs a shell script on the file `$1`, and keep its drafts in our folder."""
    program = cli.folder / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"EDITOR": str(program), "TMPDIR": str(cli.folder)}


def drafts(cli: Cli) -> list[str]:
    """Return the texts of the drafts that are left."""
    return [file.read_text() for file in cli.folder.glob("developer-con-1-*.yaml")]
