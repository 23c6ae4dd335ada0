"""Keep the index like the files: by content, a few files at a time, one indexer at a time.

Files are read under the lock of the project's index. So whoever comes last has read last, and two
servers that see the same change do not undo each other's work.
"""

import os.path
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio.to_thread
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.tables import PassageRow, PostingRow, ProjectRow, StandardRow
from server.standards import folder
from server.standards.documents import Document, claimed_by, read_document
from server.standards.folder import Content, StandardFile
from server.standards.passages import Passage, passages
from server.standards.presence import expecting_index
from server.standards.projects import find_project, the_place, the_project
from server.standards.shapes import IndexReport, Skipped
from server.work import App, Caller, Work

# A transaction has to end within the time that a use case may take.
BATCH_FILES = 25
BATCH_BYTES = 500_000

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class _Run:
    """What an index run found and did so far."""

    files: int
    changed: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])
    skipped: list[Skipped] = field(default_factory=list[Skipped])


async def index_standards(
    app: App, caller: Caller, *, progress: Progress | None = None
) -> IndexReport:
    """Bring the index of the project to what its files are.

    Takes no `Work`, because each batch of files is one: a part of the index is soon searchable,
    and nobody waits long for a lock.

    Args:
        progress: called with the files done and the files there are.

    Raises:
        NoProject, StandardsOutside: see `the_place`.
        IndexGone: a table of the index is missing.
    """
    with expecting_index():
        return await _run(app, caller, progress)


async def contents(work: Work) -> dict[str, str]:
    """Return what is indexed: the files, as people are told of them, and their hashes."""
    project = await find_project(work)
    if project is None:
        return {}
    place = the_place(work.app)
    query = select(StandardRow.layer, StandardRow.path, StandardRow.sha256)
    rows = await work.session.execute(
        query.where(StandardRow.project_id == project.id, StandardRow.present)
    )
    return {folder.file_at(place, layer, path).shown: sha256 for layer, path, sha256 in rows}


async def _run(app: App, caller: Caller, progress: Progress | None) -> IndexReport:
    place = the_place(app)
    files = await anyio.to_thread.run_sync(folder.find_files, place)
    run = _Run(len(files))
    async with app.work(caller) as work:
        project = await find_project(work)
        if project is None and not files:
            return IndexReport(files=0, changed=[], removed=[], passages=0, skipped=[])
        if project is not None:
            await work.session.execute(_LOST, {"project_id": project.id})
    done = 0
    for batch in _batches(files):
        async with app.work(caller) as work:
            await _index(work, batch, run)
        done += len(batch)
        if progress is not None:
            progress(done, len(files))
    async with app.work(caller) as work:
        return await _finish(work, files, run)


async def _index(work: Work, files: Sequence[StandardFile], run: _Run) -> None:
    project = await _locked(work)
    contents = await anyio.to_thread.run_sync(lambda: [folder.read(file) for file in files])
    known = {(row.layer, row.path): row for row in await _rows(work, project, files)}
    changed: list[int] = []
    for file, content in zip(files, contents, strict=True):
        if content is None:
            continue
        if content.problem is not None:
            run.skipped.append(Skipped(file=file.shown, reason=content.problem))
        row = known.get((file.layer, file.path))
        if row is not None and row.present and row.sha256 == content.sha256:
            if row.problem and content.problem is None:
                run.skipped.append(Skipped(file=file.shown, reason=row.problem))
            continue
        document = await anyio.to_thread.run_sync(read_document, content.text)
        if document.problem:
            run.skipped.append(Skipped(file=file.shown, reason=document.problem))
        standard_id = await _store(work, project, file, content, document)
        await _store_passages(work, project, standard_id, document, content)
        changed.append(standard_id)
        run.changed.append(file.shown)
    if changed:
        await work.session.execute(_POSTINGS, {"project_id": project.id, "ids": changed})
        await work.session.execute(_LENGTHS, {"ids": changed})
        await touch(work, project.id)


async def _store(
    work: Work,
    project: ProjectRow,
    file: StandardFile,
    content: Content,
    document: Document,
) -> int:
    await _follow_move(work, project, file, content.sha256)
    front = document.front
    values = {
        "domain": file.domain,
        "topic": file.topic,
        "key": file.key,
        "title": document.title or file.topic,
        "tags": [tag.lower() for tag in front.tags],
        "created_by": front.created_by,
        "claimed_by": claimed_by(document),
        "problem": content.problem or document.problem,
        "sha256": content.sha256,
        "size_bytes": content.size_bytes,
        "modified_at": content.modified_at,
        "present": True,
    }
    stored = await work.session.scalar(
        upsert(StandardRow)
        .values(project_id=project.id, layer=file.layer, path=file.path, **values)
        .on_conflict_do_update(
            index_elements=["tenant_id", "project_id", "layer", "path"], set_=values
        )
        .returning(StandardRow.id)
    )
    assert stored is not None
    return stored


async def _follow_move(work: Work, project: ProjectRow, file: StandardFile, sha256: str) -> None:
    """Let a file that was moved keep its row, and with that its counts."""
    here = select(StandardRow.id).where(
        StandardRow.project_id == project.id,
        StandardRow.layer == file.layer,
        StandardRow.path == file.path,
    )
    if await work.session.scalar(here) is not None:
        return
    twins = await work.session.scalars(
        select(StandardRow).where(
            StandardRow.project_id == project.id,
            StandardRow.layer == file.layer,
            StandardRow.sha256 == sha256,
        )
    )
    place = the_place(work.app)
    for twin in twins:
        # Not `exists`, which raises where a folder above is closed to us.
        if not os.path.lexists(folder.file_at(place, twin.layer, twin.path).file):
            await work.session.execute(
                update(StandardRow).where(StandardRow.id == twin.id).values(path=file.path)
            )
            return


