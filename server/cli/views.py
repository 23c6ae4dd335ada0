"""How the answers of the rooms look to a person."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.output import fields, table
from server.personas.shapes import (
    AssetState,
    Deleted,
    Match,
    Outcome,
    Persona,
    PersonaPage,
    PersonaSummary,
    Registered,
    Repaired,
    Role,
    RoleLookup,
    SkillVersion,
    SkillWritten,
)

if TYPE_CHECKING:
    from db.backup import Backup, Restored, Upgraded
    from db.superuser import Status
    from server.access import Tenant

SHORT_HASH = 12
FILES = ("skill.md", "experience.md")


def registered(persona: Registered) -> str:
    new = ", the first of its role" if persona.role_created else ""
    there = ", which had some already" if len(persona.files_created) < len(FILES) else ""
    return f"Registered {persona.slug} (id {persona.id}){new}.\nIts files: {persona.path}{there}"


def persona(persona: Persona) -> str:
    return fields(
        {
            "Slug": persona.slug,
            "Id": persona.id,
            "Name": persona.name,
            "Role": persona.role,
            "Status": persona.status,
            "Files": _files(persona.assets),
            "Folder": persona.path,
            "Created": persona.created_at,
            "Updated": persona.updated_at,
            "Description": persona.description,
        }
    )


def candidates(match: Match) -> str:
    rows = [(one.slug, one.name, one.role) for one in match.candidates]
    return table(("SLUG", "NAME", "ROLE"), rows, cuttable=("NAME", "ROLE"))


def page(page: PersonaPage) -> str:
    total = f"{page.totals.active} active, {page.totals.archived} archived in all."
    if not page.personas:
        return f"No persona fits. {total}"
    more = f" Next page: --cursor {page.next_cursor}" if page.next_cursor else ""
    return f"{_summaries(page.personas)}\n\n{total}{more}"


def deleted(deleted: Deleted) -> str:
    kept = f"Its files stay in {deleted.kept_files}" if deleted.kept_files else "It had no files."
    return f"Deleted {deleted.slug}. {kept}"


def versions(versions: Sequence[SkillVersion]) -> str:
    if not versions:
        return "No earlier text is kept: skill.md was never replaced by a command or tool."
    rows = [
        (one.sha256[:SHORT_HASH], one.created_at, one.size_bytes, one.author) for one in versions
    ]
    return table(("HASH", "KEPT", "BYTES", "AUTHOR"), rows, cuttable=("AUTHOR",))


def written(written: SkillWritten) -> str:
    if not written.changed:
        return f"skill.md of {written.slug} is that text already."
    before = written.replaced_sha256
    kept = f" The text before is kept as {before[:SHORT_HASH]}." if before else ""
    return f"Replaced skill.md of {written.slug}.{kept}"


def repaired(repaired: Repaired) -> str:
    made = ", ".join(repaired.created)
    return f"{repaired.slug}: {f'made {made}' if made else 'nothing was missing'}."


def all_repaired(repaired_ones: Sequence[Repaired], failed: Sequence[str]) -> str:
    lines = [*map(repaired, repaired_ones), *failed]
    return "\n".join(lines) or "No active persona lacks a file."


def outcomes(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "No personas are listed."
    rows = [
        (one.line, one.name, one.slug, one.error or ("registered" if one.slug else "valid"))
        for one in outcomes
    ]
    return table(("LINE", "NAME", "SLUG", "OUTCOME"), rows, cuttable=("NAME",))


def roles(roles: Sequence[Role]) -> str:
    if not roles:
        return "There are no roles yet. Registering a persona makes its role."
    rows = [(one.name, one.label, one.persona_count, one.description) for one in roles]
    headers = ("ROLE", "LABEL", "PERSONAS", "DESCRIPTION")
    return table(headers, rows, cuttable=("LABEL", "DESCRIPTION", "ROLE"))


def role(asked: str, found: RoleLookup) -> str:
    if found.role is None:
        near = f" Known ones like it: {', '.join(found.nearest)}." if found.nearest else ""
        return f"No role is called {asked!r}.{near} {found.how_to_create}"
    about = {
        "Role": found.role.name,
        "Label": found.role.label,
        "Created": found.role.created_at,
        "Personas": found.role.persona_count,
        "Description": found.role.description,
    }
    return f"{fields(about)}\n\n{_summaries(found.personas)}"


def tenants(tenants: "Sequence[Tenant]") -> str:
    return table(
        ("TENANT", "ID", "CREATED"), [(one.name, one.id, one.created_at) for one in tenants]
    )


def status(status: "Status") -> str:
    stays = "yes, until `dramatis db stop`" if status.pinned else "no, it leaves with its last user"
    return fields(
        {
            "Running": "yes" if status.running else "no",
            "Kept up": stays,
            "PostgreSQL": status.version or "nothing made yet",
            "Revision": status.revision,
            "Size": f"{status.size_bytes / 1_000_000:.1f} MB",
            "Folder": status.folder,
        }
    )


def backed_up(backup: "Backup") -> str:
    return (
        f"Saved the database to {backup.file} ({backup.size_bytes / 1_000_000:.1f} MB).\n"
        "The personas' files are not in it: copy the folder personas of the data root along."
    )


def restored(restored: "Restored") -> str:
    kept = f" The one before is kept as database {restored.kept}." if restored.kept else ""
    return f"Restored the database, which was saved at revision {restored.revision}.{kept}"


def upgraded(upgraded: "Upgraded") -> str:
    moved = (
        f"Moved the database of Postgres {upgraded.major}. Its folder is kept: {upgraded.folder}"
    )
    kept = upgraded.restored.kept
    return f"{moved}\nThe database that was here is kept as {kept}." if kept else moved


def _summaries(personas: Sequence[PersonaSummary]) -> str:
    rows = [
        (one.id, one.slug, one.name, one.role, one.status, _files(one.assets), one.created_at)
        for one in personas
    ]
    headers = ("ID", "SLUG", "NAME", "ROLE", "STATUS", "FILES", "CREATED")
    return table(headers, rows, cuttable=("NAME", "ROLE", "FILES"))


def _files(state: AssetState) -> str:
    there = {"skill.md": state.skill, "experience.md": state.experience}
    missing = [file for file, present in there.items() if not present]
    return f"no {', no '.join(missing)}" if missing else "complete"
