"""Find passwords, keys and tokens in a text that is to be kept and shown.

It guards against oversights. Lines are read as they look, but nothing is decoded and no texts are
put together. A placeholder that says so itself, `changeme` among them, is no secret.
"""

# We decided against the library detect-secrets: its last release is long ago, its settings are
# global, it measures the entropy of quoted texts only, and it brings an HTTP client along.

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import category, combining, normalize

# Every pattern below takes time linear in the text: what repeats is bounded, possessive, or
# followed by what it cannot contain. A group that repeats is made atomic instead: possessive, it
# matches wrongly before Python 3.11.5 (CPython issue 106052).


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret stands and what it looks like, never the secret itself."""

    line: int
    kind: str


def find_secrets(text: str) -> list[Secret]:
    """List them in the order of the lines, which count from 1, and each kind once per line."""
    lines = [_as_it_looks(line) for line in re.split(r"\r\n?|\n", text)]
    found = {*_columns(lines), *_pairs(lines)}
    for at, line in enumerate(lines):
        if line:
            found.update(_assigned(lines, at))
            found.update((at, kind) for kind in _in_line(lines, at))
    named = {at for at, _ in found}
    found.update((at, "a random-looking text") for at in _random_lines(lines) if at not in named)
    return [Secret(at + 1, kind) for at, kind in sorted(found)]


# Dashes and quotes as word processors set them.
_PLAIN = {
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-"),
    **dict.fromkeys(range(0x2018, 0x201C), "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
}
_UNSEEN = {"Cf", "Mn", "Me"}
# By Markdown, and in JSON within a text.
_ESCAPE = re.compile(r"\\(?=[^\w\s]|_)")


def _as_it_looks(line: str) -> str:
    if not line.isascii():
        # Marks go first: normalizing a row of them takes time that grows with its square.
        seen = (char for char in line if not combining(char) and category(char) not in _UNSEEN)
        line = normalize("NFKC", "".join(seen)).translate(_PLAIN)
    return _ESCAPE.sub("", line).strip()


_SHAPES = {
    "an AWS access key": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a GitHub token": r"gh[opsur]_[A-Za-z0-9]{30,}+|github_pat_\w{22,}+",
    "a GitLab token": r"gl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rt|soat)-[\w-]{20,}+",
    "a Slack token": r"xox[a-z]-[\w-]{10,}+|xapp-[0-9]-[\w-]{10,}+",
    "a webhook": r"hooks\.slack\.com/(?:services|workflows)/[\w/]{20,}+"
    r"|discord(?:app)?\.com/api/webhooks/[0-9]{10,20}/[\w-]{20,}+",
    "a Stripe key": r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}+|whsec_[\w+/]{16,}+",
    "a Google key": r"AIza[\w-]{30,}+|ya29\.[\w-]{20,}+|GOCSPX-[\w-]{20,}+",
    "an API key": r"sk-(?=[\w-]{0,40}[A-Z])(?=[\w-]{0,40}[0-9])[\w-]{20,}+"
    r"|sk-(?:or-v1-)?[0-9a-f]{32,}+|(?:gsk|hf|r8)_[A-Za-z0-9]{30,}+",
    "a package registry token": r"npm_[A-Za-z0-9]{30,}+|pypi-[\w-]{30,}+|rubygems_[0-9a-f]{40,}+",
    "a JSON Web Token": r"(?<![\w-])eyJ[\w-]{10,}+\.[\w-]{10,}+",
    "an access token": r"SG\.[\w-]{16,64}\.[\w-]{16,}+|hv[bsr]\.[\w-]{20,}+|dckr_pat_[\w-]{20,}+"
    r"|do[opr]_v1_[0-9a-f]{40,}+|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}+|gl(?:sa|c)_[\w=]{30,}+"
    r"|dapi[0-9a-f]{32,}+|sq0[a-z]{3}-[\w-]{20,}+|ATATT[\w=-]{30,}+|NRAK-[A-Z0-9]{20,}+"
    r"|lin_api_[A-Za-z0-9]{30,}+|[0-9]{8,10}:AA[\w-]{30,}+|key-[0-9a-f]{32}(?!\w)",
    "a private key": r"AGE-SECRET-KEY-1[A-Z0-9]{20,}+|PuTTY-User-Key-File-[0-9](?=:)",
    "a signature of a URL": r"(?<=[?&])(?:sig|X-Amz-Signature)=[\w%+/-]{20,}+",
}
_SHAPE = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(f'({shape})' for shape in _SHAPES.values())})", re.ASCII
)
_HEADER = re.compile(
    r"--[^A-Za-z0-9]{0,20}BEGIN[^A-Za-z0-9]{1,20}(?:[A-Z0-9]{2,9}[^A-Za-z0-9]{1,20}){0,3}"
    r"PRIVATE[^A-Za-z0-9]{1,20}KEY"
)
# Where nothing but a password or a token can stand.
_LOGINS = {
    "a password in a URL": re.compile(r"://[^\s:/@]{0,64}:(?P<value>[^\s@/?]{1,128})@"),
    "a password on a command line": re.compile(
        r"(?<!\S)(?:-u|--user)[ =]?[\"']?[^\s:\"']{1,64}:(?P<value>[^\s\"']{1,128})"
    ),
    "a password for a program": re.compile(
        r"(?<!\S)(?:(?:mysql(?:dump|admin)?|mariadb)(?: [^|;]{0,80}?)? -p|sshpass -p ?[\"']?)"
        r"(?P<value>[^\s\"']{4,64})"
    ),
    "a password in SQL": re.compile(r"(?i:identified by)\s?[\"'](?P<value>[^\"']{1,128})"),
    "the credentials of an HTTP request": re.compile(
        r"(?i:authorization)[\"'`*]{0,4}\s?[:=|,]\s?[\"'`*]{0,4}"
        r"(?i:bearer|basic|apikey|token) {1,4}(?P<value>[^\s\"'`]{1,500})"
    ),
}


def _in_line(lines: Sequence[str], at: int) -> Iterator[str]:
    line = lines[at]
    # Headers of PEM are broken into lines, and into texts put together, too.
    header = _HEADER.search("\n".join(lines[at : at + 4]))
    if header and header.start() < len(line):
        yield "a private key"
    for match in _SHAPE.finditer(line):
        if not _PLACEHOLDER.search(match[0]):
            yield [*_SHAPES][(match.lastindex or 1) - 1]
    for kind, pattern in _LOGINS.items():
        if any(_is_secret(match["value"], literal=True) for match in pattern.finditer(line)):
            yield kind


# What people choose, and what is issued to them.
_CHOSEN = r"(?i:pass(?:word|wd|phrase|code))|(?<![A-Za-z])(?i:pass|pwd?)|(?<=[a-z])P(?:ass|wd)"
_ISSUED = (
    r"(?i:secret[ _-]?(?:access[ _-]?)?key(?:[_-]?base)?|secret|token|credential"
    r"|(?:api|access|account|auth|client|encryption|master|private|service|shared|signing|storage)"
    r"[ _.-]?(?:access[ _-]?)?key)"
)
_NAME = (
    rf"(?<![0-9]:)(?P<name>(?P<chosen>{_CHOSEN})|{_ISSUED})"
    r"(?:[_-]?[0-9]{1,2}|[_-](?i:prod|production|dev|test|staging|live|value))?"
    r"(?!_{0,2}[A-Za-z0-9]|-\w|\.\w)"
)
_CLOSERS = r"[\"'`*_\])]{0,4}+\s*+"
_GLOSS = rf"(?:(?:\([^()]{{0,40}}\)|(?:for|of|on|to|in)\s[\w .-]{{1,40}}?){_CLOSERS})?"
_VALUE = (
    r"[\s`*]*+(?:[bfru]{0,2}(?P<quote>[\"'])(?P=quote){0,2}(?P<quoted>(?>(?:(?!(?P=quote)).){0,120}))"
    r"|(?P<bare>(?>(?:[^\s\"'`|,;&<>)\]}]|[,;](?=[^\s\"'])|&(?!\w{1,40}=)){0,120})))"
)
_END = r"[\"'`*_)\]}.,;]*+\s*+(?:$|#|//|\|)"
_NAMED = re.compile(
    rf"{_NAME}{_CLOSERS}{_GLOSS}(?P<sign>(?::\s?[A-Za-z][A-Za-z.\[\]|? ]{{0,40}}?)?[:=]?={{1,3}}>?"
    r"|:|\||(?:is|to)\b|,\s?[\"']?value[\"']?\s?[:=]|(?<=[\"'])\s?,(?=\s?[\"'])"
    r"|\((?=[\"'])|>(?=[^<\s]{4,100}</)|(?<=\s))"
    rf"(?={_VALUE}(?P<whole>{_END})?)"
)
_ALONE = re.compile(_VALUE + _END)
_NOTHING = re.compile(r"[\s|>\\(\"'`+*-]*+$")
_SKIPPED = re.compile(r"```|~~~|$")
_HEADING = re.compile(rf"{_NAME}\W*+$")
_PAIRED = re.compile(r"[\"']?value[\"']?\s?[:=]", re.IGNORECASE)
_MARGIN = re.compile(r"[\s>*+|`\"'-]*+[\w.-]*+")
_OPTION = re.compile(r"(?:(?<!\S)--?|^ENV )[\w-]*+$")


def _assigned(lines: Sequence[str], at: int) -> Iterator[tuple[int, str]]:
    line = lines[at]
    for name in _NAMED.finditer(line):
        kind = f"a value assigned to `{name['name'].lower()}`"
        if name["sign"].endswith((":", "=")) and _NOTHING.match(line, name.end()):
            below = range(at + 1, min(at + 4, len(lines)))
            first = next((n for n in below if not _SKIPPED.match(lines[n])), at)
            if first > at and _is_secret_alone(lines[first]):
                yield first, kind
        elif _holds_secret(line, name):
            yield at, kind


def _is_secret_alone(text: str) -> bool:
    value = _ALONE.match(text)
    return bool(value) and _is_secret(_said(value), literal=bool(value["quote"]))


def _said(value: re.Match[str]) -> str:
    return value["quoted"] or value["bare"] or ""


def _holds_secret(line: str, name: re.Match[str]) -> bool:
    sign, quoted, whole = name["sign"], bool(name["quote"]), name["whole"] is not None
    before = line[max(0, name.start() - 80) : name.start()]
    option = bool(_OPTION.search(before))
    tight = sign == "=" and name.start("bare") == name.end()
    # `password: swordfish` is a password; within a sentence or a call the word is a word.
    alone = whole and (tight or sign == ":") and _MARGIN.fullmatch(before)
    literal = (
        (quoted and sign not in {"", ",", "("})
        or sign == ">"
        or (tight and (option or name["name"].isupper()))
        or bool(alone and name["chosen"] and re.fullmatch(r"[A-Za-z-]{6,}", _said(name)))
    )
    named = bool(sign or option or quoted)
    return named and _is_secret(_said(name), literal=literal, prose=not whole)


def _pairs(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Find values that stand below their name, as in lists of environment variables."""
    for at, (line, below) in enumerate(pairwise(lines), start=1):
        value = _PAIRED.match(below)
        name = _HEADING.search(line) if value else None
        if value and name and _is_secret_alone(below[value.end() :]):
            yield at, f"a value assigned to `{name['name'].lower()}`"


