"""What an approval makes of the file, and what happens when the disk refuses."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from inline_snapshot import snapshot
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from server.errors import Forbidden
from server.personas import assets
from server.standards.catalogue import statistics
from server.standards.documents import read_document
from server.standards.folder import StandardLinked
from server.standards.indexer import index_standards
from server.standards.proposals import Decided
from server.standards.queries import list_proposals, not_written
from server.standards.search import search_standards
from server.standards.shapes import Hit
from server.standards.writing import (
    NotApproved,
    StandardNotWritten,
    StandardSuperseded,
    write_approved,
)
from server.work import READ_ONLY, App, Caller, Place, Work
from tests.conftest import but, operator
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    agent_of,
    approved,
    audited,
    person_of,
    proposed,
    rejected,
    shown,
    using,
)

pytestmark = pytest.mark.anyio

FILE = ".agent-os/standards/testing/flaky-tests.md"
PATH = "testing/flaky-tests.md"


async def repaired(app: App, caller: Caller, proposal: int) -> Decided:
    return await write_approved(app, caller, proposal)


async def only_hit(app: App, caller: Caller) -> Hit:
    (hit, *_) = (await search_standards(app, caller, "fails around midnight clock")).hits
    return hit


async def test_the_file_is_the_text_and_above_it_who_stands_behind_it(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent, tags=["time", "ci"])
    before = datetime.now(UTC).replace(microsecond=0)

    await approved(app, person, made.id)

    document = read_document(project.read(PATH))
    assert document.front.created_at is not None
    assert before <= document.front.created_at <= datetime.now(UTC)
    moment = document.front.created_at.isoformat().replace("+00:00", "Z")
    assert project.read(PATH).replace(moment, "MOMENT") == snapshot("""\
---
created_by: ada via claude-code
approved_by: ada
approved_sha256: eb91bc7528e1d07b3a32f5b20a52457ec888e7e600a01eb4091a4f27e1d8dbd5
created_at: MOMENT
last_updated: MOMENT
tags:
- time
- ci
---

# Flaky tests

## Context

A test that fails now and then is worse than none: people stop reading the red.

## Pattern

Pass the clock in. A test that reads the time twice fails around midnight.
""")
    assert project.files() == [PATH]


async def test_a_change_keeps_who_made_it_and_what_others_wrote_above_it(
    app: App, agent: Caller, person: Caller, project: Project
):
    file = project.write(
        PATH,
        "---\nowner: {team: qa, rooms: [1, 2]}\ncreated_by: qa-quinn-1\ntags: old\n"
        "created_at: 2024-01-31T10:00:00Z\nlast_updated: 2024-02-01\napproved_by: grace\n---\n"
        f"{RETRIES}",
    )
    file.chmod(0o640)
    base = assets.sha256(file.read_text(encoding="utf-8"))
    made = await proposed(app, agent, base_sha256=base)

    answer = await approved(app, person, made.id)

    document = read_document(project.read(PATH))
    assert document.front.last_updated is not None
    assert document.front.last_updated.year > 2024
    front = document.front.model_dump(exclude={"last_updated", "approved_sha256"})
    assert front == {
        "created_by": "qa-quinn-1",
        "approved_by": "ada",
        "created_at": datetime(2024, 1, 31, 10, tzinfo=UTC),
        "tags": ("old",),
        "others": {"owner": {"team": "qa", "rooms": [1, 2]}},
    }
    assert document.body == FLAKY
    assert file.stat().st_mode & 0o777 == 0o640
    assert (answer.created, answer.message) == (False, f"Standard updated at {FILE}")


async def test_new_tags_take_the_place_of_the_old_ones(
    app: App, agent: Caller, person: Caller, project: Project
):
    old = "---\ntags: [old]\n---\n# X\n"
    project.write(PATH, old)
    made = await proposed(app, agent, tags=["new"], base_sha256=assets.sha256(old))

    await approved(app, person, made.id)

    assert read_document(project.read(PATH)).front.tags == ("new",)


async def test_the_text_that_was_approved_is_approved_until_somebody_changes_it(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)
    await approved(app, person, made.id)

    approved_text = await only_hit(app, agent)
    whole = project.read(PATH)
    project.write(PATH, whole.replace("twice", "two times"))
    await index_standards(app, agent)
    by_hand = await only_hit(app, agent)
    project.write(PATH, whole)
    await index_standards(app, agent)
    back = await only_hit(app, agent)

    assert [(hit.review, hit.approved_by) for hit in (approved_text, by_hand, back)] == [
        ("approved", "ada"),
        ("unreviewed", None),
        ("approved", "ada"),
    ]


async def test_in_another_project_the_file_only_claims_that_it_was_approved(
    app: App, agent: Caller, person: Caller, project: Project, tmp_path: Path
):
    made = await proposed(app, agent)
    await approved(app, person, made.id)
    root = (tmp_path / "other").resolve()
    other = but(app, place=Place("", root, root / "standards", None))
    copy = root / "standards" / "testing" / "flaky-tests.md"
    copy.parent.mkdir(parents=True)
    copy.write_text(project.read(PATH), encoding="utf-8")

    await index_standards(other, agent)

    hit = await only_hit(other, agent)
    assert (hit.review, hit.approved_by) == ("claimed", "ada")


async def test_a_file_that_lies_there_already_is_approved_as_it_is(
    app: App, agent: Caller, person: Caller, project: Project
):
    """Somebody else's checkout, or a repair that was cut short, may have written it before."""
    made = await proposed(app, agent)
    project.write("testing", "in the way")
    with pytest.raises(StandardNotWritten):
        await approved(app, person, made.id)
    query = text("SELECT document FROM dramatis.approved_files")
    document = await using(app, agent, lambda work: work.session.scalar(query))
    (project.place.standards / "testing").unlink()
    file = project.write(PATH, str(document))
    before = file.stat()

    answer = await repaired(app, person, made.id)

    assert answer.status == "approved"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_the_file_is_written_beside_and_moved_so_that_nobody_reads_a_half(
    app: App, agent: Caller, person: Caller, project: Project
):
    file = project.write(PATH, RETRIES)
    made = await proposed(app, agent, base_sha256=assets.sha256(RETRIES))

    with file.open(encoding="utf-8") as opened_before:
        await approved(app, person, made.id)

        assert opened_before.read() == RETRIES
    assert project.read(PATH).endswith(f"\n\n{FLAKY}")
    assert project.files() == [PATH]


