"""Tenants, and what a caller may do in one."""

import getpass
import os
import re
from datetime import datetime
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import TenantRow
from server import audit
from server.errors import Conflict, Forbidden, NotFound, parse
from server.work import Caller, Scope, Work


def _tenant_name(text: str) -> str:
    name = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise ValueError("must be letters a to z, digits and hyphens, 63 at most")
    return name


TenantName = Annotated[str, AfterValidator(_tenant_name)]


class TenantNotFound(NotFound):
    code = "tenant_not_found"


class TenantExists(Conflict):
    code = "tenant_exists"


class Tenant(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: int
    name: str
    created_at: datetime


class NewTenant(BaseModel):
    name: TenantName


def require(caller: Caller, scope: Scope) -> None:
    """Refuse a caller that lacks `scope`.

    Raises:
        Forbidden: always then.
    """
    if scope not in caller.scopes:
        raise Forbidden(
            f"This needs the scope {scope!r}, which the caller does not have.",
            hint="A server started with --read-only changes nothing; tenants are the operator's.",
        )


@cache
def login_name() -> str:
    """Name the login that runs this process. In a container the account may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


async def tenant_id(session: AsyncSession, name: str) -> int:
    """Find a tenant by name.

    Raises:
        TenantNotFound: there is none; tenants are never made on the way.
    """
    wanted = name.strip().lower()
    found = await session.scalar(select(TenantRow.id).where(TenantRow.name == wanted))
    if found is None:
        raise TenantNotFound(
            "The tenant that DRAMATIS_TENANT or --tenant names does not exist.",
            hint="See `dramatis tenant list`, or make it with `dramatis tenant add`.",
        )
    return found


async def add_tenant(work: Work, name: str) -> Tenant:
    """Make a tenant.

    Raises:
        TenantExists: the name is taken.
    """
    require(work.caller, "tenants:write")
    wanted = parse(NewTenant, name=name).name
    made = await work.session.scalar(
        insert(TenantRow).values(name=wanted).on_conflict_do_nothing().returning(TenantRow)
    )
    if made is None:
        raise TenantExists(
            f"The tenant {wanted!r} exists already.", hint=f"Use it with `--tenant {wanted}`."
        )
    await audit.record(work, "tenant.added", wanted)
    return Tenant.model_validate(made)


async def list_tenants(work: Work) -> list[Tenant]:
    rows = await work.session.scalars(select(TenantRow).order_by(TenantRow.name))
    return [Tenant.model_validate(row) for row in rows]
