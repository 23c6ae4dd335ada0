import errno
import os
import pwd
import re
import sys
import threading
from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from db import binaries
from db.embedded import Connection, EmbeddedInUse, EmbeddedPostgres, EmbeddedUnavailable
from db.places import Places
from tests.db.sessions import (
    ask,
    cleared,
    eventually,
    postmaster_of,
    processes_of,
    reapers_of,
    session,
    spawn_session,
)

AT_ONCE = timedelta(0)
HOURS = timedelta(hours=3)

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="Only root has another account run the server.")
needs_ordinary_user = pytest.mark.skipif(is_root, reason="Nothing is closed to root.")


@pytest.fixture
def root(tmp_path: Path) -> Generator[Path]:
    with cleared(tmp_path / "data") as folder:
        yield folder


@pytest.fixture
def server(root: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres(root, linger=AT_ONCE)
    yield server
    server.release()


def has_ended(server: EmbeddedPostgres) -> bool:
    return not server.is_running() and not processes_of(server)


def test_the_first_client_makes_a_database_for_two_logins_without_privileges(
    server: EmbeddedPostgres,
) -> None:
    connection = server.acquire()

    query = b"""
        SELECT array_agg((rolname, rolsuper, rolbypassrls, rolinherit, rolcanlogin)::text
                         ORDER BY rolname)
        FROM pg_roles WHERE rolname LIKE 'dramatis%'
    """
    assert ask(connection, query) == ["(dramatis_app,f,f,f,t)", "(dramatis_owner,f,f,t,t)"]
    owner = b"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'dramatis'"
    assert ask(connection, owner) == "dramatis_owner"
    rights = b"""
        SELECT ARRAY[has_schema_privilege('public', 'CREATE'), has_schema_privilege('public', 'USAGE'),
                     has_database_privilege('dramatis', 'CREATE, TEMPORARY')]
    """
    assert ask(connection, rights) == [False, False, False]


def test_a_restarted_server_has_kept_its_data(server: EmbeddedPostgres) -> None:
    connection = server.acquire()
    with psycopg.connect(host=connection.host, user="dramatis_owner", dbname="dramatis") as owner:
        owner.execute("CREATE TABLE public.kept AS SELECT 42 AS answer")
    server.release()
    eventually(lambda: has_ended(server))

    connection = server.acquire()

    assert ask(connection, b"SELECT answer FROM public.kept", user="dramatis_owner") == 42


def test_the_server_listens_nowhere_but_in_a_folder_of_its_own(server: EmbeddedPostgres) -> None:
    connection = server.acquire()

    assert ask(connection, b"SHOW listen_addresses") == ""
    assert server.socket_dir.stat().st_mode & 0o777 == 0o700
    owner = binaries.unprivileged_account().uid if is_root else os.geteuid()
    assert server.socket_dir.stat().st_uid == owner


def test_letters_beyond_ascii_have_lower_case_whatever_the_locale(
    root: Path, server: EmbeddedPostgres
) -> None:
    env = {"LANG": "xx_YY.UTF-8", "LC_ALL": "C", "PGPORT": "1", "PGHOST": "nowhere.invalid"}
    env |= {"PGOPTIONS": "-c role=nobody", "PGDATA": "/nowhere", "TMPDIR": "/nowhere"}

    with session(root, env=env):
        connection = server.acquire()

        assert ask(connection, "SELECT lower('ÄÖÜ')".encode()) == "äöü"


def test_a_url_is_understood_whatever_is_in_the_path() -> None:
    host = '/tmp/it\'s "50%" @ ünder+way?#&:/run'

    url = make_url(Connection(host).url("some body", "a/b"))

    assert url.drivername == "postgresql+psycopg"
    assert url.translate_connect_args() == {"username": "some body", "database": "a/b"}
    assert url.query == {"host": host, "port": "5432"}


def test_a_data_root_may_have_a_long_and_unusual_path(tmp_path: Path) -> None:
    name = 'it\'s a "long" $HOME, 50% `true` \\ földer 演員 ' + "x" * 150
    with cleared(tmp_path / name / "data") as root:
        server = EmbeddedPostgres(root, linger=AT_ONCE)

        connection = server.acquire()

        assert ask(connection, b"SELECT 42") == 42
        server.release()
        eventually(lambda: has_ended(server))


def test_a_path_with_a_comma_is_no_list_of_hosts(tmp_path: Path) -> None:
    with cleared(tmp_path / "a,b") as root:
        server = EmbeddedPostgres(root, linger=AT_ONCE)

        with closing(psycopg.connect(host=server.acquire().host, user="postgres")) as client:
            assert client.info.host == str(server.socket_dir)

        server.release()


def test_attaching_to_a_running_server_starts_and_imports_nothing(
    root: Path, server: EmbeddedPostgres
) -> None:
    server.acquire()
    script = """
import sys
from datetime import timedelta
from pathlib import Path
from db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), linger=timedelta(0))
known = set(sys.modules)
events = []
sys.addaudithook(lambda event, arguments: events.append(event))
server.acquire()
costly = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec")
print(*(event for event in events if event in costly), *(set(sys.modules) - known))
"""

    with spawn_session(root, script=script) as process:
        output = process.communicate()

    assert output == ("\n", "")


def test_the_last_of_two_clients_stops_the_server(root: Path, server: EmbeddedPostgres) -> None:
    other = EmbeddedPostgres(root, linger=AT_ONCE)
    server.acquire()
    connection = other.acquire()

    server.release()

    assert ask(connection, b"SELECT 42") == 42
    other.release()
    eventually(lambda: has_ended(other))


def test_attaching_twice_is_attaching_once(server: EmbeddedPostgres) -> None:
    assert server.acquire() == server.acquire()

    server.release()
    server.release()

    eventually(lambda: has_ended(server))


def test_a_lingering_server_serves_the_next_client(root: Path) -> None:
    first, second = (EmbeddedPostgres(root, linger=HOURS) for _ in range(2))
    first.acquire()
    started = postmaster_of(first)
    first.release()

    second.acquire()

    assert postmaster_of(second) == started
    second.release()


def test_a_lingering_server_is_stopped_in_the_end(root: Path) -> None:
    server = EmbeddedPostgres(root, linger=timedelta(seconds=0.2))
    server.acquire()

    server.release()

    eventually(lambda: has_ended(server))


def test_a_pinned_server_survives_its_last_client_until_it_is_stopped(
    server: EmbeddedPostgres,
) -> None:
    server.acquire()
    server.pin()
    server.release()
    eventually(lambda: not reapers_of(server))

    assert server.pinned
    assert server.is_running()
    assert server.stop()
    assert not server.stop()
    assert not processes_of(server)


def test_a_server_that_is_no_longer_pinned_is_stopped(server: EmbeddedPostgres) -> None:
    server.pin()
    server.acquire()
    server.release()

    server.unpin()

    assert not server.pinned
    eventually(lambda: has_ended(server))


def test_pinning_needs_no_server(server: EmbeddedPostgres) -> None:
    server.pin()
    assert server.pinned

    server.unpin()
    assert not server.pinned


def test_nobody_has_the_server_alone_while_others_use_it(
    root: Path, server: EmbeddedPostgres
) -> None:
    other = EmbeddedPostgres(root, linger=AT_ONCE)
    server.acquire()
    connection = other.acquire()

    with pytest.raises(EmbeddedInUse), server.exclusive():
        pass
    with pytest.raises(EmbeddedInUse), EmbeddedPostgres(root, linger=AT_ONCE).exclusive():
        pass

    other.release()
    assert ask(connection, b"SELECT 42") == 42


def test_who_has_the_server_alone_can_stop_and_start_it(server: EmbeddedPostgres) -> None:
    connection = server.acquire()
    first = postmaster_of(server)

    with server.exclusive():
        assert server.stop()
        assert not server.is_running()
        server.ensure_running()
        assert postmaster_of(server) != first

    assert ask(connection, b"SELECT 42") == 42
    server.release()
    eventually(lambda: has_ended(server))


def test_who_comes_meanwhile_waits_for_who_has_the_server_alone(
    root: Path, server: EmbeddedPostgres
) -> None:
    other = EmbeddedPostgres(root, linger=AT_ONCE)
    attached = threading.Event()

    def attach() -> None:
        other.acquire()
        attached.set()

    with server.exclusive():
        waiting = threading.Thread(target=attach)
        waiting.start()
        server.acquire()
        assert not attached.is_set()

    assert attached.wait(30)
    waiting.join()
    other.release()
    eventually(lambda: has_ended(server))


def test_programs_run_as_the_account_of_the_server(server: EmbeddedPostgres) -> None:
    connection = server.acquire()
    query = b"SELECT current_user, current_setting('application_name');"

    result = server.run(
        *("psql", "--host", connection.host, "--username", "postgres", "--no-psqlrc", "-At"),
        input=query,
        check=True,
        timeout=60,
    )

    assert result.stdout == b"postgres|psql\n"
    assert server.program("pg_dump").is_file()
    dump = ("--host", connection.host, "--username", "postgres", "--schema-only", "dramatis")
    assert b"PostgreSQL database dump" in server.run("pg_dump", *dump).stdout


def test_postgres_16_has_a_cluster_of_its_own(root: Path) -> None:
    old = EmbeddedPostgres(root, linger=AT_ONCE, major=16)

    connection = old.acquire()

    assert str(ask(connection, b"SHOW server_version")).startswith("16.")
    with pytest.raises(EmbeddedUnavailable, match="another major version"):
        EmbeddedPostgres(root, linger=AT_ONCE).acquire()
    old.release()
    eventually(lambda: has_ended(old))


def test_a_major_that_is_not_in_the_wheel_is_refused(root: Path) -> None:
    with pytest.raises(EmbeddedUnavailable, match="Postgres 12 are not installed"):
        EmbeddedPostgres(root, linger=AT_ONCE, major=12).acquire()


def test_a_data_root_that_is_a_file_is_refused_in_a_sentence(root: Path) -> None:
    root.write_text("not a folder")

    with pytest.raises(EmbeddedUnavailable) as caught:
        EmbeddedPostgres(root, linger=AT_ONCE).acquire()

    assert re.fullmatch(r"The embedded database cannot be used here: [^.]+\.", str(caught.value))
    assert "DRAMATIS_DATA_ROOT" in caught.value.hint
    assert str(root) not in f"{caught.value} {caught.value.hint}"


@needs_ordinary_user
def test_a_data_root_that_is_closed_is_refused_in_a_sentence(root: Path) -> None:
    root.mkdir(mode=0o500)

    with pytest.raises(EmbeddedUnavailable, match=os.strerror(errno.EACCES)):
        EmbeddedPostgres(root, linger=AT_ONCE).acquire()


def test_a_start_that_fails_says_why_and_where_the_log_is(server: EmbeddedPostgres) -> None:
    server.acquire()
    server.release()
    eventually(lambda: has_ended(server))
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("shared_preload_libraries = 'missing'\n")

    with pytest.raises(EmbeddedUnavailable) as caught:
        server.acquire()

    assert str(caught.value) == (
        "The embedded database did not start: "
        'could not access file "missing": No such file or directory.'
    )
    assert caught.value.hint == "Its log is server.log in the database's folder."
    assert not processes_of(server)


def test_a_folder_in_the_place_of_the_cluster_is_left_alone(server: EmbeddedPostgres) -> None:
    server.pin()
    server.data.mkdir()
    precious = server.data / "precious"
    precious.touch()

    with pytest.raises(EmbeddedUnavailable, match=os.strerror(errno.ENOTEMPTY)):
        server.acquire()

    assert precious.exists()
    assert not list(server.base.glob("*.new-*"))


@pytest.mark.parametrize("trap", ["open", "link", "foreign"])
def test_a_socket_folder_that_is_not_ours_alone_is_refused(tmp_path: Path, trap: str) -> None:
    places = Places(tmp_path / ("x" * 100), 18)
    try:
        if trap == "link":
            places.socket_dir.symlink_to(tmp_path)
        else:
            places.socket_dir.mkdir(mode=0o700 if trap == "foreign" else 0o755)
        if trap == "foreign":
            if not is_root:
                pytest.skip("Only root can make a folder of somebody else's.")
            os.chown(places.socket_dir, pwd.getpwnam("nobody").pw_uid, -1)

        with pytest.raises(EmbeddedUnavailable, match="is not yours alone"):
            places.trust_socket_dir()
    finally:
        if places.socket_dir.is_symlink():
            places.socket_dir.unlink()
        else:
            places.socket_dir.rmdir()


@needs_ordinary_user
def test_a_client_does_not_connect_through_an_open_folder(tmp_path: Path) -> None:
    with cleared(tmp_path / ("x" * 100)) as root:
        server = EmbeddedPostgres(root, linger=AT_ONCE)
        server.socket_dir.mkdir(mode=0o755)

        with pytest.raises(EmbeddedUnavailable, match="is not yours alone"):
            server.acquire()


@needs_root
def test_the_server_is_not_root_and_no_folder_of_roots_is_opened(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    tmp_path.chmod(0o700)

    server.acquire()

    account = pwd.getpwnam("dramatis")
    status = Path(f"/proc/{postmaster_of(server)}/status").read_text()
    assert f"Uid:\t{account.pw_uid}\t{account.pw_uid}" in status
    assert f"Gid:\t{account.pw_gid}\t{account.pw_gid}" in status
    assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert (server.base / "data_root").read_text() == f"{tmp_path / 'data'}\n"


def test_there_is_no_server_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(EmbeddedUnavailable) as caught:
        EmbeddedPostgres(tmp_path, linger=AT_ONCE)

    assert "DRAMATIS_DATABASE_URL" in caught.value.hint


def test_the_log_is_kept_short(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    server.acquire()
    server.release()
    eventually(lambda: has_ended(server))
    with (server.base / "server.log").open("ab") as log:
        log.truncate(5_000_000)

    server.acquire()

    assert (server.base / "server.log").stat().st_size < 100_000
    assert (server.base / "server.log.1").stat().st_size == 5_000_000
