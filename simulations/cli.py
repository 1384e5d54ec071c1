"""The command ``xsite``."""

import contextlib
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click
import typer
from typer.core import TyperGroup

from clients.commands import approve, check_site, ledger, onboard, predict
from common.errors import XsiteError, one_line
from simulations.commands import about, compare, deploy, study, synth, train
from simulations.commands.resume_hint import ResumeHint

INTERRUPTED = 130
UNEXPECTED = 70


class GuardedGroup(TyperGroup):
    """Commands whose errors are a sentence on standard error, never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a person meets them."""
        return ["train", *(name for name in super().list_commands(ctx) if name != "train")]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn what goes wrong into a sentence and an exit code."""
        trail = ctx.ensure_object(ResumeHint)
        try:
            return super().invoke(ctx)
        except XsiteError as error:
            _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _say_how_to_resume(trail)
            raise typer.Exit(INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            _complain_of_a_file(error, trail)
            raise typer.Exit(XsiteError.exit_code) from error
        except Exception as error:
            _complain_of_unexpected(error, trail)
            raise typer.Exit(UNEXPECTED) from error


app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help appears in half the time that rich help takes to import.
    rich_markup_mode=None,
    help=(
        "Train one image classifier across hospitals that may not pool their images, and "
        "compare it with pooled and single-site training of the same network."
    ),
    epilog="Begin with: xsite demo",
)
app.add_typer(train.app, name="train", short_help="Train federated, pooled or single-site.")
compare.register(app)
study.register(app)
predict.register(app)
onboard.register(app)
check_site.register(app)
synth.register(app)
app.add_typer(deploy.app, name="deploy", short_help="Go from simulation to hospitals.")
approve.register(app)
app.add_typer(ledger.app, name="ledger", short_help="Check and show what left a site.")
about.register(app)


def main() -> None:
    """Run the command ``xsite``."""
    app()


def _complain(sentence: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def _say_how_to_resume(trail: ResumeHint) -> None:
    if trail.run is not None and (trail.run / "config.toml").is_file():
        _complain(f"Stopped. Go on with: {trail.resume_command}")
    else:
        _complain("Stopped.")


def _complain_of_a_file(error: OSError, trail: ResumeHint) -> None:
    """Say which file cannot be used, and why: a name too long, a failing disk, no permission."""
    where = f" {error.filename}" if error.filename else " a file"
    _complain(one_line(f"Cannot use{where}: {error.strerror or error}."))
    if trail.run is not None and (trail.run / "log.txt").is_file():
        _keep("".join(traceback.format_exception(error)), trail)


def _complain_of_unexpected(error: Exception, trail: ResumeHint) -> None:
    """Say what happened in a sentence and put the traceback where it can be read."""
    if type(error).__name__ == "OutOfMemoryError":
        _complain("The GPU has too little free memory. Lower batch-size, image-size or width.")
        return
    text = "".join(traceback.format_exception(error))
    path = _keep(text, trail)
    where = f" The traceback is in {path}." if path is not None else f"\n{text}"
    _complain(f"An error that xsite did not foresee: {_first_line(error)}.{where}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{f' ({lines[0]})' if lines else ''}"


def _keep(text: str, trail: ResumeHint) -> Path | None:
    if trail.run is not None and (trail.run / "log.txt").is_file():
        with contextlib.suppress(OSError), (trail.run / "log.txt").open("a") as log:
            log.write(text)
            return trail.run / "log.txt"
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix="xsite-error-", suffix=".txt", delete=False
        ) as file,
    ):
        file.write(text)
        return Path(file.name)
    return None
