"""Keep a run on a model to what it may spend."""

from dataclasses import dataclass

from pydantic_ai.usage import RequestUsage

from server.jobs.model_choice import Price
from server.jobs.running import RunJob, budget_spent

# Where less is left, an answer is limited to it. More is not asked for: models refuse a limit
# above their own, which we do not know.
LIMITED_BELOW = 4_096
# Some models refuse a limit below this.
LEAST_ANSWER = 16


@dataclass(slots=True)
class Allowance:
    """What a run may spend, and what it has spent of that.

    It is kept by estimates, which are off by some, and by `most_output`. So the last answer of a
    run may still cost more: where much is left, by what the model thinks without showing it.
    """

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
            limit = f"{self.tokens_limit:,} tokens"
            raise budget_spent(limit, f"{tokens:,}", setting="DRAMATIS_RUN_TOKENS")
        # Prices are looked up, and this is asked at every piece of an answer.
        if self.usd_limit is None:
            return
        usd = _sum(self.usd, self.price(more))
        if usd is not None and usd > self.usd_limit:
            limit = f"{self.usd_limit:g} USD"
            raise budget_spent(limit, f"{usd:.4f}", setting="DRAMATIS_RUN_USD")

    def most_output(self, sent: int) -> int | None:
        """Limit the tokens of an answer to what is left.

        Args:
            sent: about how many tokens are sent for it; the run may spend them.

        Returns:
            `None` where that is much: whatever the model's own limit is will do.
        """
        left = self.tokens_limit - self.input_tokens - self.output_tokens - sent
        if self.usd_limit is not None:
            left = min(left, self._affordable(sent, self.usd_limit))
        return max(left, LEAST_ANSWER) if left < LIMITED_BELOW else None

    def _affordable(self, sent: int, usd_limit: float) -> int:
        """Return how many tokens of output there is money for, or `LIMITED_BELOW` for more."""
        asked = RequestUsage(input_tokens=sent)
        full = RequestUsage(input_tokens=sent, output_tokens=LIMITED_BELOW)
        least, most = (_sum(self.usd, self.price(used)) for used in (asked, full))
        if least is None or most is None or most <= usd_limit:
            return LIMITED_BELOW
        return int(LIMITED_BELOW * (usd_limit - least) / (most - least))

    def add(self, used: RequestUsage, *, estimated: bool) -> None:
        self.input_tokens += used.input_tokens
        self.output_tokens += used.output_tokens
        self.usd = _sum(self.usd, self.price(used))
        self.estimated |= estimated


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
