"""The command that writes a report; everything it needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run or of a comparison.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write (DIR/report.html).")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write one HTML file about a run or a comparison; it needs no network. Example: augkd report runs/trec --open"""
    from augkd.evaluation.report.report import write_report

    page = write_report(folder, out)
    typer.echo(f"report: {page}")
    if open_:
        typer.launch(page.resolve().as_uri())
