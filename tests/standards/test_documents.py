import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from pydantic import JsonValue, ValidationError

from server.standards.documents import (
    FRONT_MATTER_LENGTH,
    Document,
    FrontMatter,
    body_sha256,
    has_front_matter,
    read_document,
    write_document,
)

# What YAML or Markdown could take for something of their own.
LOOKALIKES = (
    *(
        "no",
        "null",
        "~",
        "",
        "true",
        "1",
        "010",
        "1.0",
        "1e5",
        "1:30",
        "2026-01-01",
        "1_0",
        "<<",
        "tRUE",
    ),
    *("---", "a\n---\nb", "a: b", "a #b", "- a", "&a", "*a", "!a", "'", '"', "{", "\u2028", "\x85"),
    *("9" * 19, "1.0e+999", ".inf", "\ufeff", " a ", "é", "🦊", "\x7f", "\t", "a\r\nb", "=", "..."),
)
texts = st.sampled_from(LOOKALIKES) | st.text().filter(lambda text: "\0" not in text)
tags = st.text("abcß-é1 ,#", min_size=1, max_size=40).filter(str.strip)
moments = st.datetimes(
    datetime.fromisoformat("0001-01-02"),
    datetime.fromisoformat("9999-12-30"),
    timezones=st.just(UTC) | st.just(timezone.max),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values: st.SearchStrategy[JsonValue] = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8
)
OURS = FrontMatter.model_fields.keys()
fronts = st.builds(
    FrontMatter,
    created_by=st.none() | texts,
    approved_by=st.none() | texts,
    approved_sha256=st.none() | texts,
    created_at=st.none() | moments,
    last_updated=st.none() | moments,
    tags=st.lists(tags, max_size=3),
    others=st.dictionaries(texts.filter(lambda key: key not in OURS), values, max_size=3),
)
bodies = st.lists(
    st.sampled_from([*LOOKALIKES, "\n", "\r\n", "---\n", "# Title\n", "a: b\n", " "])
).map("".join)


@given(fronts, bodies | st.text())
@example(FrontMatter(), "---\na: b\n---\nBody")
@example(FrontMatter(), "\n---\nbody")
def test_what_is_written_is_read_back(front: FrontMatter, body: str):
    written = write_document(front, body)

    document = read_document(written)
    assert (document.front, document.problem) == (front, None)
    assert body_sha256(document.body) == body_sha256(body)
    assert document.body.split() == body.lstrip("\ufeff \t\r\n").split()
    assert write_document(document.front, document.body) == written
    assert document.body in "\n".join(written.split("\n")[document.body_line - 1 :])


@given(bodies | st.text() | bodies.map(lambda text: f"---\n{text}\n---\nBody"))
@example("---\na: [\n---\n")
@example("---\n? [a]\n: b\n---\n")
@example('---\n"\\UFFFFFFFF"\n---\n')
def test_any_text_can_be_read(text: str):
    document = read_document(text)

    assert read_document(write_document(document.front, document.body)).body == document.body


def test_a_file_says_who_made_it_and_what_else_people_keep():
    text = """\
\ufeff---
# Kept by hand.
title: Errors
tags: HTTP, errors , http
created_by: tom-architect
created_at: 2026-01-02
last_updated: 2026-01-02 10:30:00.5+02:00
owners: [a, {b: 1.5, c: yes, d: ~, 2: !!str 010}]
created_by: Tom
---

# Error *handling*

Text.
"""

    assert read_document(text.replace("\n", "\r\n")) == snapshot(
        Document(
            front=FrontMatter(
                created_by="Tom",
                created_at=datetime(2026, 1, 2, tzinfo=UTC),
                last_updated=datetime(2026, 1, 2, hour=8, minute=30, tzinfo=UTC),
                tags=("http", "errors"),
                others={
                    "title": "Errors",
                    "owners": ["a", {"b": 1.5, "c": "yes", "d": None, "2": "010"}],
                },
            ),
            body="""\
# Error *handling*

Text.
""",
            body_line=12,
            title="Error handling",
            problem=None,
        )
    )
    assert read_document(text.replace("\n", "\r")) == read_document(text)


def test_fields_are_written_in_one_order():
    front = FrontMatter(
        others={"b": None, "a": ["no", {"z": 1, "y": "1:30"}]},
        tags=("http", "2026"),
        last_updated=datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=3))),
        created_at=datetime.fromisoformat("2026-01-02"),
        approved_sha256="ab12",
        approved_by="Ann: CTO",
        created_by="tom-architect",
    )

    assert write_document(front, "\n# Errors\r\n\r\nText.\n\n") == snapshot("""\
---
created_by: tom-architect
approved_by: 'Ann: CTO'
approved_sha256: ab12
created_at: 2026-01-02T00:00:00Z
last_updated: 2026-01-02T00:04:05Z
tags:
- http
- '2026'
a:
- 'no'
- z: 1
  y: '1:30'
b: null
---

# Errors

Text.
""")


