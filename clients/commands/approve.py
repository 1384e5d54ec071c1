"""``xsite approve``: a person's yes to a run, at a site whose policy asks for one."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clients.egress.approval import approve as say_yes
from clients.egress.approval import requests
from common.config.load import describe
from common.console.text import say
from common.formatting.tables import plain_table, print_table


def approve(
    state: Annotated[Path, typer.Argument(metavar="DIR", help="The site's state-dir.")],
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run to say yes to.")
    ] = None,
) -> None:
    """List the runs that a site was asked to take part in, or say yes to one.

    Where the site's policy says approve-runs = true, nothing of a run is computed before. A yes
    holds for this configuration and this code; if one of them changes, it is asked for anew.
    """
    console, place = Console(), state.expanduser().absolute()
    if run is not None:
        said = say_yes(place, run, getpass.getuser())
        say(
            console,
            f"{said.site} takes part in the run '{run}' (approved by {said.approved_by}, "
            f"{said.approved}).",
        )
        return
    asked = requests(place)
    if not asked:
        say(console, f"{place} was not asked for any run.")
        return
    rows = [
        (r.run, r.asked, f"{r.approved_by}, {r.approved}" if r.approved else "no") for r in asked
    ]
    print_table(console, plain_table("Runs asked for", ("Run", "Asked", "Approved"), rows))
    defaults = {key: value for key, value, _ in describe()}
    for one in (request for request in asked if not request.approved):
        changed = {k: v for k, v in one.settings.items() if defaults.get(k) != v}
        print_table(
            console,
            plain_table(
                f"{one.run}: configuration where it is not the default",
                ("Key", "Value"),
                [(key, str(value)) for key, value in changed.items()],
            ),
        )
        say(console, f"Code: {one.code}. Say yes with: xsite approve {place} {one.run}")
