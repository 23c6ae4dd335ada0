import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from wcwidth import wcswidth

from server.cli.quoting import labelled, quoted, quoted_diff
from server.visible import visible

# What does something to a terminal, or to a reader, without being seen.
HOSTILE = "\x1b[2J \u202eabc \u200b \ufeff \U000e0041 \u2028 \xad \x85 \u3164 \U000e0101"


@given(st.text())
def test_what_is_visible_has_a_shape_and_is_read_the_same_again(text: str):
    shown = visible(text)

    assert {unicodedata.category(char) for char in shown if char not in "\n\t"}.isdisjoint(
        {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
    )
    assert visible(shown) == shown


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z", "M"])))
def test_letters_and_symbols_are_left_alone(text: str):
    plain = re.sub("[\u115f\u1160\u2800\u3164\uffa0]", "", text)

    assert visible(plain) == plain


@given(st.text(), st.integers(min_value=20, max_value=120))
def test_no_line_of_a_quoted_text_is_wider_than_the_terminal_or_without_a_margin(
    text: str, columns: int
):
    shown = quoted(text, columns)

    assert all(re.match("  [│┊]", line) for line in shown)
    assert all(wcswidth(line, ambiguous_width=1) <= columns for line in shown)
    assert not any(char in "".join(shown) for char in "\n\r\t")


@given(st.text(), st.integers(min_value=30, max_value=120))
def test_no_line_of_a_value_begins_where_ours_do(text: str, columns: int):
    shown = labelled([("Reason", text)], columns)

    assert {f"{line:<10}"[:10] for line in shown} <= {"  Reason  ", " " * 10}


def test_what_hides_is_written_as_an_escape():
    assert quoted(HOSTILE, None) == snapshot(
        [
            "  │ \\x1b[2J \\u202eabc \\u200b \\ufeff \\U000e0041 \\u2028 \\xad \\x85 \\u3164 \\U000e0101"
        ]
    )


def test_an_emoji_keeps_the_selector_that_colours_it():
    assert visible("⚠️ é 王") == "⚠️ é 王"


def test_long_lines_are_wrapped_behind_the_margin_and_keep_their_blanks():
    text = "    if ready:  # a comment that goes on for longer than that\n\n\tdone"

    assert quoted(text, 40) == snapshot(
        [
            "  │     if ready:  # a comment that goes",
            "  ┊  on for longer than that",
            "  │",
            "  │     done",
        ]
    )


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_end_as_files_end_them(ending: str):
    assert quoted(f"one{ending}two", 80) == ["  │ one", "  │ two"]


def test_a_diff_is_coloured_and_what_looks_like_its_head_is_a_line():
    diff = ["--- as it is", "+++ as proposed", "@@ -1,2 +1,2 @@", " kept", "--- a rule", "+++ more"]

    assert quoted_diff(diff, 80) == snapshot(
        [
            "\x1b[2m  @@ -1,2 +1,2 @@\x1b[0m",
            "  │  kept",
            "\x1b[31m  │- -- a rule\x1b[0m",
            "\x1b[32m  │+ ++ more\x1b[0m",
        ]
    )


def test_names_and_values_stand_in_columns_and_empty_ones_are_left_out():
    pairs = [("By", "ada"), ("Why", "It failed\nthree times in a row, at midnight"), ("Tags", "")]

    assert labelled(pairs, 30) == snapshot(
        ["  By   ada", "  Why  It failed", "       three times in a row,", "       at midnight"]
    )
