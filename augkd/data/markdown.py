"""Names and texts of strangers in Markdown: a label may be `](javascript:…)`, `# A heading` or `---`.

Cards are shown on the Hub, and comparisons in issues; both show HTML, links and images that their text asks for.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

# What CommonMark and GitHub give a meaning anywhere in a line: an underscore only at the edge of a word, a colon and a
# dot only in an address.
_ANYWHERE = re.compile(r"[\\`*\[\]<>()!#|~&$@^{}=]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
_AT_START = re.compile(r"^(\d*)([-+.)])")  # of a line: a list


def markdown_text(text: object) -> str:
    """`text` in one line of Markdown that shows it as it is."""
    escaped = _ANYWHERE.sub(lambda match: f"\\{match[0]}", one_line(text))
    return _AT_START.sub(r"\1\\\2", escaped)


def markdown_code(text: object) -> str:
    """`text` as a code span of one line, whatever backticks it holds."""
    line = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def fenced(text: str, language: str) -> list[str]:
    """The lines of a code block, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}{language}", *text.split("\n"), fence]


def front_matter(values: Any) -> str:
    """The front matter of a card: YAML between two lines of dashes, of which the values can hold none."""
    written = yaml.safe_dump(_in_one_line(values), sort_keys=False, allow_unicode=True, width=2**31)
    return f"---\n{written}---\n"


def one_line(text: object) -> str:
    """`text` without line breaks, in which a card could break too, and without half characters, which no file holds."""
    return " ".join(str(text).encode("utf-8", "replace").decode().split())


def _in_one_line(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_one_line(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_one_line(inner) for inner in value]
    return one_line(value) if isinstance(value, str) else value
