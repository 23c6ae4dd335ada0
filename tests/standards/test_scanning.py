import pytest
from dirty_equals import IsFloat
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.standards.ranking import Filters
from server.standards.scanning import Scanned, scan
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Project
from tests.standards.searching.conftest import HOSTILE

EVERYTHING = Filters(domain=None, tags=(), layer=None)
NOTE = "# Note\n\n{}\n"


def topics(found: list[Scanned]) -> list[str]:
    return [one.file.topic for one in found]


@pytest.fixture
def standards(project: Project) -> Project:
    project.write("testing/flaky-tests.md", f"---\ntags: [Python, flaky]\n---\n\n{FLAKY}")
    project.write("development/retries.md", RETRIES)
    return project


def test_a_passage_is_found_with_its_line_and_section(standards: Project):
    found = scan(standards.place, ["the midnight run"], EVERYTHING, 5)

    assert [
        (one.file.shown, one.line, one.passage.section, one.passage.text, one.relevance)
        for one in found
        if one.relevance > 0.3
    ] == snapshot(
        [
            (
                ".agent-os/standards/testing/flaky-tests.md",
                13,
                "Pattern",
                "Pass the clock in. A test that reads the time twice fails around midnight.",
                IsFloat(gt=0.3, lt=1),
            )
        ]
    )


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("retry", "Retries"),
        ("retries", "retried"),
        ("testing", "A test"),
        ("tests", "tested"),
        ("cache", "caching"),
        ("processes", "process"),
        ("ERROR", "errors"),
        ("STRASSE", "straße"),
        ("重试", "重试"),
    ],
)
def test_the_ending_of_a_word_makes_no_difference(project: Project, query: str, written: str):
    project.write("testing/note.md", NOTE.format(written))

    assert topics(scan(project.place, [query], EVERYTHING, 5)) == ["note"]


def test_other_words_are_not_taken_for_it(project: Project):
    project.write("testing/note.md", NOTE.format("A seed, a clerk, an interval."))

    assert scan(project.place, ["clock", "internal"], EVERYTHING, 5) == []


def test_a_rare_word_counts_more_than_those_that_stand_everywhere(project: Project):
    for number in range(9):
        project.write(f"testing/{number}.md", NOTE.format("What the team does about it."))
    project.write("testing/z.md", NOTE.format("Jitter spreads load."))

    found = scan(project.place, ["what does the team say about jitter"], EVERYTHING, 1)

    assert topics(found) == ["z"]


def test_the_title_and_the_section_count_too(project: Project):
    project.write("testing/note.md", "# Clocks\n\n## Seeds\n\nPass them in.\n")

    found = scan(project.place, ["clock seed"], EVERYTHING, 5)

    assert [one.relevance for one in found] == [1]


def test_each_of_several_wordings_counts(standards: Project):
    found = scan(standards.place, ["midnight", "jitter"], EVERYTHING, 5)

    assert sorted(topics(found)) == ["flaky-tests", "retries"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters("testing", (), None), ["flaky-tests"]),
        (Filters("test", (), None), []),
        (Filters(None, ("python", "flaky"), None), ["flaky-tests"]),
        (Filters(None, ("python", "java"), None), []),
        (Filters(None, (), "project"), ["flaky-tests", "retries"]),
        (Filters(None, (), "universal"), []),
    ],
)
def test_filters_hold(standards: Project, filters: Filters, found: list[str]):
    assert sorted(topics(scan(standards.place, ["midnight jitter"], filters, 5))) == found


def test_the_library_is_searched_too(standards: Project):
    library = standards.place.root.parent / "library"
    (library / "universal" / "testing").mkdir(parents=True)
    (library / "universal" / "testing" / "clocks.md").write_text(NOTE.format("Before midnight."))
    place = but(standards.place, library=library)

    found = scan(place, ["midnight"], Filters(None, (), "universal"), 5)

    assert [one.file.shown for one in found] == ["universal/testing/clocks.md"]


def test_files_that_cannot_be_read_are_passed_over(standards: Project):
    standards.write("testing/binary.md", b"midnight \xff\xfe")
    standards.write("testing/large.md", "midnight " * 200_000)
    (standards.place.standards / "testing" / "folder.md").mkdir()

    assert topics(scan(standards.place, ["midnight"], EVERYTHING, 5)) == ["flaky-tests"]


def test_without_a_folder_of_standards_nothing_is_found(project: Project):
    assert scan(project.place, ["midnight"], EVERYTHING, 5) == []


@pytest.mark.parametrize("query", HOSTILE)
def test_any_text_is_a_query(standards: Project, query: str):
    found = scan(standards.place, [query], EVERYTHING, 5)

    assert all(0 < one.relevance <= 1 for one in found)


@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(1, 20))
@example(["000", "01:NON", "00"], 1)
def test_the_best_come_first_and_no_more_than_asked_for(
    tmp_path_factory: pytest.TempPathFactory, queries: list[str], limit: int
):
    project = Project(tmp_path_factory.mktemp("scan").resolve() / "repository")
    for topic in ("a", "b", "c"):
        project.write(f"testing/{topic}.md", f"{FLAKY}\n{' '.join(queries)}\n{topic * 3}\n")

    found = scan(project.place, queries, EVERYTHING, limit)

    relevance = [one.relevance for one in found]
    assert len(found) <= limit
    assert relevance == sorted(relevance, reverse=True)
    assert all(0 < one <= 1 for one in relevance)


def test_the_words_of_a_second_title_find_what_stands_below_it(project: Project):
    project.write("testing/note.md", "# Clocks\n\nPass them in.\n\n# Zebras\n\nLeave them out.\n")

    found = scan(project.place, ["zebras"], EVERYTHING, 5)

    assert [one.passage.text for one in found] == ["Leave them out."]
