"""The prompt of a persona without a spec, from the fields that its record has."""

import re

DEFAULT_PURPOSE = "You do the work of your role with care, and say what you did."
CONDUCT = (
    "Be helpful, accurate and proactive. Ask when something is unclear. Confirm before an action"
    " with an effect outside of this conversation, such as sending or scheduling something, unless"
    " the user said that it is urgent."
)
# An abbreviation is spelled out: the names of these letters begin with a vowel.
SPELLED_WITH_AN = "AEFHILMNORSX"


def settings_prompt(*, name: str, role: str, description: str | None) -> str:
    """Say who the persona is: name, role, purpose, and how to behave."""
    return (
        f"You are {name}, {_article(role)} {role}.\n\n{description or DEFAULT_PURPOSE}\n\n{CONDUCT}"
    )


def _article(noun: str) -> str:
    word = re.split(r"[\s/-]", noun)[0]
    if word.isupper() and 1 < len(word) <= 4:
        return "an" if word[0] in SPELLED_WITH_AN else "a"
    if re.match(r"(?i)(uni|use|usa|eu|one)", word):
        return "a"
    return "an" if word[:1].lower() in set("aeiou") else "a"
