import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from tests.cli.conftest import DRAMATIS, Cli


def read(cli: Cli, file: str) -> Any:
    return json.loads((cli.folder / file).read_text())


def entry(*arguments: str, typed: bool = True) -> dict[str, Any]:
    kind = {"type": "stdio"} if typed else {}
    return {**kind, "command": str(DRAMATIS), "args": ["mcp", *arguments]}


DESKTOP = "home/.config/Claude/claude_desktop_config.json"
CODE = "home/.config/Code/User/mcp.json"
if sys.platform == "darwin":
    DESKTOP = "home/Library/Application Support/Claude/claude_desktop_config.json"
    CODE = "home/Library/Application Support/Code/User/mcp.json"


@pytest.mark.parametrize(
    ("arguments", "file", "servers", "typed"),
    [
        (["claude-code"], ".mcp.json", "mcpServers", True),
        (["claude-code", "--scope", "user"], "home/.claude.json", "mcpServers", True),
        (["cursor"], ".cursor/mcp.json", "mcpServers", False),
        (["cursor", "--scope", "user"], "home/.cursor/mcp.json", "mcpServers", False),
        (["vscode"], ".vscode/mcp.json", "servers", True),
        (["vscode", "--scope", "user"], CODE, "servers", True),
        (["claude-desktop"], DESKTOP, "mcpServers", False),
    ],
)
def test_each_client_is_entered_where_it_looks(
    offline: Cli, arguments: list[str], file: str, servers: str, typed: bool
):
    answer = offline.answer("install", *arguments)

    assert read(offline, file) == {servers: {"dramatis": entry(typed=typed)}}
    assert (answer["file"], answer["changed"]) == (str(offline.folder / file), True)


def test_installing_tells_where_and_what_to_do_next(offline: Cli):
    first = offline.run("install", "claude-code", env={"DRAMATIS_DATABASE_URL": ""})
    (offline.folder / ".mcp.json").write_text("{}")
    second = offline.run("install", "claude-code", env={"DRAMATIS_DATABASE_URL": ""})

    assert first.stdout == snapshot("""\
Entered dramatis in .mcp.json. Start Claude Code anew to use it.
Set here, and perhaps not for Claude Code: DRAMATIS_DATA_ROOT, DRAMATIS_LINGER_S.
""")
    assert second.stdout == snapshot("""\
Entered dramatis in .mcp.json. The file before is kept as .mcp.json.bak. Start Claude Code anew to use it.
Set here, and perhaps not for Claude Code: DRAMATIS_DATA_ROOT, DRAMATIS_LINGER_S.
""")


def test_installing_twice_changes_nothing_and_says_so(offline: Cli):
    offline.said("install", "claude-code")
    before = (offline.folder / ".mcp.json").stat()

    said = offline.said("install", "claude-code")

    assert said.splitlines()[0] == "Claude Code has this entry in .mcp.json already."
    assert (offline.folder / ".mcp.json").stat() == before
    assert not (offline.folder / ".mcp.json.bak").exists()
    assert offline.answer("install", "claude-code")["changed"] is False


def test_everything_else_in_the_file_stays_in_its_order(offline: Cli):
    config = (
        '{\n\t"z": [1, 2.5, null, "ü"],\n\t"mcpServers": {\n\t\t"other": {"command": "x"},\n'
        '\t\t"dramatis": {"env": {"DRAMATIS_TENANT": "acme"}, "command": "gone"}\n\t},\n\t"a": {}\n}'
    )
    file = offline.folder / ".mcp.json"
    file.write_text(config)
    file.chmod(0o640)

    offline.said("install", "claude-code")

    assert file.read_text().replace(str(DRAMATIS), "/bin/dramatis") == snapshot("""\
{
	"z": [
		1,
		2.5,
		null,
		"ü"
	],
	"mcpServers": {
		"other": {
			"command": "x"
		},
		"dramatis": {
			"env": {
				"DRAMATIS_TENANT": "acme"
			},
			"command": "/bin/dramatis",
			"type": "stdio",
			"args": [
				"mcp"
			]
		}
	},
	"a": {}
}\
""")
    assert (offline.folder / ".mcp.json.bak").read_text() == config
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in offline.folder.iterdir()) == [
        ".mcp.json",
        ".mcp.json.bak",
        "home",
    ]


def test_a_linked_configuration_stays_a_link(offline: Cli):
    kept = offline.folder / "dotfiles.json"
    kept.write_text("{}\n")
    (offline.folder / ".mcp.json").symlink_to(kept)

    offline.said("install", "claude-code")

    assert (offline.folder / ".mcp.json").is_symlink()
    assert read(offline, "dotfiles.json") == {"mcpServers": {"dramatis": entry()}}


def test_an_empty_file_is_an_empty_configuration(offline: Cli):
    (offline.folder / ".mcp.json").touch()

    offline.said("install", "claude-code")

    assert read(offline, ".mcp.json") == {"mcpServers": {"dramatis": entry()}}


@pytest.mark.parametrize(
    "config",
    [
        b'{"mcpServers": {}} // mine',
        b'{"a": 1, "a": 2}',
        b"[]",
        b'{"mcpServers": []}',
        b"[" * 100_000,
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b'{"a": 12345678901234567890.123}',
        b'{"a": "\\ud83d"}',
    ],
)
def test_what_is_not_plain_json_is_left_alone_with_the_text_to_paste(offline: Cli, config: bytes):
    file = offline.folder / ".mcp.json"
    file.write_bytes(config)

    result = offline.run("install", "claude-code", "--json")

    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["code"]) == (4, "config_not_readable")
    pasted = error["hint"].removeprefix("Put this into it yourself:\n")
    assert json.loads(pasted) == {"mcpServers": {"dramatis": entry()}}
    assert file.read_bytes() == config


