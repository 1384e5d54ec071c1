"""A study from its plan to its cells: what is done is kept, what is not is computed."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from common.config.schema import Config
from common.console.progress import ProgressListener, StepCounter
from common.data.cache import SiteData
from common.data.folds import split_site
from common.data.pictures import image_statistics
from common.device import choose_device
from common.errors import CheckpointError, RunError
from common.files import alone_in, why
from common.formatting.numbers import duration, size
from common.learning.local_site import open_site
from server.images import warn_of_images
from server.run_folder import clear_unbegun
from simulations.report.numbers import percent
from simulations.report.records import read_record
from simulations.runtime.processes import terminable
from simulations.study.cells import (
    Cell,
    cell_key,
    is_completed,
    read_cell,
    set_aside,
    site_digest,
    write_record,
)
from simulations.study.plan import PLAN, StudyPlan
from simulations.study.pool import Pool, Running, make_slots, usual_memory
from simulations.study.progress import StudyProgress, time_left
from simulations.study.sessions import note_session

CELLS = "cells"
POLL_SECONDS = 2.0


@dataclass
class Study:
    """A study under way."""

    plan: StudyPlan
    """What it is of."""
    folder: Path
    """Its folder."""
    keys: dict[Cell, str]
    """All cells, in the order in which they are computed, and what determines each."""
    sites: dict[str, SiteData]
    """Every site, decoded."""
    asked: tuple[Cell, ...]
    """Those that are to be computed; a comparison's report is of all that its folder holds."""
    done: dict[Cell, Mapping[str, Any]] = field(default_factory=dict)
    """What the records of the cells say that are known to be done."""
    failures: dict[Cell, str] = field(default_factory=dict)
    """Why cells of this session failed."""

    def path(self, cell: Cell) -> Path:
        """Return a cell's folder."""
        return self.folder / CELLS / f"{cell.name}-{self.keys[cell][:8]}"

    @property
    def memory(self) -> dict[str, int]:
        """The largest memory of a cell, by mode, in bytes."""
        largest = usual_memory(self.plan.backend)
        for cell, record in self.done.items():
            mode = cell.method.mode
            largest[mode] = max(largest[mode], int(record["peak_memory_bytes"]))
        return largest


def open_study(
    plan: StudyPlan,
    folder: Path,
    listener: ProgressListener,
    asked: tuple[Cell, ...] | None = None,
) -> Study:
    """Read the sites, so that every cell has its key, and refuse folds that no cell could use.

    Parameters
    ----------
    plan : StudyPlan
        The study.
    folder : Path
        Where it lies, or shall lie.
    listener : ProgressListener
        Told of the decoding.
    asked : tuple of Cell, optional
        Cells of the plan that are to be computed; all without it.

    Raises
    ------
    SiteError
        If a site is unfit, or a fold leaves it without images of a class, by training or test.
    RunError
        If the folder is something else's.
    """
    _refuse_other_folders(folder)
    digests, sites, statistics = {}, {}, {}
    try:
        for name in plan.config.site_names:
            counter = StepCounter(listener, f"preparing the images of {name}")
            site = open_site(plan.config, name, None, counter)
            sites[name], digests[name] = site, site_digest(site)
            splits = [split_site(site, plan.config.changed(fold=fold)) for fold in plan.folds]
            statistics[name] = image_statistics(site.images, splits[0].train)
    finally:
        listener.close()
    # Its cells say it in their own logs; nobody should read it there after a night of training.
    for warning in warn_of_images(statistics) if plan.config.site_statistics else ():
        listener.message(f"WARNING: {warning}")
    plan = with_threads(plan)
    keys = {cell: cell_key(cell, plan.config_of(cell), digests) for cell in plan.cells()}
    return Study(plan, folder, keys, sites, tuple(keys) if asked is None else asked)


def with_threads(plan: StudyPlan) -> StudyPlan:
    """Return a plan with the number of threads settled, which is part of what determines a cell.

    One for each cell lets the most cells run at once, which is faster than more for each.
    """
    if plan.config.threads or _gpus(plan.config):
        return plan
    return replace(plan, config=plan.config.changed(threads=1))


def _refuse_other_folders(folder: Path) -> None:
    """Refuse the folder of a run, and that of a comparison as it lay before it was a study."""
    if (folder / "config.toml").exists():
        raise RunError(
            f"{folder} is the folder of a run, not of a comparison or a study; choose another "
            "name (--name)."
        )
    if (folder / "comparison.toml").exists():
        raise RunError(
            f"{folder} holds a comparison of an earlier version of xsite, whose runs cannot be "
            "gone on with. Its report.html stays readable; choose another name (--name)."
        )


def run_study(
    study: Study,
    jobs: int,
    progress: StudyProgress,
    cell_done: Callable[[], object] = lambda: None,
) -> None:
    """Compute the cells that are not done, several at once; those that fail are noted.

    Parameters
    ----------
    study : Study
        As :func:`open_study` returns it.
    jobs : int
        How many cells at once; 0 lets the machine decide.
    progress : StudyProgress
        Told of progress.
    cell_done : callable
        Called after every cell, whether it is done or failed.

    Raises
    ------
    RunError
        If another process writes the folder, or it cannot be made.
    KeyboardInterrupt
        If it was stopped; the same call goes on.
    """
    try:
        (study.folder / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"Cannot make the folder {study.folder}: {why(error, study.folder)}"
        ) from error
    with alone_in(study.folder, "the study"):
        study.plan.write(study.folder / PLAN)
        todo = _sort_out(study, progress)
        if todo:
            _compute(study, todo, jobs, progress, cell_done)


