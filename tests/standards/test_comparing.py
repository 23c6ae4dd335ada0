import time

from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.standards.comparing import diff

LINES = st.lists(st.sampled_from(["", "a", "b", "c\u2028d"]), max_size=12)


def test_what_changed_stands_among_what_stays():
    assert diff("a\n\nb\r\nc\n", "a\n\nB\nc") == snapshot(
        ["--- as it is", "+++ as proposed", "@@ -1,4 +1,4 @@", " a", " ", "-b", "+B", " c"]
    )


def test_how_lines_end_makes_no_difference():
    assert diff("a\r\nb\rc\n", "a\nb\nc") == []


def test_long_texts_are_counted_where_comparing_them_would_take_minutes():
    old = "\n".join(f"line {number % 110}" for number in range(20_000))
    new = "\n".join(f"other {number % 110}" for number in range(800))

    began = time.process_time()
    compared = diff(f"same\n{old}\nend", f"same\n{new}\nend")

    assert compared[2:4] == ["@@ -2,20000 +2,800 @@", "-(20,000 lines, too many to compare)"]
    assert len(compared) == 804
    # Seconds of work, of which the comparison would take dozens.
    assert time.process_time() - began < 10


@given(LINES, LINES)
def test_a_difference_gives_the_new_text_from_the_old_one(old: list[str], new: list[str]):
    before, after = ("\n".join(["first", *lines, "last"]) for lines in (old, new))
    compared = diff(before, after)

    if before == after:
        assert compared == []
    added = [line[1:] for line in compared[2:] if line.startswith("+")]
    removed = [line[1:] for line in compared[2:] if line.startswith("-")]
    assert sorted([*before.split("\n"), *added]) == sorted([*after.split("\n"), *removed])
