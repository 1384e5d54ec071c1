"""``result.json``: how a run ended and its figures at every site."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.config import Config
from common.files import read_json, write_json
from common.metrics import auc_interval, measure


def read_result(run: Path) -> dict[str, Any]:
    """Return ``result.json`` of a run's folder.

    Raises
    ------
    CheckpointError
        If it is missing or no JSON.
    """
    result: dict[str, Any] = read_json(run / "result.json")
    return result


def write_result(run: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json``, atomically; an undefined figure is null, since JSON has no NaN."""
    write_json(run / "result.json", _without_nan(result))


def subset_figures(
    labels: NDArray[Any], probabilities: NDArray[Any], seed: int
) -> dict[str, float | int]:
    """Return what ``result.json`` says of one site's subset.

    Parameters
    ----------
    labels : ndarray
        (n,) label of each image.
    probabilities : ndarray
        (n, classes) predicted probabilities.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        The five metrics, the loss and the number of images, and ``auc_low`` and ``auc_high``: the
        95 % percentile bootstrap interval of the AUC.
    """
    low, high = auc_interval(labels, probabilities, seed)
    return {**measure(labels, probabilities).as_dict(), "auc_low": low, "auc_high": high}


def differing_keys(stored: Config, wanted: Config) -> list[str]:
    """Return ``key (stored, wanted)`` for the differing keys that determine a run's result."""
    found = []
    for field, key in zip(type(stored).model_fields, stored.to_run_config(), strict=True):
        before, after = getattr(stored, field), getattr(wanted, field)
        if stored.model_copy(update={field: after}).digest() != stored.digest():
            found.append(f"{key} ({before!r} there, {after!r} here)")
    return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
