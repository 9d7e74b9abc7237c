"""A label budget: texts are chosen in rounds, labelled by the teacher, trained on, and the next ones chosen.

The teacher may be a model, an LLM behind an API or people: it is asked through its outputs, which are stored, so
nothing is asked twice. What a round chose is written before the teacher is asked, and stays chosen: a killed run, or
people who answer a week later, go on from there. Texts with a label are labelled by the teacher before the first round.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from augkd.candidates.candidate import Candidate
from augkd.data.task import Example, texts_of
from augkd.data.transfer_set import TransferSet, write_rows
from augkd.errors import DataError
from augkd.models.locate import locate, model_fingerprint
from augkd.models.seeds import rng_of
from augkd.recipe import LabelBudgetOptions, dump
from augkd.retrieval.encoders.encoder import encode
from augkd.retrieval.encoders.make import make_encoder
from augkd.runs.context import StageFolders
from augkd.runs.stages.rows import RowCounts, transfer_rows
from augkd.runs.stages.student import StudentStage
from augkd.runs.stages.teacher import Teacher
from augkd.workspace.checksums import read_signed, write_signed
from augkd.workspace.files import replacing
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import CACHE, begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished
from augkd.workspace.progress import prefixed

if TYPE_CHECKING:
    from augkd.models.classifier import Classifier

Pair = tuple[str, str | None]
KIND = "labels"
_VECTORS = "pool_vectors"


@dataclass(frozen=True)
class Chosen:
    """What the teacher labels."""

    labelled: list[Pair]  # texts with a label
    rounds: list[list[Pair]]  # texts chosen in each round
    scores: list[dict[str, Any]]  # of the student after each round, as far as one was trained: labels, validation, test

    @property
    def texts(self) -> list[Pair]:
        """All of them."""
        return [*self.labelled, *(text for picked in self.rounds for text in picked)]


@dataclass(frozen=True)
class Texts:
    """What a round trains on and chooses from."""

    train: Sequence[Example]  # originals, and the texts of an index that stand for themselves
    pools: Sequence[Sequence[Candidate]]  # the candidates of each

    @property
    def labelled(self) -> list[Pair]:
        """The distinct texts with a label."""
        return list(dict.fromkeys(texts_of([example for example in self.train if example.label is not None])))

    @property
    def unlabelled(self) -> list[Pair]:
        """The distinct texts without one."""
        texts = [*texts_of(self.train), *((c.text, c.text_pair) for pool in self.pools for c in pool)]
        return _without(texts, self.labelled)


class LabelRounds:
    """The rounds of one student."""

    def __init__(self, stage: StudentStage, teacher: Teacher):
        """`stage` is the student's own; in each round one like it is trained on what is labelled so far."""
        self.stage, self.teacher, self.context = stage, teacher, stage.context
        budget = self.context.recipe.data.label_budget
        assert budget is not None
        self.budget: LabelBudgetOptions = budget
        budget.check(self.context.target.problem_type)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the choice, besides the texts."""
        return {"label_budget": dump(self.budget), "student": self.stage.identity}

    def choose(self, texts: Texts) -> Chosen:
        """The texts that the teacher labels, all labelled when this returns; raises what asking it raises."""
        pool = self._pool(texts)
        encoder = model_fingerprint(locate(self.budget.encoder))
        made_from = {
            **self.identity,
            "teacher": self.teacher.identity,
            "encoder": encoder,
            "texts": fingerprint([texts.labelled, pool]),
        }
        folder = self._folder(fingerprint(made_from))
        with claimed(folder):
            if not finished(folder, KIND, made_from):
                begin(folder, KIND, made_from)
                rounds = self._rounds(folder, texts, pool)
                shutil.rmtree(folder / CACHE, ignore_errors=True)
                end(folder, KIND, made_from, rounds=[len(picked) for picked in rounds])
        return Chosen(texts.labelled, *_read_rounds(folder, len(self.budget.sizes)))

    def _folder(self, identity: str) -> Path:
        """People's rounds lie beside their answers, so that every run asks them about the same texts."""
        if self.teacher.options.kind == "answers":
            return self.teacher.answers / f"rounds-{identity[:12]}"
        return self.context.folders.of(KIND, identity)

    def _pool(self, texts: Texts) -> list[Pair]:
        """The texts to choose from: all of them, or as many as the recipe allows, drawn at random."""
        pool = texts.unlabelled
        if not pool:
            raise DataError(
                "data.label_budget has no unlabelled text to choose from; give data.neighbours, or training texts "
                "without a label"
            )
        if len(pool) <= self.budget.pool:
            return pool
        draw = np.random.default_rng([self.context.recipe.seed, len(pool)])
        kept = sorted(draw.choice(len(pool), self.budget.pool, replace=False).tolist())
        return [pool[place] for place in kept]

    def _rounds(self, folder: Path, texts: Texts, pool: list[Pair]) -> list[list[Pair]]:
        """Does the rounds that are not done; the texts of each."""
        rounds: list[list[Pair]] = []
        for number, size in enumerate(self.budget.sizes, 1):
            file = folder / f"round-{number}.json"
            before = [text for picked in rounds for text in picked]
            if not file.exists():
                known = [*texts.labelled, *before]
                self._ask(number, texts.labelled if number == 1 else rounds[-1], known)
                round_ = _Round(self, folder, number, texts, pool, known)
                picked, score = round_.pick(size - len(before))
                write_signed(file, {"texts": picked, "student": score})
                shutil.rmtree(folder / f"round-{number}", ignore_errors=True)
            rounds.append(_read_round(file))
        self._ask(len(rounds) + 1, rounds[-1], [*texts.labelled, *(text for picked in rounds for text in picked)])
        return rounds

    def _ask(self, number: int, latest: Sequence[Pair], known: Sequence[Pair]) -> None:
        """Has the teacher label what is known before round `number`; raises DataError where it answers nothing new."""
        if not known:
            return
        logits = self.teacher.outputs.logits(known, partial(self.context.progress, f"labels before round {number}"))
        places = {text: place for place, text in enumerate(known)}
        if latest and np.isnan(logits[[places[text] for text in latest]]).any(axis=1).all():
            raise DataError(
                f"the teacher has no output for any of the {len(latest)} texts of round {number - 1}, "
                f"e.g. '{latest[0][0][:60]}'; have some of them labelled"
            )


