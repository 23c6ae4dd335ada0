"""Who approved a text."""

import anyio.to_thread
from sqlalchemy import select

from db.tables import ApprovedFileRow, DecisionRow
from server.standards.documents import claimed_by, read_document
from server.standards.folder import Content
from server.standards.projects import find_project
from server.standards.shapes import Review
from server.work import Work


async def review_of(work: Work, content: Content) -> tuple[Review, str | None]:
    """Tell who approved a text: as it was recorded, else as the file says of its own body."""
    project = await find_project(work)
    person = project and await work.session.scalar(
        select(DecisionRow.person)
        .join(ApprovedFileRow, ApprovedFileRow.decision_id == DecisionRow.id)
        .where(ApprovedFileRow.project_id == project.id, ApprovedFileRow.sha256 == content.sha256)
        .order_by(ApprovedFileRow.id.desc())
        .limit(1)
    )
    if person is not None:
        return "approved", person
    document = await anyio.to_thread.run_sync(read_document, content.text)
    claimed = claimed_by(document)
    return ("claimed", claimed) if claimed else ("unreviewed", None)
