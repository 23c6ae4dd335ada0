import os
from datetime import UTC
from pathlib import Path

import anyio
import psycopg
import pytest
from dirty_equals import IsStr

from server.errors import Invalid
from server.personas import assets, files, service
from server.personas.assets import FileNotReadable, FileNotText, FileTooLarge
from server.personas.files import ExperienceFull, FileNotWritten, SkillChanged, SkillVersionNotFound
from server.personas.shapes import Registered
from server.work import App, Caller, DatabaseBusy, Work
from tests.conftest import Databases, operator
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await service.register_persona(app, caller, name="Con", role="developer")


@pytest.fixture
def skill(con: Registered) -> Path:
    return Path(con.path) / "skill.md"


@pytest.fixture
def experience(con: Registered) -> Path:
    return Path(con.path) / "experience.md"


async def test_reading_tells_content_hash_and_time(con: Registered, skill: Path, work: Work):
    skill.write_text("# Con\n")
    os.utime(skill, (1_700_000_000, 1_700_000_000))

    read = await files.read_files(work, "con", "skill")

    assert read.skill is not None
    assert read.skill.last_modified is not None
    assert read.skill.last_modified.tzinfo is UTC
    assert read.model_dump(mode="json") == {
        "slug": con.slug,
        "skill": {
            "exists": True,
            "path": str(skill),
            "content": "# Con\n",
            "sha256": assets.sha256("# Con\n"),
            "size_bytes": 6,
            "last_modified": "2023-11-14T22:13:20Z",
        },
        "experience": None,
        "skill_versions": [],
    }


async def test_an_absent_file_is_an_answer(experience: Path, work: Work):
    experience.unlink()

    read = await files.read_files(work, "con", "experience")

    assert read.experience is not None
    assert read.experience.model_dump() == {
        "exists": False,
        "path": str(experience),
        "content": None,
        "sha256": None,
        "size_bytes": None,
        "last_modified": None,
    }


@pytest.mark.parametrize(
    "text", ["", "no newline", "a\r\nb\r\n", "Ünï 王芳 🦊\n", "\ufeffx", "x" * 60_000]
)
async def test_a_skill_is_stored_exactly_as_given(skill: Path, work: Work, text: str):
    written = await files.write_skill(work.app, work.caller, "con", content=text)

    assert skill.read_bytes() == text.encode()
    assert written.sha256 == assets.sha256(text)
    assert written.changed is True


async def test_without_a_hash_the_answer_names_what_was_replaced(skill: Path, work: Work):
    skill.write_text("by hand")

    written = await files.write_skill(work.app, work.caller, "con", content="new")

    assert written.replaced_sha256 == assets.sha256("by hand")


async def test_a_change_since_the_last_reading_is_a_conflict_that_shows_it(skill: Path, work: Work):
    first = await files.write_skill(work.app, work.caller, "con", content="one\ntwo\n")
    await files.write_skill(work.app, work.caller, "con", content="one\nzwei\n")

    with pytest.raises(SkillChanged) as refused:
        await files.write_skill(
            work.app, work.caller, "con", content="mine", expected_sha256=first.sha256
        )

    assert skill.read_text() == "one\nzwei\n"
    assert "-two\n+zwei" in str(refused.value)


async def test_a_change_by_hand_is_a_conflict_too(skill: Path, work: Work):
    read = await files.read_files(work, "con")
    skill.write_text("by hand")

    assert read.skill is not None
    with pytest.raises(SkillChanged, match=assets.sha256("by hand")):
        await files.write_skill(
            work.app, work.caller, "con", content="x", expected_sha256=read.skill.sha256
        )

    assert skill.read_text() == "by hand"


async def test_a_removed_skill_is_a_conflict_too(skill: Path, work: Work):
    read = await files.read_files(work, "con")
    skill.unlink()

    assert read.skill is not None
    with pytest.raises(SkillChanged, match="has been removed"):
        await files.write_skill(
            work.app, work.caller, "con", content="x", expected_sha256=read.skill.sha256
        )


@pytest.mark.usefixtures("con")
async def test_a_long_difference_is_cut(work: Work):
    first = await files.write_skill(
        work.app, work.caller, "con", content="\n".join(f"a{n}" for n in range(100))
    )
    await files.write_skill(
        work.app, work.caller, "con", content="\n".join(f"b{n}" for n in range(100))
    )

    with pytest.raises(SkillChanged, match=r"\.\.\. \d+ more lines$"):
        await files.write_skill(
            work.app, work.caller, "con", content="x", expected_sha256=first.sha256
        )


