"""A name or text of a stranger is shown in a card as it is, and means nothing there."""

from __future__ import annotations

import pytest
import yaml
from markdown_it import MarkdownIt

from augkd.data.markdown import fenced, front_matter, markdown_code, markdown_text, one_line
from augkd.data.target import Target
from augkd.data.transfer_card import transfer_card
from augkd.data.transfer_set import in_memory
from augkd.evaluation.compare.table import comparison_table

HOSTILE = [
    "](javascript:alert(1))",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "# H",
    "a\n\n# H",
    "a\n---\nb: c\n---\n",
    "```\n<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "https://evil.example",
    "www.evil.example",
    "a | b |\n|---|---|",
    "*bold* _it_ __b__ ~~s~~ `code`",
    "`` ` ``",
    "&lt;b&gt;",
    "- item",
    "1. item",
    "+ item",
    "> quote",
    "[ref]: https://evil.example",
    "a\\",
    "$x$ @someone #12",
    "===",
    "  two  spaces\tand\r\nlines ",
]
PLAIN = ["minimax-knn", "mate_kd", "DESC", "SST-2, v1.0", "日本語", "it's 5 % of a/b; ok?"]


def markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def kinds(text: str) -> set[str]:
    tokens = markdown().parse(text)
    return {token.type for token in tokens} | {inner.type for token in tokens for inner in token.children or ()}


def shown(text: str) -> str:
    tokens = markdown().parse(text)
    return "".join(inner.content for token in tokens for inner in token.children or ())


@pytest.mark.parametrize("text", [*HOSTILE, *PLAIN])
def test_a_text_is_shown_as_it_is_and_means_nothing(text: str) -> None:
    for before in ("", "labels: ", "- item: "):
        written = f"{before}{markdown_text(text)}"
        assert shown(written) == f"{before.removeprefix('- ')}{one_line(text)}"
        plain = kinds(f"{before}x")
        assert kinds(written) <= plain | {"text_special"}


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_name_is_written_as_it_is(text: str) -> None:
    assert markdown_text(text) == text


@pytest.mark.parametrize("text", [*HOSTILE, *PLAIN])
def test_a_code_span_holds_all_of_its_text(text: str) -> None:
    (span,) = [inner for token in markdown().parse(f"a {markdown_code(text)} b") for inner in token.children or ()][
        1:-1
    ]
    assert (span.type, span.content.strip()) == ("code_inline", one_line(text))


@pytest.mark.parametrize("text", [*HOSTILE, *PLAIN])
def test_a_block_of_code_ends_after_its_text(text: str) -> None:
    tokens = markdown().parse("\n".join([*fenced(text, "yaml"), "after"]))
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content == text.replace("\r\n", "\n") + "\n"


@pytest.mark.parametrize("text", [*HOSTILE, *PLAIN])
def test_front_matter_ends_where_it_should_and_holds_the_text(text: str) -> None:
    before, head, after = front_matter({"pretty_name": text, "tags": [text]}).split("---\n")
    assert (before, after) == ("", "")
    assert yaml.safe_load(head) == {"pretty_name": one_line(text), "tags": [one_line(text)]}


@pytest.mark.parametrize("text", HOSTILE)
def test_labels_titles_and_sources_mean_nothing_in_the_card_of_a_transfer_set(text: str) -> None:
    labels = (text, f"{text} again")
    candidate = {"id": "c", "text": "x", "text_pair": None, "source": text, "score": 1.0, "teacher_logits": [0.0, 1.0]}
    row = {"id": "1", "text": "x", "text_pair": None, "label": labels[0], "teacher_logits": [0.0, 1.0]}
    rows = [{**row, "candidates": [candidate]}]
    transfer = in_memory(rows, Target(labels))
    card = transfer_card(transfer.table, transfer.target, text, [f"{text}: 5"], {"data_license": text})
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["pretty_name"] == one_line(text)
    plain = transfer_card(
        in_memory([{**row, "label": "a", "candidates": [candidate | {"source": "s"}]}], Target(("a", "b"))).table,
        Target(("a", "b")),
        "title",
        ["count: 5"],
        {"data_license": "cc0"},
    ).split("---\n", 2)[2]
    assert [token.type for token in markdown().parse(body)] == [token.type for token in markdown().parse(plain)]
    assert kinds(body) <= kinds(plain) | {"text_special"}


@pytest.mark.parametrize("text", HOSTILE)
def test_names_mean_nothing_in_a_comparison(text: str) -> None:
    def summary(task: str, first: str, second: str) -> str:
        scores = {"mean": 0.5, "sd": None, "values": [0.5]}
        difference = {"mean": 0.1, "sd": None, "values": [0.1], "interval": [0.0, 0.2], "p": 0.1, "verdict": "better"}
        cost = {
            **dict.fromkeys(("teacher_rows", "training_rows", "scoring_rows", "generator_rows"), 10),
            **{"seconds": {"student": 1.0}, "peak_rss_bytes": 1, "candidates": 4, "originals": 2},
            **{"generated_per_original": 0, "kept_per_original": 1, "parameters": 5},
        }
        row = {"seeds": 1, "validation": scores, "test": scores, "difference": difference, "gap_closed": None}
        return comparison_table(
            {
                **{"task": task, "metric": "accuracy", "split": "test", "examples": 5, "baseline": first},
                **{"gap_baseline": first, "comparisons": 1, "level": 0.95, "resamples": 100, "time_budget": None},
                **{"teacher": {"validation": 0.5, "test": 0.5}, "shared_seconds": {}, "runs": {}},
                "rows": [{**row, "recipe": name, "cost": cost} for name in (first, second)],  # type: ignore[typeddict-item]
            }
        )

    hostile, plain = summary(text, text, f"{text} again"), summary("task", "kd", "mine")
    assert [token.type for token in markdown().parse(hostile)] == [token.type for token in markdown().parse(plain)]
    assert kinds(hostile) <= kinds(plain) | {"text_special"}


def test_half_a_character_is_replaced_since_no_file_can_hold_it() -> None:
    assert markdown_text("a\ud800b") == "a?b"
    assert markdown_code("a\ud800b") == "`a?b`"
    assert front_matter({"pretty_name": "a\udfffb"}).encode()
