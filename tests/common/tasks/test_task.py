"""A task of three heads goes from a folder to predictions by being written down, nothing else."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from common.config.load import make_config
from common.config.schema import Config
from common.data.folder import CLASS, SiteFolder, read_site
from common.errors import ConfigError
from common.learning.evaluation import decide, evaluate_site
from common.learning.local_site import LocalSite, open_site
from common.learning.loop import train
from common.learning.optimiser import make_optimizer
from common.models.heads import class_head
from common.models.sharing import private_names, shared_names
from common.runs.predictions import read_predictions, write_predictions
from common.tasks.figures import measure
from common.tasks.task import TASKS, Task, task_layout, task_network, task_of
from tests.common.small_training import CPU64

FINDINGS = ("low", "high", "odd")
UNKNOWN = -1
GRID = 4


class Findings:
    """The class; three findings of which each may be unknown; and where an image is bright."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def targets(self, folder: SiteFolder) -> Mapping[str, NDArray[Any]]:
        cells = zip(*(folder.columns[name] for name in FINDINGS), strict=True)
        known = {"1": 1, "0": 0, "": UNKNOWN}
        masks = [Image.open(folder.root / "masks" / file) for file in folder.files]
        return {
            CLASS: folder.labels,
            "findings": np.array([[known[cell] for cell in row] for row in cells]),
            "mask": np.stack([np.asarray(mask) > 0 for mask in masks]).astype(np.float64),
        }

    def heads(self, embedding: int) -> Mapping[str, nn.Module]:
        return {
            CLASS: class_head(self.config, embedding),
            "findings": nn.Linear(embedding, len(FINDINGS)),
            "mask": nn.Sequential(nn.Linear(embedding, GRID**2), nn.Unflatten(1, (GRID, GRID))),
        }

    def loss(self, output: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        truth = targets["findings"]
        known = truth != UNKNOWN
        each = F.binary_cross_entropy_with_logits(
            output["findings"], truth.clamp_min(0).to(output["findings"].dtype), reduction="none"
        )
        findings = (each * known).sum() / known.sum().clamp_min(1)
        mask = F.binary_cross_entropy_with_logits(output["mask"], targets["mask"])
        return F.cross_entropy(output[CLASS], targets[CLASS]) + findings + mask

    def decide(self, output: Mapping[str, Tensor]) -> Mapping[str, NDArray[Any]]:
        return {
            CLASS: output[CLASS].softmax(dim=1).numpy(),
            "findings": output["findings"].sigmoid().numpy(),
            "area": output["mask"].sigmoid().mean(dim=(1, 2)).numpy(),
        }

    def figures(
        self, decided: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, float]:
        told = dict(measure(targets[CLASS], decided[CLASS]))
        for place, name in enumerate(FINDINGS):
            truth = targets["findings"][:, place]
            known = truth != UNKNOWN
            right = (decided["findings"][known, place] > 0.5) == truth[known]
            told[f"accuracy_{name}"] = float(right.mean()) if known.any() else math.nan
        return told


def a_task(config: Config) -> Task:
    """Say to mypy that it is one."""
    return Findings(config)


def cell(number: int, place: int) -> str:
    """Of four images one says nothing; 'odd' is never known of even numbers."""
    if (number + place) % 4 == 0 or (place == 2 and number % 2 == 0):
        return ""
    return str((number + place) % 2)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(TASKS, "findings", a_task)
    root, generator = tmp_path / "data" / "a", np.random.default_rng(0)
    rows = []
    for label in ("non-covid", "covid"):
        (root / label).mkdir(parents=True)
        (root / "masks" / label).mkdir(parents=True)
        for number in range(12):
            bright = number % GRID
            pixels = generator.integers(0, 90, (32, 32)) + 30 * (label == "covid")
            pixels[8 * bright : 8 * bright + 8] += 120
            mask = np.zeros((GRID, GRID), np.uint8)
            mask[bright] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number:02d}.png")
            Image.fromarray(mask).save(root / "masks" / label / f"{number:02d}.png")
            patient = f"{label}-{number}"
            rows.append([f"{label}/{number:02d}.png", label, patient])
            rows[-1] += [cell(number, place) for place in range(3)]
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "label", "patient_id", *FINDINGS], *rows])
    return make_config(
        {
            "data": str(tmp_path / "data"),
            "sites": "a",
            "task": "findings",
            "cache-dir": str(tmp_path / "cache"),
            "image-size": 32,
            "width": 0.05,
            "projection-hidden": 64,
            "projection-size": 8,
            "batch-size": 8,
            "folds": 2,
            "precision": "float64",
            "learning-rate": 0.01,
            "alpha": 0.0,
            "device": "cpu",
        }
    )


