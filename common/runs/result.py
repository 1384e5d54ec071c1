"""``config.toml`` and ``result.json``: what a run was asked, how it ended, its figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.config.load import load_config
from common.config.schema import Config
from common.data.folds import Leakage
from common.errors import RunError
from common.files import read_object, write_json
from common.tasks.figures import AUC_BOUNDS, auc_interval, measure


@dataclass(frozen=True)
class TrainingResult:
    """What ``result.json`` says of a completed run beyond its status: the same in every mode.

    Attributes
    ----------
    metrics : mapping
        Site → subset → figure → value, with the final weights.
    best : mapping
        Site → ``round`` and ``validation_auc`` of the weights that validation chose, and subset →
        figures with these; empty where it chose none.
    budget : mapping
        As :meth:`common.learning.schedule.Plan.budget` tells it.
    images_seen, train_images : mapping of str to int
        Site → images trained on, repetitions included; site → training images that it has.
    leakage : sequence of Leakage
        Of every site.
    network : str
        Its description.
    shared, private : sequence of str
        Names of the tensors.
    seconds : float
        Of all rounds.
    weights_digest : mapping of str to str
        SHA-256 of the final weights: of the shared ones, or by site where there are all.
    bytes_down, bytes_up : int
        To and from all sites; 0 where nothing is exchanged.
    device : str
        Where it trained; empty where every site has a device of its own.
    """

    metrics: Mapping[str, Any]
    best: Mapping[str, Any]
    budget: Mapping[str, int]
    images_seen: Mapping[str, int]
    train_images: Mapping[str, int]
    leakage: Sequence[Leakage]
    network: str
    shared: Sequence[str]
    private: Sequence[str]
    seconds: float
    weights_digest: Mapping[str, str]
    bytes_down: int = 0
    bytes_up: int = 0
    device: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written."""
        told = dict(vars(self))
        told["bytes"] = {"down": told.pop("bytes_down"), "up": told.pop("bytes_up")}
        told["leakage"] = [asdict(one) | {"sentence": one.sentence()} for one in self.leakage]
        if not self.device:
            del told["device"]
        return told


def read_result(run: Path) -> dict[str, Any]:
    """Return ``result.json`` of a run's folder.

    Raises
    ------
    CheckpointError
        If it is missing or no JSON object.
    """
    return read_object(run / "result.json")


def read_run_config(run: Path) -> Config:
    """Return the configuration that a run's folder holds.

    Raises
    ------
    RunError
        If the folder holds none.
    """
    path = run / "config.toml"
    if not path.is_file():
        raise RunError(f"{run} is not the folder of a run: it holds no config.toml.")
    return load_config(path)


def write_result(run: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json``, atomically; an undefined figure is null, since JSON has no NaN."""
    write_json(run / "result.json", without_nan(result))


def subset_figures(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    seed: int,
    figures: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return what ``result.json`` says of one site's subset.

    Parameters
    ----------
    labels : ndarray
        (n,) label of each image.
    probabilities : ndarray
        (n, classes) predicted probabilities.
    seed : int
        Seed of the bootstrap.
    figures : mapping of str to float, optional
        What a task measured; without it, those of a classification.

    Returns
    -------
    dict
        Every figure of the registry and the number of images, and ``auc_low`` and ``auc_high``:
        the 95 % percentile bootstrap interval of the AUC.
    """
    interval = auc_interval(labels, probabilities, seed)
    told = measure(labels, probabilities) if figures is None else dict(figures)
    return told | dict(zip(AUC_BOUNDS, interval, strict=True))


def differing_keys(stored: Config, wanted: Config) -> list[str]:
    """Return ``key (stored, wanted)`` for the differing keys that determine a run's result."""
    found = []
    for field, key in zip(type(stored).model_fields, stored.to_run_config(), strict=True):
        before, after = getattr(stored, field), getattr(wanted, field)
        if stored.model_copy(update={field: after}).digest() != stored.digest():
            found.append(f"{key} ({before!r} there, {after!r} here)")
    return found


def without_nan(value: Any) -> Any:
    """Return a nested value with None for every figure that is not finite: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
