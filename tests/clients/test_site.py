import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.identity import identify
from clients.site import OpenSite, make_site_info, note, open_identity, progress_writer
from common.data.folds import Leakage
from common.errors import SiteError, StoreError
from common.exchange.fingerprint import code_fingerprint
from common.learning.loop import StepReport
from common.models.network import build_network
from common.models.sharing import private_names, shared_layout
from tests.clients.opened import opened
from tests.federation.hospitals import tiny_config


def report(step: int, total: int = 9) -> StepReport:
    return StepReport(step, total, 0.5, images=12, seconds=2.0)


def test_a_card_holds_counts_and_digests_and_nothing_else(tmp_path: Path) -> None:
    """12 images of each class, one a patient, in two folds: 6 of each for training."""
    config = tiny_config(tmp_path)
    info = make_site_info(opened(config))
    assert (info.site, info.nodes, info.fingerprint) == ("north", 2, code_fingerprint())
    assert (info.class_counts, info.train_images) == ((6, 6), 12)
    assert info.leakage == Leakage("north", "patient", 24, 0, 0, 0)
    # The server's digests are of the network of all sites; the site's own knows one.
    assert info.layout == shared_layout(build_network(config, config.site_names)).digest()
    assert info.config == config.digest()


def test_a_card_tells_the_statistics_of_the_training_images_alone(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path, validation_fraction=0.3))
    found = make_site_info(site).statistics
    images, split = site.alone.data.images, site.alone.split
    trained = images[split.train].astype(float)
    assert len(split.validation) and len(split.test)
    assert found is not None
    assert (found.images, found.mean) == (len(trained), round(trained.mean(), 1))
    assert found.deviation == round(trained.std(), 1)
    assert found.mean != round(images.astype(float).mean(), 1)
    asked = replace(site, config=site.config.changed(site_statistics=False))
    assert make_site_info(asked).statistics is None


def test_a_hospital_s_card_has_the_same_digests_and_no_nodes(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    simulated, deployed = (make_site_info(opened(config, nodes=nodes)) for nodes in (2, 0))
    assert deployed == replace(simulated, nodes=0)


def test_a_class_that_validation_empties_counts_as_none(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path))
    images = site.alone
    positive = np.flatnonzero(images.data.labels == 1)

    def trained_on(chosen: NDArray[np.int64]) -> OpenSite:
        return replace(site, sites=(replace(images, split=replace(images.split, train=chosen)),))

    alone = trained_on(positive[:3])
    assert alone.class_counts == (0, 3)
    none = trained_on(positive[:0])
    assert none.class_counts == (0, 0)


def test_warnings_of_the_folder_stay_in_the_site_s_log(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    site = opened(config)
    data = replace(site.alone.data, warnings=("jane-roe.png is blank",))
    warned = replace(site, sites=(replace(site.alone, data=data),))
    info = make_site_info(warned)
    assert "jane" not in repr(info)
    assert "jane-roe.png is blank" in (site.own / "log.txt").read_text()


def test_a_site_knows_its_own_normalisation_and_no_other_s(tmp_path: Path) -> None:
    network = opened(tiny_config(tmp_path), "south").network()
    names = private_names(network)
    assert names
    assert all(".sites.south." in name for name in names)


def test_a_site_s_store_is_its_own_for_this_run_and_network(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    site = opened(config)
    owner = site.store().owner
    assert (owner.site, owner.run, owner.config) == ("north", "run", config.digest())
    wider = replace(site, config=config.changed(width=0.1), own=tmp_path / "wider")
    assert wider.store().owner.config != owner.config
    for values in ({"width": 0.1}, {"learning_rate": 0.5}):
        other = replace(site, config=config.changed(**values))
        with pytest.raises(StoreError, match="holds the private state of configuration"):
            other.store()


def test_a_folder_that_is_not_there_is_the_site_s_error(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    node = {"site": "north", "data-dir": str(tmp_path / "nothing"), "state-dir": str(tmp_path)}
    with pytest.raises(SiteError, match="nothing"):
        open_identity(identify(node, config.to_run_config()), "run")


def test_a_hospital_s_decoded_images_are_in_its_own_cache(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    site = opened(config, nodes=0)
    assert site.own == tmp_path / "state/run/sites/north"
    assert list((tmp_path / "state/cache").glob("north-*"))
    assert not (tmp_path / "cache").exists()


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    own = tmp_path / "deep" / "own"
    note(own, "first")
    note(own, "Müller \udcfc")
    lines = (own / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.partition("  ")[2] for line in lines] == ["first", "Müller \\udcfc"]


def test_progress_is_written_at_most_once_a_second_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("clients.site.time.monotonic", lambda: now)
    path = tmp_path / "progress.json"
    write = progress_writer(tmp_path, 2, range(3, 6))

    def told() -> int:
        return int(json.loads(path.read_text())["step"])

    write(report(3))
    assert json.loads(path.read_text()) == {
        "round": 2,
        "step": 4,
        "total_steps": 9,
        "loss": 0.5,
        "images_per_second": 6.0,
    }
    now = 100.9
    write(report(4))
    assert told() == 4
    write(report(5))
    assert told() == 6
    now = 101.95
    write(report(4))
    assert told() == 5


def test_progress_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("a file where the folder should be")
    progress_writer(tmp_path / "own", 1, range(1))(report(0))