def _columns(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Find values in tables below a heading that names a secret."""
    names: dict[int, str] = {}
    for at, line in enumerate(lines):
        cells = line.strip("|").split("|") if "|" in line else []
        if at and cells and not line.strip("|:- "):
            headings = map(_HEADING.search, lines[at - 1].strip("|").split("|"))
            names = {n: found["name"].lower() for n, found in enumerate(headings) if found}
        elif cells:
            for n, name in names.items():
                if n < len(cells) and _is_secret_alone(cells[n]):
                    yield at, f"a value assigned to `{name}`"
        else:
            names = {}


# Words that stand for a value, describe it or give its type.
_GENERIC_WORDS = """
a access account an and any api app auth authentication authorization aws base basic bearer binary
byte bytes char characters chars client code credential credentials data db default digest digits
disabled empty enabled encoded encrypted env false file fixed forbidden from get hash hashed header
here hidden hmac id in input insert int integer is it jwt key length long mandatory manual masked
me min missing must my name needed never new nil no none not null number oauth of opaque optional
or pass passphrase passwd password path pin plain plaintext private prompt protected pw pwd random
raw read refresh required rotate rotated salted same secret secrets sensitive service session set
some store stored str string strong super test text that the this to todo token tokens true type
undefined unset url use user username uuid value var varchar variable vault weak with word write x
y yes
"""
_GENERIC = frozenset(_GENERIC_WORDS.split())
_CALL = re.compile(r"[\w.$:>!?&*-]*+[(\[]")
_REFERENCE = re.compile(
    r"[a-z+]{2,20}://|(?:arn|env|file|keyvault|op|secretsmanager|ssm|vault):"
    r"|[\w.+-]{1,64}@[\w-]+\.[a-z]{2,}$"
)
_DOTTED = re.compile(r"[A-Za-z_@{][\w{}-]*+(?>(?:(?:\.|/|::?|->)[A-Za-z_@{][\w{}-]*+)+)/?")
_PLACEHOLDER = re.compile(
    r"^\$\w+(?:\W|$)|[$#%][{(]|[{<]\s?[{%A-Za-z_]|^\[[A-Za-z]|^%[A-Za-z_]\w*%$|^:[a-z_]\w*$"
    r"|^__\w+__$|^@@?\w+@@?$|x{5}|X{5}|(?<![A-Za-z0-9])[xX]{4}(?![A-Za-z0-9])"
    r"|\*{3}|\.{3}|•{3}|_{4}|#{3}|(?i:example|placeholder|redacted|dummy|change[ _-]?me"
    r"|replace[ _-]?(?:me|with)|your[_-]|(?<![a-z])your)"
)
# Algorithms and amounts, and in a sentence standards such as RFC6750 too.
_TERM = re.compile(
    r"(?i:(?:sha|md|aes|rsa|hs|rs|es|ps|base|argon|bcrypt|oauth|hmac|ed|x|utf|bytes|u?int|chacha)"
    r"[ _-]?[0-9]+(?:k1|id|url|gcm|cbc|\.[0-9]+)?"
    r"|[0-9]{1,5}(?:[+-][0-9]{0,5})?[ -]?(?:ms|[smhdwy]|(?:sec|min|hour|day|week|month|year|bit"
    r"|byte|char|digit|character|second|minute|time|round|kb|word)s?)(?![A-Za-z0-9]))"
)
_STANDARD = re.compile(r"[A-Z]{2,8}-?[0-9][0-9.-]*+[a-z]?(?![A-Za-z0-9])")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_a-zA-Z]+")
_SYMBOL = r"\w[!@#$%^&?*+~]\w"
# Neither a name nor a number.
_MADE_UP = re.compile(rf"(?=.*[0-9]).*[A-Za-z]|[0-9]{{6,}}$|.*{_SYMBOL}")


def _is_secret(value: str, *, literal: bool = False, prose: bool = False) -> bool:
    """Tell a secret from a placeholder, a reference, an expression or a description.

    A literal stands where only a value can stand, so that a word of it is a secret too.
    """
    value = value.strip().rstrip(".:!,")
    if _PLACEHOLDER.search(value) or _REFERENCE.match(value):
        return False
    if " " in value:
        return any(_is_secret(word, prose=True) for word in value.split())
    if _is_random(value):
        return True
    rest = _TERM.sub("", _STANDARD.sub("", value) if prose else value)
    if not re.search(_SYMBOL, rest) and all(
        word.lower() in _GENERIC for word in _WORDS.findall(rest)
    ):
        return False
    if value.startswith(("/", "./", "../", "~/")) or (_DOTTED.fullmatch(value) and _wordy(value)):
        return False
    if literal:
        return len(value) >= 4 and not re.fullmatch(r"[0-9]{1,5}", value)
    return len(value) >= 6 and not _CALL.match(value) and bool(_MADE_UP.match(value))


_TOKEN = re.compile(r"[A-Za-z0-9+_-]{20,}+={0,2}")
_SYLLABLES = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{3,}")
_SWITCH = re.compile(r"(?<=[0-9])[A-Za-z]|(?<=[A-Za-z])[0-9]")
# What is public although it looks random: digests, identifiers of traces, images, public keys.
_PUBLIC = re.compile(
    r"(?i:sha[0-9]|md5|commit|digest|checksum|hash|integrity|revision|fingerprint|etag|trace|span"
    r"|uuid|guid|base64,|ssh-|ecdsa-)"
)


def _random_lines(lines: Sequence[str]) -> Iterator[int]:
    for at, line in enumerate(lines):
        for token in _TOKEN.finditer(line):
            before = line[max(0, token.start() - 120) : token.start()]
            public = re.fullmatch(r"[0-9a-fA-F]{40}", token[0]) or _PUBLIC.search(before)
            if not public and _is_random(token[0]) and not _PLACEHOLDER.search(token[0]):
                yield at


def _is_random(text: str) -> bool:
    """Tell a text drawn at random from names, however long.

    In letters of one case drawn with digits, the two keep taking turns. Of letters of both
    cases drawn with digits, few make up anything like words.
    """
    if len(text) < 20:
        return False
    if re.fullmatch(r"[a-z0-9]+|[A-Z0-9]+", text):
        return len(_SWITCH.findall(text)) >= 6
    return all(re.search(some, text) for some in ("[a-z]", "[A-Z]", "[0-9]")) and not _wordy(text)


def _wordy(text: str) -> bool:
    """Tell whether half of a text is in runs of letters that could be spoken."""
    spoken = (run for run in _SYLLABLES.findall(text) if re.search("[aeiouyAEIOUY]", run))
    return 2 * sum(len(run) for run in spoken if len(run) > 2) >= sum(map(str.isalnum, text))
