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
ABBREVIATIONS = frozenset(
    ["ai", "hr", "ml", "nlp", "pm", "qa", "sdet", "seo", "sre", "ui", "ux", "vp"]
)
# Written with a vowel and spoken with "you" or "w", or the other way round.
SPOKEN_WITH_A = re.compile(r"(?i)uni(?![nm])|us[ae]|uti|ukr|eu|one")
SPOKEN_WITH_AN = re.compile(r"(?i)hour|honest|honou?r|heir")


def settings_prompt(*, name: str, role: str, description: str | None) -> str:
    """Say who the persona is: name, role, purpose, and how to behave."""
    return (
        f"You are {name}, {_article(role)} {role}.\n\n{description or DEFAULT_PURPOSE}\n\n{CONDUCT}"
    )


def _article(noun: str) -> str:
    word = re.split(r"[^\w]", noun)[0]
    letters = word[:2].isupper() and (len(word) <= 4 or not word.isupper())
    if letters or word.lower() in ABBREVIATIONS:
        return "an" if word[:1].upper() in SPELLED_WITH_AN else "a"
    if SPOKEN_WITH_A.match(word):
        return "a"
    return "an" if SPOKEN_WITH_AN.match(word) or word[:1].lower() in set("aeiou") else "a"
