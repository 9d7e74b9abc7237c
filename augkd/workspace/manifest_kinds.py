"""What the manifest of each kind of artefact holds, validated when it is read: a manifest may come from a stranger.

The models require what augkd reads and keep whatever else is there. A name that becomes a path must have the form that
augkd gives it; a range is that of the option it records.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

from augkd.workspace.names import name_problem


def _plain_name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(f"it cannot be the name of a file: {problem}")
    return name


PlainName = Annotated[str, AfterValidator(_plain_name)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Xxh3 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0)]
Rows = dict[str, Count]  # texts forwarded, by purpose
TextPart = Annotated[
    str, StringConstraints(pattern=r"^part-[0-9]{5,9}(-[0-9]{1,9})?\.arrow$"), AfterValidator(_plain_name)
]
VectorPart = Annotated[PlainName, StringConstraints(pattern=r"^vectors-[0-9]{5,9}\.npy$")]
VectorsFile = Annotated[PlainName, StringConstraints(pattern=r"^vectors(-[0-9]{1,9})?\.faiss$")]
DroppedFile = Annotated[str, StringConstraints(pattern=r"^dropped(-[0-9a-f]{8})?\.jsonl$"), AfterValidator(_plain_name)]
HeldOutFile = Annotated[
    str, StringConstraints(pattern=r"^held_out_queries(-[0-9]{1,9})?\.safetensors$"), AfterValidator(_plain_name)
]


class Part(BaseModel):
    """A table of a manifest."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        part = handler(value)
        if isinstance(value, dict):
            part._written = value
        return part

    def on_disk(self) -> dict[str, Any]:
        """Its keys and values as they are in the file, in the same order."""
        return dict(self._written)


class FileEntry(Part):
    """What is known of a file: `augkd.workspace.checksums`."""

    bytes: Count
    xxh3: Xxh3


class Listing(Part):
    """A signed file that lists others: a manifest, or the mark of a whole checkpoint."""

    files: dict[str, FileEntry] = Field(default_factory=dict)


class Manifest(Part):
    """What every manifest holds; `KIND` is the kind of artefact that a model describes."""

    KIND: ClassVar[str]

    format: int = Field(ge=1)
    kind: str
    versions: dict[str, str] = Field(default_factory=dict)  # of the libraries that made it
    files: dict[str, FileEntry]  # all of the artefact's, by path in its folder


class Header(Manifest):
    """A manifest of any kind: what it was made from decides whether the artefact is used again."""

    made_from: dict[str, Any]


# ---- indexes ----


class CorpusFacts(Part):
    """How many texts of the corpus were kept; every other number is a rule that dropped texts."""

    kept: Count


class DenseEncoder(Part):
    """The encoder of an index of vectors."""

    kind: Literal["sentence", "static"] = "sentence"
    model: str
    query_prompt: str | None = None  # put before each query, whether by the recipe or by the model's own files
    document_prompt: str | None = None  # put before each text of the corpus


class LexicalEncoder(Part):
    """The definition of a word and of a score."""

    kind: Literal["lexical"]


class Tuning(Part):
    """The options of the FAISS index."""

    recall: int | float = Field(gt=0, le=1)


class DenseSources(Part):
    """What an index of vectors was made from."""

    encoder: str
    faiss: Tuning


class ShardSources(DenseSources):
    """What a shard was made from, and which one it is."""

    shard: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]  # [i, n]


class LexicalSources(Part):
    """What a BM25 index was made from."""

    encoder: str


class HeldOut(Part):
    """The file of the held-out queries."""

    file: HeldOutFile
    sha256: Sha256