@dataclass
class _Round:
    """One choice."""

    rounds: LabelRounds
    folder: Path
    number: int
    texts: Texts
    pool: list[Pair]
    known: list[Pair]

    def pick(self, count: int) -> tuple[list[Pair], dict[str, Any] | None]:
        """The texts of this round, and the scores of the student that chose them, if there was one."""
        import torch

        from augkd.selection.estimate import estimate
        from augkd.selection.label_selectors import LABEL_SELECTORS, NEEDS_STUDENT, Unlabelled, spread

        budget = self.rounds.budget
        name, settings = budget.selector
        rest, vectors = _without(self.pool, self.known), self._vectors()
        if not rest:
            return [], None
        own = torch.from_numpy(np.stack([vectors[text] for text in rest]))
        logits = self._known_logits()
        has = ~np.isnan(logits).any(axis=1)
        chooses, score = name in NEEDS_STUDENT, None
        student = estimated = torch.zeros(len(rest), 1)
        if has.any() and (chooses or budget.score):
            trained, score = self._student(logits)
            if chooses:
                known = torch.from_numpy(np.stack([vectors[text] for text in self.known]))[torch.from_numpy(has)]
                student, estimated = trained.predict(rest), estimate(own, known, torch.from_numpy(logits[has]))
        elif chooses:
            name, settings = "random", {}  # nothing is known before the first round
        rng = rng_of(self.rounds.context.recipe.seed, self.number)
        order = LABEL_SELECTORS[name](Unlabelled(student, estimated), rng, **settings)
        return [rest[place] for place in spread(order, own, count, budget.near).tolist()], score

    def _known_logits(self) -> NDArray[np.float32]:
        if not self.known:
            return np.zeros((0, self.rounds.context.target.outputs), dtype=np.float32)
        return self.rounds.teacher.outputs.logits(self.known)

    def _student(self, logits: NDArray[np.float32]) -> tuple[Classifier, dict[str, Any]]:
        """A student trained on what is labelled so far, and its scores."""
        context, home = self.rounds.context, self.folder / f"round-{self.number}"
        folders = StageFolders(home, context.folders.shared, context.folders.whole or context.folders.out)
        progress = prefixed(context.progress, f"round {self.number}: ")
        stage = replace(self.rounds.stage, context=replace(context, folders=folders, progress=progress))
        of_text = dict(zip(self.known, logits, strict=True))
        none = np.full(context.target.outputs, np.nan, dtype=np.float32)
        flat = [*texts_of(self.texts.train), *((c.text, c.text_pair) for pool in self.texts.pools for c in pool)]
        rows = transfer_rows(
            self.texts.train,
            self.texts.pools,
            np.stack([of_text.get(text, none) for text in flat]),
            context.target,
            RowCounts(),
        )
        write_rows(home / "transfer_set", rows, context.target)
        manifest = stage.make(TransferSet.open(home / "transfer_set"))
        labels = int((~np.isnan(logits).any(axis=1)).sum())
        return stage.load(), {"labels": labels, "validation": manifest.validation, "test": manifest.test}

    def _vectors(self) -> dict[Pair, NDArray[np.float32]]:
        """Unit vectors of all texts."""
        return {**self._encoded(self.texts.labelled), **self._encoded(self.pool)}

    def _encoded(self, texts: list[Pair]) -> dict[Pair, NDArray[np.float32]]:
        """Unit vectors of these texts, kept while the rounds last; in a comparison, for all its runs."""
        if not texts:
            return {}
        budget, folders = self.rounds.budget, self.rounds.context.folders
        made_from = {"encoder": model_fingerprint(locate(budget.encoder)), "texts": fingerprint(texts)}
        home = (folders.shared or self.folder / CACHE) / f"{_VECTORS}-{fingerprint(made_from)[:12]}"
        file = home / "vectors.npy"
        with claimed(home):
            if not finished(home, _VECTORS, made_from):
                begin(home, _VECTORS, made_from)
                encoder = make_encoder({"model": budget.encoder}, home)
                joined = [text if pair is None else f"{text} {pair}" for text, pair in texts]
                made = encode(encoder, joined, partial(self.rounds.context.progress, "vectors of the pool"))
                with replacing(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, made.astype(np.float32), allow_pickle=False)  # numbers alone, never objects
                end(home, _VECTORS, made_from)
        return dict(zip(texts, np.load(file, allow_pickle=False), strict=True))


def _without(texts: Sequence[Pair], others: Sequence[Pair]) -> list[Pair]:
    left_out = set(others)
    return [text for text in dict.fromkeys(texts) if text not in left_out]


def _read_round(file: Path) -> list[Pair]:
    return [(text, pair) for text, pair in _read(file)["texts"]]


def _read_rounds(folder: Path, count: int) -> tuple[list[list[Pair]], list[dict[str, Any]]]:
    files = [folder / f"round-{number}.json" for number in range(1, count + 1)]
    scores = [score for file in files if (score := _read(file)["student"]) is not None]
    return [_read_round(file) for file in files], scores


def _read(file: Path) -> dict[str, Any]:
    """A round as it was written; what was chosen decides which answers are worth something, so damage is refused."""
    return read_signed(file, f"remove {file.parent} to choose all rounds again; answers that are stored are kept")
