"""Read and write a persona's skill.md and experience.md.

The text on disk is what counts: people edit it by hand. The database keeps every text that a
tool replaced, and the row's lock lets writers in one at a time, on whichever machine they run.
"""

import difflib
import re
from datetime import UTC, datetime
from typing import Literal

import anyio.to_thread
from sqlalchemy import Select, func, select

from db.tables import PersonaRow, SkillVersionRow
from server import audit
from server.access import require
from server.errors import AssetsFailed, Conflict, Invalid, NotFound, parse
from server.personas import assets
from server.personas.queries import row_at, the_persona
from server.personas.service import refuse_archived
from server.personas.shapes import (
    FILE_BYTES,
    AssetFile,
    Entry,
    ExperienceAdded,
    PersonaFiles,
    SkillChange,
    SkillVersion,
    SkillWritten,
)
from server.rendering import render
from server.work import App, Caller, Work

VERSIONS_LISTED = 20
DIFF_LINES = 60
SHORTEST_HASH = 8
_HASHES = {"sha256", "replaced_sha256"}


class SkillChanged(Conflict):
    code = "skill_changed"


class SkillVersionNotFound(NotFound):
    code = "skill_version_not_found"


class FileNotWritten(AssetsFailed):
    code = "file_not_written"


class FileMissing(NotFound):
    code = "file_missing"


class ExperienceFull(Invalid):
    code = "experience_full"


async def read_files(
    work: Work, reference: str, which: Literal["both", "skill", "experience"] = "both"
) -> PersonaFiles:
    """Read a persona's files; one that is absent says so instead of failing."""
    row = await the_persona(work, reference)
    return PersonaFiles(
        slug=row.slug,
        skill=await read_file(work, row, assets.SKILL) if which != "experience" else None,
        experience=await read_file(work, row, assets.EXPERIENCE) if which != "skill" else None,
        skill_versions=await _versions(work, row) if which != "experience" else [],
    )


async def write_skill(
    app: App,
    caller: Caller,
    reference: str,
    *,
    content: str | None = None,
    restore_sha256: str | None = None,
    expected_sha256: str | None = None,
) -> SkillWritten:
    """Replace skill.md by exactly `content`, or by an earlier text; the one before is kept.

    Takes no `Work`, because it takes two: the text to be replaced is committed as a version
    before the file is touched, so that no failure of the database can cost it.

    Args:
        restore_sha256: hash of a kept text, or its first eight characters or more.
        expected_sha256: hash of the text last read. When the file has changed since, nothing is
            written.

    Raises:
        Invalid: neither or both of `content` and `restore_sha256` were given.
        SkillChanged: somebody else was faster; the hint shows what they changed.
        SkillVersionNotFound: no kept text has the hash.
        PersonaArchived: restore it first.
        FileNotWritten: the disk refused; the old text stands.
    """
    require(caller, "personas:write")
    change = parse(
        SkillChange,
        content=content,
        restore_sha256=restore_sha256,
        expected_sha256=expected_sha256,
    )
    if (change.content is None) == (change.restore_sha256 is None):
        raise Invalid(
            "Both or neither of the new content and the hash of a text to restore were given.",
            hint="Give one of them.",
        )
    async with app.work(caller) as work:
        row = await the_persona(work, reference, lock=True)
        refuse_archived(row)
        before = await read_file(work, row, assets.SKILL)
        if before.content is not None:
            await _keep(work, row, before.content, "seeded, or edited by hand")
    async with app.work(caller) as work:
        row = await the_persona(work, row.slug, lock=True)
        return await _write_skill(work, row, change)


async def _write_skill(work: Work, row: PersonaRow, change: SkillChange) -> SkillWritten:
    text = change.content
    if text is None:
        text = await _kept_text(work, row, change.restore_sha256 or "")
    before = await read_file(work, row, assets.SKILL)
    if change.expected_sha256 and change.expected_sha256 != before.sha256:
        raise await _changed(work, row, change.expected_sha256, before)
    written = SkillWritten(
        slug=row.slug,
        path=before.path,
        sha256=assets.sha256(text),
        replaced_sha256=before.sha256,
        changed=text != before.content,
    )
    if written.changed:
        await _keep(work, row, text, work.caller.name)
        await audit.record(work, "skill.replaced", row.slug, written.model_dump(include=_HASHES))
        await _replace(work, row, assets.SKILL, text)
    return written


async def add_experience(work: Work, reference: str, entry: str) -> ExperienceAdded:
    """Put an entry on top of experience.md, under a heading with the time and the author.

    Raises:
        ExperienceFull: the file would pass the limit; it has to be curated first.
        PersonaArchived: restore it first.
        FileNotWritten: the disk refused; the file is as it was.
    """
    require(work.caller, "personas:write")
    text = parse(Entry, entry=entry).entry
    row = await the_persona(work, reference, lock=True)
    refuse_archived(row)
    before = await read_file(work, row, assets.EXPERIENCE)
    log = before.content
    if log is None:
        log = render(work.app.templates, "assets/experience.md", name=row.name, role=row.role.name)
    # Otherwise an entry could pass off a part of itself as an entry of somebody else.
    text = re.sub(r"(?m)^#{1,2}(?=\s)", "###", text)
    heading = f"## {datetime.now(UTC):%Y-%m-%d %H:%M:%SZ} — {work.caller.name}"
    after = _on_top(log, f"{heading}\n\n{text}\n")
    if len(after.encode()) > FILE_BYTES:
        raise ExperienceFull(
            f"experience.md of {row.slug} would grow over {FILE_BYTES:,} bytes.",
            hint="Move what has proved itself into skill.md and shorten the file in an editor.",
        )
    await audit.record(work, "experience.added", row.slug, {"sha256": assets.sha256(text)})
    modified = await _replace(work, row, assets.EXPERIENCE, after)
    return ExperienceAdded(
        slug=row.slug,
        path=before.path,
        heading=heading.removeprefix("## "),
        last_modified=modified,
        size_bytes=len(after.encode()),
    )