def refuse_failures(study: Study) -> None:
    """Say which cells failed, if any did.

    Raises
    ------
    RunError
        Naming each and why.
    """
    if study.failures:
        told = "; ".join(f"{cell}: {why}" for cell, why in study.failures.items())
        raise RunError(
            f"{len(study.failures)} of {len(study.asked)} cells failed, the others are kept. "
            f"The same command tries them again. {told}"
        )


def _sort_out(study: Study, progress: StudyProgress) -> list[Cell]:
    """Find out which cells are to be computed; set damaged ones aside."""
    todo = []
    for cell in study.asked:
        path, key = study.path(cell), study.keys[cell]
        try:
            record = read_cell(path, key)
        except CheckpointError as error:
            record, place = None, set_aside(path)
            progress.message(
                f"{cell} is damaged: {error}. It is kept as {place.name}, and computed again."
            )
        if record is None and is_completed(path):
            # Ended after its parent was killed.
            record = write_record(path, cell, key, None, 0)
        if record is None:
            todo.append(cell)
        else:
            study.done[cell] = record
    _tell_of_others(study, progress)
    if study.done:
        progress.message(f"{len(study.done)} of {len(study.asked)} cells are done already.")
    return todo


def _tell_of_others(study: Study, progress: StudyProgress) -> None:
    """Say that cells of another configuration lie there; they are no part of this study."""
    own = {study.path(cell).name for cell in study.keys}
    names = {cell.name for cell in study.keys}
    found = [p.name for p in (study.folder / CELLS).iterdir() if (p / "config.toml").exists()]
    changed = [n for n in found if n not in own and n.rpartition("-")[0] in names]
    if changed:
        progress.message(
            f"{len(changed)} cells in {study.folder} were computed with another configuration, "
            "other images or another version of xsite. They stay where they are and take no "
            f"part (such as {changed[0]})."
        )


def _compute(
    study: Study,
    todo: list[Cell],
    jobs: int,
    progress: StudyProgress,
    cell_done: Callable[[], object],
) -> None:
    """Compute cells until none is left, or somebody asks to stop."""
    slots = make_slots(study.plan.config, jobs, _gpus(study.plan.config))
    progress.message(
        f"{study.folder}: {len(todo)} of {len(study.asked)} cells to compute, "
        f"{len(slots)} at once where memory allows."
    )
    scratch = study.folder / "output"
    pool = Pool(slots, scratch)
    ahead, again = list(todo), set[Cell]()
    began, most = datetime.now().astimezone().replace(microsecond=0), 0
    with terminable():
        try:
            while ahead or pool.running:
                while ahead and pool.has_room(study.memory, ahead[0].method.mode):
                    cell = ahead.pop(0)
                    path = study.path(cell)
                    resumed = clear_unbegun(path)
                    config = study.plan.config_of(cell)
                    pool.start(cell, path, config, resumed, study.plan.backend)
                    progress.message(f"{'Going on with' if resumed else 'Begun:'} {cell}")
                ended = pool.wait(POLL_SECONDS)
                most = max(most, sum(one.memory for one in pool.running))
                for one in ended:
                    if _conclude(study, one, again, progress):
                        ahead.insert(0, one.cell)
                if ended:
                    note_session(study.folder, began, len(slots), most)
                    cell_done()
                done = len(study.asked) - len(ahead) - len(pool.running) - len(study.failures)
                left = time_left(ahead, pool.running, study.done, len(slots))
                progress.update(done, len(study.asked), pool.running, left)
        except KeyboardInterrupt:
            progress.message("Stopping; what is computed is kept.")
            for one in pool.stop():
                if one.outcome == "done":
                    _conclude(study, one, again, progress)
            raise
        finally:
            pool.stop()
            note_session(study.folder, began, len(slots), most)
            progress.close()
            with suppress(OSError):
                # Unless a failure left something in it.
                scratch.rmdir()


def _conclude(study: Study, one: Running, again: set[Cell], progress: StudyProgress) -> bool:
    """Note how a cell ended, and say whether it is to be computed anew at once."""
    cell = one.cell
    if one.outcome == "done":
        seconds = None if one.resumed else one.seconds
        study.done[cell] = write_record(one.path, cell, study.keys[cell], seconds, one.peak)
        run = read_record(one.path)
        aucs = [f"{site} {percent(run.figure(site, 'auc'))}" for site in run.config.site_names]
        progress.message(
            f"Done: {cell}, {duration(one.seconds)}, {size(one.peak)} of memory; "
            f"AUC {', '.join(aucs)}"
        )
        return False
    if one.resumed and not one.done and cell not in again and one.path.exists():
        # It could not go on with what was there: that is damaged, and in the way.
        again.add(cell)
        place = set_aside(one.path)
        progress.message(
            f"{cell} cannot be gone on with: {one.reason} It is kept as {place.name}, and begun "
            "anew."
        )
        return True
    study.failures[cell] = one.reason
    progress.message(f"Failed: {cell}: {one.reason}")
    return False


def _gpus(config: Config) -> int:
    """Return how many GPUs the cells may use."""
    device = choose_device(config).device
    if device.type != "cuda":
        return 0
    return 1 if ":" in config.device else torch.cuda.device_count()
