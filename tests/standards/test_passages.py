from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from markdown_it import MarkdownIt

from server.standards.passages import LONGEST, Passage, passages, title_of

# Lines that open, close or only look like headings, code and comments. What stands in lists and
# quotations has tests of its own, as it is not followed by all the rules of CommonMark.
LINES = (
    *("", "", " ", "words", "more of them", "#tag", "####### seven", "\\# escaped", "***"),
    *("# One", "## Two", " ### Three ##", "#### Four #", "##\tTwo", "###### Six", "#", "## ##"),
    *("\nTitle\n=====", "\nSubtitle\n---", "\n---", "\n===", "\nTwo lines\nof text\n---\n"),
    *("```", "```py", "````", "```a`b", " ```", "    ```", "~~~", "~~~~ sh `x`", "~~", "``` ```"),
    *("<!--", "-->", "<!-- one line -->", "x --> y", "    # code?", "| a | b |", "|---|---|"),
)
soup = st.lists(st.sampled_from(LINES), max_size=30).map("\n".join)
NASTY = st.lists(
    st.sampled_from([*LINES, *"\r\n\t #`~-=<>*_[]()|1.", "- ```", "1. ", "\ufeff", "\0", "\u2028"])
)


def found_lines(found: list[Passage]) -> list[tuple[int, str, str, str]]:
    """Tell every line of every passage, with its number and what stands above it."""
    return [
        (one.line + number, one.title, one.section, line)
        for one in found
        for number, line in enumerate(one.text.split("\n"))
        if line.strip()
    ]


def expected_lines(body: str, title: str) -> list[tuple[int, str, str, str]]:
    """Tell every line that CommonMark does not make a part of a heading."""
    above: dict[int, str] = {}
    headings: dict[int, tuple[int, int, str]] = {}
    tokens = MarkdownIt("commonmark").parse(body)
    for token, inline in pairwise(tokens):
        # An underline below several lines is a rule to us.
        if token.type == "heading_open" and token.map and token.map[1] - token.map[0] <= 2:
            headings[token.map[0]] = (int(token.tag[1]), token.map[1], inline.content)
    lines: list[tuple[int, str, str, str]] = []
    end = 0
    for number, line in enumerate(body.split("\n")):
        if number in headings:
            level, end, words = headings[number]
            above = {one: above[one] for one in above if one < level} | {level: words}
            title = words or title if level == 1 else title
        if number >= end and line.strip():
            section = " > ".join(words for one, words in above.items() if one > 1 and words)
            lines.append((number + 1, title, section, line))
    return lines


@given(soup)
def test_every_line_that_is_no_heading_is_in_one_passage_with_what_stands_above_it(body: str):
    assert found_lines(passages(body, "Errors")) == expected_lines(body, "Errors")


@given(st.lists(st.text(st.sampled_from("aé "), max_size=3000), max_size=4).map("\n".join))
@example("a" * (LONGEST + 1))
@example(" " * 1200 + "a" * 1200 + " b")
def test_prose_of_any_width_is_cut_without_losing_a_word(body: str):
    found = passages(body, "")

    assert all(len(one.text) <= LONGEST and one.text.strip() for one in found)
    assert "".join("".join(one.text for one in found).split()) == "".join(body.split())


@given(NASTY.map("".join) | st.text())
def test_any_text_can_be_cut(body: str):
    lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    found = passages(body, "")

    assert all(one.text in "\n".join(lines[one.line - 1 :]) for one in found)
    assert [one.line for one in found] == sorted(one.line for one in found)


def test_passages_begin_at_headings():
    body = """\
Before any heading.

# Error handling

Errors are raised.

## Codes
Stable.

### Names

## Hints
### Of `DramatisError`

They say what to try next.
"""

    assert passages(body, "errors") == snapshot(
        [
            Passage(title="errors", section="", text="Before any heading.", line=1),
            Passage(title="Error handling", section="", text="Errors are raised.", line=5),
            Passage(title="Error handling", section="Codes", text="Stable.", line=8),
            Passage(title="Error handling", section="Codes > Names", text="", line=10),
            Passage(
                title="Error handling",
                section="Hints > Of DramatisError",
                text="They say what to try next.",
                line=15,
            ),
        ]
    )


