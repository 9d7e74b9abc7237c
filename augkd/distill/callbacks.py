"""What happens between the steps of a training, and which of `transformers`' callbacks take part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import SaveStrategy

from augkd.distill.time_budget import TimeBudget
from augkd.models.trimmed_embedding import grow_moments
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.distill.arguments import DistillationArguments
    from augkd.distill.trainer import DistillationTrainer


def callbacks_of(
    args: DistillationArguments, given: Sequence[TrainerCallback] | None, clock: Callable[[], float]
) -> list[TrainerCallback]:
    """The given callbacks, with those that the time budget and the patience of `args` ask for."""
    first = [TimeBudget(args.time_budget, clock)] if args.time_budget is not None else []
    last = [EarlyStoppingCallback(args.patience)] if args.patience else []
    return [*first, *(given or []), *last]


class BetweenSteps(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer its epoch, trains the generator, reports progress and asks for the extra checkpoints."""

    def __init__(self, trainer: DistillationTrainer, progress: Steps | None):
        self._trainer, self._progress = trainer, progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts all processes from the same weights, and a resumed training with the sums of its next log entry."""
        adversary, modules = self._trainer.adversary, self._trainer.trained_modules
        self._trainer.ranks.replicate([*modules, *([] if adversary is None else [adversary.generator.lm.model])])
        self._trainer.log_state.begin()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed training begins in the middle of an epoch: `state.epoch` is a fraction then."""
        self._trainer.begin_epoch(int((state.epoch or 0.0) + 1e-6))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trains the generator where it is due."""
        self._trainer.ascend()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Lets the optimiser follow a word embedding to which rows were added."""
        grow_moments(kwargs["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clears the projections' gradients, reports progress, asks for an extra checkpoint where one is due."""
        if self._trainer.layers is not None:
            self._trainer.layers.objective.zero_grad()  # Trainer clears the gradients of its own model alone
        if self._progress:
            self._progress(state.global_step, state.max_steps)
        if args.save_every and state.global_step % args.save_every == 0:
            # The epoch's last step is saved after its validation; saved here too, a kill in between would skip that.
            ended = control.should_training_stop or float(state.epoch).is_integer()
            if not (ended and args.save_strategy == SaveStrategy.EPOCH):
                control.should_save = True


def direct_logs(callbacks: Sequence[Any], logs: str | None) -> None:
    """Sends TensorBoard's files to `logs`, unless TENSORBOARD_LOGGING_DIR names a folder. Other trackers are unchanged.

    `transformers` itself knows only that variable and a folder below the checkpoints.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and logs is not None:
            callback.logging_dir = callback.logging_dir or logs
