"""The page of `augkd report`: one HTML file about a run or a comparison, that needs no network and no other file.

Texts come from corpora that nobody read, so the page trusts none: Jinja escapes everything, data for the script is
JSON without <, > and &, the script puts texts into the page as text nodes only, and a Content-Security-Policy lets
nothing run but the one script and nothing style but the one style sheet whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augkd.errors import AugkdError, WorkspaceError
from augkd.workspace.files import read_json, write_text
from augkd.workspace.manifests import MANIFEST, versions

LIMIT = 3_000_000  # bytes of the file
_PAGE = Path(__file__).parent / "page"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the report of a run's or a comparison's folder to `out` (folder/report.html) and returns where.

    The same folder gives the same bytes. Raises WorkspaceError when the folder is neither, or is damaged.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise AugkdError(f"augkd report needs {package}, which is not installed; pip install 'augkd[report]'")
    page = out or folder / "report.html"
    if page.is_dir():
        raise WorkspaceError(f"--out {page} is a folder; name the file to write, e.g. {page / 'report.html'}")
    if (folder / "compare.json").exists():
        text = _comparison_page(folder, page)
    elif (folder / MANIFEST).exists():
        text = _run_page(folder)
    else:
        state = "is neither a finished run nor a comparison" if folder.is_dir() else "does not exist"
        raise WorkspaceError(
            f"{folder} {state}; give the --out folder of `augkd run` (finished, with manifest.json) or `augkd compare`"
        )
    write_text(page, text)
    return page


def _run_page(folder: Path) -> str:
    from augkd.evaluation.report.data import read_run
    from augkd.evaluation.report.explorer import packed
    from augkd.evaluation.report.figures import Sheet
    from augkd.evaluation.report.run import run_sections

    run, sheet = read_run(folder), Sheet()
    sections = run_sections(run, sheet)
    title = f"{run.results['recipe']} on {run.results['task']}"
    if run.transfer is None:
        return render(title, sections, sheet.css, None)
    bare = render(title, sections, sheet.css, {"originals": 0, "shown": 0, "data": ""})
    room = LIMIT - len(bare.encode()) - 1000  # what the counts and the policy's hashes can differ by, and more
    return render(title, sections, sheet.css, packed(run.transfer, run.candidates, run.trace, room))


def _comparison_page(folder: Path, page: Path) -> str:
    from augkd.evaluation.report.compare import comparison_sections
    from augkd.evaluation.report.figures import Sheet

    value, sheet = read_json(folder / "compare.json"), Sheet()
    missing = [key for key in ("baseline", "rows") if key not in value]
    if missing:
        raise WorkspaceError(f"{folder / 'compare.json'} has no {missing[0]}, an older augkd wrote it; compare again")
    sections = comparison_sections(value, folder, page, sheet)
    about = ", ".join(value["tasks"]) if "tasks" in value else value["task"]
    return render(f"Comparison on {about}", sections, sheet.css, None)


def render(title: str, sections: Sequence[Any], css: str, data: dict[str, Any] | None) -> str:
    """The page. `css` comes from drawings; `data` is the explorer's, None for a page without one."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["drawing"] = Markup  # matplotlib's SVG, whose texts it escaped
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
    """No network, no forms, no frames; the page's own style and script by hash, no other."""
    rules = ["default-src 'none'", f"style-src '{_hash(style)}'", "base-uri 'none'", "form-action 'none'"]
    if script:
        rules += [f"script-src '{_hash(script)}'", "require-trusted-types-for 'script'"]
    return "; ".join(rules)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