async def read_at(work: Work, slug: str, file: str) -> str:
    """Read the text of a file by the exact slug of its persona, as an address has it.

    Raises:
        PersonaNotFound: no persona has the slug.
        FileMissing: the persona lacks the file.
    """
    found = await read_file(work, await row_at(work, slug), file)
    if found.content is None:
        raise FileMissing(
            f"{slug} has no {file}.", hint="repair_persona_assets writes it from the template."
        )
    return found.content


async def read_file(work: Work, row: PersonaRow, file: str) -> AssetFile:
    folder = assets.directory(work.app.data_root, row.slug)
    return await anyio.to_thread.run_sync(assets.read, folder, file)


async def _changed(
    work: Work, row: PersonaRow, expected_sha256: str, now: AssetFile
) -> SkillChanged:
    known = await _known_text(work, row, expected_sha256)
    if now.content is None:
        what = "The file has been removed."
    elif known is None:
        what = f"Its hash is now {now.sha256}."
    else:
        what = f"Its hash is now {now.sha256}. What changed:\n{_diff(known, now.content)}"
    return SkillChanged(
        f"skill.md of {row.slug} has changed since it was read, so nothing was written.",
        hint=f"Read it again, merge, and write with the new hash. {what}",
    )


async def _known_text(work: Work, row: PersonaRow, sha256: str) -> str | None:
    """Find the text of a hash: a kept one, or what the file was seeded with."""
    kept = await work.session.scalar(_history(row).where(SkillVersionRow.sha256 == sha256).limit(1))
    if kept is not None:
        return kept.content
    names = {"name": row.name, "role": row.role.name}
    seeds = [render(work.app.templates, t, **names) for t in assets.SKILL_TEMPLATES.values()]
    return next((seed for seed in seeds if assets.sha256(seed) == sha256), None)


def _diff(old: str, new: str) -> str:
    names = ("as you read it", "as it is now")
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=2))
    cut = [f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
    return "\n".join([*lines[:DIFF_LINES], *cut])


async def _kept_text(work: Work, row: PersonaRow, sha256: str) -> str:
    kept = None
    if len(sha256) >= SHORTEST_HASH:
        query = _history(row).where(SkillVersionRow.sha256.startswith(sha256, autoescape=True))
        kept = await work.session.scalar(query.limit(1))
    if kept is None:
        raise SkillVersionNotFound(
            f"No kept skill.md of {row.slug} has this hash.",
            hint="Read the persona's files: skill_versions lists the hashes there are.",
        )
    return kept.content


async def _keep(work: Work, row: PersonaRow, text: str, author: str) -> None:
    """Keep a text as a version unless it is the newest kept one already."""
    sha256 = assets.sha256(text)
    newest = await work.session.scalar(_history(row).limit(1))
    if newest is None or newest.sha256 != sha256:
        work.session.add(
            SkillVersionRow(
                persona_id=row.id, slug=row.slug, sha256=sha256, content=text, author=author
            )
        )
        await work.session.flush()


def _history(row: PersonaRow) -> Select[SkillVersionRow]:
    return (
        select(SkillVersionRow)
        .where(SkillVersionRow.slug == row.slug)
        .order_by(SkillVersionRow.id.desc())
    )


async def _versions(work: Work, row: PersonaRow) -> list[SkillVersion]:
    rows = await work.session.execute(
        select(
            SkillVersionRow.sha256,
            SkillVersionRow.author,
            SkillVersionRow.created_at,
            func.octet_length(SkillVersionRow.content),
        )
        .where(SkillVersionRow.slug == row.slug)
        .order_by(SkillVersionRow.id.desc())
        .limit(VERSIONS_LISTED)
    )
    return [
        SkillVersion(sha256=sha256, author=author, created_at=created_at, size_bytes=size)
        for sha256, author, created_at, size in rows
    ]


async def _replace(work: Work, row: PersonaRow, file: str, text: str) -> datetime:
    folder = assets.directory(work.app.data_root, row.slug)
    try:
        return await anyio.to_thread.run_sync(assets.replace, folder, file, text)
    except OSError as error:
        raise FileNotWritten(
            f"{file} of {row.slug} could not be written: {assets.reason(error)}. It is as it was.",
            hint=f"Make personas/{row.slug} in the data root writable and try again.",
        ) from error


def entries(log: str) -> str:
    """Leave out what comes before the first entry, which is the first second-level heading."""
    return "".join(_split(log)[1])


def _on_top(log: str, entry: str) -> str:
    head, rest = ("".join(part) for part in _split(log))
    return head.rstrip("\n") + f"\n\n{entry}" + (f"\n{rest}" if rest else "")


def _split(log: str) -> tuple[list[str], list[str]]:
    lines = log.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith("## ")), len(lines))
    return lines[:first], lines[first:]
