"""What is no standard is skipped, and harms nothing."""

import os
from pathlib import Path

import pytest
from dirty_equals import IsPartialDict
from inline_snapshot import snapshot

from server.standards.shapes import Skipped
from tests.standards.conftest import FLAKY, Index, Project
from tests.standards.indexing.conftest import SHOWN, Shelf, shown

pytestmark = pytest.mark.anyio


async def test_what_is_no_standard_is_skipped_with_its_reason_and_harms_nothing(
    project: Project, index: Index, shelf: Shelf, tmp_path: Path
):
    project.write("testing/flaky-tests.md")
    project.write("testing/large.md", b"a" * 5_000_000)
    project.write("testing/latin.md", b"# Caf\xe9\n")
    project.write("testing/nul.md", b"# A\0B\n")
    project.write("testing/front.md", "---\ntags: [\n---\n\n# Bracket\n\nUnclosed.\n")
    project.write("testing/folder.md/notes.txt")
    project.write(os.fsdecode(b"testing/caf\xe9.md"))
    os.mkfifo(project.place.standards / "testing" / "pipe.md")
    outside = tmp_path / "outside.md"
    outside.write_text("# Secret\n\nWalrus.\n")
    (project.place.standards / "testing" / "link.md").symlink_to(outside)
    (project.place.standards / "testing" / "loop.md").symlink_to("loop.md")

    report = await index()
    again = await index()

    assert report.skipped == snapshot(
        [
            Skipped(
                file=".agent-os/standards/testing/front.md",
                reason="The front matter cannot be used: it is no YAML (line 3).",
            ),
            Skipped(
                file=".agent-os/standards/testing/large.md",
                reason="large.md of testing is 5,000,000 bytes; the limit is 1,000,000.",
            ),
            Skipped(
                file=".agent-os/standards/testing/latin.md",
                reason="latin.md of testing is not UTF-8 text.",
            ),
            Skipped(
                file=".agent-os/standards/testing/nul.md",
                reason="nul.md of testing is not UTF-8 text.",
            ),
            Skipped(
                file=".agent-os/standards/testing/pipe.md",
                reason="pipe.md of testing cannot be read: not a regular file.",
            ),
        ]
    )
    assert sorted(report.changed) == shown(
        "testing/flaky-tests.md",
        "testing/front.md",
        "testing/large.md",
        "testing/latin.md",
        "testing/nul.md",
        "testing/pipe.md",
    )
    assert dict(again) == IsPartialDict(changed=[], removed=[], skipped=report.skipped)
    assert [len(await shelf.found(word)) for word in ("midnight", "unclosed")] == [1, 1]
    assert await shelf.found("walrus") == []
    assert {row[0] for row in await shelf.passages()} == {
        "testing/flaky-tests.md",
        "testing/front.md",
    }
    problems = {one.topic: one.problem for one in await shelf.listed()}
    assert {name for name, problem in problems.items() if not problem} == {"flaky-tests"}


async def test_a_link_that_leads_out_takes_the_place_of_a_file_and_is_not_read(
    project: Project, index: Index, shelf: Shelf, tmp_path: Path
):
    file = project.write("testing/flaky-tests.md")
    await index()
    outside = tmp_path / "outside.md"
    outside.write_text("# Secret\n\nWalrus.\n")
    file.unlink()
    file.symlink_to(outside)

    report = await index()

    assert (report.changed, report.removed) == ([], shown("testing/flaky-tests.md"))
    assert await shelf.passages() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
async def test_a_file_that_may_not_be_read_is_skipped(project: Project, index: Index):
    project.write("testing/retries.md").chmod(0)

    report = await index()

    assert [one.reason for one in report.skipped] == [
        "retries.md of testing cannot be read: permission denied."
    ]


async def test_a_file_that_breaks_is_found_no_more_until_it_is_mended(
    project: Project, index: Index, shelf: Shelf
):
    project.write("testing/flaky-tests.md")
    await index()
    await shelf.found("midnight")

    project.write("testing/flaky-tests.md", FLAKY.encode() + b"\xff")
    broken = await index()
    passages = await shelf.passages()
    project.write("testing/flaky-tests.md")
    mended = await index()

    reason = "flaky-tests.md of testing is not UTF-8 text."
    assert broken.skipped == [Skipped(file=f"{SHOWN}/testing/flaky-tests.md", reason=reason)]
    assert passages == []
    assert (mended.changed, mended.skipped) == (shown("testing/flaky-tests.md"), [])
    assert await shelf.counts() == {"testing/flaky-tests.md": 1}
    assert len(await shelf.found("midnight")) == 1
