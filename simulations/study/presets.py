"""Presets of a study: the comparison of the training modes, and the demonstration."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from common.config.load import load_config
from common.config.schema import Config, keys_of
from common.config.sections import Role
from common.console.progress import ProgressListener, make_listener
from common.console.text import say
from common.errors import ConfigError, RunError
from common.formatting.numbers import listed
from common.formatting.tables import print_table
from common.methods.method import Mode, Variant
from server.run_folder import differing_keys
from simulations.report.tables import metrics_table
from simulations.report.terminal import fitted
from simulations.study.plan import PLAN, StudyPlan, check, read_file
from simulations.study.progress import StudyProgress
from simulations.study.publish import publish
from simulations.study.run import (
    open_study,
    refuse_failures,
    run_study,
    with_threads,
)

# A link to configs/demo.toml, which an installed copy of xsite does not have.
DEMO = Path(__file__).with_name("demo.toml")
MODES: dict[Mode, str] = {"pooled": "Pooled", "federated": "Federated", "single": "Single-site"}
REFERENCE = "pooled"
KEPT = ("Accuracy", "AUC")
"""Columns of the terminal's table that have their place on the narrowest screen."""


def comparison(
    config: Config, seeds: Sequence[int], folds: Sequence[int], modes: Sequence[str]
) -> StudyPlan:
    """Make the plan of a comparison of training modes.

    Parameters
    ----------
    config : Config
        The configuration of all runs; its own fold, seed and folder are not used.
    seeds, folds : sequence of int
        Which.
    modes : sequence of str
        ``"pooled"``, ``"federated"`` and ``"single"``, or some of them.

    Raises
    ------
    ConfigError
        If there is no such mode or fold, or nothing to run.
    """
    for mode in modes:
        if mode not in MODES:
            raise ConfigError(f"There is no mode '{mode}'; there are {listed(list(MODES))}.")
    if not (seeds and folds and modes):
        raise ConfigError("A comparison needs at least one seed, one fold and one mode.")
    config = config.changed(fold=0, seed=0, run_name="", runs_dir="", resume=False)
    sites = config.site_names
    where = listed(sites) if len(sites) <= 4 else f"{len(sites)} sites"
    chosen = {mode: label for mode, label in MODES.items() if mode in modes}
    named = listed([label.lower() for label in chosen.values()])
    # A method sets the keys by which methods differ; a mode leaves them as they are.
    values = config.to_run_config()
    settings = {key: values[key] for key in keys_of(Role.METHOD)}
    plan = StudyPlan(
        title=f"{named[:1].upper()}{named[1:]} training at {where}",
        methods=tuple(Variant(mode, label, mode, settings) for mode, label in chosen.items()),
        folds=tuple(dict.fromkeys(folds)),
        seeds=tuple(dict.fromkeys(seeds)),
        reference=REFERENCE if REFERENCE in modes else "",
        config=config,
        comparison=True,
    )
    check(plan)
    return plan


def joined(plan: StudyPlan, folder: Path) -> StudyPlan:
    """Return a comparison with all that its folder was asked for before.

    Raises
    ------
    RunError
        If the folder holds another comparison, naming the keys, or something else.
    """
    if not (folder / PLAN).exists():
        return plan
    earlier = read_file(folder / PLAN)
    if not earlier.preset:
        raise RunError(f"{folder} holds a study, not a comparison; choose another name (--name).")
    stored = load_config(None, earlier.run)
    if differing := differing_keys(stored, plan.config):
        raise RunError(
            f"The comparison in {folder} has another configuration: {'; '.join(differing)}. "
            "Choose another name (--name), or change these back."
        )
    return comparison(
        plan.config,
        sorted({*earlier.seeds, *plan.seeds}),
        sorted({*earlier.folds, *plan.folds}),
        [*earlier.methods, *(method.name for method in plan.methods)],
    )


def compare(
    config: Config,
    base: Path,
    seeds: Sequence[int],
    folds: Sequence[int],
    modes: Sequence[str],
    listener: ProgressListener,
    progress: StudyProgress,
) -> Path:
    """Train every mode on every fold with every seed, and write what came out.

    A comparison that exists is gone on with: completed runs are kept, interrupted and failed ones
    are resumed, folds, seeds and modes may be added. The report is written after every run, so a
    killed comparison leaves what it has.

    Parameters
    ----------
    config, seeds, folds, modes
        As for :func:`comparison`. ``run-name`` names the comparison's folder; without it the
        folder is named by the configuration, so that the same command goes on with it.
    base : Path
        The folder of all runs.
    listener : ProgressListener
        Told of the decoding.
    progress : StudyProgress
        Told of the runs.

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
    plan = comparison(config, seeds, folds, modes)
    folder = base.absolute() / (config.run_name or f"compare-{plan.config.digest()[:8]}")
    plan = with_threads(plan)
    study = open_study(joined(plan, folder), folder, listener, plan.cells())
    try:
        run_study(study, 0, progress, lambda: publish(study, listener))
    except KeyboardInterrupt:
        page, _ = publish(study, listener)
        progress.message(f"The same command goes on with the comparison. So far: {page}")
        raise
    page, results = publish(study, listener)
    console = Console()
    print_table(console, fitted(metrics_table(results), KEPT, console.width))
    say(console, f"Report: {page}")
    refuse_failures(study)
    return page


def demonstrate(runs: Path | None = None, name: str | None = None) -> Path:
    """Compare the three modes on two synthetic hospitals; a few minutes on two cores.

    Parameters
    ----------
    runs : Path, optional
        The folder of all runs; ``./runs`` without it.
    name : str, optional
        Name of the comparison's folder; ``demo`` without it.

    Returns
    -------
    Path
        ``report.html``.

    Raises
    ------
    RunError
        If a run fails, or the folder holds something else.
    """
    config = load_config(DEMO, {"run-name": name or "demo"})
    base = runs or Path("runs")
    return compare(config, base, (0,), (0,), tuple(MODES), make_listener(), StudyProgress())
