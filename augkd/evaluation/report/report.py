"""The page of `augkd report`: one HTML file about a run or a comparison that needs no network and no other file.

Texts come from corpora that nobody has read, so the page trusts none: Jinja escapes everything, data for the script is
JSON without <, > and &, the script adds texts as text nodes only, and a Content-Security-Policy admits only the one
script and the one style sheet whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augkd.errors import AugkdError, WorkspaceError
from augkd.evaluation.compare.schema import AverageSummary, ComparisonSummary
from augkd.evaluation.figures_read import read_figures
from augkd.workspace.files import sweep_writes_of, write_text
from augkd.workspace.locks import locked_unless_read_only
from augkd.workspace.manifests import MANIFEST, versions

LIMIT = 3_000_000  # bytes of the page
_PAGE = Path(__file__).parent / "page"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of a run's or a comparison's folder to `out` (default: folder/report.html); returns its path.

    The same folder gives the same bytes. Raises WorkspaceError when the folder is neither, is damaged, or is in use.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise AugkdError(f"augkd report needs {package}; pip install 'augkd[report]'")
    page = out or folder / "report.html"
    if page.is_dir():
        raise WorkspaceError(f"--out {page} is a folder; name the file to write, e.g. {page / 'report.html'}")
    if not (folder / "compare.json").exists() and not (folder / MANIFEST).exists():
        problem = "is neither a finished run nor a comparison" if folder.is_dir() else "does not exist"
        raise WorkspaceError(
            f"{folder} {problem}; give the --out folder of `augkd compare` or of a finished `augkd run`"
        )
    with locked_unless_read_only(folder):
        sweep_writes_of(page)
        comparison = (folder / "compare.json").exists()
        write_text(page, _comparison_page(folder, page) if comparison else _run_page(folder))
    return page


def _run_page(folder: Path) -> str:
    from augkd.evaluation.report.data import read_run
    from augkd.evaluation.report.explorer import explorer_data
    from augkd.evaluation.report.figures import StyleSheet
    from augkd.evaluation.report.run import run_sections

    run, sheet = read_run(folder), StyleSheet()
    sections = run_sections(run, sheet)
    title = f"{run.results['recipe']} on {run.results['task']}"
    if run.transfer is None:
        return render(title, sections, sheet.css, None)
    bare = render(title, sections, sheet.css, {"originals": 0, "shown": 0, "data": ""})
    room = LIMIT - len(bare.encode()) - 1000  # more than what the counts and the policy's hashes can add
    return render(title, sections, sheet.css, explorer_data(run.transfer, run.candidates, run.trace, room))


def _comparison_page(folder: Path, page: Path) -> str:
    from augkd.evaluation.report.compare import average_section, comparison_sections
    from augkd.evaluation.report.figures import StyleSheet

    path, sheet = folder / "compare.json", StyleSheet()
    if "tasks" in read_figures(path, dict):
        average = read_figures(path, AverageSummary)
        sections = [average_section(average, folder, page)]
        return render(f"Comparison on {', '.join(average['tasks'])}", sections, sheet.css, None)
    summary = read_figures(path, ComparisonSummary)
    sections = comparison_sections(summary, folder, page, sheet)
    return render(f"Comparison on {summary['task']}", sections, sheet.css, None)


def render(title: str, sections: Sequence[Any], css: str, data: dict[str, Any] | None) -> str:
    """The page's HTML. `css` is that of the plots; `data` is the explorer's, None for a page without one."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["svg"] = Markup  # matplotlib's SVG; matplotlib escapes its texts
    style = (_PAGE / "style.css").read_text(encoding="utf-8") + css
    script = (_PAGE / "explorer.js").read_text(encoding="utf-8") if data is not None else ""
    return environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        data=data,
        version=versions().get("augkd", "unknown"),
    )


def _policy(style: str, script: str) -> str:
    """No network, no forms, no frames; only the page's own style and script, by hash."""
    rules = ["default-src 'none'", f"style-src '{_hash(style)}'", "base-uri 'none'", "form-action 'none'"]
    if script:
        rules += [f"script-src '{_hash(script)}'", "require-trusted-types-for 'script'"]
    return "; ".join(rules)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
