"""What a training has added up since its last log entry, kept in checkpoints.

A checkpoint may lie between two entries. A resumed training then goes on adding where the stopped one was, so that its
log, and the curves drawn from it, are those of an uninterrupted training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from augkd.distill.trainer import DistillationTrainer


class LogState:
    """The sums of the trainer's loss, of the selection and of the matched layers."""

    def __init__(self, trainer: DistillationTrainer):
        """`trainer` is read and continued; it may not have begun yet."""
        self._trainer = trainer
        self._loaded: Mapping[str, Tensor] | None = None

    def state(self) -> dict[str, Tensor]:
        """All sums by name, and the step of the last entry."""
        trainer = self._trainer
        ranks = trainer.ranks
        parts = {"selection": trainer.choice.statistics.state(ranks), "layers": trainer.matched.state(ranks)}
        sums = {f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()}
        if trainer.ascent_divergence is not None:
            sums["ascent"] = torch.tensor(trainer.ascent_divergence, dtype=torch.float64)
        loss = getattr(trainer, "_tr_loss", torch.tensor(0.0))  # made when training begins
        logged = torch.tensor(getattr(trainer, "_globalstep_last_logged", 0))
        mean = ranks.sum(loss.detach().cpu().clone()) / ranks.count  # what a log entry makes of it
        return {"loss": mean, "logged": logged, **sums}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Keeps `state` until the training begins: Trainer starts its own sums then."""
        self._loaded = state

    def begin(self) -> None:
        """Continues from the loaded state, if there is one; called when the training begins."""
        state, trainer = self._loaded, self._trainer
        if state is None:
            return
        self._loaded = None
        trainer._tr_loss = state["loss"].to(trainer.args.device)
        trainer._globalstep_last_logged = int(state["logged"])
        if trainer.ranks.first:  # sums over the ranks; the loss is a mean
            trainer.choice.statistics.load_state(_part(state, "selection"))
            trainer.matched.load_state(_part(state, "layers"))
        if "ascent" in state:
            trainer.ascent_divergence = float(state["ascent"])


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): value for name, value in state.items() if name.startswith(f"{part}/")}
