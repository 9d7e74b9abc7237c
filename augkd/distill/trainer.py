"""DistillationTrainer: `transformers.Trainer` with a pool of candidates, a selector and a recipe's losses.

Each step chooses candidates, forwards them together with the originals, and adds up weighted losses. The sum is divided
by the number of originals in the whole accumulated step, so that neither accumulation nor an uneven last batch nor the
number of processes changes the gradient. The teacher is not here: its logits come with the transfer set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from augkd.distill import checkpoint as checkpoints
from augkd.distill.adversary.ascent import Adversary
from augkd.distill.adversary.freelb import freelb
from augkd.distill.arguments import DistillationArguments
from augkd.distill.callbacks import BetweenSteps, callbacks_of, direct_logs
from augkd.distill.choice import Choice, Scorer
from augkd.distill.clipping import clip_gradients
from augkd.distill.dataset import DistillationDataset
from augkd.distill.log_state import LogState
from augkd.distill.objective.matching import MatchedMeans
from augkd.distill.objective.objective import Objective
from augkd.distill.parallel import leave_unwrapped, named_if_lost, ranks
from augkd.distill.step import LayerTargets, StepLoss, StepRows
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trace import SelectionTrace
from augkd.errors import AugkdError
from augkd.models.classifier import Classifier
from augkd.models.devices import token_budget_of
from augkd.models.finite_training import FiniteTraining
from augkd.models.seeds import RowRandom, seed_of
from augkd.models.tokens import LengthGrouped
from augkd.selection.pool import Batch, Pool
from augkd.workspace.checkpoints import check_checkpoint, last_checkpoint, rotate, unmark
from augkd.workspace.disk import writing
from augkd.workspace.progress import Steps


class DistillationTrainer(Trainer):  # type: ignore[misc]
    """Trains a student on a transfer set, in place; `args.metric_for_best_model` names the deciding validation figure.

    `resume()` trains, continuing from the last checkpoint of `args.output_dir` where there is one; `train()` is that of
    `transformers`. `rows` then counts the student's forwarded rows by purpose, `all_rows` the generator's and the live
    teacher's too. Launched by torchrun, each process takes its share of every batch.
    """

    control: Any
    loss_is_scaled_for_ga = True  # compute_loss divides by the originals of the whole accumulated step

    def __init__(
        self,
        student: Classifier,
        args: DistillationArguments,
        train_dataset: DistillationDataset,
        validation: Callable[[Classifier], Mapping[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Steps | None = None,
        layers: LayerTeacher | None = None,
        adversary: Adversary | None = None,
    ):
        """`validation` gives figures of the student by name, in the first process; None: no evaluation. `progress` is
        called with (steps done, steps in all). `layers` is what the student's layers are compared with, `adversary`
        generates further candidates; None: neither.

        Raises RecipeError for an unknown loss or option, TrainingError for processes that share one model.
        """
        self.ranks, args = ranks(), args.limited(len(train_dataset))
        self.objective = Objective(args.losses)
        self._finite = FiniteTraining(self._parts_beside_the_student)
        super().__init__(
            model=student.model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=train_dataset if validation else None,  # Trainer wants one; `evaluate` does not use it
            processing_class=student.tokenizer,
            callbacks=[*callbacks_of(args, callbacks, self.ranks.clock), BetweenSteps(self, progress), self._finite],
        )
        if args.disable_tqdm:
            self.remove_callback(PrinterCallback)  # the log is in the trainer's state; printing belongs to the caller
        direct_logs(self.callback_handler.callbacks, args.logs)
        leave_unwrapped(self.accelerator)
        if layers is not None:
            layers.objective.to(self.args.device)
        self.student, self.data = student, train_dataset
        self.layers, self.adversary = layers, adversary
        self.choice = Choice(args, train_dataset, adversary, self._new_trace(), self.ranks)
        self.rows: Counter[str] = Counter()
        self._rows_before = adversary.rows if adversary is not None else {}
        self.matched = MatchedMeans()
        self.log_state = LogState(self)
        self._validation = validation
        self._sampler: LengthGrouped | None = None
        self.ascent_divergence: float | None = None  # before the last gradient-ascent step
        self._epoch = 0

    def _new_trace(self) -> SelectionTrace | None:
        """None without stored candidates, and with a time budget, whose number of epochs is not known beforehand."""
        if not len(self.data.candidate_tokens) or self.args.time_budget is not None:
            return None
        epochs, planned = math.ceil(self.args.num_train_epochs), self.args.planned_epochs
        return SelectionTrace(self.data.start, epochs, planned=planned or epochs, seed=self.args.seed)

    # ---- a step: choose, forward, weigh ----

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Chooses candidates, forwards the rows, weighs their losses; with FreeLB in several passes.

        The loss () is the weighted sum over this process's originals and chosen candidates, divided by the originals of
        the whole step: the sum over the processes is that of one.
        """
        batch: Batch = inputs["batch"]
        if not len(batch.rows):  # of a batch with fewer rows than there are processes
            return torch.zeros((), device=self.args.device, requires_grad=True)
        student = self._wrapped_student(model)
        chosen = self._choose(student, batch)  # scored clean: a selector sees the texts as they are
        loss = self._step_loss(student, batch, chosen, num_items_in_batch or inputs["originals"])
        if self.args.freelb is None:
            value = loss()
        else:
            rng = RowRandom((self.args.seed, self._epoch, 1), batch.rows.tolist())
            rows, backward = loss.rows, self.accelerator.backward
            value = freelb(loss, backward, model, rows.tokens, rows.groups, rows.owner, rng, **self.args.freelb)
        self._finite.see(value, self.args, self.state.global_step + 1)
        return (value, None) if return_outputs else value

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As Trainer's; the gradients of an accumulated step are added up over the processes."""
        if self.ranks.count > 1 and len(rows := inputs["batch"].rows):  # else all would drop the same places
            torch.manual_seed(seed_of(self.args.seed, self._epoch, int(rows[0]), 3))
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.ranks.sum_gradients(self._trained)
        return loss * self.ranks.count  # Trainer logs the mean over the processes

    def _wrapped_student(self, model: Any) -> Classifier:
        """The student with its model as Trainer wraps it, and its rows counted here."""
        return replace(self.student, model=model, precision=self.args.precision, rows=self.rows)

    def _choose(self, student: Classifier, batch: Batch) -> Pool:
        if not self._uses_candidates:
            return batch.pool.take(torch.zeros(0, dtype=torch.long))
        return self.choice.candidates(batch, self._epoch, Scorer(student, self.args.token_budget))

    def _step_loss(self, student: Classifier, batch: Batch, chosen: Pool, originals: int) -> StepLoss:
        """The loss of these rows as a function of the student; `originals` are those of the whole step."""
        rows = StepRows.of(
            batch,
            chosen,
            missing=self.data.target.missing,
            candidate_weight=self.args.candidate_weight / self.choice.kept,
            token_budget=token_budget_of(student.device, self.args.token_budget),
        )
        layers = None
        if self.layers is not None:
            targets = self.layers.targets(batch, chosen)
            layers = LayerTargets(self.layers.objective, targets, self._epoch, self.matched)
        return StepLoss(student, rows, self.objective, layers, originals, self._progress)

    @property
    def _progress(self) -> float:
        """Share of the stage that is done."""
        return float(self.state.global_step / max(1, self.state.max_steps))

    @property
    def _uses_candidates(self) -> bool:
        """Whether a loss of this stage uses them: hard labels alone do not, as candidates have none."""
        return (self.layers is not None or self.objective.uses_unlabelled_rows) and self.args.candidate_weight > 0

    def ascend(self) -> None:
        """Trains the generator when it is due; called by the callback before each step."""
        adversary, args = self.adversary, self.args
        if adversary is None or not self._uses_candidates or not adversary.is_due(self.state.global_step):
            return
        student, originals = self._wrapped_student(self.model), self.data.tokens
        self.ascent_divergence = adversary.ascend(
            student, originals, args.generator_batch_size, self._progress, args.token_budget, self.ranks
        )[-1]

    def begin_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0; called by the callback at its start."""
        self._epoch = epoch
        self.choice.begin_epoch(epoch)
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)

    # ---- batches ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Length-grouped batches of originals with their candidates; of each, this process's share."""
        seed = self.args.data_seed or self.args.seed
        self._sampler = LengthGrouped(self.data.tokens.lengths, self.args.whole_batch_size, seed)
        return DataLoader(self.data, batch_sampler=self._sampler, collate_fn=self._collate)

    def _collate(self, rows: Sequence[int]) -> dict[str, Any]:
        return self.data.collate(self.ranks.share(rows)) | {"originals": len(rows)}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """As Trainer's, with the number of originals in place of the number of label tokens."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(inputs["originals"] for inputs in batches)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        return None  # Trainer would look for `labels` in the inputs

    # ---- the projections of intermediate-layer losses, which are not part of the student ----

    @property
    def trained_modules(self) -> list[torch.nn.Module]:
        """What the optimiser trains."""
        return [self.student.model, *self._parts_beside_the_student().values()]

    @cached_property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for module in self.trained_modules for parameter in module.parameters()]

    def _parts_beside_the_student(self) -> dict[str, torch.nn.Module]:
        return {} if self.layers is None else {"projection": self.layers.objective}  # the generator checks itself

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's, with the projections."""
        optimizer = super().create_optimizer(*args, **kwargs)
        extra = [p for part in self._parts_beside_the_student().values() for p in part.parameters()]
        if extra and not any(extra[0] is known for group in optimizer.param_groups for known in group["params"]):
            optimizer.add_param_group({"params": extra, "weight_decay": self.args.weight_decay})
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        """As Trainer's, over the projections too."""
        clip = clip_gradients if self.args.device.type == "cpu" else self.accelerator.clip_grad_norm_
        return clip(self._trained, self.args.max_grad_norm)

    # ---- figures ----

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds to a training entry the means since the last one: selection, layers; and the generator's divergence."""
        if "loss" in logs:
            logs |= self.choice.statistics.take(self.ranks) | self.matched.take(self.ranks)
            if self.ascent_divergence is not None:
                logs["generator/divergence"] = self.ascent_divergence  # before the last gradient-ascent step
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """The figures of `validation`, each named with the prefix. Raises AugkdError when there is no validation."""
        if self._validation is None:
            raise AugkdError("this trainer has no validation to evaluate with; pass validation=")
        validation, student = self._validation, self.student
        figures = self.ranks.from_first(lambda: dict(validation(student)))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: rows are (`self.rows`)."""
        return 0

    @property
    def all_rows(self) -> dict[str, int]:
        """Rows forwarded in this stage by all processes, by purpose; those of generator and live teacher included."""
        counts = Counter(self.rows)
        if self.adversary is not None:
            counts.update(self.adversary.rows)
            counts.subtract(self._rows_before)
        return {name: int(count) for name, count in self.ranks.total(counts).items() if count}

    # ---- checkpoints ----

    def resume(self) -> None:
        """Trains from the last whole checkpoint of the output folder, or from the start; removes half-written ones.

        Any number of processes continues what any other number began. Raises ProcessLostError when one of them ends.
        """
        folder = self.ranks.from_first(lambda: last_checkpoint(Path(self.args.output_dir)))
        if folder is not None:
            rows = checkpoints.load_state(folder, self._stateful_parts())
            self.rows.update(rows if self.ranks.first else {})
        with named_if_lost():
            self.train(resume_from_checkpoint=str(folder) if folder else None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As Trainer's, but removes older checkpoints only when the new one is whole, so that a kill leaves one."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            unmark(folder)  # of the same step, written before a kill
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
                states = {name: part.state() for name, part in self._stateful_parts().items()}
                rows = self.all_rows
                if self.args.should_save:
                    checkpoints.add_state(folder, states, rows)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate(folder.parent, limit, self.state.best_model_checkpoint)
        self.ranks.wait()  # until it is whole: the best one is read by all

    def _save_rng_state(self, output_dir: str) -> None:
        """Of the first process alone: in several, dropout is seeded at each step."""
        if self.args.should_save:
            super()._save_rng_state(output_dir)

    def _load_best_model(self) -> None:
        """As Trainer's, after a look at the checkpoint's checksums."""
        check_checkpoint(Path(self.state.best_model_checkpoint))
        super()._load_best_model()

    def _stateful_parts(self) -> dict[str, checkpoints.Stateful]:
        """What a checkpoint keeps besides the student and its optimiser, by the name of its file."""
        parts: dict[str, checkpoints.Stateful | None] = {
            "log": self.log_state,
            "selection": self.choice,
            "projections": self.layers,
            "generator": self.adversary,
        }
        return {name: part for name, part in parts.items() if part is not None}