async def test_every_text_of_a_skill_is_kept_and_can_be_restored(skill: Path, work: Work):
    skill.write_text("by hand")
    await files.write_skill(work.app, work.caller, "con", content="two")
    await files.write_skill(work.app, work.caller, "con", content="three")

    listed = (await files.read_files(work, "con")).skill_versions
    assert [(version.sha256, version.author) for version in listed] == [
        (assets.sha256("three"), "tester"),
        (assets.sha256("two"), "tester"),
        (assets.sha256("by hand"), "seeded, or edited by hand"),
    ]

    restored = await files.write_skill(
        work.app, work.caller, "con", restore_sha256=assets.sha256("by hand")[:8]
    )
    assert restored.sha256 == assets.sha256("by hand")
    assert skill.read_text() == "by hand"


@pytest.mark.usefixtures("con")
async def test_writing_the_same_text_again_keeps_no_version(work: Work):
    await files.write_skill(work.app, work.caller, "con", content="x")
    before = (await files.read_files(work, "con")).skill_versions

    again = await files.write_skill(work.app, work.caller, "con", content="x")

    assert again.changed is False
    assert (await files.read_files(work, "con")).skill_versions == before


@pytest.mark.parametrize("version", ["", "0", "abcdef0", "%%%%%%%%", "0" * 64])
async def test_a_hash_that_is_not_kept_is_refused(con: Registered, work: Work, version: str):
    await files.write_skill(work.app, work.caller, con.slug, content="x")

    with pytest.raises(SkillVersionNotFound):
        await files.write_skill(work.app, work.caller, con.slug, restore_sha256=version)


@pytest.mark.parametrize("given", [{}, {"content": "x", "restore_sha256": "y"}])
async def test_either_a_text_or_a_hash_has_to_be_given(
    con: Registered, work: Work, given: dict[str, str]
):
    with pytest.raises(Invalid, match="Give one of them"):
        await files.write_skill(work.app, work.caller, con.slug, **given)


async def test_a_skill_over_the_limit_is_refused_with_the_limit(skill: Path, work: Work):
    before = skill.read_text()

    with pytest.raises(Invalid, match="content: must be at most 1,000,000 bytes of UTF-8"):
        await files.write_skill(work.app, work.caller, "con", content="é" * 500_001)

    assert skill.read_text() == before


async def test_a_missing_directory_is_made_by_writing(skill: Path, experience: Path, work: Work):
    experience.unlink()
    skill.unlink()
    skill.parent.rmdir()

    written = await files.write_skill(work.app, work.caller, "con", content="x")

    assert written.replaced_sha256 is None
    assert skill.read_text() == "x"


async def test_a_skill_that_cannot_be_written_leaves_everything_as_it_was(
    skill: Path, experience: Path, work: Work
):
    experience.unlink()
    skill.unlink()
    skill.parent.rmdir()
    skill.parent.write_text("in the way")

    with pytest.raises(FileNotWritten, match=r"skill.md of developer-con-\d+ could not be written"):
        await files.write_skill(work.app, work.caller, "con", content="x")


async def test_rights_of_a_replaced_file_stay(skill: Path, work: Work):
    skill.chmod(0o640)

    await files.write_skill(work.app, work.caller, "con", content="x")

    assert skill.stat().st_mode & 0o777 == 0o640


async def test_no_temporary_file_stays_behind(skill: Path, work: Work):
    await files.write_skill(work.app, work.caller, "con", content="x")
    await files.add_experience(work, "con", "y")

    assert sorted(path.name for path in skill.parent.iterdir()) == ["experience.md", "skill.md"]


async def test_an_experience_goes_on_top_with_time_and_author(experience: Path, work: Work):
    await files.add_experience(work, "con", "First.")
    added = await files.add_experience(work, "con", "\nSecond.\n\nIts text.\n")

    text = experience.read_text(encoding="utf-8")
    assert added.heading == IsStr(regex=r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ — tester")
    assert text == IsStr(
        regex=r"# Experience Log — Con\n\n<!-- .* -->\n<!-- .* -->\n\n"
        r"## \S+ \S+ — tester\n\nSecond\.\n\nIts text\.\n\n"
        r"## \S+ \S+ — tester\n\nFirst\.\n"
    )
    assert added.size_bytes == len(text.encode())


async def test_an_experience_makes_the_log_when_there_is_none(experience: Path, work: Work):
    experience.unlink()

    await files.add_experience(work, "con", "Learned.")

    assert experience.read_text(encoding="utf-8").startswith("# Experience Log — Con\n")


async def test_a_full_log_is_refused_and_says_what_to_do(experience: Path, work: Work):
    experience.write_text("x" * 999_990)

    with pytest.raises(ExperienceFull, match="would grow over 1,000,000 bytes"):
        await files.add_experience(work, "con", "Learned.")


async def test_an_empty_experience_is_refused(con: Registered, work: Work):
    with pytest.raises(Invalid, match="entry: must not be empty or blank"):
        await files.add_experience(work, con.slug, " \n ")


async def test_twenty_experiences_at_once_are_all_kept(own_app: App):
    caller = operator(own_app)
    con = await service.register_persona(own_app, caller, name="Con", role="developer")

    async def add(number: int) -> None:
        async with own_app.work(caller) as work:
            await files.add_experience(work, con.slug, f"entry {number}.")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(add, number)

    text = (Path(con.path) / "experience.md").read_text(encoding="utf-8")
    assert all(f"entry {number}." in text for number in range(20))
    assert text.count("\n## ") == 20


async def test_of_two_writers_with_the_same_hash_one_is_refused(own_app: App):
    caller = operator(own_app)
    con = await service.register_persona(own_app, caller, name="Con", role="developer")
    seen = assets.sha256((Path(con.path) / "skill.md").read_text(encoding="utf-8"))
    outcomes: list[str] = []

    async def write(text: str) -> None:
        try:
            await files.write_skill(own_app, caller, con.slug, content=text, expected_sha256=seen)
            outcomes.append("written")
        except SkillChanged:
            outcomes.append("refused")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, "a")
        tasks.start_soon(write, "b")

    assert sorted(outcomes) == ["refused", "written"]


