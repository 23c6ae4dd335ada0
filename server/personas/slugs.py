"""Slugs: ASCII names that are directory names and agent names everywhere."""

import re

from anyascii import anyascii

# Two parts, two hyphens and a 32-bit key together stay within 64 characters (SPEC 1.5).
PART_LENGTH = 26


def slug_stem(role: str, name: str) -> str:
    """Make the part of a slug that comes before the persona's key, e.g. `developer-con`."""
    return f"{_part(role)}-{_part(name)}"


def _part(text: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", anyascii(text).lower()).strip("-")
    return plain[:PART_LENGTH].rstrip("-") or "x"
