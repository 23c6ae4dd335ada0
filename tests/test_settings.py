import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from pydantic import SecretStr, ValidationError

from server.errors import refused
from server.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of ours is set where these tests run, nor left behind."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DRAMATIS_")]:
            patch.delenv(name)
        yield


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"DRAMATIS_{name}", value)
    return Settings()


def test_settings_of_jobs_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = read(
        monkeypatch,
        MODEL="played",
        MODEL_URL="http://localhost:1/v1",
        MODEL_KEY="s3cret",
        MODEL_KEY_FILE=str(tmp_path / "key"),
        MODEL_PRICE="0.25/1.5",
        RUNNER_COMMAND="agent -p 'two words'",
        CORE_PERSONAS=str(tmp_path),
        START_WORKER="false",
        PERSONA_DAY_TOKENS="50000",
        RUN_USD="0.5",
        PERSONA_DAY_USD="2",
    )

    assert found.model_dump(include=found.model_fields_set) == {
        "model": "played",
        "model_url": "http://localhost:1/v1",
        "model_key": SecretStr("s3cret"),
        "model_key_file": tmp_path / "key",
        "model_price": (0.25, 1.5),
        "runner_command": ("agent", "-p", "two words"),
        "core_personas": tmp_path,
        "start_worker": False,
        "persona_day_tokens": 50_000,
        "run_usd": 0.5,
        "persona_day_usd": 2.0,
    }


BAD: list[tuple[dict[str, str], str]] = [
    ({"MODEL_PRICE": "3"}, snapshot("model_price.1: is required.")),
    (
        {"MODEL_PRICE": "3/x"},
        snapshot("model_price.1: must be a valid number, unable to parse string as a number."),
    ),
    ({"MODEL_PRICE": "1/2/3"}, snapshot("model_price: must have at most 2 items.")),
    ({"MODEL_PRICE": "-1/2"}, snapshot("model_price.0: must be greater than or equal to 0.")),
    ({"MODEL_PRICE": "nan/2"}, snapshot("model_price.0: must be a finite number.")),
    ({"RUNNER_COMMAND": "agent 'half"}, snapshot("runner_command: No closing quotation.")),
    ({"RUNNER_COMMAND": " "}, snapshot("runner_command: must have at least 1 item.")),
    (
        {"RUNNER_COMMAND": "./agent.sh -p"},
        snapshot("runner_command: must name a program of the PATH, or one by an absolute path."),
    ),
    (
        {"RUNNER_COMMAND": "~/bin/agent"},
        snapshot("runner_command: must name a program of the PATH, or one by an absolute path."),
    ),
    (
        {"CORE_PERSONAS": "/nowhere/at/all"},
        snapshot("core_personas: must be a folder that there is."),
    ),
    (
        {"START_WORKER": "perhaps"},
        snapshot("start_worker: must be a valid boolean, unable to interpret input."),
    ),
    ({"WORKER_IDLE_S": "0"}, snapshot("worker_idle_s: must be greater than or equal to 1.")),
    ({"WORKER_JOBS": "0"}, snapshot("worker_jobs: must be greater than or equal to 1.")),
    ({"RUNNING_JOBS": "0"}, snapshot("running_jobs: must be greater than or equal to 1.")),
    ({"PERSONA_JOBS": "0"}, snapshot("persona_jobs: must be greater than or equal to 1.")),
    ({"QUEUE_LENGTH": "0"}, snapshot("queue_length: must be greater than or equal to 1.")),
    ({"JOBS_PER_MINUTE": "0"}, snapshot("jobs_per_minute: must be greater than or equal to 1.")),
    ({"JOB_S": "0"}, snapshot("job_s: must be greater than or equal to 1.")),
    ({"MODEL_S": "nan"}, snapshot("model_s: must be less than or equal to 86400.")),
    ({"RUN_TOKENS": "999"}, snapshot("run_tokens: must be greater than or equal to 1000.")),
    (
        {"RUN_TOKENS": "3000000000"},
        snapshot("run_tokens: must be less than or equal to 1000000000."),
    ),
    (
        {"PERSONA_DAY_TOKENS": "many"},
        snapshot(
            "persona_day_tokens: must be a valid integer, unable to parse string as an integer."
        ),
    ),
    ({"RUN_USD": "0"}, snapshot("run_usd: must be greater than 0.")),
    ({"RUN_USD": "inf"}, snapshot("run_usd: must be less than or equal to 100000.")),
    (
        {"PERSONA_DAY_USD": "2"},
        snapshot("PERSONA_DAY_USD needs RUN_USD, what a single run may spend."),
    ),
]


@pytest.mark.parametrize(("variables", "sentence"), BAD)
def test_a_bad_value_is_refused_with_the_rule(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
):
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **variables)

    assert str(refused(caught.value)) == sentence


def test_a_bad_key_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, MODEL_KEY="s3cret", PERSONA_DAY_USD="2")

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("true", ("true",)),
        ("'/opt/my agent'", ("/opt/my agent",)),
        ('"/opt/my agent"', ("/opt/my agent",)),
        ("agent --allow 'a b' c", ("agent", "--allow", "a b", "c")),
    ],
)
def test_a_command_is_read_as_a_shell_reads_it(
    monkeypatch: pytest.MonkeyPatch, command: str, words: tuple[str, ...]
):
    assert read(monkeypatch, RUNNER_COMMAND=command).runner_command == words


