"""Personas by the thousand, made by Postgres itself."""

import psycopg

PERSONAS_OF_A_ROLE = 50

_ROLES = """
INSERT INTO dramatis.roles (tenant_id, name, label)
SELECT 1, 'role ' || n, 'Role ' || n FROM generate_series(0, %(last)s / %(of_a_role)s) n
ON CONFLICT DO NOTHING
"""
_PERSONAS = """
INSERT INTO dramatis.personas (tenant_id, slug_stem, name, name_key, description, role_id)
SELECT 1, 'role-' || r.number || '-person-' || n, 'Person ' || n, 'person ' || n, 'Made for measuring.', r.id
FROM generate_series(%(first)s::int, %(last)s::int) n
JOIN (SELECT id, split_part(name, ' ', 2)::int AS number
      FROM dramatis.roles WHERE name LIKE 'role %%') r
  ON r.number = n / %(of_a_role)s
"""


def grow(host: str, size: int) -> None:
    """Bring the number of personas to `size`. As the superuser, whom no policy binds."""
    with psycopg.connect(
        host=host, port=5432, user="postgres", dbname="dramatis", autocommit=True
    ) as connection:
        row = connection.execute("SELECT count(*) FROM dramatis.personas").fetchone()
        assert row
        (present,) = row
        values = {"first": present, "last": size - 1, "of_a_role": PERSONAS_OF_A_ROLE}
        connection.execute(_ROLES, values)
        connection.execute(_PERSONAS, values)
        connection.execute("VACUUM ANALYZE")
