"""The training axis: the losses on the student's outputs.

One convention for all: a loss returns one value per row, summed over classes; the trainer alone takes the mean over
rows, so no loss can be off by a factor of C or of the batch size. Rows without a label have no hard-label loss (0, no
gradient). Differences of logits are averaged over classes where the paper averages. With one output (regression) a loss
is a squared error, or, where it is about classes, a RecipeError. Labels are as `Target.encode` gives them: a row of 0
and 1 for each text means several labels, each a task of two classes of its own, over which a loss sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from augkd.data.target import NO_CLASS
from augkd.errors import RecipeError
from augkd.recipe.schedules import phi_at
from augkd.selection import divergence


def kd(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, temperature: Annotated[float, "> 0"] = 2.0
) -> Tensor:  # (n,)
    """T²·KL(teacher ‖ student), both softened by T (Hinton et al. 2015); squared error for one output.

    Of several labels it is the sum of their binary KLs.
    """
    if student.shape[-1] == 1:
        return divergence.squared_error(student, teacher)
    return temperature**2 * _divergence_of(labels)(student, teacher, temperature)


def reverse_kd(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, temperature: Annotated[float, "> 0"] = 2.0
) -> Tensor:  # (n,)
    """T²·KL(student ‖ teacher): the student seeks one mode of the teacher; squared error for one output.

    Gu et al. 2024 (MiniLLM). Not the reversed roles of Yuan et al. 2020, where a student teaches its teacher.
    """
    if student.shape[-1] == 1:
        return divergence.squared_error(student, teacher)
    return temperature**2 * _divergence_of(labels)(teacher, student, temperature)


def ce(student: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:  # (n,)
    """Cross-entropy with the hard label; binary cross-entropy of several labels; squared error for a number.

    Rows without a label give 0.
    """
    # three classes against float targets would use one column; one output against classes would always be 0
    assert labels.is_floating_point() == (student.shape[-1] == 1 or labels.dim() == 2), (labels.dtype, student.shape)
    if labels.dim() == 2:
        rows = functional.binary_cross_entropy_with_logits(student.float(), labels.nan_to_num(), reduction="none")
        return torch.where(_labelled(labels), rows.sum(dim=-1), 0.0)
    if labels.is_floating_point():
        return torch.where(~labels.isnan(), (student.float()[:, 0] - labels.nan_to_num()).square(), 0.0)
    return functional.cross_entropy(student.float(), labels, ignore_index=NO_CLASS, reduction="none")


def label_smoothing(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    progress: float,
    *,
    smoothing: Annotated[float, ">= 0, < 1"] = 0.1,
) -> Tensor:  # (n,)
    """Cross-entropy with 1 - `smoothing` on the label, the rest spread over the others (Szegedy et al. 2016).

    0 is plain cross-entropy. Rows without a label give 0. Raises RecipeError for one output.
    """
    _needs_classes("label_smoothing", student)
    logits = _class_logits(student, labels)
    target = _virtual(logits, labels, 1 - smoothing)
    rows = -(target * functional.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
    return torch.where(_labelled(labels), _over_labels(rows), 0.0)


def tf_kd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    progress: float,
    *,
    correct: Annotated[float, "> 0, < 1"] = 0.99,
    temperature: Annotated[float, "> 0"] = 2.0,
) -> Tensor:  # (n,)
    """Tf-KD: KD from a virtual teacher with probability `correct` on the label (Yuan et al. 2020).

    As in the paper: log u and the student's logits are softened, the result is multiplied by T². The released code
    softens u itself, which leaves it nearly uniform (0.0105 on the label of 100 classes at T = 20). Rows without a
    label give 0. Raises RecipeError for one output.
    """
    _needs_classes("tf_kd", student)
    logits = _class_logits(student, labels)
    log_virtual = _virtual(logits, labels, correct).log()
    rows = temperature**2 * divergence.kl(logits, log_virtual, temperature)
    return torch.where(_labelled(labels), _over_labels(rows), 0.0)


def logit_regression(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, centre: bool = False
) -> Tensor:  # (n,)
    """Squared difference of the logits, averaged over classes (Bucila et al. 2006).

    `centre` first subtracts each row's mean from both: softmax ignores it, so the student need not match it. One output
    is its own mean, so `centre` leaves it unchanged; and so is each of several labels, whose sigmoids ignore nothing.
    """
    if centre and labels.dim() == 1:
        student, teacher = _centred(student), _centred(teacher)
    return divergence.squared_error(student, teacher)


def annealed(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    progress: float,
    *,
    tau_max: Annotated[int, ">= 1"] = 10,
    centre: bool = False,
) -> Tensor:  # (n,)
    """Annealing-KD, stage I: squared difference to Φ times the teacher's logits (Jafari et al. 2021).

    Φ is 1/τ, 2/τ, … 1, each for the τ-th part of the training; in the released code it can exceed 1. `centre` as in
    logit_regression.
    """
    return logit_regression(student, phi_at(progress, tau_max) * teacher, labels, progress, centre=centre)


def continuation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    progress: float,
    *,
    tau_max: Annotated[int, ">= 1"] = 10,
    margin: Annotated[float, ">= 0"] = 1.0,
    ramp: Annotated[float, "> 0, <= 1"] = 20 / 30,
) -> Tensor:  # (n,)
    """Continuation-KD: ψ·CE + (1-ψ)·max(0, ‖z_s - Φ z_t‖² - margin·Φ), Φ as in `annealed` (Jafari et al. 2022).

    ψ grows from 0 to ½ over the first `ramp` of the training, then is 1: ψ = i/40 up to epoch 20 of 30. The squared
    norm is a sum over classes. A row without a label has the second term only, and nothing after the ramp.
    """
    psi = progress / ramp / 2 if progress < ramp else 1.0
    factor = phi_at(progress, tau_max)
    distance = (student.float() - factor * teacher.float()).square().sum(dim=-1)
    hinge = (distance - margin * factor).relu()
    return psi * ce(student, teacher, labels, progress) + (1 - psi) * hinge


def cwtm(student: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:  # (n,)
    """Born-again CWTM: cross-entropy weighted by the teacher's confidence, mean 1 per batch (Furlanello et al. 2018).

    The weight is the teacher's largest probability over its mean in the labelled rows: the one loss whose rows depend
    on the rows beside them. Rows without a label give 0. Raises RecipeError for one output.
    """
    _needs_classes("cwtm", student, labels)
    labelled = (labels != NO_CLASS).float()
    confidence = teacher.float().softmax(dim=-1).amax(dim=-1) * labelled
    mean = confidence.sum() / labelled.sum().clamp_min(1)
    return confidence / mean.clamp_min(1e-12) * ce(student, teacher, labels, progress)


def dkpp(
    student: Tensor, teacher: Tensor, labels: Tensor, progress: float, *, temperature: Annotated[float, "> 0"] = 1.0
) -> Tensor:  # (n,)
    """Born-again DKPP: `kd` from a teacher whose non-argmax classes are permuted (Furlanello et al. 2018).

    This keeps the teacher's confidence without its dark knowledge: a control for kd, identical to it for two classes. A
    row's permutation is a hash of its teacher logits, so a text keeps its permutation for the whole training.
    Raises RecipeError for one output.
    """
    _needs_classes("dkpp", student, labels)
    return kd(student, permuted(teacher), labels, progress, temperature=temperature)


def permuted(teacher: Tensor) -> Tensor:  # (n, classes) → (n, classes), float32
    """The logits, those of the non-argmax classes in an order drawn from the row's own values."""
    teacher = teacher.float().detach() + 0.0  # -0.0 becomes 0.0: equal rows, equal orders
    classes = torch.arange(teacher.shape[-1], device=teacher.device)
    row = _mixed(teacher.view(torch.int32).long() ^ _mixed(classes + 1)).sum(dim=-1, keepdim=True)
    keys = _mixed(row ^ _mixed(classes + 1 + len(classes)))
    top = classes == teacher.argmax(dim=-1, keepdim=True)
    drawn = keys.masked_fill(top, -1).argsort(
        dim=-1, stable=True
    )  # the argmax first, then the others in the drawn order
    plain = classes.expand_as(keys).masked_fill(top, -1).argsort(dim=-1, stable=True)
    return torch.empty_like(teacher).scatter(-1, plain, teacher.gather(-1, drawn))


