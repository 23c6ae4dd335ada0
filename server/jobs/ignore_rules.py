"""Which files of a project stay closed: by the rules that Git reads, and by their own names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MOST_DOUBLE_STARS = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of an ignore file.

    Attributes:
        start: where in a path of the project that part begins which the line is about.
    """

    start: int
    regex: re.Pattern[str]
    ignores: bool


def rules_of(text: str, folder: str) -> list[Rule]:
    """Read an ignore file of a folder, which is empty for the project's. The last rule wins."""
    start = len(folder) + bool(folder)
    compiled = (_compiled(line.removesuffix("\r")) for line in text.split("\n"))
    return [Rule(start, *rule) for rule in compiled if rule]


def refusal(path: str, rules: Sequence[Rule], *, folder: bool) -> str | None:
    """Say why a path stays closed, whether it is there or not; the folders above it are open."""
    name = path.rpartition("/")[2].casefold()
    if name in _VERSION_CONTROL:
        return "belongs to version control"
    if _PRIVATE.match(name) and name not in _TEMPLATES:
        return "stays closed because of its name: such files hold secrets"
    path += "/" * folder
    decisive = (rule for rule in reversed(rules) if rule.regex.fullmatch(path[rule.start :]))
    rule = next(decisive, None)
    return "is left out by the project's ignore rules" if rule and rule.ignores else None


def path_pattern(text: str) -> re.Pattern[str] | None:
    """Translate a pattern to one that matches paths from their beginning; `None` if it is none."""
    compiled = _compiled(text)
    return compiled[0] if compiled and compiled[1] else None


_VERSION_CONTROL = {".git", ".hg", ".svn", ".bzr", ".jj", ".sl", ".pijul", "_darcs", "cvs"}
_TEMPLATES = {".env.example", ".env.sample", ".env.template"}
_PRIVATE_NAMES = """
.env .env.* .envrc .netrc _netrc .npmrc .yarnrc* .pypirc .pgpass .my.cnf .htpasswd .dockercfg
.git-credentials .terraformrc credentials* *.pem *.key *.p8 *.p12 *.pfx *.jks *.keystore *.kdbx
*.ppk *.tfstate *.tfstate.* id_rsa* id_dsa* id_ecdsa* id_ed25519* .aws .azure .gcloud .gnupg .kube
.password-store .ssh
"""
_PRIVATE = re.compile("|".join(map(translate, _PRIVATE_NAMES.split())))

# For these last segments pathspec returns expressions that never match a whole path.
_LAST_STARS = re.compile(r"(^!?|/)(\*\*?)(?=/?\s*$)")
# An escape, or a bracket as Git reads it; one that is not closed takes the rest of the line.
_BRACKET = re.compile(
    r"\\.|\[[!^]?(?:\[:[a-z]*:\]|\\.|.)(?:\[:[a-z]*:\]|\\.|[^]\\])*(?:\]|$)", re.DOTALL
)
# Classes, escapes and slashes, which pathspec does not see there, and Python's sets of sets.
_READ_OTHERWISE = re.compile(r"[\[\\/]|--|&&|~~|\|\|")
_STAR_BEFORE_STAR = re.compile(
    r"\[\^/\]\*((?:\\.|\[\^?\]?[^\]]*\](?!\*)|[^\\\[/(])*)(?=\[\^/\]\*)", re.DOTALL
)


@lru_cache(maxsize=4096)
def _compiled(line: str) -> tuple[re.Pattern[str], bool] | None:
    """Translate a line, and tell whether it ignores; `None` if it says nothing.

    Matching a whole path, which ends with a slash if it is a folder's, the line is about what the
    path names; matching the beginning of one, about a folder above. pathspec's own matching is
    for files whose folders nobody looked at before, and does not tell the two apart.
    """
    plain = _BRACKET.sub(_widened, line)
    if plain != line and line.startswith("!"):
        # It would open what it is not about.
        return None
    # To Git, more than two stars are two.
    line = re.sub(r"\*{3,}", "**", plain)
    line = _LAST_STARS.sub(lambda m: m[1] + ("**/?*" if m[2] == "**" else "?*"), line)
    # Time grows with a power of the depth, so whoever writes more of these is not heard.
    if line.count("**") > MOST_DOUBLE_STARS:
        return None
    try:
        regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(line)
        if regex is None or ignores is None:
            return None
        # A star takes no more than the next one needs. Otherwise a few stars and a long name
        # would keep the whole process busy for hours.
        return re.compile(_STAR_BEFORE_STAR.sub(r"(?>[^/]*?\1)", regex), re.DOTALL), ignores
    except (ValueError, re.error):
        return None


def _widened(bracket: re.Match[str]) -> str:
    """Let a bracket that would not be read as Git does stand for any character."""
    found = bracket[0]
    return "?" if found[0] == "[" and _READ_OTHERWISE.search(found, 1) else found
