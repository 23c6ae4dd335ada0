"""The key that a worker has for its model."""

from pydantic import SecretStr

from server.jobs.running import RunnerMissing
from server.settings import Settings


def model_key(settings: Settings) -> SecretStr | None:
    """Return the key, read anew where it is in a file; `None` leaves it to the provider's variable.

    Raises:
        RunnerMissing: the file cannot be read, or has none.
    """
    file = settings.model_key_file
    if settings.model_key is not None or file is None:
        return settings.model_key
    try:
        # A pipe, for example, would hold up all that a worker runs.
        if not file.is_file():
            raise FileNotFoundError(file)
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RunnerMissing(
            "The file of the model's key cannot be read.",
            hint="Check DRAMATIS_MODEL_KEY_FILE where the worker is started.",
        ) from error
    if not key:
        raise RunnerMissing(
            "The file of the model's key is empty.",
            hint="Write the key into the file that DRAMATIS_MODEL_KEY_FILE names.",
        )
    return SecretStr(key)