def settings_of_all_kinds() -> st.SearchStrategy[dict[str, Any]]:
    said = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
    path = st.text("abc ,'\"é", min_size=1).map(lambda name: Path("/") / name)
    price = st.floats(0, 1000)
    return st.fixed_dictionaries(
        {},
        optional={
            "data_root": path,
            "database_url": said.map(SecretStr),
            "tenant": said,
            "toolsets": st.just(("personas", "standards")),
            "read_only": st.booleans(),
            "skill_template": st.sampled_from(["standard", "detailed"]),
            "prompt_tokens": st.integers(500, 10_000),
            "standards_root": st.just("docs/standards"),
            "model": said,
            "model_key": said.map(SecretStr),
            "model_key_file": path,
            "model_price": st.tuples(price, price),
            "runner_command": st.lists(said | st.just("")).map(lambda words: ("agent", *words)),
            "start_worker": st.booleans(),
            "worker_idle_s": st.floats(1, 86_400),
            "worker_jobs": st.integers(1, 100),
            "run_usd": st.floats(0.001, 1000),
            "log_level": st.sampled_from(["DEBUG", "ERROR"]),
        },
    )


@given(settings_of_all_kinds())
def test_a_process_of_ours_finds_the_same_settings(values: dict[str, Any]):
    mine = Settings(**values)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in mine.environment().items():
            patch.setenv(name, value)
        theirs = Settings()

    assert theirs == mine


def test_a_process_of_ours_finds_all_else_that_we_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    monkeypatch.setenv("DRAMATIS_MODEL", "openai:gpt-5")

    environment = Settings(model="openai:gpt-5-mini").environment()

    assert environment["OPENAI_API_KEY"] == "s3cret"
    assert environment["DRAMATIS_MODEL"] == "openai:gpt-5-mini"


OTHER_WORKERS: list[dict[str, str]] = [
    {"DRAMATIS_MODEL": "openai:gpt-5"},
    {"DRAMATIS_MODEL_URL": "http://localhost:1/v1"},
    {"DRAMATIS_MODEL_KEY": "s3cret"},
    {"DRAMATIS_MODEL_PRICE": "1/2"},
    {"DRAMATIS_MODEL_S": "5"},
    {"DRAMATIS_RUNNER_COMMAND": "claude -p"},
    {"DRAMATIS_JOB_S": "5"},
    {"DRAMATIS_CORE_PERSONAS": "/"},
    {"DRAMATIS_STANDARDS_LIBRARY": "/"},
    {"DRAMATIS_EMBEDDING_KEY": "s3cret"},
    {"DRAMATIS_RUNNING_JOBS": "5"},
    {"DRAMATIS_WORKER_JOBS": "5"},
    {"OPENAI_API_KEY": "s3cret"},
    {"OPENAI_API_KEY": "another"},
    {"ANTHROPIC_AUTH_TOKEN": "s3cret"},
    {"OPENAI_BASE_URL": "http://localhost"},
    {"OLLAMA_API_BASE": "http://localhost"},
    {"AWS_PROFILE": "shop"},
    {"GOOGLE_CLOUD_PROJECT": "shop"},
    {"AZURE_OPENAI_ENDPOINT": "http://localhost"},
    {"HF_TOKEN": "s3cret"},
    {"https_proxy": "http://localhost"},
    {"DRAMATIS_RUNNER_COMMAND": "claude -p", "PATH": "/opt/bin"},
    {"DRAMATIS_RUNNER_COMMAND": "claude -p", "CLAUDE_CODE_OAUTH_TOKEN": "s3cret"},
]
SAME_WORKER: list[dict[str, str]] = [
    {"DRAMATIS_TOOLSETS": "jobs"},
    {"DRAMATIS_READ_ONLY": "true"},
    {"DRAMATIS_RUN_TOKENS": "5000"},
    {"DRAMATIS_LOG_LEVEL": "DEBUG"},
    {"TERM": "dumb"},
    {"PATH": "/opt/bin"},
    {"GITHUB_TOKEN": "s3cret"},
    {"VSCODE_GIT_IPC_AUTH_TOKEN": "s3cret"},
    {"MY_AWS_X": "1"},
]


def digest_with(variables: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return Settings().worker_digest()


def test_a_worker_is_another_one_with_any_other_setting_or_key_that_a_run_depends_on():
    digests = [digest_with(variables) for variables in [{}, *OTHER_WORKERS]]

    assert len({*digests}) == len(digests)


@pytest.mark.parametrize("variables", SAME_WORKER)
def test_a_worker_is_the_same_with_other_settings_of_those_who_invoke(variables: dict[str, str]):
    assert digest_with(variables) == digest_with({})


@given(settings_of_all_kinds())
def test_a_process_of_ours_is_the_same_worker(values: dict[str, Any]):
    mine = Settings(**values)

    assert digest_with(mine.environment()) == mine.worker_digest()
