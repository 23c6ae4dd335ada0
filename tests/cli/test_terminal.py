from inline_snapshot import snapshot
from wcwidth import wcswidth

from tests.cli.conftest import Cli
from tests.cli.terminals import on_terminal

LONG = "Maximiliane Wilhelmine von Hohenstein-Waldburg"


def test_a_table_is_cut_to_the_terminal_and_slugs_stay_whole(cli: Cli):
    cli.said("persona", "register", LONG, "--role", "architect")
    cli.said("persona", "register", "王芳" * 20, "--role", "x" * 50)

    shown = on_terminal(cli, "persona", "list", columns=130)

    lines = shown.seen.splitlines()
    assert max(map(wcswidth, lines)) <= 130
    assert [line[:-19] for line in lines[:3]] == snapshot(
        [
            "ID  SLUG                                                     NAME             ROLE             STATUS",
            "2   xxxxxxxxxxxxxxxxxxxxxxxxxx-wangfangwangfangwangfangwa-2  王芳王芳王芳王…  xxxxxxxxxxxxxx…  active  complete",
            "1   architect-maximiliane-wilhelmine-von-1                   Maximiliane Wi…  architect        active  complete",
        ]
    )


def test_a_table_that_cannot_be_cut_enough_is_wider_than_the_terminal(cli: Cli):
    cli.said("persona", "register", LONG, "--role", "architect")

    shown = on_terminal(cli, "persona", "list", columns=20)

    assert "architect-maximiliane-wilhelmine-von-1" in shown.seen


def test_a_file_cannot_drive_the_terminal(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("persona", "skill", "con", "--set", "-", stdin="red \x1b[31m ends")

    assert on_terminal(cli, "persona", "skill", "con").seen == "red \ufffd[31m ends\n"
    assert cli.said("persona", "skill", "con") == "red \x1b[31m ends"


def test_deleting_asks_first(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "developer")

    no = on_terminal(cli, "persona", "delete", "con", typed="n\n")
    yes = on_terminal(cli, "persona", "delete", "con", typed="y\n")

    assert (no.exit_code, no.seen) == snapshot(
        (
            1,
            """\
n
Delete developer-con-1 for good? Its files stay on disk. [y/N]: Nothing was deleted.
""",
        )
    )
    assert (yes.exit_code, yes.seen.replace(str(cli.data_root), "DATA")) == snapshot(
        (
            0,
            """\
y
Delete developer-con-1 for good? Its files stay on disk. [y/N]: Deleted developer-con-1. Its files stay in DATA/personas/developer-con-1
""",
        )
    )


def test_long_work_shows_its_progress(cli: Cli):
    file = cli.folder / "team.json"
    file.write_text('[{"name": "Con", "role": "developer"}]')

    shown = on_terminal(cli, "persona", "import", str(file))

    assert "Registering  [####################################]  100%" in shown.seen
