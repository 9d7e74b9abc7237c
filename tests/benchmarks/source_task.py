"""A task made of a corpus: name the source of a text. For comparisons on a task by which no recipe was chosen.

    python tests/benchmarks/source_task.py CORPUS.parquet FOLDER [--prefix amazon_] [--train 6000]

CORPUS has the columns text and source. Texts of the sources whose names begin with the prefix are drawn at random, with
seed 0, and written to FOLDER/{train,validation,test}.parquet with their source as label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def main() -> None:
    """Writes the task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prefix", default="amazon_")
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--test", type=int, default=2000)
    given = parser.parse_args()
    table = pq.read_table(given.corpus, columns=["text", "source"])
    table = table.filter(pc.starts_with(table["source"], given.prefix)).rename_columns(["text", "label"])
    sizes = [given.train, given.validation, given.test]
    order = np.random.default_rng(0).permutation(len(table))[: sum(sizes)]
    given.folder.mkdir(parents=True, exist_ok=True)
    for split, rows in zip(("train", "validation", "test"), np.split(order, np.cumsum(sizes)[:-1]), strict=True):
        pq.write_table(table.take(pa.array(rows)), given.folder / f"{split}.parquet")


if __name__ == "__main__":
    main()
