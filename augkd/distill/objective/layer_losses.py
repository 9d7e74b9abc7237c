"""The structure axis: the losses between intermediate layers of student and teacher, and which layers they match.

One convention for all: a loss returns one value per row, the mean over matched layers and features, so weights compare
across depths and widths; the weight of a paper that sums over m student layers is multiplied by m here. Layers are
0-based and do not count the embeddings. PKD, CKD, ALP and RAIL use one vector per layer, which a store can hold; the
others use every token of both models. The ALP paper's RKD is not here: we read it as regular KD on the outputs, beside
NKD, no KD. It matches no layer, so it is a recipe without a structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from augkd.errors import ModelError
from augkd.models.layer_map import layer_map


def pkd_layers(choice: str, teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """PKD's teacher layers for all student layers but the last, which the logits supervise. Raises ModelError."""
    if student_layers < 2:
        raise ModelError("pkd matches every student layer but the last; a student of 1 layer has none to match")
    return layer_map({"skip": "uniform"}.get(choice, choice), teacher_layers, student_layers)[:-1]


def bucket_spans(buckets: str, teacher_layers: int, student_layers: int) -> tuple[range, ...]:
    """A(j): the teacher layers that student layer j learns from.

    `all`: every layer; `disjoint`: L/m consecutive ones (NO); `overlapping`: those and one more on each inner side (PO;
    the paper leaves the overlap open, CKD's code has 1-4 and 3-6 of 6 for 2). Raises ModelError when L < m.
    """
    whole, m = teacher_layers, student_layers
    if buckets == "all":
        return (range(whole),) * m
    if m > whole:
        raise ModelError(f"{m} student layers cannot share {whole} teacher layers; use buckets: all, or fewer layers")
    edges = [j * whole // m for j in range(m + 1)]
    extra = int(buckets == "overlapping")
    return tuple(range(max(0, edges[j] - extra), min(whole, edges[j + 1] + extra)) for j in range(m))


# ---- one vector per layer: student (n, m, d), teacher (n, L, d) ----


def pkd(
    student: Tensor,
    teacher: Tensor,
    progress: float,
    rng: torch.Generator,
    *,
    layers: Literal["skip", "last"] = "skip",
    normalise: bool = True,
) -> Tensor:  # (n,)
    """Patient KD (Sun et al. 2019): all student layers but the last against every (L/m)-th or the last teacher layers.

    As in the authors' code, features are averaged, which is why published weights are 10 to 1000.
    """
    chosen = pkd_layers(layers, teacher.shape[1], student.shape[1])
    return _distance(student[:, :-1], teacher[:, list(chosen)], normalise)


def ckd(
    student: Sequence[Tensor],
    teacher: Tensor,
    progress: float,
    rng: torch.Generator,
    *,
    buckets: Literal["disjoint", "overlapping"] = "disjoint",
) -> Tensor:  # (n,)
    """CKD (Wu et al. 2020), NO and PO: each student layer against its bucket of teacher layers, concatenated.

    `student[j]` is layer j already projected to the width of its bucket, (n, |A(j)|·d).
    """
    spans = bucket_spans(buckets, teacher.shape[1], len(student))
    pairs = [(layer, teacher[:, list(span)].flatten(1)) for layer, span in zip(student, spans, strict=True)]
    return torch.stack([_distance(layer, bucket, True) for layer, bucket in pairs]).mean(dim=0)


def alp(
    student: Tensor,
    teacher: Tensor,
    progress: float,
    rng: torch.Generator,
    *,
    buckets: Literal["all", "disjoint", "overlapping"] = "all",
    scaled: bool = True,
    detached: bool = False,
) -> Tensor:  # (n,)
    """ALP-KD (Passban et al. 2021), NO and PO: each student layer against an attention-weighted sum of teacher layers.

    `scaled` divides the dot products by √d, which the paper does not; `detached` keeps the student from lowering the
    loss by steering the attention.
    """
    weights = alp_attention(student, teacher, buckets=buckets, scaled=scaled, detached=detached)
    return _distance(student, torch.einsum("nml,nld->nmd", weights, teacher), False)


def alp_attention(
    student: Tensor,  # (n, m, d)
    teacher: Tensor,  # (n, L, d)
    *,
    buckets: str = "all",
    scaled: bool = True,
    detached: bool = False,
) -> Tensor:  # (n, m, L)
    """α: for each row and student layer, weights over the teacher layers of its bucket; they add up to 1."""
    # raw products of 768 features saturate: perplexity 1.1 of 12 layers for unit Gaussian states (ALGORITHMS §15)
    scale = student.shape[-1] ** -0.5 if scaled else 1.0
    allowed = torch.zeros(student.shape[1], teacher.shape[1], dtype=torch.bool)
    for j, span in enumerate(bucket_spans(buckets, teacher.shape[1], student.shape[1])):
        allowed[j, list(span)] = True
    dots = torch.einsum("nmd,nld->nml", student, teacher) * scale
    weights = dots.masked_fill(~allowed.to(dots.device), -torch.inf).softmax(dim=-1)
    return weights.detach() if detached else weights


def perplexity(weights: Tensor) -> Tensor:  # (…, L) → (…,)
    """exp(entropy) of each row of weights: 1 when one layer has all the weight, L when all have the same."""
    entropy: Tensor = torch.special.entr(weights).sum(dim=-1)
    return entropy.exp()


def rail(
    student: Tensor, teacher: Tensor, progress: float, rng: torch.Generator, *, concatenate: bool = False
) -> Tensor:  # (n,)
    """RAIL-KD (Haidar et al. 2022): m teacher layers drawn again each epoch, in order, each vector normalised (RAIL-l).

    `concatenate` normalises all layers as one vector (RAIL-c). `rng` has the same state at every step of an epoch.
    """
    layers, m = teacher.shape[1], student.shape[1]
    if m > layers:
        raise ModelError(f"rail draws {m} layers, one for each of the student's, but the teacher has {layers}")
    drawn = torch.randperm(layers, generator=rng)[:m].sort().values.to(teacher.device)
    teacher = teacher[:, drawn]
    if concatenate:
        student, teacher = student.flatten(1), teacher.flatten(1)
    return _distance(student, teacher, True)


# ---- every token: states are the embeddings and then each layer, (rows, tokens, d); mask (rows, tokens) ----


def hidden(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    progress: float,
    *,
    layers: Literal["uniform", "middle", "first", "last", "distilbert"] = "uniform",
) -> Tensor:  # (n,)
    """TinyBERT's hidden-state loss (Jiao et al. 2020, eq. 8), over real tokens; their code counts padding too."""
    chosen = layer_map(layers, len(teacher) - 1, len(student) - 1)
    pairs = [(state, teacher[layer + 1]) for state, layer in zip(student[1:], chosen, strict=True)]
    return torch.stack([_masked((state - target).square().mean(-1), mask) for state, target in pairs]).mean(dim=0)


def embedding(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, progress: float) -> Tensor:  # (n,)
    """TinyBERT's embedding-layer loss (Jiao et al. 2020, eq. 9), over real tokens."""
    return _masked((student[0] - teacher[0]).square().mean(dim=-1), mask)


def attention(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    progress: float,
    *,
    layers: Literal["uniform", "middle", "first", "last", "distilbert"] = "uniform",
) -> Tensor:  # (n,)
    """TinyBERT's attention loss (Jiao et al. 2020, eq. 7): scores before the softmax, (n, heads, t, t) per layer.

    Masked queries and keys are 0 on both sides, and the mean is over real pairs: padding changes nothing.
    """
    chosen = layer_map(layers, len(teacher), len(student))
    real = mask[:, None, :] * mask[:, :, None]
    pairs = [(scores, teacher[layer]) for scores, layer in zip(student, chosen, strict=True)]
    return torch.stack([_masked((scores - target).square().mean(1), real) for scores, target in pairs]).mean(dim=0)


def distilbert_cosine(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor, progress: float
) -> Tensor:  # (n,)
    """DistilBERT's cosine loss (Sanh et al. 2019): 1 - cosine of the last states, the mean over real tokens."""
    return _masked(1 - functional.cosine_similarity(student[-1], teacher[-1], dim=-1), mask)


def _distance(student: Tensor, teacher: Tensor, normalise: bool) -> Tensor:  # (n, …, d) → (n,)
    if normalise:
        student, teacher = functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1)
    return (student - teacher).square().flatten(1).mean(dim=1)


def _masked(values: Tensor, mask: Tensor) -> Tensor:  # both (n, …) → (n,)
    """The mean of each row over the positions where `mask` is 1."""
    kept = torch.where(mask.bool(), values, 0.0)  # not a product, which would keep nan at a masked position
    return kept.flatten(1).sum(dim=1) / mask.flatten(1).sum(dim=1)


LayerLoss = Callable[..., Tensor]
LAYER_LOSSES: dict[str, LayerLoss] = {
    "pkd": pkd,
    "ckd": ckd,
    "alp": alp,
    "rail": rail,
    "hidden": hidden,
    "embedding": embedding,
    "attention": attention,
    "distilbert_cosine": distilbert_cosine,
}
VECTORS = frozenset(
    {"pkd", "ckd", "alp", "rail"}
)  # use one vector per layer; `attention` uses scores, the others tokens
