import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from pydantic import TypeAdapter, ValidationError

from server.personas import assets
from server.standards import folder
from server.standards.folder import Content, StandardChanged, StandardFile, StandardLinked
from server.standards.shapes import FileName, folded
from server.work import Place
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Project

CYRILLIC = "тесты"
FILE_NAME = TypeAdapter[str](FileName)


def paths(project: Project) -> list[str]:
    return [file.path for file in folder.find_files(project.place)]


def only_file(project: Project) -> StandardFile:
    (file,) = folder.find_files(project.place)
    return file


def linked(project: Project, path: str, target: Path | str) -> Path:
    link = project.place.standards / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    return link


def test_a_file_has_the_domain_of_its_first_folder_and_the_topic_of_the_rest(
    project: Project, tmp_path: Path
):
    for path in ("testing/flaky-tests.md", "Testing/Error_Handling.md", "a/b/c.md", "readme.md"):
        project.write(path)
    library = tmp_path / "library"
    for path in ("universal/security/secrets.md", "languages/python/naming.md", "other/no.md"):
        (library / path).parent.mkdir(parents=True)
        (library / path).write_text(RETRIES)

    place = but(project.place, library=library)

    found = folder.find_files(place)

    assert [(one.layer, one.domain, one.topic, one.key, one.shown) for one in found] == snapshot(
        [
            ("project", "general", "readme", "general/readme", ".agent-os/standards/readme.md"),
            (
                "project",
                "Testing",
                "Error_Handling",
                "testing/error-handling",
                ".agent-os/standards/Testing/Error_Handling.md",
            ),
            ("project", "a", "b/c", "a/b/c", ".agent-os/standards/a/b/c.md"),
            (
                "project",
                "testing",
                "flaky-tests",
                "testing/flaky-tests",
                ".agent-os/standards/testing/flaky-tests.md",
            ),
            (
                "universal",
                "security",
                "secrets",
                "security/secrets",
                "universal/security/secrets.md",
            ),
            ("language", "python", "naming", "python/naming", "languages/python/naming.md"),
        ]
    )
    assert [folder.file_at(place, one.layer, one.path) for one in found] == found
    assert [one.file.read_text() for one in found] == [FLAKY] * 4 + [RETRIES] * 2


def test_without_a_folder_there_are_no_files(project: Project, tmp_path: Path):
    assert folder.find_files(but(project.place, library=tmp_path / "library")) == []


def test_only_markdown_that_is_not_hidden_is_a_standard(project: Project):
    project.write("testing/kept.md")
    for path in (
        "testing/notes.txt",
        "testing/notes.md.bak",
        "testing/notes.md~",
        "testing/md",
        "testing/.hidden.md",
        "testing/.md",
        ".hidden/notes.md",
        "testing/.obsidian/notes.md",
    ):
        project.write(path)

    assert paths(project) == ["testing/kept.md"]


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"a\x1bb", "a\u202eb".encode(), "a\u2066b".encode(), "a\u200bb".encode(), b"a\xffb"],
    ids=["line break", "escape", "override", "isolate", "invisible", "no UTF-8"],
)
def test_a_name_that_cannot_be_shown_as_it_is_is_left_out(project: Project, name: bytes):
    project.write("testing/kept.md")
    project.write(f"testing/{CYRILLIC}.md")
    spelled = os.fsdecode(name)
    project.write(f"testing/{spelled}.md")
    project.write(f"{spelled}/notes.md")

    assert paths(project) == ["testing/kept.md", f"testing/{CYRILLIC}.md"]


def test_a_link_that_leads_out_is_no_standard(project: Project, tmp_path: Path):
    project.write("testing/kept.md")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("# Secret\n")
    linked(project, "testing/file.md", outside / "secret.md")
    linked(project, "testing/relative.md", "../../../../outside/secret.md")
    linked(project, "testing/chain.md", "file.md")
    linked(project, "folder", outside)
    linked(project, "testing/folder", outside)
    linked(project, "testing/folder.md", outside)

    assert paths(project) == ["testing/kept.md"]


def test_a_link_that_stays_inside_is_a_standard(project: Project):
    project.write("testing/kept.md")
    linked(project, "quality/same.md", "../testing/kept.md")

    assert paths(project) == ["quality/same.md", "testing/kept.md"]


@pytest.mark.parametrize("target", ["loop.md", "missing.md", "kept.md/below.md"])
def test_a_link_that_leads_nowhere_is_left_out(project: Project, target: str):
    project.write("testing/kept.md")
    linked(project, "testing/loop.md", target)

    assert paths(project) == ["testing/kept.md"]


def test_a_folder_with_the_name_of_a_file_is_a_folder(project: Project):
    project.write("testing/x.md/below.md")

    assert paths(project) == ["testing/x.md/below.md"]


def test_a_file_is_read_as_it_is(project: Project):
    written = project.write("testing/flaky-tests.md")

    content = folder.read(only_file(project))

    assert content == Content(
        text=FLAKY,
        sha256=assets.sha256(FLAKY),
        size_bytes=len(FLAKY),
        modified_at=datetime.fromtimestamp(written.stat().st_mtime, UTC),
        problem=None,
    )