class Trouble:
    """A file where the folder should be, until it is mended."""

    def __init__(self, project: Project) -> None:
        self.at = project.place.standards / "testing"

    def make(self) -> None:
        self.at.parent.mkdir(parents=True, exist_ok=True)
        self.at.write_text("in the way")

    def mend(self) -> None:
        self.at.unlink()


@pytest.fixture
def trouble(project: Project) -> Trouble:
    return Trouble(project)


async def test_what_the_disk_refuses_is_approved_shown_and_repaired_as_often_as_one_likes(
    app: App, agent: Caller, person: Caller, project: Project, trouble: Trouble
):
    made = await proposed(app, agent)
    trouble.make()

    with pytest.raises(StandardNotWritten) as refused:
        await approved(app, person, made.id)
    with pytest.raises(StandardNotWritten):
        await repaired(app, person, made.id)
    pending = await told(app, agent, made.id)
    trouble.mend()
    answers = [await repaired(app, operator(app), made.id) for _ in range(3)]

    assert str(refused.value).replace(str(made.id), "N") == snapshot(
        "Proposal N is approved, but .agent-os/standards/testing/flaky-tests.md could not be written: file exists. See to it that .agent-os/standards/testing/flaky-tests.md can be written, then run `dramatis standards repair N`."
    )
    assert str(project.place.root) not in str(refused.value)
    assert pending == (True, [True], [made.id], 1)
    assert await told(app, agent, made.id) == (False, [False], [], 0)
    assert len({answer.model_dump_json() for answer in answers}) == 1
    assert answers[0].path == str(project.place.root / FILE)
    assert (await only_hit(app, agent)).review == "approved"
    written = [one for one in await audited(app, agent) if one[1] == "standard.written"]
    assert [who for who, *_ in written] == ["tester"]


async def told(app: App, caller: Caller, proposal: int) -> tuple[Any, ...]:
    """Return what detail, listing, the list of what is not written, and the statistics say."""

    async def read(work: Work) -> tuple[Any, ...]:
        listed = await list_proposals(work, status="approved")
        return (
            [one.not_written for one in listed.proposals],
            [one.id for one in await not_written(work)],
            (await statistics(work)).not_written,
        )

    detail = await shown(app, caller, proposal)
    return detail.not_written, *(await using(app, caller, read))


async def test_a_link_that_leads_out_since_the_approval_is_not_followed(
    app: App, agent: Caller, person: Caller, project: Project, trouble: Trouble, tmp_path: Path
):
    made = await proposed(app, agent)
    trouble.make()
    with pytest.raises(StandardNotWritten):
        await approved(app, person, made.id)
    trouble.mend()
    outside = tmp_path / "outside"
    outside.mkdir()
    trouble.at.symlink_to(outside)

    with pytest.raises(StandardNotWritten, match=r"Replace the link by a folder or a file, then"):
        await repaired(app, person, made.id)

    assert list(outside.iterdir()) == []
    trouble.mend()
    assert (await repaired(app, person, made.id)).created
    assert project.files() == [PATH]


