"""How far a student is from its teacher, row by row: the one place where it is computed.

Losses average these rows, selectors rank by them, the generator's ascent maximises them.
"""

from __future__ import annotations

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


def squared_error(
    student: Tensor,  # (n, outputs) logits
    teacher: Tensor,  # (n, outputs) logits
) -> Tensor:  # (n,)
    """Squared difference of each row's logits, averaged over the outputs (Bucila et al. 2006)."""
    return (student.float() - teacher.float()).square().mean(dim=-1)


def divergence(
    student: Tensor,  # (n, outputs) logits
    teacher: Tensor,  # (n, outputs) logits
    temperature: float = 1.0,
) -> Tensor:  # (n,)
    """What selection ranks by: KL, or squared error where there is one output (KL of one class is always 0)."""
    if student.shape[-1] == 1:
        return squared_error(student, teacher)
    return kl(student, teacher, temperature)
