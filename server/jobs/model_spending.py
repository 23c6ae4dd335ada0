"""Keep a run on a model to what it may spend."""

from dataclasses import dataclass

from pydantic_ai.usage import RequestUsage

from server.jobs.model_choice import Price
from server.jobs.running import BudgetSpent, RunJob


@dataclass(slots=True)
class Allowance:
    """What a run may spend, and what it has spent of that."""

    price: Price
    tokens_limit: int
    usd_limit: float | None
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    estimated: bool = False

    @classmethod
    def of(cls, job: RunJob, price: Price) -> "Allowance":
        return cls(price, job.tokens_limit, job.usd_limit)

    def check(self, more: RequestUsage) -> None:
        """Refuse to spend this much more.

        Raises:
            BudgetSpent: it would be more than the run may spend.
        """
        tokens = self.input_tokens + self.output_tokens + more.total_tokens
        if tokens > self.tokens_limit:
            raise BudgetSpent(
                f"The run may spend {self.tokens_limit:,} tokens, and would spend about {tokens:,}.",
                hint="Give it a smaller task, or set DRAMATIS_RUN_TOKENS.",
            )
        # Prices are looked up, and this is asked at every piece of an answer.
        if self.usd_limit is None:
            return
        usd = _sum(self.usd, self.price(more))
        if usd is not None and usd > self.usd_limit:
            raise BudgetSpent(
                f"The run may spend {self.usd_limit:g} USD, and would spend about {usd:.4f}.",
                hint="Give it a smaller task, or set DRAMATIS_RUN_USD.",
            )

    def add(self, used: RequestUsage, *, estimated: bool) -> None:
        self.input_tokens += used.input_tokens
        self.output_tokens += used.output_tokens
        self.usd = _sum(self.usd, self.price(used))
        self.estimated |= estimated


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