async def test_a_file_made_since_the_approval_is_left_as_it_is(
    app: App, agent: Caller, person: Caller, project: Project, trouble: Trouble
):
    made = await proposed(app, agent)
    trouble.make()
    with pytest.raises(StandardNotWritten):
        await approved(app, person, made.id)
    trouble.mend()
    file = project.write(PATH, RETRIES)

    with pytest.raises(StandardNotWritten, match=f"Move {FILE} away, then run"):
        await repaired(app, person, made.id)

    assert project.read(PATH) == RETRIES
    file.unlink()
    await repaired(app, person, made.id)
    assert project.read(PATH).endswith(f"\n\n{FLAKY}")


async def test_an_approval_that_cannot_be_written_gives_way_to_the_next_one(
    app: App, agent: Caller, person: Caller, project: Project, trouble: Trouble
):
    first = await proposed(app, agent)
    trouble.make()
    with pytest.raises(StandardNotWritten):
        await approved(app, person, first.id)
    trouble.mend()
    base = assets.sha256(project.write(PATH, RETRIES).read_text(encoding="utf-8"))
    second = await proposed(app, agent, content=f"{FLAKY}\nNever sleep.", base_sha256=base)

    await approved(app, person, second.id)

    assert project.read(PATH).endswith("\n\nNever sleep.\n")
    assert await using(app, person, not_written) == []
    with pytest.raises(StandardSuperseded, match="Another text was approved"):
        await repaired(app, person, first.id)


async def test_without_an_index_a_standard_is_proposed_approved_and_written(
    own_app: App, project: Project, owner: psycopg.Connection
):
    made = await proposed(own_app, agent_of(own_app))
    owner.execute("DROP TABLE dramatis.postings")

    again = await proposed(own_app, agent_of(own_app), topic="other", content=RETRIES)
    decided = await approved(own_app, person_of(own_app), made.id)

    assert again.similar == []
    assert decided.message == f"Standard created at {FILE}"
    assert project.read(PATH).endswith(f"\n\n{FLAKY}")


async def test_nothing_is_written_behind_a_link_within_the_folder(
    app: App, agent: Caller, project: Project
):
    project.write("real/kept.md")
    (project.place.standards / "testing").symlink_to("real")

    with pytest.raises(StandardLinked, match="behind a symbolic link"):
        await proposed(app, agent)


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is closed to root")
async def test_a_closed_folder_is_reported_and_its_file_kept(
    app: App, agent: Caller, person: Caller, project: Project
):
    file = project.write(PATH, RETRIES)
    made = await proposed(app, agent, base_sha256=assets.sha256(RETRIES))
    file.parent.chmod(0o500)

    try:
        with pytest.raises(StandardNotWritten, match="permission denied"):
            await approved(app, person, made.id)
    finally:
        file.parent.chmod(0o700)

    assert project.read(PATH) == RETRIES
    assert (await repaired(app, person, made.id)).created is False


async def test_a_repair_tells_of_the_approval_and_not_of_who_repairs(
    app: App, person: Caller, trouble: Trouble
):
    made = await proposed(app, person)
    trouble.make()
    with pytest.raises(StandardNotWritten):
        await approved(app, person_of(app, "grace"), made.id)
    trouble.mend()

    answer = await repaired(app, person, made.id)

    assert answer.self_approved is False


async def test_there_is_nothing_to_write_before_somebody_approves(
    app: App, agent: Caller, person: Caller, project: Project
):
    draft = await proposed(app, agent)
    other = await proposed(app, agent, content=RETRIES)
    await rejected(app, person, other.id, "No.")

    for number, status in ((draft.id, "a draft"), (other.id, "rejected")):
        with pytest.raises(NotApproved, match=f"is {status}, so there is nothing to write"):
            await repaired(app, person, number)

    assert project.files() == []


async def test_who_may_only_read_writes_no_file_either(
    app: App, agent: Caller, person: Caller, project: Project, trouble: Trouble
):
    made = await proposed(app, agent)
    trouble.make()
    with pytest.raises(StandardNotWritten):
        await approved(app, person, made.id)
    trouble.mend()

    with pytest.raises(Forbidden):
        await repaired(app, but(agent, scopes=READ_ONLY), made.id)

    assert project.files() == []


@pytest.mark.parametrize("statement", ["UPDATE {} SET document = ''", "DELETE FROM {}"])
async def test_an_approved_text_cannot_be_changed_in_the_database_either(
    app: App, agent: Caller, person: Caller, statement: str
):
    made = await proposed(app, agent)
    await approved(app, person, made.id)

    async with app.work(agent) as work:
        with pytest.raises(ProgrammingError, match="permission denied for table approved_files"):
            await work.session.execute(text(statement.format("dramatis.approved_files")))
        await work.session.rollback()
