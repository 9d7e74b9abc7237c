"""From a recipe's `encoder:` section to the encoder: the one place that knows every kind of encoder.

Making an encoder loads no weights where its fingerprint can be computed without them. What an encoder needs besides the
model (distilled token vectors, an INT8 file) is made once and kept in `cache`, a folder beside the index, so that
opening the index later asks for neither again and gets exactly the same vectors.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.models.onnx_graph import check_extra
from augkd.recipe.index import STATIC_DIM
from augkd.retrieval.encoders.conventions import Conventions
from augkd.retrieval.encoders.distillation import distill, made_from
from augkd.retrieval.encoders.encoder import IndexEncoder
from augkd.retrieval.encoders.kept import kept_in
from augkd.retrieval.encoders.lazy import LazyEncoder
from augkd.retrieval.encoders.sentence import SentenceEncoder, check_at_least_one
from augkd.retrieval.encoders.sentence_model import (
    device_for,
    encoder_fingerprint,
    resolve_precision,
    stated_max_length,
)
from augkd.retrieval.encoders.static import StaticEncoder
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.manifest_kinds import StaticEncoderManifest
from augkd.workspace.manifests import MANIFEST, read_manifest
from augkd.workspace.progress import Steps

_OPTIONS: dict[str, dict[str, Any]] = {  # of each kind, with its default
    "sentence": {
        "model": BUNDLED,
        "max_length": None,
        "precision": "auto",
        "workers": None,
        "query_prompt": None,
        "document_prompt": None,
        "dim": None,
    },
    "static": {"model": BUNDLED, "dim": STATIC_DIM},
}


def make_encoder(
    options: Mapping[str, Any],
    cache: Path,
    *,
    texts: Sequence[str] | None = None,
    progress: Steps | None = None,
) -> IndexEncoder:
    """The encoder that `options` describe: `kind` (sentence, the default, or static) and that kind's options.

    sentence: `model`, `max_length`, `precision`, `workers`, `query_prompt`, `document_prompt`, `dim`; static: `model`,
    `dim`. An option that is None counts as left out. `texts`, a sample of the corpus, is what a static encoder is
    fitted to (`distillation.distill`); without it, whatever `cache` holds for this model and width is used. `progress`
    counts vocabulary entries and these texts.
    Raises RecipeError for an unknown kind or option or a value out of range, and ModelError when the model cannot be
    found. The model is loaded with the first text that is encoded, and then raises ModelError for files that cannot be
    loaded, and WorkspaceError for a damaged `cache`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    kind = given.pop("kind", "sentence")
    if kind not in _OPTIONS:
        raise RecipeError(f"encoder kind is {short_repr(kind)}{did_you_mean(str(kind), _OPTIONS)}")
    for name in given.keys() - _OPTIONS[kind].keys():
        raise RecipeError(f"{kind} encoder has no option {short_repr(name)}{did_you_mean(name, _OPTIONS[kind])}")

    settings = _OPTIONS[kind] | given
    if kind == "static":
        return _static(settings["model"], settings["dim"], cache, texts, progress)
    return _sentence(**settings, cache=cache)


def options_of(kind: str) -> tuple[str, ...]:
    """The names of the options that an encoder of `kind` takes."""
    return tuple(_OPTIONS[kind])


def _sentence(
    model: str,
    max_length: int | None,
    precision: str,
    workers: int | None,
    cache: Path,
    **conventions: Any,  # query_prompt, document_prompt, dim
) -> LazyEncoder | SentenceEncoder:
    resolved = resolve_precision(precision, device_for(precision))
    check_at_least_one(workers=workers)
    if resolved == "int8":
        check_extra("encoder precision int8")
    folder = locate(model)
    options: dict[str, Any] = {"max_length": max_length, "precision": precision, "workers": workers, "cache": cache}
    load = partial(SentenceEncoder.load, model, **options, **conventions)
    length = max_length or stated_max_length(folder)
    if length is None:
        return load()
    weights = model_fingerprint(folder)
    own = Conventions.of(folder, **conventions)
    return LazyEncoder(model, encoder_fingerprint(weights, length, resolved, own), load)


def _static(
    model: str, dim: int, cache: Path, texts: Sequence[str] | None, progress: Steps | None
) -> LazyEncoder | StaticEncoder:
    """The kept token vectors if they were made from this model (and these texts), else new ones, which are kept."""
    sources, folder = made_from(model_fingerprint(locate(model)), dim), kept_in(cache, model, dim)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder, StaticEncoderManifest)
        facts = manifest.facts
        if facts.get("made_from") == sources and (not texts or facts.get("texts") == fingerprint(list(texts))):
            return LazyEncoder(manifest.name, manifest.fingerprint, partial(StaticEncoder.load, folder))

    if folder.exists():  # left by a killed save, or fitted to other texts; its name says it is ours
        shutil.rmtree(folder)
    encoder = distill(model, dim=dim, texts=texts, progress=progress)
    encoder.save(folder)
    return encoder
