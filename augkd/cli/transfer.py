"""The commands of `augkd transfer`: a transfer set to read, as JSONL for other tools, and its card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augkd.cli.printing import say
from augkd.cli.terminal import AsJson, Bars, show
from augkd.workspace.storage import refuse_url, url_of

if TYPE_CHECKING:
    from augkd.data.transfer_set import TransferSet

transfer_app = typer.Typer(no_args_is_help=True, help="Look at a transfer set, convert it, write its card.")

Folder = Annotated[Path, typer.Argument(metavar="DIR", callback=refuse_url, help="The folder of a transfer set.")]
Read = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of a transfer set, or its URL in object storage.")
]


@transfer_app.command("show")
def show_(
    folder: Read,
    n: Annotated[int, typer.Option("-n", min=1, help="How many labelled texts (default: 3).")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show labelled texts with their candidates and what the teacher predicts for each.

    Example: augkd transfer show runs/trec/transfer_set -n 3
    """
    from augkd.data.transfer_set import describe

    transfer = _opened(folder)
    rows = transfer.table.slice(0, n).to_pylist()
    show(rows, as_json, [line for row in rows for line in describe(row, transfer.labels)])


@transfer_app.command()
def jsonl(
    folder: Read,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", callback=refuse_url, help="The file to write.")],
) -> None:
    """Write the JSONL that Minimax-kNN and Glitter read: guid, label, text_a, text_b, augmented_samples.

    Example: augkd transfer jsonl runs/trec/transfer_set --out augmented.jsonl
    """
    transfer = _opened(folder)
    transfer.write_jsonl(out)
    say(f"{len(transfer)} rows: {out}")


@transfer_app.command()
def card(
    folder: Folder,
    name: Annotated[str | None, typer.Option("--name", help="Its title (default: the name of the task).")] = None,
) -> None:
    """Write README.md, the data set card: what is in it, where its texts come from, how to load it.

    Example: augkd transfer card runs/trec/transfer_set
    """
    from augkd.data.transfer_set import write_card_again

    say(f"card: {write_card_again(folder, name)}")


def _opened(folder: Path) -> TransferSet:
    from augkd.data.given_transfer_set import locate_transfer_set
    from augkd.data.transfer_set import TransferSet

    url = url_of(folder)
    with Bars() as bars:
        return TransferSet.open(folder if url is None else locate_transfer_set(url, bars))
