"""Which prompt ran. Apart from the other shapes, so that who needs this alone imports nothing else."""

from typing import Literal

from pydantic import Field

from server.personas.shapes import Shape


class Trace(Shape):
    """Proof of which prompt ran."""

    source: Literal["spec", "fallback", "core"]
    persona_spec_version: str | None = Field(description="Null unless from a spec.")
    spec_digest: str | None = Field(description="SHA-256 of the stored document.")
    digest: str = Field(description="SHA-256 of the compiled text.")
    reason: str | None = Field(description="Why it is a fallback.")
