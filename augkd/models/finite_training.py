"""Stops a training whose loss or weights are no longer finite, before anything of it is saved.

One step at too high a learning rate turns every weight into nan, and nothing that follows complains: the loss is nan,
the metric is that of one class, the folder looks finished. So each loss is looked at before its step is taken, and the
weights before each evaluation, before each checkpoint and at the end. On a GPU a look at a number waits for all queued
work: there the first bad step is remembered on the device and read where the trainer reads the loss anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from augkd.errors import TrainingError
from augkd.models.finite import not_finite


class FiniteTraining(TrainerCallback):  # type: ignore[misc]
    """Raises TrainingError at the first loss, or the first weight, that is not finite; `see` is given each loss."""

    def __init__(self, parts: Callable[[], Mapping[str, nn.Module]], at_once: bool | None = None):
        """`parts` gives what is trained besides the trainer's own model, by name; `at_once`: None: on a CPU only."""
        self._parts, self._at_once = parts, at_once
        self._first_bad: Tensor | None = None  # (), on the device of the loss; 0: none so far

    def see(self, loss: Tensor, args: Any, step: int) -> None:
        """Looks at the loss () of a step, counted from 1; call it before the step is taken."""
        loss = loss.detach()
        if loss.device.type == "cpu" if self._at_once is None else self._at_once:
            if not loss.isfinite():
                raise _diverged(f"the loss of step {step} is {float(loss):g}", args)
            return
        if self._first_bad is None:
            self._first_bad = torch.zeros((), dtype=torch.long, device=loss.device)
        new = ~loss.isfinite() & (self._first_bad == 0)
        self._first_bad = torch.where(new, step, self._first_bad)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reads what was remembered when the trainer is about to log, evaluate, save or stop."""
        self._before(args, state, control, kwargs["model"])

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As after a step: a recipe evaluates and saves at the end of an epoch."""
        self._before(args, state, control, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at the weights that the training leaves: its last or its best."""
        self._check_losses(args)
        self._check_weights(args, state, kwargs["model"])

    def _before(self, args: Any, state: Any, control: Any, model: nn.Module) -> None:
        about_to_keep = control.should_evaluate or control.should_save or control.should_training_stop
        if about_to_keep or control.should_log:
            self._check_losses(args)
        if about_to_keep:
            self._check_weights(args, state, model)

    def _check_losses(self, args: Any) -> None:
        step = 0 if self._first_bad is None else int(self._first_bad)
        if step:
            raise _diverged(f"the loss of step {step} is not finite", args)

    def _check_weights(self, args: Any, state: Any, model: nn.Module) -> None:
        for part, module in {"": model, **self._parts()}.items():
            if bad := list(not_finite(module)):
                place = f"{part + ' ' if part else ''}weights after step {state.global_step}"
                raise _diverged(f"{len(bad)} of the {place} are not finite (first: {bad[0]})", args)


def _diverged(what: str, args: Any) -> TrainingError:
    """The error, with what to lower and where the last good checkpoint is."""
    steps = [int(path.name.split("-")[1]) for path in Path(args.output_dir).glob("checkpoint-*")]
    kept = f"the checkpoint of step {max(steps)} is kept in {args.output_dir}" if steps else "no checkpoint was written"
    return TrainingError(
        f"the training diverged: {what}; lower the learning rate ({args.learning_rate:g}) or a loss's weight; {kept}"
    )