def test_a_file_that_is_gone_is_nothing(project: Project):
    project.write("testing/flaky-tests.md").unlink()
    file = folder.file_at(project.place, "project", "testing/flaky-tests.md")

    assert folder.read(file) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a" * 5_000_000, "x.md of testing is 5,000,000 bytes; the limit is 1,000,000."),
        (b"a" * 1_000_001, "x.md of testing is 1,000,001 bytes; the limit is 1,000,000."),
        (b"# Caf\xe9\n", "x.md of testing is not UTF-8 text."),
        (b"# A\0B\n", "x.md of testing is not UTF-8 text."),
    ],
    ids=["5 MB", "a byte too many", "Latin 1", "NUL"],
)
def test_a_file_that_is_no_standard_says_why(project: Project, content: bytes, problem: str):
    project.write("testing/x.md", content)

    found = folder.read(only_file(project))

    assert found is not None
    assert (found.text, found.size_bytes, found.problem) == ("", len(content), problem)


def test_the_largest_file_that_is_allowed_is_read(project: Project):
    project.write("testing/x.md", b"a" * 1_000_000)

    found = folder.read(only_file(project))

    assert found is not None
    assert (len(found.text), found.problem) == (1_000_000, None)


def test_a_pipe_is_not_waited_for(project: Project):
    project.write("testing/kept.md").unlink()
    os.mkfifo(project.place.standards / "testing" / "x.md")

    found = folder.read(only_file(project))

    assert found is not None
    assert found.problem == "x.md of testing cannot be read: not a regular file."


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(project: Project):
    project.write("testing/x.md").chmod(0)

    found = folder.read(only_file(project))

    assert found is not None
    assert found.problem == "x.md of testing cannot be read: permission denied."


def test_a_file_that_cannot_be_read_is_the_same_until_somebody_touches_it(project: Project):
    written = project.write("testing/x.md", b"\xff")
    file = only_file(project)

    before, again = folder.read(file), folder.read(file)
    os.utime(written, (1, 1))
    touched = folder.read(file)

    assert before == again
    assert touched is not None
    assert before is not None
    assert touched.sha256 != before.sha256


def test_a_name_finds_the_file_in_whatever_spelling_it_has(project: Project):
    project.write("Code Quality/Error_Handling.md")

    there = folder.named(project.place, "code-quality", "error-handling")
    beside = folder.named(project.place, "code-quality", "retries")
    new = folder.named(project.place, "testing", "retries")

    assert [file.path for file in (there, beside, new)] == [
        "Code Quality/Error_Handling.md",
        "Code Quality/retries.md",
        "testing/retries.md",
    ]


def test_a_folder_that_is_a_link_gives_no_spelling(project: Project, tmp_path: Path):
    linked(project, "Testing", tmp_path)

    assert folder.named(project.place, "testing", "retries").path == "testing/retries.md"


def test_a_text_is_written_whole_and_only_over_what_it_was_made_for(project: Project):
    file = folder.named(project.place, "testing", "retries")

    folder.write(file, project.place, FLAKY, None)
    with pytest.raises(StandardChanged):
        folder.write(file, project.place, RETRIES, None)
    with pytest.raises(StandardChanged):
        folder.write(file, project.place, RETRIES, assets.sha256("another"))
    kept = project.read("testing/retries.md")
    folder.write(file, project.place, RETRIES, assets.sha256(FLAKY))

    assert kept == FLAKY
    assert project.read("testing/retries.md") == RETRIES
    assert project.files() == ["testing/retries.md"]


def test_a_text_whose_file_has_gone_is_not_written(project: Project):
    file = folder.named(project.place, "testing", "retries")

    with pytest.raises(StandardChanged):
        folder.write(file, project.place, RETRIES, assets.sha256(FLAKY))

    assert project.files() == []


def test_writing_what_is_there_changes_nothing(project: Project):
    written = project.write("testing/retries.md", RETRIES)
    os.utime(written, (1, 1))

    folder.write(only_file(project), project.place, RETRIES, assets.sha256("another"))

    assert written.stat().st_mtime == 1


def test_nothing_is_written_through_a_link_that_leads_out(project: Project, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    linked(project, "testing", outside)
    linked(project, "quality/retries.md", outside / "retries.md")

    for domain in ("testing", "quality"):
        file = folder.file_at(project.place, "project", f"{domain}/retries.md")
        with pytest.raises(StandardLinked):
            folder.write(file, project.place, RETRIES, None)

    assert list(outside.iterdir()) == []


def _names(text: str) -> str | None:
    try:
        return FILE_NAME.validate_python(text)
    except ValidationError:
        return None


names = st.text(max_size=20).map(_names).filter(bool)


@given(names, names)
def test_the_file_of_any_two_names_lies_in_its_folder_and_is_found_by_them(domain: str, topic: str):
    place = Place("", Path("/project"), Path("/project/standards"), None)

    file = folder.file_at(place, "project", f"{domain}/{topic}.md")

    assert file.file.parent.parent == place.standards
    assert (file.domain, file.topic) == (domain, topic)
    assert file.key == f"{folded(domain)}/{folded(topic)}"
    assert folded(file.key) == file.key
