"""An index without a model: BM25 over words (Robertson & Zaragoza 2009), for exact words, names and numbers.

The definition of a word must hold for any language, so there is no stemming and no stop list. The index is a folder
like that of a dense index, and a `Retriever` by itself, since it needs no encoder.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, stream_corpus
from augkd.data.dropped import DROPPED, Dropped
from augkd.errors import DataError, IndexFolderError, RecipeError, first_line
from augkd.retrieval.lexical.postings import K1, B, Part, Postings, best, write_postings
from augkd.retrieval.manifest import check_index, read_index_manifest
from augkd.retrieval.retriever import QUERIES_AT_ONCE, Hits, check_groups, check_k, no_hits
from augkd.retrieval.spool import CHUNK
from augkd.retrieval.texts import TextStore, drop_texts_from, text_path, text_paths, write_texts
from augkd.workspace.checksums import table_of
from augkd.workspace.files import write_text
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.manifest_kinds import LexicalManifest
from augkd.workspace.manifests import finished
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENCODER = {
    "kind": "lexical",
    "variant": "lucene",
    "k1": K1,
    "b": B,
    "words": 1,
}  # words: raised whenever `words` changes

# Scripts written without spaces (Thai, Lao, Burmese, Khmer, kana, Han): each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED += "\U00020000-\U0003ffff"
# Vowel signs and accents that Python's \w does not match, so that Hindi, Hebrew and Arabic words stay whole.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(f"[{_UNSPACED}]|(?:[^\\W_{_UNSPACED}]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")  # matches what _WORD matches in ASCII, three times as fast


def words(text: str) -> list[str]:
    """Runs of letters and digits, in NFKC and lower case (Unicode case folding), without stemming or a stop list.

    In scripts written without spaces, every character is a word.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


def build_lexical(
    folder: Path,
    source: CorpusSource,
    *,
    recipe: dict[str, Any] | None = None,
    progress: Steps | None = None,
    chunk: int = CHUNK,
) -> LexicalIndex:
    """Builds the BM25 index of `source` in `folder`, finishes an unfinished build, or opens the finished one.

    A resumed build reads and tokenises the corpus again, which is nearly all of the work, and writes the same bytes.
    Memory: 4 bytes per word of the corpus, 4 per text, and the vocabulary; postings, 8 bytes each, are filled in on
    disk. Measured on 326,354 questions of 10.4 words, with 106,788 distinct words: peak 114 MiB, 367 bytes per text
    (bm25s, from token ids: 191 MiB). `progress` counts texts. The caller holds `workspace.locks.locked(folder)` where
    two builds could meet. Raises DataError for a corpus without a word.
    """
    made_from = {"corpus": source.fingerprint(), "encoder": fingerprint(_ENCODER), "chunk": chunk}
    if finished(folder, "index", made_from):
        return LexicalIndex.open(folder)
    begin(folder, "index", made_from)

    counts = CorpusCounts()
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__  # a new word gets the next number
    parts = list(_tokenised(folder, source, counts, vocabulary, chunk, progress))
    check_not_empty(source, counts)
    if not vocabulary:
        raise DataError(f"corpus {source.dataset!r} has {counts.kept} texts without a word; choose another text column")
    postings = folder / "postings"
    write_text(postings / "words.txt", "".join(f"{word}\n" for word in vocabulary))
    write_postings(postings, len(vocabulary), parts)

    files = table_of(folder)
    end(
        folder,
        "index",
        made_from,
        files=files,
        texts={path.name: files[f"texts/{path.name}"]["xxh3"] for path in text_paths(folder)},
        recipe=recipe,
        encoder=_ENCODER,
        corpus=dataclasses.asdict(counts),
        count=counts.kept,
        words=len(vocabulary),
        words_per_text=round(sum(len(part.words) for part in parts) / counts.kept, 2),
        bytes_per_text=round(sum(path.stat().st_size for path in postings.iterdir()) / counts.kept, 1),
        sha256=file_fingerprint(postings),
    )
    return LexicalIndex.open(folder)


