"""A plan says what a recipe would do, how much of it, and no more than fits a screen."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from augkd.recipe import load_recipe
from augkd.runs.plan import plan


def test_a_long_list_of_classes_is_cut_and_counted(recipe_file: Path, tmp_path: Path) -> None:
    rows = "".join(f"text {n} of class {n % 77},class-{n % 77:02}\n" for n in range(770))
    (tmp_path / "many.csv").write_text(f"text,label\n{rows}")
    lines = list(plan(load_recipe(str(recipe_file), [f"task={tmp_path / 'many.csv'}"])))
    (classes,) = [line for line in lines if "77 classes" in line]
    assert "class-11, … (65 more)" in classes
    assert "class-12" not in classes
    assert len(classes) < 200


def test_a_short_list_of_classes_is_shown_whole(recipe_file: Path) -> None:
    assert any("3 classes: animal, food, tool; metric" in line for line in plan(load_recipe(str(recipe_file))))


def test_re_ranking_is_priced_beside_a_full_encode(recipe_file: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(200)]}), tmp_path / "corpus.parquet")
    static = "data.neighbours.index.encoder={kind: static, dim: 16, rerank: 100}"
    changes = [static, f"data.neighbours.index.corpus={tmp_path / 'corpus.parquet'}"]
    (line,) = [line for line in plan(load_recipe(str(recipe_file), changes)) if "re-ranking" in line]
    # 90 queries × 100 texts are more than the corpus has: the queries and each of its 200 texts are encoded once
    assert "re-ranking 90 queries: at most 290 texts through" in line
    assert "1.45 of what indexing with it would take" in line
    assert not any("re-ranking" in line for line in plan(load_recipe(str(recipe_file))))
