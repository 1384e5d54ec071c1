"""``xsite ledger``: what left a site, for those who answer for it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clients.egress.ledger import verify as check
from common.console.text import say
from common.files import write_atomic
from common.formatting.tables import print_table

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="The site's state-dir, or the folder 'ledger' in it or in a run."
    ),
]


def verify(
    folder: Folder,
    contains: Annotated[
        list[str] | None,
        typer.Option(
            "--contains", metavar="HASH", help="A last line's hash, noted elsewhere; repeatable."
        ),
    ] = None,
) -> None:
    """Check every line: exit code 0 if none was changed, lost or moved, 1 if one was.

    Print the hash of the last line. Noted where nobody at this machine can change it, it proves
    later, with --contains, that the ledger was not written anew.
    """
    place = _ledger(folder)
    head = check(place, [one.strip().lower() for one in contains or ()])
    typer.echo(f"{place}: {head.entries} lines, none of them changed.")
    typer.echo(f"Hash of the last line: {head.hash}")


def show(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="HTML", help="Write a page to this file.")
    ] = None,
) -> None:
    """Show what left, how much, when, what was held back, and that private tensors never left.

    The ledger is checked first. Exit code 1 if a private tensor is found among what left.
    """
    from clients.commands import ledger_page as page

    console, account = Console(), page.take_account(_ledger(folder))
    for what, answer in page.account_facts(account):
        say(console, f"{what}: {answer}")
    print_table(console, page.runs_table(account))
    held_back = page.held_back_table(account)
    if held_back is not None:
        print_table(console, held_back)
    for name in account.left:
        say(console, f"A private tensor left this site: {name}")
    if output is not None:
        write_atomic(output, page.render(account).encode())
        say(console, f"Page: {output}")
    else:
        say(console, "Every tensor, figure and line: --output PAGE.html")
    if account.left:
        raise typer.Exit(1)


def _ledger(folder: Path) -> Path:
    place = folder.expanduser().absolute()
    return place / "ledger" if (place / "ledger").is_dir() else place
