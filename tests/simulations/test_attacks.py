"""The lies are the lies that are told of; what they cost is measured by running them."""

from pathlib import Path

from common.data.check import check_site
from common.data.site import read_site
from simulations.attacks.poisoning import SITES, federate, reverse, swap_labels
from tests.federation.hospitals import tiny_config, write_site


def rows_of(folder: Path) -> dict[str, tuple[int, str | None]]:
    """Return label and patient by the image's name."""
    site = read_site("a", folder, ("non-covid", "covid"))
    rows = zip(site.files, site.labels.tolist(), site.patients, strict=True)
    return {Path(file).name: (label, patient) for file, label, patient in rows}


def test_labels_are_swapped_and_the_images_and_patients_stay(tmp_path: Path) -> None:
    write_site(tmp_path / "a", images=4, seed=0)
    swapped = swap_labels(tmp_path / "a", tmp_path / "b")
    assert check_site("b", swapped, tiny_config(tmp_path)).fit
    before, after = (rows_of(folder) for folder in (tmp_path / "a", swapped))
    assert len(before) == 8
    assert after == {name: (1 - label, who) for name, (label, who) in before.items()}


def test_the_liar_alone_sends_minus_ten_times_its_step(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, SITES, epochs=1, min_sites=4)
    folders = {site: tmp_path / "data" / site for site in SITES}
    assert list(federate(config, folders, True, reverse(-10.0))) == list(SITES)
    log = (tmp_path / "runs" / "run" / "log.txt").read_text()
    assert "hospital-e" in log and "times the median of the sites" in log
    undefended = config.changed(run_name="undefended")
    assert list(federate(undefended, folders, False, reverse(-10.0))) == list(SITES)
    log = (tmp_path / "runs" / "undefended" / "log.txt").read_text()
    assert "times the median" not in log