class DenseManifest(Manifest):
    """A finished index of vectors."""

    KIND = "index"

    made_from: DenseSources
    recipe: dict[str, Any] | None = None  # none: built by a library call
    encoder: DenseEncoder
    corpus: CorpusFacts
    count: int = Field(ge=1, lt=2**63)
    dim: int = Field(ge=1, lt=2**31)
    factory: str
    nprobe: int = Field(ge=0, lt=2**31)
    ef_search: int = Field(0, alias="efSearch", ge=0, lt=2**31)
    k_factor: float = Field(0, ge=0, le=1e6)
    recall: float = Field(alias="recall@10", ge=0, le=1)
    sha256: Sha256  # of the vectors
    vectors: VectorsFile
    texts: dict[TextPart, Xxh3] = Field(min_length=1)
    held_out_queries: HeldOut | None = None
    dropped: DroppedFile = "dropped.jsonl"  # examples of the texts that were left out
    changes: list[dict[str, Any]] = Field(default_factory=list)


class LexicalManifest(Manifest):
    """A finished BM25 index."""

    KIND = "index"

    made_from: LexicalSources
    recipe: dict[str, Any] | None = None
    encoder: LexicalEncoder
    corpus: CorpusFacts
    count: int = Field(ge=1, lt=2**63)
    sha256: Sha256  # of the postings
    texts: dict[TextPart, Xxh3] = Field(min_length=1)
    dropped: DroppedFile = "dropped.jsonl"


IndexManifest = DenseManifest | LexicalManifest


class ShardManifest(Manifest):
    """One share of an index, encoded but not merged."""

    KIND = "index-shard"

    made_from: ShardSources
    recipe: dict[str, Any] | None = None
    seed: int
    encoder: DenseEncoder
    corpus: CorpusFacts
    dim: int = Field(ge=1, lt=2**31)
    texts: dict[TextPart, Xxh3]
    vectors: dict[VectorPart, Xxh3]

    @model_validator(mode="after")
    def _has_both_of_each_part(self) -> Self:
        numbers = [sorted(name.split(".")[0].split("-")[1] for name in table) for table in (self.texts, self.vectors)]
        if numbers[0] != numbers[1]:
            raise ValueError("its parts of texts and of vectors have other numbers")
        return self


class StaticEncoderManifest(Manifest):
    """Token vectors distilled from a model."""

    KIND = "static_encoder"

    name: str
    fingerprint: Sha256
    facts: dict[str, Any]


# ---- stages of a run ----


class TeacherManifest(Manifest):
    """A teacher that was fine-tuned for a run."""

    KIND = "teacher"

    rows: Rows
    seconds: Seconds


class MaskedLMManifest(Manifest):
    """A masked language model that was adapted to unlabelled text."""

    KIND = "masked_lm"

    rows: Rows
    seconds: Seconds


class TeacherLayersManifest(Manifest):
    """Layer vectors of a teacher."""

    KIND = "teacher_layers"

    texts: Count
    width: int = Field(ge=1, lt=2**31)


class TransferCounts(Part):
    """How many texts a transfer set holds; every other number is a rule that left texts out."""

    originals: Count
    candidates: Count


class TransferSetManifest(Manifest):
    """A transfer set."""

    KIND = "transfer_set"

    data: TransferCounts
    asked: list[dict[str, Any]] | None = None  # of each teacher that is asked: texts, tokens, calibration
    label_rounds: dict[str, Any] | None = None  # of a label budget: texts chosen, scores of the students between
    task: str
    teacher_rows: Count
    generator_rows: Count
    seconds: Seconds


class StudentSources(Part):
    """What a student was made from; the fingerprints that its card and its report name."""

    task: str
    transfer_set: str
    student: dict[str, Any] = Field(default_factory=dict)  # its options; of a model, the fingerprint


class StudentManifest(Manifest):
    """A trained student with its scores."""

    KIND = "student"

    made_from: StudentSources
    recipe: dict[str, Any]
    rows: Rows
    parameters: Count
    validation: float
    test: float | None
    test_interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    seconds: Seconds
    peak_rss_bytes: Count


class RunManifest(Manifest):
    """A finished run."""

    KIND = "run"

    recipe: dict[str, Any]
    seed: int
    stages: dict[str, str] | None = None  # where each stage lies; none: written by an older augkd