def test_targets_come_from_the_folder_by_image(config: Config) -> None:
    site = LocalSite.of(open_site(config, "a"), config, CPU64)
    place = site.data.files.index("covid/05.png")
    assert set(site.data.targets) == {CLASS, "findings", "mask"}
    assert site.data.labels[place] == 1
    assert site.data.targets["findings"][place].tolist() == [1, 0, 1]
    nothing = site.data.files.index("covid/04.png")
    assert site.data.targets["findings"][nothing].tolist() == [UNKNOWN, 1, UNKNOWN]
    assert site.data.targets["mask"][place].sum(axis=1).tolist() == [0, 4, 0, 0]
    images, targets = site.batch(np.array([place, nothing]))
    assert len(images) == 2
    assert targets["findings"].tolist() == [[1, 0, 1], [UNKNOWN, 1, UNKNOWN]]
    assert targets["mask"].shape == (2, GRID, GRID)


def test_every_head_learns_by_the_loss_of_its_known_targets(config: Config) -> None:
    site = LocalSite.of(open_site(config, "a"), config, CPU64)
    network = task_network(config, ["a"])
    images, targets = site.batch(site.split.train[:8])
    planes = images.permute(0, 3, 1, 2).double().expand(-1, 3, -1, -1) / 255
    output = network(planes, [("a", 8)])
    loss = task_of(config).loss(output.heads, targets)
    # By hand: of the findings only what is known counts, each alike.
    logits, truth = output.heads["findings"], targets["findings"]
    known = [(i, j) for i in range(8) for j in range(3) if truth[i, j] != UNKNOWN]
    signs = [2 * float(truth[at]) - 1 for at in known]
    findings = sum(
        math.log1p(math.exp(-s * float(logits[at]))) for s, at in zip(signs, known, strict=True)
    )
    chosen = output.logits.log_softmax(1)[torch.arange(8), targets[CLASS]]
    mask = F.binary_cross_entropy(output.heads["mask"].sigmoid(), targets["mask"])
    expected = -chosen.mean() + findings / len(known) + mask
    assert 8 < len(known) < 24
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    assert bool((gradient[truth == UNKNOWN] == 0).all())
    assert bool((gradient[truth != UNKNOWN] != 0).all())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    summary = train(network, make_optimizer(network, config), [site], config, range(6), 6)
    assert math.isfinite(summary.loss)
    after = network.state_dict()
    for name in ("head.logits.weight", "others.findings.weight", "others.mask.0.weight"):
        assert not torch.equal(before[name], after[name])


def test_evaluation_and_the_table_of_predictions_hold_every_target(
    config: Config, tmp_path: Path
) -> None:
    site = LocalSite.of(open_site(config, "a"), config, CPU64)
    network = task_network(config, ["a"])
    predictions = evaluate_site(network, site, config)
    said, test = predictions["test"], site.split.test
    decided, _ = decide(network, site, test, config)
    truth = site.data.targets["findings"][test]
    for place, name in enumerate(FINDINGS):
        known = truth[:, place] != UNKNOWN
        right = (decided["findings"][known, place] > 0.5) == truth[known, place]
        assert said.figures[f"accuracy_{name}"] == pytest.approx(right.mean())
    patients = [site.data.patients[index] for index in test]
    path = tmp_path / "predictions.csv"
    write_predictions(path, {"test": said})
    found = read_predictions(path, "test")
    assert found.patients == tuple(patients) and None not in found.patients
    assert found.classes == config.class_names
    np.testing.assert_array_equal(found.probabilities, decided[CLASS])
    assert set(found.further) == {
        *(f"{kind}/findings/{place}" for kind in ("true", "decided") for place in range(3)),
        "decided/area",
    }
    np.testing.assert_array_equal(found.further["true/findings/1"], truth[:, 1])
    np.testing.assert_array_equal(found.further["decided/area"], decided["area"])


def test_heads_are_shared_and_their_layout_is_known(config: Config) -> None:
    network = task_network(config, ["a"])
    assert {"others.findings.weight", "others.mask.0.bias"} <= set(shared_names(network))
    assert not any(name.startswith("others.") for name in private_names(network))
    layout = task_layout(config, "a")
    assert "others.findings.weight" in layout.to_json()
    assert task_layout(config.changed(task="classification"), "a").size < layout.size


def test_a_task_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"called 'clasification'. Did you mean 'classification'"):
        task_of(make_config({"task": "clasification"}))


def test_a_folder_without_further_columns_has_none(config: Config) -> None:
    root = Path(config.data) / "a"
    (root / "metadata.csv").unlink()
    folder = read_site("a", root, config.class_names)
    assert folder.columns == {} and set(folder.targets) == {CLASS}
