"""The command ``xsite``."""

import contextlib
import shlex
import tempfile
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from common.console.text import say, settle_encodings
from common.errors import XsiteError, missing_extra, one_line
from common.files import file_of, why
from simulations.commands import ResumeHint

INTERRUPTED = 130
UNEXPECTED = 70


class PlainCommand(TyperCommand):
    """A command whose help is plain text.

    Typer escapes brackets for rich wherever rich is installed, even where it does not print
    with it.
    """

    def get_help(self, ctx: click.Context) -> str:
        """Return the help without the escapes."""
        return super().get_help(ctx).replace("\\[", "[")


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when one of them is given, and not for a list of them.

    Parameters
    ----------
    places : mapping of str to (str, str) or Group
        By a command's name, the module that holds the function of this name, and a line on what
        it does; or a group.
    """

    def __init__(
        self, places: Mapping[str, tuple[str, str] | click.Group], **settings: Any
    ) -> None:
        super().__init__(
            no_args_is_help=True,
            # Plain help appears in half the time that rich help takes to import.
            rich_markup_mode=None,
            # Click suggests by itself.
            suggest_commands=False,
            **settings,
        )
        self.places = places
        self.commands = {
            name: place if isinstance(place, click.Group) else click.Command(name, help=place[1])
            for name, place in places.items()
        }

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that is given."""
        name, command, rest = super().resolve_command(ctx, args)
        place = self.places.get(name or "")
        if name and isinstance(place, tuple):
            function = getattr(import_module(place[0]), name.replace("-", "_"))
            made = typer.Typer(rich_markup_mode=None, add_completion=False)
            made.command(name, cls=PlainCommand)(function)
            command = typer.main.get_command(made)
        return name, command, rest


class GuardedGroup(LazyGroup):
    """Commands whose errors are a sentence on standard error, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn what goes wrong into a sentence and an exit code."""
        trail = ctx.ensure_object(ResumeHint)
        try:
            return super().invoke(ctx)
        except XsiteError as error:
            _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            begun = trail.run is not None and (trail.run / "config.toml").is_file()
            command = f"{trail.command} --resume {shlex.quote(str(trail.run))}"
            _complain(f"Stopped. Go on with: {command}" if begun else "Stopped.")
            raise typer.Exit(INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            _complain_of_a_file(error, trail)
            raise typer.Exit(XsiteError.exit_code) from error
        except Exception as error:
            if lacking := _what_is_lacking(error):
                _complain(lacking)
                raise typer.Exit(XsiteError.exit_code) from error
            _complain_of_unexpected(error, trail)
            raise typer.Exit(UNEXPECTED) from error


TRAIN = LazyGroup(
    {
        "federated": (
            "simulations.commands.train",
            "Every site for itself; weights are averaged.",
        ),
        "pooled": ("simulations.commands.train", "One network on the images of all sites."),
        "single": ("simulations.commands.train", "A network for every site."),
    },
    help="Train one run: federated, pooled or single-site.",
    short_help="Train federated, pooled or single-site.",
    epilog="Example: xsite train pooled --data /data/sites --epochs 20 --name first",
)
DEPLOY = LazyGroup(
    {
        "init": ("server.commands.deploy_init", "Make a folder for every role."),
        "up": ("simulations.commands.deploy", "Run a real deployment on this machine."),
        "run": ("simulations.commands.deploy", "Run a configuration over the consortium."),
    },
    help="Go from simulation to hospitals: certificates, keys, scripts and checklists.",
    short_help="Go from simulation to hospitals.",
)
LEDGER = LazyGroup(
    {
        "verify": ("clients.commands.ledger", "Say whether a line was changed."),
        "show": ("clients.commands.ledger", "Show what left, and what did not."),
    },
    help="Check and show a site's ledger: every message that left it, or was held back.",
    short_help="Check and show what left a site.",
)
# In the order in which a person meets them.
app = GuardedGroup(
    {
        "train": TRAIN,
        "compare": ("simulations.commands.study", "Train all modes and write a report."),
        "demo": ("simulations.commands.study", "Compare on synthetic hospitals."),
        "study": ("simulations.commands.study", "Compare methods on folds and seeds."),
        "predict": ("clients.commands.predict", "Classify images with a run's network."),
        "onboard": ("clients.commands.predict", "Take in a hospital that has no labels yet."),
        "check-site": ("clients.commands.check_site", "Say whether a site's folder is fit."),
        "preview": ("clients.commands.preview", "Write an image as the network gets it."),
        "synth": ("simulations.commands.synth", "Write synthetic hospitals."),
        "deploy": DEPLOY,
        "approve": ("clients.commands.approve", "Say yes to a run, at a hospital."),
        "ledger": LEDGER,
        "config": ("simulations.commands.about", "List the configuration keys."),
        "methods": ("simulations.commands.about", "List the compared methods."),
        "version": ("simulations.commands.about", "Print versions."),
    },
    help=(
        "Train one image classifier across hospitals that may not pool their images, and "
        "compare it with pooled and single-site training of the same network."
    ),
    epilog="Begin with: xsite demo",
)


def main() -> None:
    """Run the command ``xsite``."""
    settle_encodings()
    app()


def _complain(sentence: str) -> None:
    say(Console(stderr=True), sentence, "red")


def _complain_of_a_file(error: OSError, trail: ResumeHint) -> None:
    """Say which file cannot be used, why, and what to do: a full disk, no permission, a limit."""
    begun = trail.run is not None and (trail.run / "log.txt").is_file()
    kept = None
    path = file_of(error)
    if begun or path is None:
        kept = _keep("".join(traceback.format_exception(error)), trail)
    told = f" Which file, the traceback in {kept} says." if kept and path is None else ""
    explained = why(error, path or trail.run or Path.cwd())
    _complain(one_line(f"Cannot use {path or 'a file'}: {explained}{told}"))


def _what_is_lacking(error: Exception) -> str:
    """Return what this machine lacks, and what to do; '' where the error does not say so."""
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error.name or "")
    if type(error).__name__ == "OutOfMemoryError":
        return "The GPU has too little free memory. Lower batch-size, image-size or width."
    # PyTorch has no class of its own for it.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return (
            "This machine has too little free memory. Lower batch-size, image-size or width, or "
            "compute fewer sites or cells at once."
        )
    return ""


def _complain_of_unexpected(error: Exception, trail: ResumeHint) -> None:
    """Say what happened in a sentence and put the traceback where it can be read."""
    text = "".join(traceback.format_exception(error))
    path = _keep(text, trail)
    where = f" The traceback is in {path}." if path is not None else f"\n{text}"
    said = "".join(f" ({line})" for line in str(error).strip().splitlines()[:1])
    _complain(f"An error that xsite did not foresee: {type(error).__name__}{said}.{where}")


def _keep(text: str, trail: ResumeHint) -> Path | None:
    # It may name a file whose name is no text.
    content = text.encode(errors="backslashreplace")
    if trail.run is not None and (log := trail.run / "log.txt").is_file():
        with contextlib.suppress(OSError), log.open("ab") as file:
            file.write(content)
            return log
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(prefix="xsite-error-", suffix=".txt", delete=False) as kept,
    ):
        kept.write(content)
        return Path(kept.name)
    return None