def test_a_file_that_is_no_text_is_left_alone(offline: Cli):
    (offline.folder / ".mcp.json").write_bytes(b"\xff")

    assert offline.refusal("install", "claude-code") == snapshot(
        (4, "config_not_readable", ".mcp.json, of Claude Code, cannot be read.")
    )


def test_a_folder_that_cannot_be_made_is_said(offline: Cli):
    (offline.folder / ".cursor").symlink_to("/proc/nowhere")

    assert offline.refusal("install", "cursor")[:2] == (4, "config_not_writable")


def test_data_root_and_tenant_are_passed_on(offline: Cli):
    offline.said("install", "cursor", "--data-root", "data", "--tenant", "acme")

    expected = entry("--data-root", str(offline.data_root), "--tenant", "acme", typed=False)
    assert read(offline, ".cursor/mcp.json") == {"mcpServers": {"dramatis": expected}}


def test_toolsets_are_passed_on(offline: Cli):
    offline.said("install", "cursor", "--toolsets", "personas, specs")

    expected = entry("--toolsets", "personas,specs", typed=False)
    assert read(offline, ".cursor/mcp.json") == {"mcpServers": {"dramatis": expected}}


def test_a_toolset_that_no_server_would_start_with_is_refused(offline: Cli):
    assert offline.refusal("install", "cursor", "--toolsets", "personas,x") == (
        2,
        "invalid",
        "No toolset is called 'x'.",
    )
    assert not (offline.folder / ".cursor").exists()


def test_settings_that_the_client_may_not_see_are_named(offline: Cli):
    said = offline.said("install", "cursor", "--data-root", "data")

    assert said.splitlines()[-1] == (
        "Set here, and perhaps not for Cursor: DRAMATIS_DATABASE_URL, DRAMATIS_LINGER_S."
    )


def test_without_settings_of_the_shell_nothing_is_said_of_them(offline: Cli):
    names = ("DATABASE_URL", "DATA_ROOT", "LINGER_S")

    said = offline.said("install", "cursor", env={f"DRAMATIS_{name}": "" for name in names})

    assert said == "Entered dramatis in .cursor/mcp.json. Start Cursor anew to use it.\n"


def test_a_file_that_is_neither_here_nor_at_home_is_named_in_full(
    offline: Cli, tmp_path_factory: pytest.TempPathFactory
):
    elsewhere = tmp_path_factory.mktemp("config")

    said = offline.said("install", "claude-desktop", env={"XDG_CONFIG_HOME": str(elsewhere)})

    assert f"Entered dramatis in {elsewhere}/Claude/claude_desktop_config.json." in said


def test_printing_changes_no_file(offline: Cli):
    said = offline.said("install", "vscode", "--print")
    answer = offline.answer("install", "vscode", "--print")

    assert json.loads(said) == {"servers": {"dramatis": entry()}}
    assert answer == {"client": "vscode", "config": json.loads(said)}
    assert list(offline.folder.iterdir()) == [offline.home]


def test_a_dry_run_shows_the_change_and_makes_none(offline: Cli):
    (offline.folder / ".mcp.json").write_text('{\n  "mcpServers": {}\n}\n')

    said = offline.said("install", "claude-code", "--dry-run", "--tenant", "acme")

    assert said.replace(str(DRAMATIS), "DRAMATIS") == snapshot("""\
--- .mcp.json
+++ .mcp.json
@@ -1,3 +1,13 @@
 {
-  "mcpServers": {}
+  "mcpServers": {
+    "dramatis": {
+      "type": "stdio",
+      "command": "DRAMATIS",
+      "args": [
+        "mcp",
+        "--tenant",
+        "acme"
+      ]
+    }
+  }
 }
Set here, and perhaps not for Claude Code: DRAMATIS_DATABASE_URL, DRAMATIS_DATA_ROOT, DRAMATIS_LINGER_S.
""")
    assert read(offline, ".mcp.json") == {"mcpServers": {}}
    assert offline.answer("install", "claude-code", "--dry-run")["changed"] is False


def test_a_client_without_projects_says_so(offline: Cli):
    assert offline.refusal("install", "claude-desktop", "--scope", "project") == snapshot(
        (2, "no_such_scope", "Claude Desktop has no configuration in projects.")
    )


def test_the_command_is_the_one_that_was_called(offline: Cli):
    linked = offline.folder / "bin" / "dramatis"
    linked.parent.mkdir()
    linked.symlink_to(DRAMATIS)

    done = subprocess.run(
        ["bin/dramatis", "install", "cursor", "--print"],
        cwd=offline.folder,
        env=offline.environment(),
        capture_output=True,
        check=True,
    )

    assert json.loads(done.stdout)["mcpServers"]["dramatis"]["command"] == str(linked)


def test_without_an_installed_command_there_is_nothing_to_enter(
    offline: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "executable", str(Path("/nowhere/python")))

    assert offline.refusal("install", "cursor") == snapshot(
        (3, "command_not_installed", "The command `dramatis` is not installed beside this Python.")
    )
