"""A comparison: the training modes on the same folds and seeds, and a report that grows with it."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.errors import RunError, XsiteError
from common.files import alone_in
from common.formatting.numbers import duration, listed
from common.runs.folder import clear_unbegun
from simulations.comparison import (
    Cell,
    OngoingComparison,
    is_done,
    make_cells,
    make_comparison,
    publish,
    resolve_settings,
    time_left,
)
from simulations.report.records import LABELS

Train = Callable[[Config, Path, ProgressListener], Path]


def compare(
    config: Config,
    base: Path,
    seeds: Sequence[int],
    folds: Sequence[int],
    modes: Sequence[str],
    listener: ProgressListener,
) -> Path:
    """Train every mode on every fold with every seed, and write what came out.

    A comparison that exists is gone on with: completed runs are kept, interrupted and failed ones
    are resumed, folds, seeds and modes may be added. ``report.html``, ``comparison.json`` and
    ``comparison.csv`` are written after every run, so a killed comparison leaves what it has.

    Parameters
    ----------
    config : Config
        The configuration of all runs; its own fold and seed are not used. ``run-name`` names the
        comparison's folder; without it the folder is named by the configuration, so that the
        same command goes on with it.
    base : Path
        The folder of all runs.
    seeds, folds : sequence of int
        Which.
    modes : sequence of str
        ``"pooled"``, ``"federated"`` and ``"single"``, or some of them.
    listener : ProgressListener
        Told of progress.

    Returns
    -------
    Path
        ``report.html``.

    Raises
    ------
    ConfigError
        If there is no such mode or fold.
    RunError
        If the folder belongs to a comparison of another configuration, naming the keys; or at
        the end, if runs failed.
    KeyboardInterrupt
        If it was stopped.
    """
    cells = make_cells(config, seeds, folds, modes)
    ongoing = make_comparison(config, base, cells)
    with alone_in(ongoing.folder):
        resolve_settings(ongoing)
        todo = [cell for cell in cells if not is_done(ongoing, cell)]
        if len(todo) < len(cells):
            listener.message(f"{len(cells) - len(todo)} of {len(cells)} runs are complete already.")
        try:
            for cell in todo:
                _run(ongoing, cell, listener)
                publish(ongoing)
        except KeyboardInterrupt:
            page = publish(ongoing)
            listener.message(f"The same command goes on with the comparison. So far: {page}")
            raise
        page = publish(ongoing)
    if ongoing.failures:
        names = listed([cell.name for cell in ongoing.failures])
        raise RunError(
            f"{len(ongoing.failures)} of {len(cells)} runs failed: {names}. The same command tries "
            f"them again. The report of the others: {page}"
        )
    return page


def _run(ongoing: OngoingComparison, cell: Cell, listener: ProgressListener) -> None:
    """Do one run; a failure is noted, and the others go on."""
    number = ongoing.cells.index(cell) + 1
    left = time_left(ongoing, cell)
    told = f", about {duration(left)} left in all" if math.isfinite(left) else ""
    listener.message(
        f"Run {number} of {len(ongoing.cells)}: {LABELS[cell.mode].lower()} training, "
        f"fold {cell.fold}, seed {cell.seed}{told}"
    )
    path = ongoing.folder / cell.name
    config = ongoing.config.changed(
        fold=cell.fold, seed=cell.seed, run_name=cell.name, resume=clear_unbegun(path)
    )
    started = time.monotonic()
    try:
        trainer(cell.mode)(config, ongoing.folder, listener)
    except Exception as error:
        # Whatever one run died of, the others may live.
        reason = str(error) if isinstance(error, XsiteError) else f"{type(error).__name__}: {error}"
        ongoing.failures[cell] = reason
        listener.message(f"{cell.name} failed: {reason}")
    else:
        ongoing.seconds[cell] = time.monotonic() - started
    finally:
        listener.close()


def trainer(mode: str, backend: str = "ray") -> Train:
    """Return the function that trains in a mode; federated, on a backend."""
    if mode == "federated":
        from simulations.federated import backend_named, train_federated

        return partial(train_federated, backend=backend_named(backend))
    from simulations.local import train_pooled, train_single

    return train_pooled if mode == "pooled" else train_single