def test_a_title_alone_can_be_found():
    assert passages("\n# Error handling\n", "errors") == [Passage("Error handling", "", "", 2)]
    assert passages("", "errors") == []
    assert passages("#\n##\n", "errors") == []


def test_blocks_fill_a_passage_up_to_its_length():
    blocks = [letter * length for letter, length in zip("abcd", (700, 498, 1, 1200), strict=True)]

    found = passages("\n\n".join(blocks), "")

    assert [one.text for one in found] == ["\n\n".join(blocks[:2]), blocks[2], blocks[3]]
    assert [one.line for one in found] == [1, 5, 7]


def test_a_long_list_is_cut_between_its_lines():
    lines = [f"- {number:097}" for number in range(30)]

    found = passages("\n".join(lines), "")

    assert [(one.line, one.text) for one in found] == [
        (1, "\n".join(lines[:12])),
        (13, "\n".join(lines[12:24])),
        (25, "\n".join(lines[24:])),
    ]


def test_a_long_line_is_cut_at_spaces_and_a_long_word_anywhere():
    body = f"{'a' * 1000} {'b' * 500} {'c' * 1300}"

    assert [(one.line, one.text) for one in passages(body, "")] == [
        (1, "a" * 1000),
        (1, "b" * 500),
        (1, "c" * 1200),
        (1, "c" * 100),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "```py\n{}\n```",
        "~~~~\n```\n{}\n~~~\n~~~~~",
        "   ```\n{}\n  ```  ",
        "- ```\n  {}\n  ```",
        "10. - ~~~\n      {}\n      ~~~",
    ],
)
def test_code_is_kept_whole(code: str):
    code = code.format("# no heading\n\n      x = 1\n".replace("\n", "\n      ") + "y" * LONGEST)

    found = passages(f"Before.\n\n{code}\n# Title\nAfter.", "")

    assert found == [
        Passage("", "", "Before.", 1),
        Passage("", "", code, 3),
        Passage("Title", "", "After.", found[1].line + code.count("\n") + 2),
    ]


def test_code_in_an_item_ends_with_the_item():
    body = "- ```\n  # code\n\n# Title\n```\n# code\n```"

    assert passages(body, "") == [
        Passage("", "", "- ```\n  # code", 1),
        Passage("Title", "", "```\n# code\n```", 5),
    ]


def test_code_that_nobody_closed_is_cut_like_prose():
    body = "```\n# code\n\n" + "x\n" * LONGEST

    assert [(one.section, one.line, len(one.text)) for one in passages(body, "")] == [
        ("", 1, 1199),
        ("", 598, 1199),
        ("", 1198, 11),
    ]


@pytest.mark.parametrize(
    "above", ["- item", "1. item", "> quote", "| a |", "<b>x</b>", "    code", "---", "a\nb"]
)
def test_a_rule_makes_no_heading_of_what_is_no_single_line_of_prose(above: str):
    assert passages(f"{above}\n---", "") == [Passage("", "", f"{above}\n---", 1)]


@pytest.mark.parametrize("heading", ["# {}", "{}\n==="])
def test_a_heading_too_long_for_one_is_text(heading: str):
    body = heading.format("word " * 50 + "end")

    assert [one.text for one in passages(body, "")] == [body]


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("# Plain #", "Plain"),
        ("# **Bold** and _soft_ and ***both***", "Bold and soft and both"),
        ("# The `__init__` of **`it`**", "The __init__ of it"),
        ("# snake_case_name, 2 * 3 * 4, List<T>", "snake_case_name, 2 * 3 * 4, List<T>"),
        ("# [Linked](https://example.com) ![badge](b.svg)", "Linked badge"),
        ("#\n# C#", "C#"),
        ("```\n# code\n```\nTitle\n=====\n# Other", "Title"),
        ("## Only below", None),
        ("#", None),
    ],
)
def test_a_title_is_the_first_heading_of_level_1_without_its_markup(
    heading: str, words: str | None
):
    assert title_of(heading) == words


@pytest.mark.parametrize(
    ("unit", "count"),
    [("x", 250), ("x ", 250), ("# a\n", 75_000), ("```py\n", 250), ("```\nx\n", 250), ("- ", 250)],
)
def test_a_large_file_of_the_same_over_and_over_is_cut(unit: str, count: int):
    assert len(passages(unit * (300_000 // len(unit)), "")) == count
