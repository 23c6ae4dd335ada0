"""Standards that answer nothing, for measuring a search among many files.

They use the words of the corpus, so that they compete with it, but only state made-up facts about
made-up components. The same seed gives the same texts.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, product
from pathlib import Path
from random import Random

DOMAINS = ("architecture", "development", "data", "testing", "security", "operations")
FILES = 100
TOPICS_OF_A_FILE = 12
# What a section has at least before it ends, in characters; one sentence may follow.
SHORTEST, LONGEST = 330, 900

HEADINGS = ("Context", "Pattern", "Examples", "Anti-patterns", "When to revisit")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The first of a list are the most frequent, as in any language.
NOUNS = _words("""
    test row request release service job table key database process time value error code person
    message change field client name query file answer day log column migration list lock worker
    user call index connection transaction queue record customer session report limit page
    number event version api cache machine alert price schema token module deadline invoice
    clock zone date secret signature tenant role endpoint image backup replica batch import
    schedule lease handler exception failure suite build thread pool flag setting library commit
    branch review fixture builder seed fake contract payload webhook browser cookie header
    upload picture identifier reference sequence constraint snapshot plan statement timeout
    attempt breaker rota incident runbook dashboard metric budget percentile bucket canary
    orchestrator balancer signal vault scanner policy grant audit entry digest export archive
    partition hold register formatter glossary boolean function argument caller result docstring
    traceback currency amount rounding remainder tax refund payment spreadsheet encoding staging
    line month night weekend season consumer provider relay outbox bookmark subject border
    harbour berth skipper marina tariff gate email account slot booking reservation notification
    credential integration timestamp timezone hour minute year coroutine assertion package
    toggle monolith parameter sandbox dump sample factory runner outage crash deadlock duplicate
    retry stack trace correlation attribute validation variable thumbnail permission replay
    circuit gateway sale site app employee format startup container serial penny stampede
""")
ADJECTIVES = _words("""
    first old new last same own small slow whole public open current late early long short safe
    stored shared private local internal daily empty frozen random monthly quiet stale generated
    unused published read-only signed shown partial pending nightly ordered separate external
    deleted composite typed immutable parallel structured async
""")
VERBS = _words("""
    keeps reads writes shows counts names takes sends stores lists compares checks copies
    returns holds moves finds measures follows groups starts closes collects prints fetches
    loads marks records repeats replaces limits locks orders renews restores rotates
""")
DONE = _words("""
    kept read written shown counted named taken sent stored listed compared checked copied
    returned held moved found measured grouped started closed collected printed fetched loaded
    marked recorded repeated replaced limited locked ordered renewed restored rotated
""")
COMPONENTS = tuple(
    start + middle + end
    for end, middle, start in product(
        _words("in or eth ax um ile ost aire"),
        _words("rell dov mant sik lun perr tav gol nib"),
        _words("Ba Co De Fi Gra Hu Ka Lo Me Pi Qua Ro Su Te Vi Zo"),
    )
)
WORDS: Mapping[str, Sequence[str]] = {
    "noun": NOUNS,
    "adjective": ADJECTIVES,
    "verb": VERBS,
    "done": DONE,
    "component": COMPONENTS,
    "number": tuple(map(str, range(2, 400))),
}
SENTENCES = (
    "{component} {verb} the {adjective} {topic} beside each {noun}.",
    "The {topic} of {component} is {done} together with its {noun} and its {adjective} {noun}.",
    "In {component} every {noun} {verb} one {topic}, and the {noun} belongs to {component}.",
    "{number} of the {topic} reports of {component} name the {adjective} {noun}.",
    "When {component} {verb} the {noun}, the {topic} stays with the {adjective} {noun}.",
    "The {noun} of {component} and the {topic} of {component} are {done} in one {noun}.",
    "{component} was written for the {topic}; the {noun} came later, with the {adjective} {noun}.",
    "No {noun} of {component} {verb} more than {number} of the {adjective} {topic} entries.",
    "The {adjective} {noun} is {done} by {component}, whose {topic} has the number {number}.",
    "What {component} calls the {topic} is the {adjective} {noun} of the {noun} team.",
    "The {topic} page of {component} {verb} the {noun}, the {noun} and the {adjective} {noun}.",
    "Since release {number} the {topic} is {done} where {component} {verb} its {noun}.",
)


def write_distractors(root: Path, *, passages: int, seed: int = 1) -> None:
    """Write them below `root`, about a hundred files however many passages there are.

    Args:
        passages: how many sections there are in all files together.
    """
    for path, text in distractors(passages=passages, seed=seed).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def distractors(*, passages: int, seed: int = 1) -> dict[str, str]:
    """Make the texts by their paths; no file has two sections more than another."""
    random = Random(seed)
    files = min(FILES, passages)
    return {
        f"{DOMAINS[at % len(DOMAINS)]}/generated-{at:03}.md": _standard(
            random, sections=passages // files + (at < passages % files)
        )
        for at in range(files)
    }


def _standard(random: Random, *, sections: int) -> str:
    topics = random.sample(NOUNS, TOPICS_OF_A_FILE)
    words = {**WORDS, "topic": topics}
    title = f"# The {topics[0]} and the {topics[1]} of {_pick(random, COMPONENTS)}"
    return "\n\n".join([title, *(_section(random, words, at) for at in range(sections))]) + "\n"


def _section(random: Random, words: Mapping[str, Sequence[str]], at: int) -> str:
    if at < len(HEADINGS):
        heading = f"## {HEADINGS[at]}"
    else:
        level = random.choice(("##", "###"))
        heading = f"{level} {_filled(random, words, '{adjective} {topic} of {component}')}"
    least = random.randint(SHORTEST, LONGEST)
    bullet = random.choice(("", "", "- "))
    lines = [f"{heading}\n"]
    while sum(map(len, lines)) < least:
        lines.append(bullet + _filled(random, words, random.choice(SENTENCES)))
    return "\n".join(lines)


def _filled(random: Random, words: Mapping[str, Sequence[str]], pattern: str) -> str:
    """Put a word of its own in each place of a pattern."""
    text = re.sub(r"\{(\w+)\}", lambda place: _pick(random, words[place[1]]), pattern)
    return text[0].upper() + text[1:]


def _pick(random: Random, words: Sequence[str]) -> str:
    """Draw by Zipf's law: the second word is half as frequent as the first."""
    (word,) = random.choices(words, cum_weights=_frequencies(len(words)))
    return word


@cache
def _frequencies(size: int) -> list[float]:
    return list(accumulate(1 / rank for rank in range(1, size + 1)))
