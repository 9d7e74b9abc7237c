"""Which candidates a step is shown: the pool, what the student says of it, the selector's choice.

Scores are kept between epochs (`refresh`), so a checkpoint holds them; texts made for a step are scored when they come.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from augkd.distill.adversary.ascent import Adversary
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.statistics import SelectionStatistics
from augkd.distill.trace import SelectionTrace
from augkd.models.seeds import rng_of
from augkd.models.tokens import Tokens
from augkd.selection.divergence import divergence
from augkd.selection.pool import Batch, Pool
from augkd.selection.selectors import SCORED, SELECTORS


class Choice:
    """The selection of one stage of training, with what it remembers."""

    def __init__(
        self,
        args: DistillationArguments,
        data: DistillationDataset,
        adversary: Adversary | None,
        trace: SelectionTrace | None,
    ):
        """`adversary` adds candidates to every pool; `trace` is told of the stored ones."""
        ((self._selector, self._options),) = args.selector.items()
        self._args, self._adversary = args, adversary
        self._most = data.most + (adversary.samples if adversary else 0)
        self.scores = torch.full((len(data.candidate_tokens),), torch.nan)  # of each stored candidate, as last scored
        self.trace = trace
        self.statistics = SelectionStatistics(data.source_names, data.source, adversary is not None)

    @property
    def kept(self) -> int:
        """Candidates an original can contribute a step: a candidate's weight is the share of one of them."""
        return max(1, min(int(self._options.get("keep", self._most)), self._most))

    def chosen(self, batch: Batch, epoch: int, score: Callable[[Tokens], Tensor]) -> Pool:
        """The chosen candidates of a batch; `score` gives the student's logits of rows, without noise or gradient."""
        pool, place = batch.pool, (self._args.seed, epoch, int(batch.rows[0]))
        if self._adversary is not None:
            pool = pool.join(self._adversary.pool(batch, rng_of(*place, 2), self._args.token_budget))
        if len(pool) == 0:
            return pool
        values = self._divergence(pool, epoch, score) if self._selector in SCORED else None
        given = torch.zeros(len(pool)) if values is None else values
        chosen = SELECTORS[self._selector](given, pool, rng_of(*place), **self._options)
        self.statistics.note(values, pool, chosen)
        if self.trace is not None:
            self.trace.note(epoch, pool.row, values, pool.row[chosen])
        return pool.take(chosen)

    def _divergence(self, pool: Pool, epoch: int, score: Callable[[Tokens], Tensor]) -> Tensor:  # (n,)
        """Divergence of every candidate: fresh every `refresh` epochs, else as last scored; new texts always."""
        stored = pool.row >= 0
        values = torch.full((len(pool),), torch.nan)
        if epoch % self._args.refresh != 0:
            values[stored] = self.scores[pool.row[stored]]
        rows = values.isnan().nonzero().flatten()
        if len(rows):
            logits = score(pool.tokens.take(rows))
            values[rows] = divergence(logits, pool.teacher[rows], self._args.selection_temperature)
            self.scores[pool.row[stored]] = values[stored]
        return values