async def test_a_file_that_is_no_text_is_refused_with_a_remedy(skill: Path, work: Work):
    for raw in (b"\xff\xfe", b"a\0b"):
        skill.write_bytes(raw)

        with pytest.raises(FileNotText, match="Save it as UTF-8"):
            await files.read_files(work, "con")


async def test_a_file_somebody_made_too_large_is_refused(skill: Path, work: Work):
    skill.write_text("x" * 1_000_001)

    with pytest.raises(FileTooLarge, match=r"is 1,000,001 bytes; the limit is 1,000,000"):
        await files.read_files(work, "con")


async def test_a_directory_in_the_place_of_a_file_is_refused(skill: Path, work: Work):
    skill.unlink()
    skill.mkdir()

    with pytest.raises(FileNotReadable, match="is a directory"):
        await files.read_files(work, "con")


async def test_an_entry_cannot_pass_off_a_part_of_itself_as_another_entry(
    experience: Path, work: Work
):
    await files.add_experience(work, "con", "a\n\n## 2020-01-01 00:00:00Z — boss\n# x\n#hash")

    lines = experience.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("## ")] == [IsStr(regex=r"## .* — tester")]
    assert lines[-3:] == ["### 2020-01-01 00:00:00Z — boss", "### x", "#hash"]


async def test_a_conflict_with_the_seeded_text_shows_what_changed(skill: Path, work: Work):
    seeded = assets.sha256(skill.read_text(encoding="utf-8"))
    skill.write_text(skill.read_text(encoding="utf-8") + "by hand\n", encoding="utf-8")

    with pytest.raises(SkillChanged) as refused:
        await files.write_skill(work.app, work.caller, "con", content="x", expected_sha256=seeded)

    assert "+by hand" in str(refused.value)


@pytest.mark.parametrize("argument", ["restore_sha256", "expected_sha256"])
async def test_a_hash_that_cannot_be_stored_is_refused(con: Registered, work: Work, argument: str):
    given = {"content": "x"} if argument == "expected_sha256" else {}

    with pytest.raises(Invalid, match=f"{argument}: must not contain the NUL character"):
        await files.write_skill(
            work.app, work.caller, con.slug, **given, **{argument: "aaaaaaaaa\0"}
        )


async def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(skill: Path, work: Work):
    skill.unlink()
    os.mkfifo(skill)

    with anyio.fail_after(2), pytest.raises(FileNotReadable, match="not a regular file"):
        await files.read_files(work, "con")


async def test_no_failure_of_the_database_costs_the_text_that_is_replaced(
    own_app: App, databases: Databases
):
    caller = operator(own_app)
    con = await service.register_persona(own_app, caller, name="Con", role="developer")
    skill = Path(con.path) / "skill.md"
    skill.write_text("by hand")
    name = own_app.database.engine.url.database or ""
    with psycopg.connect(plain(databases.url(name, "dramatis_owner"))) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON dramatis.audit_log"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    with pytest.raises(DatabaseBusy, match="no room left"):
        await files.write_skill(own_app, caller, con.slug, content="agent's")

    async with own_app.work(caller) as work:
        (version,) = (await files.read_files(work, con.slug)).skill_versions
    assert version.sha256 == assets.sha256("by hand")


async def test_a_replaced_file_is_another_file_and_never_half_written(skill: Path, work: Work):
    skill.write_text("before")
    reader = skill.with_name("reader")
    reader.hardlink_to(skill)

    await files.write_skill(work.app, work.caller, "con", content="after")

    assert (skill.read_text(), reader.read_text()) == ("after", "before")
