"""The masked generator of MATE-KD: some tokens of a text are masked and filled in by a masked language model.

A generated row is a sample of the model; `soften` draws it by the Gumbel-max trick and also gives the softened choice
through which the gradient of the ascent returns (straight-through Gumbel-softmax; Rashid et al., ACL 2021, section 3).
Logits are computed at masked positions only. A generated text is a candidate like any other, so it leaves as tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augkd.models.masked_lm import MaskedLM
from augkd.models.seeds import RowRandom
from augkd.models.tokens import Tokens

SOURCE = "generator"
_IN_CACHE = 16  # rows of a vocabulary that a core's cache holds: a sample of 115 takes 9 ms, of all at once 23


@dataclass(frozen=True)
class GeneratedRows:
    """Rows that a generator drew."""

    tokens: Tokens
    kept: Tensor  # (n,) share of a row's tokens, special ones aside, that are the original's


@dataclass(frozen=True)
class Generator:
    """Masks a share `rate` of the tokens and fills them in; `temperature` is that of the Gumbel-softmax."""

    lm: MaskedLM
    rate: float = 0.3
    temperature: float = 1.0

    @torch.no_grad()
    def draw(self, tokens: Tokens, samples: int, rng: RowRandom) -> GeneratedRows:
        """`samples` rows for each row of `tokens`, those of one original together; `rng` is of the rows of `tokens`."""
        original = torch.repeat_interleave(torch.arange(len(tokens)), samples)
        tokens = tokens.take(original)
        of_token = torch.repeat_interleave(original, tokens.lengths)
        positions = masked_positions(tokens, self.lm.special(), self.rate, rng.uniform(of_token))
        logits = self.logits(tokens, positions, "generator")
        drawn = replace_tokens(tokens, positions, sample(logits, rng.uniform(of_token[positions])).cpu())
        return GeneratedRows(drawn, _kept_share(tokens, drawn, self.lm.special()))

    def logits(self, tokens: Tokens, positions: Tensor, purpose: str) -> Tensor:  # (p, vocabulary)
        """The model's logits with `positions` masked, -inf for special tokens; with gradients where allowed."""
        mask = torch.full((len(positions),), int(self.lm.tokenizer.mask_token_id))
        logits = self.lm.logits(replace_tokens(tokens, positions, mask), positions, purpose)
        logits.detach().masked_fill_(self.lm.special().to(logits.device), -torch.inf)  # where the gradient is 0
        return logits


def masked_positions(
    tokens: Tokens,
    special: Tensor,  # (vocabulary,) bool
    rate: float,
    draws: Tensor,  # (tokens,) uniform in [0, 1)
) -> Tensor:  # (p,) positions in tokens.ids, ascending
    """Each token that is not special with probability `rate`; in a row that draws none, the one closest to it."""
    draws = draws.masked_fill(special[tokens.ids], torch.inf)
    row = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
    least = torch.full((len(tokens),), torch.inf).scatter_reduce(0, row, draws, "amin")
    masked = (draws < rate) | ((draws == least[row]) & (least[row] >= rate) & draws.isfinite())
    return masked.nonzero().flatten()


def sample(
    logits: Tensor,  # (p, vocabulary)
    draws: Tensor,  # (p,) uniform in [0, 1)
) -> Tensor:  # (p,) ids
    """A sample of softmax(logits) per row: the distribution of `soften`'s samples, with a third of its logarithms."""
    size = _IN_CACHE if logits.device.type == "cpu" else max(1, len(logits))
    parts = zip(torch.split(logits, size), torch.split(draws.to(logits.device), size), strict=True)
    return torch.cat([_sample(*part) for part in parts])


def _sample(logits: Tensor, draws: Tensor) -> Tensor:
    cumulative = torch.softmax(logits, dim=-1, dtype=torch.float32).cumsum_(dim=-1)
    place = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
    return place.clamp_max(logits.shape[-1] - 1).squeeze(1)


def gumbel_noise(draws: Tensor) -> Tensor:
    """Standard Gumbel noise, -log(-log u), from numbers u that are uniform in [0, 1)."""
    tiny = torch.finfo(draws.dtype).tiny
    return draws.clamp_min(tiny).log_().neg_().clamp_min_(tiny).log_().neg_()


def soften(
    logits: Tensor,  # (p, vocabulary)
    temperature: float,
    draws: Tensor,  # (p, vocabulary) uniform in [0, 1), drawn on the CPU: a seed gives the same on every device
) -> tuple[Tensor, Tensor]:  # (p,) ids, (p, vocabulary) probabilities
    """A sample of softmax(logits) and the softened choice behind it (Jang et al. 2017; Maddison et al. 2017)."""
    noisy = logits + gumbel_noise(draws).to(logits.device)  # in float32, as the noise is
    return noisy.argmax(dim=-1), torch.softmax(noisy if temperature == 1 else noisy / temperature, dim=-1)


def replace_tokens(tokens: Tokens, positions: Tensor, ids: Tensor) -> Tokens:
    """`tokens` with other ids at `positions`."""
    changed = tokens.ids.clone()
    changed[positions] = ids
    return replace(tokens, ids=changed)


def _kept_share(before: Tokens, after: Tokens, special: Tensor) -> Tensor:  # (n,)
    row = torch.repeat_interleave(torch.arange(len(before)), before.lengths)
    counted = (~special[before.ids]).float()
    same = counted * (before.ids == after.ids)
    total = torch.zeros(len(before)).index_add(0, row, counted)
    return torch.zeros(len(before)).index_add(0, row, same) / total.clamp_min(1)
