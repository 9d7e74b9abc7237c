"""From a recipe's `encoder:` section to the encoder: the one place that knows both kinds.

What an encoder needs besides the model (distilled token vectors, an INT8 file) is made once and kept in `cache`, a
folder beside the index, so that opening the index later asks for neither again and gets the very same vectors.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkd.errors import RecipeError, did_you_mean, shown
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.retrieval.encoders.encoder import IndexEncoder
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.static import KIND, StaticEncoder, made_from
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.manifests import MANIFEST, read_manifest
from augkd.workspace.progress import Steps

_OPTIONS: dict[str, dict[str, Any]] = {  # of each kind, with what leaving one out means
    "sentence": {"model": BUNDLED, "max_length": None, "precision": "auto", "workers": None},
    "static": {"model": BUNDLED, "dim": 256},
}


def make_encoder(
    options: Mapping[str, Any],
    cache: Path,
    *,
    texts: Sequence[str] | None = None,
    progress: Steps | None = None,
) -> IndexEncoder:
    """The encoder that `options` describe: `kind` (sentence, the default, or static) and that kind's options.

    sentence: `model`, `max_length`, `precision`, `workers`; static: `model`, `dim`. An option that is None is as good
    as left out. `texts`, a sample of the corpus, is what a static encoder is fitted to (`StaticEncoder.distill`);
    without it, whatever `cache` holds for this model and width is taken. `progress` is told of vocabulary entries and
    of these texts.
    Raises RecipeError for an unknown kind or option or a value out of range, ModelError when the model is not to be
    had, WorkspaceError when what `cache` holds is damaged.
    """
    given = {name: value for name, value in options.items() if value is not None}
    kind = given.pop("kind", "sentence")
    if kind not in _OPTIONS:
        raise RecipeError(f"encoder kind is {shown(kind)}{did_you_mean(str(kind), _OPTIONS)}")
    for name in given.keys() - _OPTIONS[kind].keys():
        raise RecipeError(f"{kind} encoder has no option {shown(name)}{did_you_mean(name, _OPTIONS[kind])}")

    chosen = _OPTIONS[kind] | given
    if kind == "static":
        return _static(chosen["model"], chosen["dim"], cache, texts, progress)
    return SentenceEncoder.load(chosen.pop("model"), cache=cache, **chosen)


def _static(model: str, dim: int, cache: Path, texts: Sequence[str] | None, progress: Steps | None) -> StaticEncoder:
    """The kept token vectors when they were made from this model (and these texts), else new ones, which are kept."""
    wanted = made_from(model_fingerprint(locate(model)), dim)
    folder = cache / f"static-{fingerprint(wanted)[:16]}"
    if (folder / MANIFEST).exists():
        facts = read_manifest(folder, KIND)["facts"]
        if facts["made_from"] == wanted and (not texts or facts["texts"] == fingerprint(list(texts))):
            return StaticEncoder.load(folder)

    if folder.exists():  # of a killed save, or fitted to other texts; its name says whose it was
        shutil.rmtree(folder)
    StaticEncoder.distill(model, dim=dim, texts=texts, progress=progress).save(folder)
    return StaticEncoder.load(folder)
