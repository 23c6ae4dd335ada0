import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.jobs.ignore_rules import path_pattern, refusal, rules_of
from server.jobs.project_files import ProjectFiles

TREE = ("a", "b", "ab", "a.c", "c/a", "c/ab", "c/c/a", "c/c/a.c", "c/d/b", "d/c/ab", "#h", "!n")
STARS = ["*", "**", "***", "a*", "*b", "*.c", "*a*b*"]
OTHERS = ["a", "b", "c", "d", "?", "[ab]", "[!a]", "[a-c]", "#h", "\\#h", "\\!n", "a\\"]
CLASSES = ["[[:alpha:]]", "[[:punct:][:lower:]]", "a[^[:digit:]b]", "[[:no:]]", "[[:alpha:]"]
ESCAPES = ["[\\]a]", "[a\\-b]", "[!\\a]b", "[]\\a]", "[\\]", "[\\"]
ODD = ["[b", "[c/a]", "[[a]", "[a--]", "[a||b]"]


def ignore_files(*segments: str) -> st.SearchStrategy[str]:
    line = st.tuples(
        st.sampled_from(["", "", "!"]),
        st.sampled_from(["", "/"]),
        st.lists(st.sampled_from(segments), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["", "", "/", " ", "\r"]),
    ).map("".join)
    return st.lists(line, max_size=4).map("\n".join)


FILES = ignore_files(*STARS, *OTHERS)
STRANGE = ignore_files(*STARS, *OTHERS, *CLASSES, *ESCAPES, *ODD)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def left_by_git(clone: Path) -> list[str]:
    command = ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-oz", "--exclude-standard"]
    found = subprocess.run(command, cwd=clone, check=True, capture_output=True, text=True)
    return sorted(filter(None, found.stdout.split("\0")))


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with Git")
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(FILES, FILES, FILES)
def test_the_files_that_git_does_not_ignore_are_left(
    clone: Path, top: str, below: str, excluded: str
):
    (clone / ".gitignore").write_text(top)
    (clone / "c/.gitignore").write_text(below)
    (clone / ".git/info/exclude").write_text(excluded)

    found = [file.path for file in ProjectFiles(clone).list_files().files]

    assert found == left_by_git(clone)


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with Git")
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STRANGE, STRANGE)
def test_whatever_stands_in_brackets_leaves_no_file_that_git_ignores(
    clone: Path, top: str, below: str
):
    (clone / ".gitignore").write_text(top)
    (clone / "c/.gitignore").write_text(below)

    found = {file.path for file in ProjectFiles(clone).list_files().files}

    assert found <= {*left_by_git(clone)}


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("dump[[:digit:]].sql", ["dump1.sql"]),
        ("[\\]a]", ["]", "a"]),
        ("[a\\-b]", ["a", "-", "b"]),
        ("*.sql\n!dump[[:digit:]].sql", ["dump1.sql", "dumpx.sql"]),
        ("\\[[ab]", ["[a"]),
        ("[b/c]", ["b", "c"]),
    ],
)
def test_a_bracket_with_a_class_or_an_escape_keeps_closed_what_it_closes_for_git(
    text: str, closed: list[str]
):
    rules = rules_of(text, "")

    assert [name for name in closed if refusal(name, rules, folder=False) is None] == []


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".ENV.production",
        "server.pem",
        "Server.KEY",
        "id_rsa",
        "id_rsa.pub",
        "id_ed25519_work",
        ".netrc",
        ".npmrc",
        ".pypirc",
        "credentials.json",
        "store.p12",
        "store.pfx",
        "vault.kdbx",
        ".aws",
        ".ssh",
        ".gnupg",
        ".git",
        ".GIT",
        ".hg",
        ".svn",
    ],
)
def test_secrets_and_version_control_stay_closed_whatever_the_rules_say(name: str):
    rules = rules_of("!*", "")

    assert all(
        refusal(f"deploy/{name}", rules, folder=folder) is not None for folder in (True, False)
    )


@pytest.mark.parametrize(
    "name",
    [".env.example", ".env.sample", ".env.template", ".github", "environment.py", "keys.py", "pem"],
)
def test_names_that_only_resemble_those_of_secrets_are_open(name: str):
    assert refusal(name, [], folder=False) is None


@pytest.mark.parametrize(
    "line",
    ["*a" * 30 + "b", "*?" * 30 + "b", "**/a/" * 30 + "b", "*[ab]" * 30 + "c", "b" + "[[" * 30_000],
)
def test_no_rule_takes_longer_than_anybody_waits(line: str):
    rules = rules_of(line, "")

    reasons = [refusal(path, rules, folder=False) for path in ("a" * 255, "/".join("a" * 50))]

    assert reasons == [None, None]


@pytest.mark.parametrize("text", ["", "  ", "# no", "!*.py", "/", "[", "a\\", "[z-a]"])
def test_what_chooses_no_files_is_no_pattern(text: str):
    assert path_pattern(text) is None


def test_a_pattern_chooses_what_lies_below_a_folder_too():
    pattern = path_pattern("tests")

    assert pattern is not None
    assert [bool(pattern.match(path)) for path in ("tests/a/b.py", "a/tests/b.py", "tests.py")] == [
        True,
        True,
        False,
    ]
