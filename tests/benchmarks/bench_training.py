"""Training throughput: augkd's trainer, a plain `transformers.Trainer` with a KD loss, and TextBrewer, side by side.

All three start from the same student (layers 0 and 5 of a fine-tuned teacher), train on the same labelled texts for as
many epochs at the same batch size, learning rate, temperature and weights, and report the student's test accuracy. The
plain subclass and TextBrewer are used as in their examples: texts padded to 128 tokens, the teacher run at every step,
their default precision. A second line of each pads to the longest text of the batch. Examples per second, by wall clock
and by processor time, are those of the training loop alone. Run, with a finished run of the recipe kd:
    python tests/benchmarks/bench_training.py RUN TASK [--texts 1600] [--epochs 4] [--only augkd,Trainer,TextBrewer]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from augkd.data.task import load_task, texts_of
from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.objective.losses import kd
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, load_classifier
from augkd.models.layers import from_layers

LENGTH, BATCH, RATE, TEMPERATURE, SEED = 128, 32, 5e-5, 2.0, 0


def main() -> None:
    """Prints one line per way of training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="a finished run with a teacher and a transfer set")
    parser.add_argument("task", help="its task, for the test texts")
    parser.add_argument("--texts", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", default="augkd,Trainer,TextBrewer")
    options = parser.parse_args()
    transfer, task = TransferSet.open(options.run / "transfer_set"), load_task(dataset=options.task)
    teacher = load_classifier(str(options.run / "teacher"), transfer.labels, LENGTH, precision="float32")
    teacher.model.eval().requires_grad_(False)
    rows = transfer.table.slice(0, options.texts).to_pylist()
    ways: dict[str, Callable[[Classifier], None]] = {
        "augkd": lambda student: with_augkd(student, rows, transfer.labels, options.epochs),
        "Trainer, padded to 128": lambda student: with_trainer(student, teacher, rows, options.epochs, LENGTH),
        "Trainer, padded to the batch": lambda student: with_trainer(student, teacher, rows, options.epochs, None),
        "TextBrewer, padded to 128": lambda student: with_textbrewer(student, teacher, rows, options.epochs, LENGTH),
        "TextBrewer, padded to the batch": lambda student: with_textbrewer(
            student, teacher, rows, options.epochs, None
        ),
    }
    labels = np.array([int(example.label or 0) for example in task.test])
    first: tuple[float, float] | None = None
    for name, train in ways.items():
        if name.split(",")[0] not in options.only.split(","):
            continue
        student = from_layers(teacher, [0, 5])
        student.precision = "auto" if name == "augkd" else "float32"
        student.model.requires_grad_(True).train()
        clock, processor = time.perf_counter(), time.process_time()
        try:
            train(student)
        except ImportError as exc:
            print(f"{name}: not run ({exc})")
            continue
        examples = len(rows) * options.epochs
        rates = examples / (time.perf_counter() - clock), examples / (time.process_time() - processor)
        first = first or rates
        accuracy = float((student.predict(texts_of(task.test)).numpy().argmax(axis=1) == labels).mean())
        print(
            f"{name:32} {rates[0]:7.1f} examples/s, augkd {first[0] / rates[0]:.2f} x; by processor {rates[1]:7.1f}, "
            f"augkd {first[1] / rates[1]:.2f} x; test accuracy {accuracy:.4f}",
            flush=True,
        )


def with_augkd(student: Classifier, rows: list[dict[str, Any]], labels: tuple[str, ...], epochs: int) -> None:
    """The trainer at its defaults, teacher logits from the transfer set."""
    losses = {"kd": {"weight": 0.5, "temperature": TEMPERATURE}, "ce": {"weight": 0.5}}
    with tempfile.TemporaryDirectory() as folder:
        arguments = DistillationArguments(**common(folder, epochs), losses=losses, data_seed=SEED)
        data = DistillationDataset(student, in_memory(rows, labels))
        DistillationTrainer(student, arguments, data).train()


class PlainTrainer(Trainer):  # type: ignore[misc]
    """The usual subclass: a live teacher in `compute_loss`."""

    teacher: Any

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Half KD, half cross-entropy."""
        labels = inputs.pop("labels")
        with torch.no_grad():
            teacher = self.teacher(**inputs).logits
        outputs = model(**inputs)
        loss = half_and_half(outputs.logits, teacher, labels)
        return (loss, outputs) if return_outputs else loss


def half_and_half(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The loss of the recipe kd, as a mean over the batch."""
    soft = kd(logits, teacher, labels, 0.0, temperature=TEMPERATURE).mean()
    return 0.5 * soft + 0.5 * torch.nn.functional.cross_entropy(logits, labels)


def with_trainer(
    student: Classifier, teacher: Classifier, rows: list[dict[str, Any]], epochs: int, length: int | None
) -> None:
    """`Trainer` at its defaults, with the settings that all share."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(**common(folder, epochs), remove_unused_columns=False)
        data = encoded(student, rows)
        trainer = PlainTrainer(
            student.model, arguments, train_dataset=data, data_collator=lambda part: collated(student, part, length)
        )
        trainer.teacher = teacher.model
        trainer.train()


def with_textbrewer(
    student: Classifier, teacher: Classifier, rows: list[dict[str, Any]], epochs: int, length: int | None
) -> None:
    """`GeneralDistiller` as its examples use it, with a linear schedule like the others'."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig
    from transformers import get_linear_schedule_with_warmup

    def adapted(batch: Any, outputs: Any) -> dict[str, Any]:
        labels = batch["labels"]
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
        return {"logits": (outputs.logits,), "losses": loss[None]}

    device = next(student.model.parameters()).device
    loader = DataLoader(
        encoded(student, rows),
        batch_size=BATCH,
        shuffle=True,
        generator=torch.Generator().manual_seed(SEED),
        collate_fn=lambda part: collated(student, part, length),
    )
    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            train_config=TrainingConfig(
                device=str(device), output_dir=folder, log_dir=None, ckpt_epoch_frequency=epochs
            ),
            distill_config=DistillationConfig(
                temperature=TEMPERATURE, kd_loss_weight=0.5, hard_label_weight=0.5, kd_loss_type="ce"
            ),
            model_T=teacher.model,
            model_S=student.model,
            adaptor_T=adapted,
            adaptor_S=adapted,
        )
        optimiser = torch.optim.AdamW(student.model.parameters(), lr=RATE)
        steps = {"num_warmup_steps": 0, "num_training_steps": epochs * len(loader)}
        with distiller:
            distiller.train(
                optimiser,
                loader,
                num_epochs=epochs,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args=steps,
                max_grad_norm=1.0,
                callback=None,
            )


def common(folder: str, epochs: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATE,
        "save_strategy": "no",
        "report_to": "none",
        "seed": SEED,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def encoded(student: Classifier, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {name: number for number, name in enumerate(student.labels)}
    ids = student.tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH)["input_ids"]
    return [{"input_ids": tokens, "labels": names[row["label"]]} for tokens, row in zip(ids, rows, strict=True)]


def collated(student: Classifier, part: list[dict[str, Any]], length: int | None) -> dict[str, Tensor]:
    inputs = student.tokenizer.pad(
        [{"input_ids": row["input_ids"]} for row in part],
        padding="max_length" if length else "longest",
        max_length=length,
        return_tensors="pt",
    )
    return {**inputs, "labels": torch.tensor([row["labels"] for row in part])}


if __name__ == "__main__":
    main()
