"""Take up jobs whose worker is gone, and that nobody starts again as it was.

Each set of settings and keys has a queue and a worker on demand of its own. After a key was changed,
or Dramatis upgraded, nobody starts the earlier one any more, and its jobs would wait for ever. They
are taken by a worker that runs the same command, or models of the same provider or server.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic

import anyio.to_thread
from sqlalchemy import text

from server.work import Work

# For whoever has its settings to start it again: a status check of theirs does. Not longer, for a
# job is to be taken up within a minute whose worker has died.
PATIENCE_S = 5.0


@dataclass(slots=True)
class Adoption:
    """What a worker on demand does for its owner's other queues.

    Attributes:
        queue: its own.
        abandoned: finds those among queues that it could take care of and that have no worker.
    """

    queue: str
    abandoned: Callable[[Collection[str]], Collection[str]]
    patience_s: float = PATIENCE_S
    _since: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def waits(self) -> bool:
        """Whether there was something, when it looked last, that it will take, or may have to."""
        return bool(self._since)

    async def look(self, work: Work) -> None:
        """Move what waits in queues that had no worker for a while into our own."""
        others = (await work.session.scalars(_OTHERS, {"mine": self.queue})).all()
        gone = await anyio.to_thread.run_sync(self.abandoned, others) if others else ()
        now = monotonic()
        self._since = {queue: self._since.get(queue, now) for queue in gone}
        given_up = [queue for queue, since in self._since.items() if now - since >= self.patience_s]
        if given_up:
            await work.session.execute(_MOVE, {"mine": self.queue, "queues": given_up})


# What runs may turn out to be lost.
_OTHERS = text("""
SELECT DISTINCT queue FROM dramatis.persona_jobs
WHERE status IN ('pending', 'running') AND queue <> :mine
""")
_MOVE = text("""
WITH waiting AS (
  SELECT id, delivery_id FROM dramatis.persona_jobs
  WHERE status = 'pending' AND queue = ANY(CAST(:queues AS text[]))
  ORDER BY id FOR UPDATE
), moved AS (
  UPDATE dramatis.persona_jobs job SET queue = :mine FROM waiting WHERE job.id = waiting.id
)
UPDATE procrastinate_jobs delivery SET queue_name = :mine FROM waiting
WHERE delivery.id = waiting.delivery_id AND delivery.status = 'todo'
""")
