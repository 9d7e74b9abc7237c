"""Training for a time instead of a number of epochs, so that expensive and inexpensive recipes get equal time.

The time of the training loop counts: batches, scoring of candidates, forward and backward passes. Validation and the
writing of checkpoints do not, as a recipe with short epochs has more of them and would pay for more. Learning rate and
schedules follow the time spent. Two runs on one machine take different numbers of steps, so a student trained with a
time budget cannot be reproduced bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

# Never the limit: 10^6 epochs of one step of 1 ms are a quarter of an hour, and no epoch of a real task is that short.
EPOCHS = 1_000_000
_KEY = "augkd_budget"  # in the trainer state's `stateful_callbacks`, which every checkpoint holds


class TimeBudget(TrainerCallback):  # type: ignore[misc]
    """Stops a training after `seconds` of it, and sets `state.max_steps` to what the steps so far let expect.

    `trainer.state.global_step / trainer.state.max_steps` is then the share of the time spent. A checkpoint holds the
    time spent, so a killed run resumes with the rest of its budget; the steps it lost are free.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        """`seconds` above 0; `clock` gives seconds from any origin."""
        self.seconds, self.spent = seconds, 0.0
        self._clock, self._last = clock, 0.0

    @property
    def share(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        return min(1.0, self.spent / self.seconds)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Continues from a checkpoint's time, and makes the learning rate follow the time."""
        self.spent = float(state.stateful_callbacks.get(_KEY, {}).get("seconds", 0.0))
        follow(kwargs["lr_scheduler"], state.max_steps, lambda: self.share)
        if state.global_step:
            self._set_max_steps(state)
        self._last = self._clock()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Counts the time before the scheduler sets the next step's learning rate."""
        self._tick(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Counts the step, and asks for the end when the budget is spent."""
        self._tick(state)
        self._set_max_steps(state)
        if self.spent >= self.seconds:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leaves out the time since the last step: it went into a validation."""
        self._last = self._clock()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leaves out the time since the last step: it went into a checkpoint."""
        self._last = self._clock()

    def _tick(self, state: Any) -> None:
        now = self._clock()
        self.spent, self._last = self.spent + now - self._last, now
        state.stateful_callbacks[_KEY] = {"seconds": self.spent}

    def _set_max_steps(self, state: Any) -> None:
        if self.spent >= self.seconds:
            state.max_steps = state.global_step
        else:  # + 2: Trainer itself stops when a step makes global_step equal to max_steps
            state.max_steps = max(state.global_step + 2, round(state.global_step / max(self.share, 1e-9)))


def follow(scheduler: Any, steps: int, share: Callable[[], float]) -> None:
    """Makes a LambdaLR follow `share` of the training in place of its step count; `steps` is its current length.

    Shape (linear, cosine, …) and warm-up stay the scheduler's own, stretched over the time.
    """
    scheduler.lr_lambdas = [_at(factor, steps, share) for factor in scheduler.lr_lambdas]


def _at(factor: Callable[[int], float], steps: int, share: Callable[[], float]) -> Callable[[int], float]:
    return lambda _: factor(round(share() * steps))
