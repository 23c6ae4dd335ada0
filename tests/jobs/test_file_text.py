import pytest

from server.jobs.file_text import ANSWER_BYTES, WITHHELD, FileText, lines_between, secret_lines

KEY = "-----{} RSA PRIVATE KEY-----"


def read(text: str, first_line: int = 1, last_line: int | None = None) -> FileText:
    size_bytes, withheld = len(text.encode()), secret_lines(text)
    return lines_between("a", text, size_bytes, withheld, first_line, last_line)


@pytest.mark.parametrize(
    ("text", "asked", "answer"),
    [
        ("", (1, None), ("", 1, 0, 0)),
        ("a\nb", (1, None), ("a\nb", 1, 2, 2)),
        ("a\nb\n\n", (1, None), ("a\nb\n", 1, 3, 3)),
        ("a\nb\n", (-5, 1), ("a", 1, 1, 2)),
        ("a\nb\n", (2, 99), ("b", 2, 2, 2)),
        ("a\nb\n", (9, None), ("", 9, 8, 2)),
        ("a\nb\n", (2, 1), ("", 2, 1, 2)),
        ("a\nb\n", (1, -1), ("", 1, 0, 2)),
        ("a\r\nb\rc", (2, 3), ("b\nc", 2, 3, 3)),
        ("a\x0cb\u2028c\n", (1, None), ("a\x0cb\u2028c", 1, 1, 1)),
    ],
)
def test_any_range_of_lines_is_answered(
    text: str, asked: tuple[int, int | None], answer: tuple[str, int, int, int]
):
    found = read(text, *asked)

    assert (found.text, found.first_line, found.last_line, found.total_lines) == answer
    assert not found.truncated


def test_a_long_text_comes_in_parts_that_make_up_the_whole():
    text = "\n".join(f"{'ä' * 40} {number}" for number in range(2_000))

    parts = [read(text)]
    while parts[-1].next_line:
        parts.append(read(text, parts[-1].next_line))

    assert "\n".join(part.text for part in parts) == text
    assert all(len(part.text.encode()) <= ANSWER_BYTES for part in parts)
    assert [part.truncated for part in parts] == [True, True, False]


def test_a_line_that_is_too_long_is_cut_between_two_characters():
    found = read(f"a{'ä' * 99_999}\nnext\n")

    assert found.text == f"a{'ä' * 32_767} [cut here: the line has 100,000 characters]"
    assert (found.truncated, found.last_line, found.next_line) == (True, 1, 2)


def test_a_private_key_is_withheld_to_its_end():
    key = [KEY.format("BEGIN"), "Proc-Type: 4,ENCRYPTED", "", "abc/", KEY.format("END")]
    text = "\n".join(["start", *key, "end"])

    found = read(text)

    assert found.text.split("\n") == ["start", *[WITHHELD] * 5, "end"]
    assert (found.withheld_lines, read(text, 6).withheld_lines) == (5, 1)


def test_a_mention_of_a_private_key_hides_no_other_line():
    header, end = KEY.format("BEGIN"), KEY.format("END")

    found = read(f"{header}a{end}\nkept\n{header}\nkey\n{end}\nkept\n{header}\nkept\n")

    shown = ["-" if line == WITHHELD else line for line in found.text.split("\n")]
    assert shown == ["-", "kept", "-", "-", "-", "kept", "-", "kept"]
