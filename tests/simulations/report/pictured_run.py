"""A completed run of two small synthetic hospitals, its weights drawn and not trained."""

from pathlib import Path
from typing import Any

from common.config.schema import Config
from common.data.cache import SiteData
from common.device import choose_device
from common.files import read_json, write_json
from common.learning.evaluation import estimate_statistics, predict
from common.learning.local_site import LocalSite, open_site
from common.models.network import build_network
from common.runs.predictions import PredictionsTable, write_predictions
from server.run_folder import RunFolder
from simulations.report.records import RunRecord, read_record
from simulations.synthetic import write_hospital
from tests.common.runs.written import write_private, write_shared

SITES = ("a", "b")


def write_hospitals(folder: Path) -> Path:
    for index, name in enumerate(SITES):
        write_hospital(folder / name, name, index, 8, ("non-covid", "covid"), seed=1, size=64)
    return folder


def pictured_run(
    base: Path, data: Path, mode: str = "pooled", **values: Any
) -> tuple[RunRecord, list[SiteData]]:
    config = Config(
        data=str(data),
        sites=",".join(SITES),
        cache_dir=str(data / "cache"),
        image_size=48,
        width=0.05,
        projection_hidden=16,
        projection_size=8,
        folds=2,
        device="cpu",
        precision="float32",
        run_name=mode,
    ).changed(**values)
    folder = RunFolder.create(config, mode, base)
    sites = [open_site(config, name) for name in SITES]
    network, device = build_network(config.changed(seed=5), SITES), choose_device(config)
    for site in sites:
        ready = LocalSite.of(site, config, device)
        split = ready.split
        estimate_statistics(network, ready, config)
        write_private(folder, network, site.name)
        probabilities, _ = predict(network, ready, split.test, config)
        write_predictions(
            folder.site(site.name) / "predictions.csv",
            {
                "test": PredictionsTable(
                    [site.files[place] for place in split.test],
                    site.labels[split.test],
                    probabilities,
                    config.class_names,
                )
            },
        )
    write_shared(folder, network)
    result = read_json(folder.path / "result.json")
    write_json(folder.path / "result.json", result | {"status": "completed", "metrics": {}})
    return read_record(folder.path), sites