async def _store_passages(
    work: Work, project: ProjectRow, standard_id: int, document: Document, content: Content
) -> None:
    await _forget(work, [standard_id])
    if content.problem is not None:
        return
    title = document.title or ""
    found = await anyio.to_thread.run_sync(passages, document.body, title)
    rows = [
        {
            "project_id": project.id,
            "standard_id": standard_id,
            "line": document.body_line + one.line - 1,
            "section": _section(one, title),
            "text": one.text,
        }
        for one in found
    ]
    if rows:
        await work.session.execute(insert(PassageRow), rows)


def _section(passage: Passage, title: str) -> str:
    """Name the section, with the title above it in front where that is not the standard's."""
    above = "" if passage.title == title else passage.title
    return " > ".join(part for part in (above, passage.section) if part)


async def _finish(work: Work, files: Sequence[StandardFile], run: _Run) -> IndexReport:
    """Take out what is gone, which is asked of the disk once more, under the lock."""
    project = await _locked(work)
    place = the_place(work.app)
    found: set[tuple[str, str]] = {(file.layer, file.path) for file in files}
    rows = await work.session.scalars(
        select(StandardRow).where(StandardRow.project_id == project.id, StandardRow.present)
    )
    missing = [row for row in rows if (row.layer, row.path) not in found]
    found = {(file.layer, file.path) for file in await _found(work)} if missing else found
    gone = [row for row in missing if (row.layer, row.path) not in found]
    if gone:
        ids = [row.id for row in gone]
        await _forget(work, ids)
        await work.session.execute(
            update(StandardRow)
            .where(StandardRow.id.in_(ids))
            .values(present=False, length=0, passage_count=0)
        )
        await touch(work, project.id)
        run.removed += [folder.file_at(place, row.layer, row.path).shown for row in gone]
    await work.session.execute(
        update(ProjectRow).where(ProjectRow.id == project.id).values(indexed_at=func.now())
    )
    count = await work.session.scalar(
        select(func.count()).select_from(PassageRow).where(PassageRow.project_id == project.id)
    )
    return IndexReport(
        files=run.files,
        changed=run.changed,
        removed=run.removed,
        passages=count or 0,
        skipped=run.skipped,
    )


async def _found(work: Work) -> list[StandardFile]:
    return await anyio.to_thread.run_sync(folder.find_files, the_place(work.app))


async def lock_index(work: Work, project_id: int) -> None:
    """Keep every other indexer of the project waiting until the transaction ends."""
    await work.session.execute(_LOCK, {"project_id": project_id})


async def touch(work: Work, project_id: int) -> None:
    """Make everybody forget what was found in the index before."""
    await work.session.execute(
        update(ProjectRow)
        .where(ProjectRow.id == project_id)
        .values(generation=ProjectRow.generation + 1)
    )


async def _locked(work: Work) -> ProjectRow:
    project = await the_project(work)
    await lock_index(work, project.id)
    return project


async def _rows(
    work: Work, project: ProjectRow, files: Sequence[StandardFile]
) -> Sequence[StandardRow]:
    query = select(StandardRow).where(
        StandardRow.project_id == project.id, StandardRow.path.in_([file.path for file in files])
    )
    return (await work.session.scalars(query.execution_options(populate_existing=True))).all()


async def _forget(work: Work, standard_ids: Sequence[int]) -> None:
    for row in (PostingRow, PassageRow):
        await work.session.execute(delete(row).where(row.standard_id.in_(standard_ids)))


def _batches(files: Sequence[StandardFile]) -> Iterator[list[StandardFile]]:
    batch: list[StandardFile] = []
    size = 0
    for file in files:
        try:
            bytes_more = file.file.stat().st_size
        except OSError:
            bytes_more = 0
        if batch and (len(batch) == BATCH_FILES or size + bytes_more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += bytes_more
    if batch:
        yield batch


_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('dramatis.standards'), :project_id)")
# What somebody took out of the index by hand is to be put back, although its file is the same.
_LOST = text("""
UPDATE dramatis.standards s SET sha256 = ''
WHERE project_id = :project_id AND present AND sha256 <> '' AND passage_count > 0
  AND (passage_count <> (SELECT count(*) FROM dramatis.passages WHERE standard_id = s.id)
    OR length > 0 AND NOT EXISTS (SELECT FROM dramatis.postings WHERE standard_id = s.id))
""")
# A tsvector holds a megabyte at most; of a passage that is all one code block, a part will do.
_POSTINGS = text("""
INSERT INTO dramatis.postings (project_id, term, passage_id, standard_id, tf, length)
SELECT :project_id, lexeme, id, standard_id, cardinality(positions), length
FROM (
  SELECT p.id, p.standard_id, word.lexeme, word.positions,
    sum(cardinality(word.positions)) OVER (PARTITION BY p.id) AS length
  FROM dramatis.passages p
  JOIN dramatis.standards s ON s.id = p.standard_id,
  unnest(to_tsvector('english', concat_ws(E'\\n', s.title, p.section, left(p.text, 100000)))) word
  WHERE p.standard_id = ANY(:ids)
) words
""")
_LENGTHS = text("""
UPDATE dramatis.standards s SET
  length = (SELECT coalesce(sum(tf), 0) FROM dramatis.postings WHERE standard_id = s.id),
  passage_count = (SELECT count(*) FROM dramatis.passages WHERE standard_id = s.id)
WHERE id = ANY(:ids)
""")
