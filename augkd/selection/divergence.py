"""How far a student is from its teacher, row by row: the one place where it is computed.

Losses average these rows, selectors rank by them, the generator's ascent maximises them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def kl(
    student: Tensor,  # (n, classes) logits
    teacher: Tensor,  # (n, classes) logits
    temperature: float = 1.0,
) -> Tensor:  # (n,)
    """KL(teacher ‖ student) of each row, in nats, both softened by `temperature` (Hinton et al. 2015, eq. 2)."""
    log_student = functional.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=-1)
    return functional.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)


def binary_kl(
    student: Tensor,  # (n, labels) logits
    teacher: Tensor,  # (n, labels) logits
    temperature: float = 1.0,
) -> Tensor:  # (n,)
    """The KL(teacher ‖ student) of each label's yes and no, summed over the labels: the KL of independent labels."""
    return kl(yes_no(student), yes_no(teacher), temperature).sum(dim=-1)


def yes_no(logits: Tensor) -> Tensor:  # (n, labels) → (n, labels, 2)
    """Logits of two classes for each label, no and yes, whose softmax is the sigmoid of the label's logit."""
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


def squared_error(
    student: Tensor,  # (n, outputs) logits
    teacher: Tensor,  # (n, outputs) logits
) -> Tensor:  # (n,)
    """Squared difference of each row's logits, averaged over the outputs (Bucila et al. 2006)."""
    return (student.float() - teacher.float()).square().mean(dim=-1)


def _squared(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:  # (n,)
    return squared_error(student, teacher)  # numbers have no temperature


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "softmax": kl,
    "sigmoid": binary_kl,
    "identity": _squared,
}


def divergence(
    student: Tensor,  # (n, outputs) logits
    teacher: Tensor,  # (n, outputs) logits
    temperature: float = 1.0,
    activation: str = "softmax",  # of `DIVERGENCES`: what makes probabilities of the logits
) -> Tensor:  # (n,)
    """What selection ranks by: KL, or squared error where there is one output (KL of one class is always 0)."""
    return DIVERGENCES["identity" if student.shape[-1] == 1 else activation](student, teacher, temperature)
