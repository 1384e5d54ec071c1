"""A new hospital is taken in by a completed run: images without labels, and a network that fits.

::

    <run>/onboarded/<site>/private.safetensors  predictions.csv  onboard.json

The run's own files are left alone. ``onboard.json`` is written last and names what the site was
onboarded with; the same again rewrites the three files, anything else is refused.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.adapt.adapt import adapt_to_site, load_trained, predict_met
from clients.adapt.reliability import (
    RECOMMENDED,
    Reliability,
    advise,
    judge_trust,
    trained_predictions,
)
from clients.prediction import decode_images, find_images, write_table
from common.config.schema import Config
from common.config.sites import SITE_NAME
from common.data.decode import locate, split_frame
from common.data.folder import SiteFolder, class_folders, read_site
from common.device import choose_device, limited_threads
from common.errors import ConfigError, RunError
from common.files import alone_in, read_object, write_json
from common.learning.local_site import TrainingSite
from common.models.network import Network
from common.runs.weights import ONBOARDED, save_private, weights_digest
from common.tasks.figures import measure

PRIVATE, PREDICTIONS, ABOUT = "private.safetensors", "predictions.csv", "onboard.json"


@dataclass(frozen=True)
class Onboarded:
    """A site that a run has taken in."""

    folder: Path
    """Where its files are."""
    images: int
    """How many were adapted to."""
    adaptation: str
    """What its private tensors hold."""
    files: tuple[Path, ...]
    """(n,) the images classified: all that could be read."""
    probabilities: dict[str, NDArray[np.float64]]
    """(n, classes), by adaptation."""
    classes: tuple[str, ...]
    """Names of the classes, in label order."""
    trust: Reliability
    """What can be said without labels."""
    figures: dict[str, dict[str, float]]
    """By adaptation, where the labels were to be used; else empty."""
    advice: tuple[str, ...]
    """Sentences on how far to trust all this."""
    failures: tuple[tuple[Path, str], ...]
    """Images that could not be read, and why."""

    @property
    def shares(self) -> Mapping[str, list[float]]:
        """The share of images that each adaptation gives to each class, in label order."""
        count = len(self.classes)
        return {
            adaptation: (
                np.bincount(decided.argmax(axis=1), minlength=count) / len(decided)
            ).tolist()
            for adaptation, decided in self.probabilities.items()
        }


def onboard(
    run: Path,
    name: str,
    folder: Path,
    adaptation: str = RECOMMENDED,
    evaluate: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Onboarded:
    """Let a run's network meet a new site, and write what it needs there.

    Parameters
    ----------
    run : Path
        The folder of a completed run: pooled, federated, or single-site of one site.
    name : str
        What the new site shall be called.
    folder : Path
        Its images, at any depth. In a site folder these are the ones in the class folders.
    adaptation : str
        Which is kept; not ``test-batch``, whose statistics last no longer than a batch.
    evaluate : bool
        Read the class folders' names as labels, for figures and for nothing else. The images are
        those adapted to, as in use; the figures describe these images.
    device : str
        Where to compute.
    progress : callable, optional
        Told (done, total) images decoded.

    Raises
    ------
    ConfigError
        If the name cannot be.
    RunError
        If the run cannot take a site in, the name is taken, or there are fewer than two images.
    SiteError
        If the folder is to be evaluated and is no site folder.
    CheckpointError
        If weights of a trained site are missing.
    """
    network, config = load_trained(run)
    _check_name(run, name, config)
    config = config.changed(device=device)
    chosen = choose_device(config)
    labelled = (
        read_site(name, folder, config.class_names, config.own_class_names) if evaluate else None
    )
    decoded = decode_images(_images(folder, config, labelled), config, None, progress)
    files, images = decoded.files, decoded.images
    target = run / ONBOARDED / name
    key = _key(network, folder, files, images)
    _check_free(target, key)
    everything = np.arange(len(images), dtype=np.int64)
    site = TrainingSite(name, torch.from_numpy(images), {}, everything, chosen)
    with limited_threads(config):
        met = adapt_to_site(network.to(chosen.device), site, config)
        probabilities = {
            adapted: predict_met(one, site, everything, config)
            for adapted, one in met.networks.items()
        }
    trust = judge_trust(probabilities, met.distances, trained_predictions(run, config.site_names))
    figures = {}
    if labelled is not None:
        of = dict(zip(labelled.files, labelled.labels.tolist(), strict=True))
        names = [file.relative_to(folder).as_posix() for file in files]
        labels = np.array([of.get(name, of.get(split_frame(name)[0])) for name in names])
        figures = {adapted: measure(labels, said) for adapted, said in probabilities.items()}
    adapted_to = min(len(files), config.statistics_images)
    found = Onboarded(
        target,
        adapted_to,
        adaptation,
        files,
        probabilities,
        config.class_names,
        trust,
        figures,
        advise(name, adapted_to, trust, evaluate),
        decoded.failures,
    )
    target.mkdir(parents=True, exist_ok=True)
    with alone_in(target, "the site"):
        network = met.networks[adaptation]
        save_private(target / PRIVATE, network, name, config, decoded.scale)
        rows = (
            ((file.relative_to(folder).as_posix(), adapted), said[number])
            for number, file in enumerate(files)
            for adapted, said in probabilities.items()
        )
        write_table(target / PREDICTIONS, ["file", "adaptation"], config.class_names, rows)
        write_json(target / ABOUT, _about(found, name, run, folder, key))
    return found


def _check_name(run: Path, name: str, config: Config) -> None:
    if not SITE_NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' is no site name: lower-case letters, digits, '-' and '_', at most 63."
        )
    if name in config.site_names:
        raise RunError(
            f"The run {run} was trained at '{name}', which has a normalisation of its own there: "
            f"use xsite predict {run.name} --site {name}, or give the new site another name."
        )


def _images(folder: Path, config: Config, labelled: SiteFolder | None) -> list[Path]:
    """Return the images of a folder; of a site folder those below its class folders."""
    label_of = {}
    if folder.is_dir():
        label_of = class_folders(folder, config.class_names, config.own_class_names)
    # Else the lesion masks of a synthetic hospital would count as images.
    classes = [folder / name for name in sorted(label_of, key=lambda name: label_of[name])]
    found = find_images(classes or [folder])
    if labelled is None:
        return found
    # Of a file whose frames are named, these alone are images of the site.
    whole = {folder / file for file in labelled.files if file not in labelled.frames}
    others = [image for image in found if locate(image)[0] in whole]
    return [*others, *(folder / frame for frame in sorted(labelled.frames))]


def _key(network: Network, folder: Path, files: Sequence[Path], images: NDArray[np.uint8]) -> str:
    """Hash what the site is onboarded with: the network, and its images with their names."""
    digest = hashlib.sha256(weights_digest(network).encode())
    for file in files:
        digest.update(f"\n{file.relative_to(folder).as_posix()}".encode())
    for image in images:
        digest.update(image.tobytes())
    return digest.hexdigest()


def _check_free(target: Path, key: str) -> None:
    """Refuse a name under which something else was onboarded, or lies."""
    if not target.exists():
        return
    if (target / ABOUT).exists():
        if read_object(target / ABOUT).get("key") != key:
            raise RunError(
                f"A site '{target.name}' was onboarded before, with other images or another "
                f"network. Choose another name, or move {target} away."
            )
        return
    known = {PRIVATE, PREDICTIONS, ".lock"}
    others = [path.name for path in target.iterdir() if path.name not in known]
    if [name for name in others if not name.endswith(".part")]:
        raise RunError(
            f"{target} holds files that no onboarding wrote ({', '.join(sorted(others)[:3])}). "
            "Choose another name, or move it away."
        )


def _about(found: Onboarded, name: str, run: Path, folder: Path, key: str) -> dict[str, Any]:
    return {
        "site": name,
        "run": os.fspath(run.absolute()),
        "images": os.fspath(folder.absolute()),
        "version": metadata.version("xsite"),
        "key": key,
        "classified": len(found.files),
        "unreadable": [os.fspath(path) for path, _ in found.failures],
        "adapted_to": found.images,
        "adaptation": found.adaptation,
        "recommended": RECOMMENDED,
        "decided": {
            adaptation: dict(zip(found.classes, told, strict=True))
            for adaptation, told in found.shares.items()
        },
        "distances": dict(found.trust.distances.to),
        "distances_of_trained_sites": [
            {"sites": list(pair), "distance": distance}
            for pair, distance in found.trust.distances.among.items()
        ],
        "trust": found.trust.as_dict() | {"is_far": found.trust.distances.is_far},
        "figures": found.figures,
        "advice": list(found.advice),
    }
