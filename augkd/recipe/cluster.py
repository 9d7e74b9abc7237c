"""The tables of `index plan --cluster`: which machines encode, which one builds, and what each step costs.

Every number that a plan rests on is a key here with its default, so that none is hidden: prices and sizes of machines
are their vendor's, the costs are measured by tests/benchmarks/bench_cluster_plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.recipe.files import apply_override, read_tree, validate
from augkd.recipe.table import Count, Table
from augkd.recipe.units import parse_bytes
from augkd.recipe.yaml_text import parse_yaml
from augkd.workspace.names import user_path

# Physical cores, memory, network in Gbit/s and US dollars an hour: Amazon EC2, on demand, Linux, us-east-1, as listed
# in 2025. A vCPU of c7a is a core, of the others half of one. Texts per second of p3, a V100: what sbert.net states for
# all-MiniLM-L6-v2.
MACHINES: dict[str, dict[str, Any]] = {
    "c7a.16xlarge": {"cores": 64, "memory": "128GiB", "network": 25, "price": 3.285},
    "r7i.12xlarge": {"cores": 24, "memory": "384GiB", "network": 18.75, "price": 3.175},
    "r7i.48xlarge": {"cores": 96, "memory": "1536GiB", "network": 50, "price": 12.701},
    "x2idn.32xlarge": {"cores": 64, "memory": "2048GiB", "network": 100, "price": 13.338},
    "p3.2xlarge": {"cores": 4, "memory": "61GiB", "network": 10, "price": 3.06, "texts": 14_200.0},
}

Cost = Annotated[float, Field(gt=0, le=1)]  # seconds of one core


class MachineOptions(Table):
    """A kind of machine: one of `MACHINES`, or its numbers, which override those of the name."""

    machine: str | None = None
    count: int = Field(1, ge=1, le=100_000)
    cores: int = Field(ge=1, le=100_000)  # physical ones
    memory: str | int
    network: float = Field(gt=0, le=1e6)  # Gbit per second
    disk: str | int = "1GB"  # bytes read or written per second
    price: float = Field(ge=0, le=1e6)  # an hour, in any currency
    speed: float = Field(1.0, gt=0, le=1000)  # of a core, relative to the one that the costs were measured on
    efficiency: float = Field(0.8, gt=0, le=1)  # of all cores together, relative to one alone
    texts: float | None = Field(None, gt=0, le=1e9)  # encoded per second by the machine, like a GPU's; none: its cores

    @model_validator(mode="before")
    @classmethod
    def _named(cls, tree: Any) -> Any:
        tree = {"machine": tree} if isinstance(tree, str) else tree
        name = tree.get("machine") if isinstance(tree, dict) else None
        if (
            isinstance(name, str)
            and name not in MACHINES
            and not {"cores", "memory", "network", "price"} <= tree.keys()
        ):
            raise ValueError(f"machine '{name}' is not known{did_you_mean(name, MACHINES)}")
        return {**MACHINES.get(name, {}), **tree} if isinstance(name, str) else tree

    @field_validator("memory", "disk")
    @classmethod
    def _bytes(cls, value: str | int) -> str | int:
        parse_bytes(value)
        return value

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return parse_bytes(self.memory)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the disk reads or writes per second."""
        return parse_bytes(self.disk)

    @property
    def network_bytes(self) -> float:
        """Bytes that the network takes per second."""
        return self.network * 1e9 / 8

    @property
    def parallel(self) -> float:
        """How many times the work of one measured core all cores do."""
        return self.cores * self.efficiency * self.speed


class CostOptions(Table):
    """Seconds of one core, fitted to measurements; see tests/benchmarks/bench_cluster_plan.py."""

    characters: float = Field(95.2, gt=0, le=1e6)  # of a text, on average
    read: Cost = 5.46e-08  # a character read, cleaned and compared with earlier ones
    encode: Cost = 6.6e-07  # a character through a static encoder
    encode_sentences: Cost = 4.73e-05  # a character through all-MiniLM-L6-v2
    spool: Cost = 3.17e-09  # a byte of texts and float16 vectors written and summed up
    copied: Cost = 7.9e-10  # a byte copied from a shard and compared
    load: Cost = 2.56e-09  # a value of a vector read back as float32
    product: Cost = 1.16e-11  # a floating-point operation of an assignment to lists
    codes: Cost = 0.00353  # a dimension whose codes are trained
    graph: Cost = 8.31e-07  # a value of a vector whose list is found through a graph of 16,384
    graph_growth: float = Field(0.285, ge=0, le=1)  # that cost grows with lists ** this: the graph outgrows the cache
    link: Cost = 4.93e-07  # a value of a centroid that is linked into that graph
    link_growth: float = Field(0.395, ge=0, le=1)  # that cost grows with lists ** this
    code: Cost = 3.01e-08  # a value of a vector put into its list
    compare: Cost = 1.48e-11  # a floating-point operation of an exact search
    coarse: Cost = 2.39e-11  # a floating-point operation of a query against the centroids
    visit: Cost = 2.66e-09  # a value of a list that a query visits
    scan: Cost = 4.31e-11  # a byte of codes in the lists that a query visits
    refine: Cost = 1.13e-09  # a value of a candidate that is re-ranked
    write: Cost = 1.53e-09  # a byte of the index written and summed up
    visited: float = Field(0.58, gt=0, le=1e6)  # lists that a query visits, × lists ** visited_growth, for recall 0.95
    visited_growth: float = Field(0.737, ge=-1, le=1)  # the exponent of the lists
    refined: float = Field(
        0.0156, gt=0, le=64
    )  # candidates re-ranked per neighbour, × lists ** refined_growth, up to 64
    refined_growth: float = Field(1.0, ge=-1, le=2)  # the exponent of the lists


class ClusterOptions(Table):
    """Who encodes, who builds, at what cost."""

    workers: MachineOptions  # encode the texts
    builder: MachineOptions  # reads the corpus, receives the vectors, trains, adds, searches
    engine: Literal["ray", "shards"] = "ray"  # shards: workers keep what they encode until `merge` copies it
    queries: Count = Field(1_000_000, ge=0)  # searched for when the index is built
    costs: CostOptions = Field(default_factory=lambda: CostOptions.model_validate({}))

    @field_validator("builder")
    @classmethod
    def _one(cls, value: MachineOptions) -> MachineOptions:
        if value.count > 1:
            raise ValueError("one machine builds the index; count is for workers")
        return value


def load_cluster(given: str, overrides: Iterable[str] = ()) -> ClusterOptions:
    """The cluster of a YAML file or of YAML itself, with `key=value` overrides applied; raises RecipeError."""
    path = user_path(given)
    if path.is_file():
        tree = read_tree(path)
    else:
        tree, path = parse_yaml(given, "--cluster"), Path("--cluster")
    if not isinstance(tree, dict):
        raise RecipeError(
            f"--cluster is {short_repr(given)}, neither a file nor a table; write it like "
            "'{workers: {machine: c7a.16xlarge, count: 8}, builder: r7i.48xlarge}'"
        )
    for name in ("workers", "builder"):
        if isinstance(tree.get(name), str):  # a table, to which --set can add a key
            tree[name] = {"machine": tree[name]}
    for override in overrides:
        apply_override(tree, override)
    return validate(ClusterOptions, tree, path)
