"""Domains and topics are names of a folder and a file, and can never be a path."""

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from server.errors import Invalid
from server.standards.catalogue import read_standard
from server.standards.service import StandardExists
from server.standards.shapes import NAME_LENGTH, FileName, folded
from server.work import App, Caller
from tests.standards.conftest import FLAKY, Project, approved, proposed

pytestmark = pytest.mark.anyio

NAME = TypeAdapter[str](FileName)
# What Microsoft's "Naming Files, Paths, and Namespaces" keeps for devices, and forbids in names.
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')

PATHS = {
    "a parent": "../x",
    "parents in the middle": "a/../../b",
    "an escaped separator": "..%2Fx",
    "escaped dots": "%2e%2e",
    "a folder": "a/b",
    "a backslash": "a\\b",
    "an absolute path": "/etc/passwd",
    "a path of Windows": "C:\\x",
    "a drive": "c:x",
    "a stream": "x:y",
    "a home": "~root",
    "here": ".",
    "above": "..",
    "dots": "...",
    "dots within": "a..b",
    "hidden": ".git",
    "an option": "-rf",
    "an ending dot": "x.",
    "only the suffix": ".md",
    "a wildcard": "*",
    "a quotation mark": 'a"b',
    "a question mark": "what?",
}
UNSEEN = {
    "NUL": "a\0b",
    "a line break": "a\nb",
    "a bell": "a\x07b",
    "a line separator": "a\u2028b",
    "an override of the direction": "a\u202egpj",
    "an isolate": "a\u2066b",
    "a space of no width": "a\u200bb",
    "a byte order mark": "a\ufeffb",
    "half a character": "a\ud800",
}
TAKEN = ("con", "CON", "nul.md", "con.txt", "com1", "LPT9.a.md")
BLANK = ("", " ", "\t", "\u3164")


@pytest.mark.parametrize(
    "name", [*PATHS.values(), *UNSEEN.values(), *TAKEN, *BLANK, "x" * (NAME_LENGTH + 1)]
)
@pytest.mark.parametrize("field", ["domain", "topic"])
async def test_what_is_no_name_of_a_file_everywhere_is_refused(
    app: App, agent: Caller, project: Project, field: str, name: str
):
    with pytest.raises(Invalid, match=f"^{field}: "):
        await proposed(app, agent, **{field: name})

    assert not project.place.standards.exists()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("flaky-tests", "flaky-tests"),
        ("Flaky  Tests", "flaky-tests"),
        (" Flaky\u00a0Tests ", "flaky-tests"),
        ("flaky_tests", "flaky_tests"),
        ("Flaky-Tests.MD", "flaky-tests"),
        ("node.js", "node.js"),
        ("C++ & C#", "c++-&-c#"),
        ("ТЕСТЫ", "тесты"),
        ("café", "café"),
        ("再試行", "再試行"),
        ("constants", "constants"),
        ("x" * NAME_LENGTH, "x" * NAME_LENGTH),
    ],
)
def test_a_name_becomes_one_that_is_easy_to_type(given: str, name: str):
    assert NAME.validate_python(given) == name


async def test_names_that_differ_in_case_blanks_and_suffix_mean_one_file(
    app: App, agent: Caller, project: Project
):
    project.write("Error handling/Retry_Rules.md")

    for domain, topic in (("error-handling", "retry-rules"), ("ERROR_HANDLING", "Retry Rules.md")):
        with pytest.raises(StandardExists, match=r"Error handling/Retry_Rules.md exists already"):
            await proposed(app, agent, domain=domain, topic=topic)


async def test_a_new_topic_lies_in_the_folder_that_its_domain_has_already(
    app: App, agent: Caller, project: Project
):
    project.write("Error handling/timeouts.md")

    made = await proposed(app, agent, domain="error-handling", topic="Retries")

    assert made.file == ".agent-os/standards/Error handling/retries.md"


def accepted(text: str) -> str | None:
    try:
        return NAME.validate_python(text)
    except ValidationError:
        return None


hostile = st.text(st.sampled_from("abcnulo./\\:*~-_ %\0\n\u202e\u0130é1"), max_size=12)


@given(st.one_of(st.text(max_size=100), hostile))
@example("İ" * NAME_LENGTH)
def test_what_is_accepted_is_one_visible_component_below_its_folder(text: str):
    name = accepted(text)

    if name is None:
        return
    for suffix in ("", ".md"):
        for path in (
            PurePosixPath("/root", name + suffix),
            PureWindowsPath("C:/root", name + suffix),
        ):
            assert (path.name, path.parent) == (name + suffix, type(path)(path.anchor, "root"))
    assert not FORBIDDEN.search(name)
    assert not name.startswith((".", "-", "~"))
    assert not name.endswith((".", " "))
    assert name.partition(".")[0] not in DEVICES
    assert name.encode().decode() == name


@given(st.text(max_size=100))
def test_a_name_that_was_accepted_is_the_same_file_when_it_is_given_again(text: str):
    name = accepted(text)

    if name is not None and (again := accepted(name)) is not None:
        assert folded(again) == folded(name.removesuffix(".md"))


async def test_a_name_is_the_same_however_its_letters_are_composed(
    app: App, agent: Caller, project: Project
):
    decomposed = unicodedata.normalize("NFD", "prüfung")
    project.write(f"{decomposed}/größe.md")

    async with app.work(agent) as work:
        found = await read_standard(work, "Prüfung", "Größe")

    assert found.text == FLAKY


async def test_the_longest_name_that_is_accepted_can_be_written(
    app: App, agent: Caller, person: Caller
):
    topic = "漢" * 66
    draft = await proposed(app, agent, topic=topic)

    decided = await approved(app, person, draft.id)

    assert decided.message == f"Standard created at .agent-os/standards/testing/{topic}.md"
    with pytest.raises(Invalid, match="at most 200 bytes"):
        await proposed(app, agent, topic="漢" * 67)


async def test_look_alikes_of_dots_and_separators_are_what_they_look_like(app: App, agent: Caller):
    for topic in ("\uff0fetc", "\u2024\u2024", "a\uff0e\uff0e"):
        with pytest.raises(Invalid):
            await proposed(app, agent, topic=topic)