def _tokenised(
    folder: Path,
    source: CorpusSource,
    counts: CorpusCounts,
    vocabulary: defaultdict[str, int],
    chunk: int,
    progress: Steps | None,
) -> Iterator[Part]:
    """The words of each chunk. Writes its text part too, even in a resumed build: comparing would take as long."""
    total = source.known_size()
    dropped = Dropped()
    stream = stream_corpus(source, counts, dropped, scratch=folder)
    for number in itertools.count():
        if not (texts := list(itertools.islice(stream, chunk))):
            drop_texts_from(folder, number)
            dropped.write(folder / DROPPED)
            return
        write_texts(text_path(folder, number), texts)
        rows = [[vocabulary[word] for word in words(text)] for text in texts]
        lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
        flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
        yield Part(number * chunk, flat, lengths)
        if progress is not None:
            progress(counts.kept, total)


@dataclass(frozen=True, eq=False)
class LexicalIndex:
    """A finished BM25 index folder, read-only and memory-mapped; make one with `LexicalIndex.open`.

    It is a `Retriever` without an encoder; its scores are sums without an upper bound (`bounded` is False).
    """

    folder: Path
    manifest: LexicalManifest
    _vocabulary: Mapping[str, int]
    _postings: Postings
    _texts: TextStore

    @classmethod
    def open(cls, folder: Path) -> LexicalIndex:
        """Opens `folder`; raises IndexFolderError when it is missing, foreign, or differs from its manifest."""
        manifest = read_index_manifest(folder)
        if not isinstance(manifest, LexicalManifest):
            raise IndexFolderError(f"{folder} holds a dense index, not a lexical one; open it with open_index")
        check_index(folder, manifest)
        texts = TextStore.open(folder, manifest.texts)
        if len(texts) != manifest.count:
            raise IndexFolderError(
                f"{folder} has {len(texts)} texts, its manifest states {manifest.count}; build the index again"
            )
        try:
            word_list = (folder / "postings" / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
            postings = Postings.open(folder / "postings")
            if len(word_list) != len(postings.bounds) or postings.last >= len(texts):
                raise ValueError(f"{len(word_list)} words and {len(texts)} texts")
        except (OSError, ValueError, EOFError) as exc:
            reason = first_line(exc)
            raise IndexFolderError(f"{folder}: its postings do not fit each other ({reason}); build it again") from exc
        vocabulary = {word: number for number, word in enumerate(word_list)}
        return cls(folder, manifest, vocabulary, postings, texts)

    @property
    def bounded(self) -> bool:
        """False: BM25 scores are sums, larger for longer queries."""
        return False

    def __len__(self) -> int:
        return len(self._texts)

    def block(self, k: int, vectors: bool) -> int:
        """How many queries a worker of a cluster gets at once; each is answered on its own."""
        return QUERIES_AT_ONCE

    def search(
        self, texts: Sequence[str], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(texts), k)
        """The `k` best texts of each query by BM25; fewer where fewer texts share a word with it."""
        check_k(k)
        if vectors:
            raise RecipeError(f"lexical index {self.folder} has no vectors; use a dense index if you need them")
        hits = no_hits(len(texts), k)
        totals = np.zeros(len(self), dtype=np.float32)  # all zero between queries
        for row, text in enumerate(texts):
            scores, ids = best(self._postings, self._word_counts(text), k, totals)
            hits.scores[row, : len(ids)] = scores
            hits.ids[row, : len(ids)] = ids
            if progress is not None:
                progress(row + 1, len(texts))
        return hits

    def search_average(
        self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False, progress: Steps | None = None
    ) -> Hits:  # (len(groups), k)
        """The `k` best texts of each group, whose texts are joined into one query; there is no vector to average.

        Their order is that of the mean score over the group's texts, since BM25 adds up over the words of a query.
        """
        check_groups(groups)
        return self.search([" ".join(group) for group in groups], k, vectors=vectors, progress=progress)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that does not exist."""
        return self._texts.texts(ids)

    def _word_counts(self, text: str) -> Counter[int]:
        return Counter(self._vocabulary[word] for word in words(text) if word in self._vocabulary)
