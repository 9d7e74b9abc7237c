"""The training axis: what the student's outputs are compared with.

One convention for all: a loss returns one value a row, summed over classes; the trainer alone takes the mean over rows,
so no loss can be off by a factor of C or of the batch. Rows without a label have no hard-label loss (0, no gradient).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from augkd.selection import divergence


def kd(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, temperature: Annotated[float, "> 0"] = 2.0
) -> Tensor:  # (n,)
    """T²·KL(teacher ‖ student), both softened by T (Hinton et al. 2015); squared error where there is one output."""
    if student.shape[-1] == 1:
        return divergence.squared_error(student, teacher)
    return temperature**2 * divergence.kl(student, teacher, temperature)


def ce(student: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:  # (n,)
    """Cross-entropy with the hard label; squared error for a regression target. Rows without a label give 0."""
    if labels.is_floating_point():
        known = ~labels.isnan()
        return torch.where(known, (student.float()[:, 0] - labels.nan_to_num()).square(), 0.0)
    return functional.cross_entropy(student.float(), labels, ignore_index=-100, reduction="none")


def logit_regression(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, centre: bool = False
) -> Tensor:  # (n,)
    """Squared difference of the logits, averaged over classes (Bucila et al. 2006).

    `centre` takes each row's mean off both first: softmax does not see it, so nor need the student. It has no meaning
    for one output, whose mean is itself, and leaves that as it is.
    """
    student, teacher = student.float(), teacher.float()
    if centre and student.shape[-1] > 1:
        student = student - student.mean(dim=-1, keepdim=True)
        teacher = teacher - teacher.mean(dim=-1, keepdim=True)
    return divergence.squared_error(student, teacher)


Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "kd": kd,
    "ce": ce,
    "logit_regression": logit_regression,
}