def test_empty_front_matter_is_written_only_where_the_text_would_pass_for_it():
    assert write_document(FrontMatter(), "# Errors") == "# Errors\n"
    assert write_document(FrontMatter(), "") == ""
    assert write_document(FrontMatter(), "---\na: b\n---") == "---\n---\n\n---\na: b\n---\n"
    assert write_document(FrontMatter(created_by="tom"), "") == "---\ncreated_by: tom\n---\n"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("a: b: c", "it is no YAML (line 3)"),
        ("a: [", "it is no YAML (line 4)"),
        ("a: &x [1]\nb: *x", "it uses aliases"),
        ("a: &x [*x]", "it uses aliases"),
        ("&x a: 1\n*x : 2", "it has a key that is no text"),
        ("? [a]\n: b", "it has a key that is no text"),
        ("a: \x01", "it has what YAML does not allow"),
        ('a: "\\UFFFFFFFF"', "it has what YAML does not allow"),
        ('a: "\\0"', "it has a character that cannot be stored"),
        ('"\\ud800": a', "it has a character that cannot be stored"),
        (f"a: {'[' * 20}{']' * 20}", "it is nested too deeply"),
        (f"a: \n  {'- ' * 2000}", "it is nested too deeply"),
        (f"a: {'x' * FRONT_MATTER_LENGTH}", "it is longer than 20,000 characters"),
    ],
)
def test_front_matter_that_cannot_be_used_is_left_out_and_said(written: str, problem: str):
    document = read_document(f"\n---\n{written}\n---\n# Errors\n")

    line = 5 + written.count("\n")
    said = f"The front matter cannot be used: {problem}."
    assert document == Document(FrontMatter(), "# Errors\n", line, "Errors", said)


@pytest.mark.parametrize("between", ["Words.", "- a list", "Words\n\n# Errors"])
def test_text_between_two_rules_stays_in_the_body(between: str):
    text = f"---\n{between}\n---\nMore.\n"

    document = read_document(text)

    assert (document.front, document.body, document.body_line) == (FrontMatter(), text, 1)
    assert document.problem == "The front matter cannot be used: it has no keys."


@pytest.mark.parametrize("text", ["---\na: b\n", "---\n", "--- a\nb\n---\n", "a\n---\nb: c\n---\n"])
def test_a_rule_is_no_front_matter(text: str):
    assert read_document(text) == Document(FrontMatter(), text, 1, None, None)
    assert not has_front_matter(text)


@pytest.mark.parametrize(
    "text", ["---\n---", "\n \n---\na: b\n--- \nc", "\ufeff---\r\n:\r\n---\r\n"]
)
def test_front_matter_is_found_behind_what_is_blank(text: str):
    assert has_front_matter(text)


def test_fields_that_are_not_of_their_kind_are_left_out_and_named():
    text = """\
---
created_by: [tom]
approved_by: Ann
approved_sha256: 7
created_at: soon
last_updated: 0001-01-01T00:00:00+05:00
tags: {a: b}
---
"""

    document = read_document(text)

    assert document.front == FrontMatter(approved_by="Ann")
    assert document.problem == snapshot(
        "Left out of the front matter, as not of their kind: approved_sha256, created_at, created_by, last_updated, tags."
    )


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ("[Http, 2026, http]", ("http", "2026")),
        ("", ()),
        ("' , a b,'", ("a b",)),
        ("\n- x\n- 'y'", ("x", "y")),
    ],
)
def test_tags_are_a_list_or_a_text_with_commas(written: str, tags: tuple[str, ...]):
    document = read_document(f"---\ntags: {written}\n---\n")

    assert (document.front.tags, document.problem) == (tags, None)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((text, text) for text in ("no", "010", "1_000", "1:30", "0x1F", "1e5", ".5", ".inf")),
        *((text, text) for text in ("2026-01-01", "=", "<<", "9" * 19, "1.0e+999", "+1")),
        *(("1", 1), ("-7", -7), ("1.50", 1.5), ("-1.0e-07", -1e-07), ("'1'", "1")),
        *(
            ("True", True),
            ("FALSE", False),
            ("tRUE", "tRUE"),
            ("Null", None),
            ("~", None),
            ("", None),
            ("''", ""),
        ),
        *(("!!binary aGk=", "aGk="), ("!!python/name:os.system", None), ("!x {a: 1}", {"a": 1})),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_what_others_keep_is_read_as_it_looks(written: str, value: JsonValue):
    read = read_document(f"---\nx: {written}\n---\n").front.others["x"]

    assert (type(read), read) == (type(value), value)


def test_the_hash_is_of_the_body_as_it_is_written():
    assert body_sha256("\r\n# Errors\r\n\r\n") == hashlib.sha256(b"# Errors\n").hexdigest()
    assert body_sha256("# Errors") == body_sha256(read_document("---\n---\n# Errors\n").body)


def test_a_number_is_no_date():
    with pytest.raises(ValidationError, match="must be a date"):
        FrontMatter.model_validate({"created_at": 20260101})
