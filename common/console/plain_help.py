"""Help as plain text."""

import click
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command whose help is plain text.

    Typer escapes brackets for rich wherever rich is installed, even where it does not print
    with it.
    """

    def get_help(self, ctx: click.Context) -> str:
        """Return the help without the escapes."""
        return super().get_help(ctx).replace("\\[", "[")