def _mixed(numbers: Tensor) -> Tensor:
    """32-bit integer hash of each number; the same on every device. No product passes 2⁵⁹."""
    mixed = numbers & 0xFFFFFFFF
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)


def _divergence_of(labels: Tensor) -> Callable[[Tensor, Tensor, float], Tensor]:
    return divergence.DIVERGENCES["sigmoid" if labels.dim() == 2 else "softmax"]


def _class_logits(logits: Tensor, labels: Tensor) -> Tensor:  # (n, classes), or (n, labels, 2)
    return divergence.yes_no(logits) if labels.dim() == 2 else logits


def _over_labels(rows: Tensor) -> Tensor:  # (n,) or (n, labels) → (n,)
    return rows.sum(dim=-1) if rows.dim() == 2 else rows


def _labelled(labels: Tensor) -> Tensor:  # (n,)
    return ~labels.isnan().any(dim=-1) if labels.dim() == 2 else labels != NO_CLASS


def _virtual(student: Tensor, labels: Tensor, correct: float) -> Tensor:  # (…, classes) probabilities
    classes = student.shape[-1]
    target = torch.full(student.shape, (1 - correct) / (classes - 1), device=student.device)
    index = labels.nan_to_num().long() if labels.dim() == 2 else labels.clamp_min(0)
    return target.scatter(-1, index[..., None], correct)


def _centred(logits: Tensor) -> Tensor:
    return logits.float() - logits.float().mean(dim=-1, keepdim=True) if logits.shape[-1] > 1 else logits


def _needs_classes(name: str, student: Tensor, labels: Tensor | None = None) -> None:
    """Raises RecipeError for one output and, where the labels are given, for several of them per text."""
    if student.shape[-1] == 1:
        needs, kind = "needs classes, but this task's labels are numbers", "regression"
    elif labels is not None and labels.dim() == 2:
        needs, kind = "needs one class per text, but this task is multi-label", "multi_label_classification"
    else:
        return
    others = ", ".join(other for other in LOSSES if other not in UNSUITED[kind])
    raise RecipeError(f"loss '{name}' {needs}; use one of {others}")


Loss = Callable[..., Tensor]
UNSUITED = {  # by `Target.problem_type`: the losses that raise RecipeError
    "regression": ("label_smoothing", "tf_kd", "cwtm", "dkpp"),
    "multi_label_classification": ("cwtm", "dkpp"),  # they weigh or permute the classes that compete for a text
}
LABELLED = ("ce", "label_smoothing", "tf_kd")  # 0 for a row without a label, and so for every candidate
LOSSES: dict[str, Loss] = {
    "kd": kd,
    "ce": ce,
    "logit_regression": logit_regression,
    "label_smoothing": label_smoothing,
    "tf_kd": tf_kd,
    "annealed": annealed,
    "continuation": continuation,
    "cwtm": cwtm,
    "dkpp": dkpp,
    "reverse_kd": reverse_kd,
}
