"""The command `augkd verify`: everything that augkd wrote in a folder, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from augkd.cli.printing import say
from augkd.cli.terminal import AsJson, show
from augkd.errors import WorkspaceError
from augkd.workspace.disk import size_text


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run, comparison, index, shard, transfer set, student or teacher.")
    ],
    as_json: AsJson = False,
) -> None:
    """Read every byte of what augkd wrote in DIR and compare it with its checksums; status 1 when a file is damaged.

    Example: augkd verify runs/trec
    """
    from augkd.workspace.verify import verify as verify_folder

    result = verify_folder(folder)
    rows = [vars(artefact) | {"folder": str(artefact.folder)} for artefact in result.artefacts]
    value: dict[str, Any] = {"artefacts": rows, "damaged": list(result.damaged)}
    lines = [
        f"{artefact.kind}: {artefact.folder}, {artefact.files} files, {size_text(artefact.bytes)}"
        for artefact in result.artefacts
    ]
    show(value, as_json, [*lines, f"{result.files} files compared, {size_text(result.bytes)}"])
    for line in result.damaged:
        say(f"damaged: {line}", err=True)
    if result.damaged:
        count = len(result.damaged)
        files = "1 file is" if count == 1 else f"{count} files are"
        raise WorkspaceError(f"{folder}: {files} damaged or missing; remove what is named above and make it again")
