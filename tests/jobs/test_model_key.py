"""Where a worker has the key of its model from."""

import os
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from server.jobs.model_key import model_key
from server.jobs.running import RunnerMissing
from server.settings import Settings


def of(file: Path, **values: object) -> Settings:
    return Settings.model_validate({"model_key_file": file, **values})


def test_a_key_in_a_file_can_be_replaced(tmp_path: Path):
    file = tmp_path / "key"
    keys: list[str] = []
    for text in ("first\n", " second "):
        file.write_text(text)
        key = model_key(of(file))
        assert key is not None
        keys.append(key.get_secret_value())

    assert keys == ["first", "second"]


def test_a_key_that_is_set_comes_before_that_of_a_file_and_without_both_there_is_none():
    assert (
        model_key(of(Path("/gone"), model_key="set"))
        == Settings.model_validate({"model_key": "set"}).model_key
    )
    assert model_key(Settings()) is None


@pytest.mark.parametrize("kind", ["missing", "pipe", "folder"])
def test_what_cannot_be_read_is_an_error_at_once(kind: str, tmp_path: Path):
    if kind == "pipe":
        os.mkfifo(tmp_path / "key")
    elif kind == "folder":
        (tmp_path / "key").mkdir()

    with pytest.raises(RunnerMissing) as raised:
        model_key(of(tmp_path / "key"))

    assert str(raised.value) == snapshot(
        "The file of the model's key cannot be read. Check DRAMATIS_MODEL_KEY_FILE where the worker is started."
    )


def test_an_empty_file_is_no_key(tmp_path: Path):
    (tmp_path / "key").touch()

    with pytest.raises(RunnerMissing) as raised:
        model_key(of(tmp_path / "key"))

    assert str(raised.value) == snapshot(
        "The file of the model's key is empty. Write the key into the file that DRAMATIS_MODEL_KEY_FILE names."
    )
