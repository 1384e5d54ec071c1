"""Run folders with figures that a test chose, laid out as a run writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config.schema import Config
from common.files import write_json
from common.runs.predictions import PredictionsTable, write_predictions
from common.tensor_files import save_tensors
from server.metrics import MetricsRow, write_rows

FIGURES = ("accuracy", "f1", "sensitivity", "precision", "specificity", "auc")


def fabricate_run(
    base: Path,
    mode: str,
    auc: Mapping[str, float],
    fold: int = 0,
    seed: int = 0,
    status: str = "completed",
    curve: Sequence[float] = (0.5,),
    result: Mapping[str, Any] | None = None,
    files: str = "covid/{}.png",
    **config: Any,
) -> Path:
    """Write a run in which every metric but the AUC is 0.1 less than the AUC.

    ``curve`` holds what each round adds, as a share of the way to the final AUC.
    """
    settings = Config(sites=",".join(auc), fold=fold, seed=seed, **config)
    run = base / f"{mode}-fold{fold}-seed{seed}"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(settings.to_toml())
    environment = {
        "python": "3.11.9",
        "packages": {"torch": "2.9.0", "flwr": None},
        "code_fingerprint": "f" * 64,
        "git": {"revision": "a" * 40, "dirty": False},
        "cpu": "Some Processor",
        "cores": 2,
        "gpus": [],
    }
    write_json(run / "environment.json", environment)
    told: dict[str, Any] = {"status": status, "mode": mode, "seconds": 75.0, "reason": ""}
    if status == "completed":
        told["metrics"] = {site: {"test": figures(value)} for site, value in auc.items()}
        told["train_images"] = dict.fromkeys(auc, 90)
        told["leakage"] = [leakage_of(site) for site in auc]
        _write_weights(run, list(auc))
    write_json(run / "result.json", told | dict(result or {}))
    write_rows(run / "metrics.csv", _rows(mode, auc, curve))
    for site, value in auc.items():
        _write_predictions(run / "sites" / site / "predictions.csv", value, files)
    return run


def figures(auc: float) -> dict[str, float]:
    others = dict.fromkeys(FIGURES[:-1], auc - 0.1)
    return {**others, "auc": auc, "auc_low": auc - 0.04, "auc_high": auc + 0.03, "images": 30}


def leakage_of(site: str, unit: str = "patient", shared: int = 0) -> dict[str, Any]:
    return {
        "site": site,
        "unit": unit,
        "patients": 40,
        "shared_patients": shared,
        "shared_images": 2 * shared,
        "unknown": 0,
        "sentence": f"{site}: split by {unit}, {shared} of 40 patients are in both.",
    }


def _rows(mode: str, auc: Mapping[str, float], curve: Sequence[float]) -> list[MetricsRow]:
    federated = mode == "federated"
    return [
        MetricsRow(
            round=number,
            step=10 * number,
            site=site,
            subset="test",
            figures={"auc": 0.5 + share * (value - 0.5)},
            images_seen=160 * number,
            bytes_down=3_000_000 if federated else 0,
            bytes_up=2_000_000 if federated else 0,
        )
        for number, share in enumerate(curve, start=1)
        for site, value in auc.items()
    ]


def _write_weights(run: Path, sites: Sequence[str]) -> None:
    save_tensors(run / "shared.safetensors", {"conv.weight": torch.zeros(4, 3, 5, 5)})
    for site in sites:
        private = {f"norm.sites.{site}.weight": torch.zeros(4)}
        save_tensors(run / "sites" / site / "private.safetensors", private)


def _write_predictions(path: Path, auc: float, files: str) -> None:
    """Write 20 + 20 images whose scores overlap the more, the lower the AUC."""
    labels = np.repeat([0, 1], 20)
    shift = 2 * (auc - 0.5)
    score = np.concatenate([np.linspace(0, 1, 20), np.linspace(0, 1, 20) + shift]) / 2
    probabilities = np.stack([1 - score, score], axis=1)
    names = [files.format(number) for number in range(40)]
    write_predictions(
        path, {"test": PredictionsTable(names, labels, probabilities, ("non-covid", "covid"))}
    )
