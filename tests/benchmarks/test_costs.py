"""What a use case may read. A document can be a megabyte; the ratios to the same statements in
psycopg would not show one that is read for nothing."""

import pytest

from server.personas.service import register_persona
from server.specs.publishing import publish_spec
from server.specs.queries import get_spec, list_specs
from server.specs.service import create_spec
from server.work import App, Caller, Work
from tests.benchmarks.raw import Statement, recorded

pytestmark = pytest.mark.anyio

READS_A_DOCUMENT = b"persona_specs.document"


@pytest.fixture
async def slug(app: App, caller: Caller, work: Work) -> str:
    """A persona whose two versions have changed places a few times."""
    slug = (await register_persona(app, caller, name="Con", role="developer")).slug
    for version in ("1.0.0", "1.0.1"):
        await create_spec(work, slug, {"version": version})
    for version in ("1.0.0", "1.0.1", "1.0.0"):
        await publish_spec(work, slug, version, note="To be counted.")
    return slug


def documents(statements: list[Statement]) -> int:
    return sum(READS_A_DOCUMENT in statement.text for statement in statements)


async def test_a_version_is_read_once_however_often_it_was_published(
    slug: str, app: App, work: Work
) -> None:
    with recorded(app.database.engine) as statements:
        detail = await get_spec(work, slug)

    assert len(detail.publications) == 2
    assert documents(statements) == 1


async def test_a_listing_reads_no_document(slug: str, app: App, work: Work) -> None:
    with recorded(app.database.engine) as statements:
        listing = await list_specs(work, slug)

    assert [version.version for version in listing.versions] == ["1.0.1", "1.0.0"]
    assert documents(statements) == 0
