"""Lies are the lies that are told of, and what they cost is held against honest training."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from common.data.check import check_site
from common.data.site import read_site
from common.files import load_tensors
from simulations.attacks import poisoning
from simulations.attacks.federation import federate
from simulations.attacks.poisoning import (
    ALONE,
    HONEST,
    SITES,
    Case,
    Plan,
    reverse,
    rows_of,
    swap_labels,
)
from tests.federation.hospitals import tiny_config, write_site


def rows(folder: Path) -> dict[str, tuple[int, str | None]]:
    """Return label and patient by the image's name."""
    site = read_site("a", folder, ("non-covid", "covid"))
    found = zip(site.files, site.labels.tolist(), site.patients, strict=True)
    return {Path(file).name: (label, patient) for file, label, patient in found}


def test_labels_are_swapped_and_the_images_and_patients_stay(tmp_path: Path) -> None:
    write_site(tmp_path / "a", images=4, seed=0)
    swapped = swap_labels(tmp_path / "a", tmp_path / "b")
    assert check_site("b", swapped, tiny_config(tmp_path)).fit
    before, after = (rows(folder) for folder in (tmp_path / "a", swapped))
    assert len(before) == 8
    assert after == {name: (1 - label, who) for name, (label, who) in before.items()}


@pytest.mark.parametrize("factor", [-10.0, -4.0])
def test_the_liar_is_left_out_by_name_and_the_others_are_as_without_it(
    tmp_path: Path, factor: float
) -> None:
    config = tiny_config(tmp_path, SITES, epochs=1, min_sites=len(HONEST), run_name="lied")
    lied = federate(config, tamper=reverse(factor))
    assert lied is not None
    log = (lied / "log.txt").read_text()
    assert log.count("LEFT OUT") == log.count("hospital-e LEFT OUT: its weights moved") == 1
    alone = federate(config.changed(sites=",".join(HONEST), run_name="alone", min_sites=0))
    assert alone is not None
    with_liar, without = (load_tensors(run / "shared.safetensors")[0] for run in (lied, alone))
    assert with_liar.keys() == without.keys()
    assert all(with_liar[name].equal(without[name]) for name in without)


def test_without_the_comparison_a_lie_moves_the_weights(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, SITES, epochs=1, min_sites=len(HONEST))
    made = [
        federate(config.changed(run_name=name), False, tamper)
        for name, tamper in (("honest", None), ("lied", reverse(-10.0)))
    ]
    assert all("times the median" not in (run / "log.txt").read_text() for run in made if run)
    weights = [load_tensors(run / "shared.safetensors")[0] for run in made if run]
    assert len(weights) == 2
    assert not all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_a_complete_federation_is_not_trained_again_and_another_one_is(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=1)
    run = federate(config)
    assert run is not None
    (run / "kept").touch()
    assert federate(config) == run and (run / "kept").exists()
    assert federate(config.changed(seed=1)) == run and not (run / "kept").exists()


def test_a_lie_is_held_against_five_honest_and_against_the_four_alone() -> None:
    found = {
        Case("nobody", "none", 0): 0.80,
        Case(ALONE, "none", 0): 0.78,
        Case("reversed", "compared", 0): 0.78,
        Case("nobody", "none", 1): 0.90,
        Case(ALONE, "none", 1): 0.90,
        Case("reversed", "compared", 1): 0.89,
        Case("reversed", "none", 0): float("nan"),
    }
    assert rows_of(found)[2:] == [
        # Against five: −2 and −1; against four: 0 and −1.
        (
            "−10 times its step",
            "steps compared",
            "2",
            "83.5",
            "−1.5 [−2.0 to −1.0]",
            "−0.5 [−1.0 to 0.0]",
        ),
        ("−10 times its step", "none", "1", "ended early", "", ""),
    ]


def test_a_plan_holds_what_lies_are_measured_by_once_for_each_seed() -> None:
    cases = Plan(lies=("nobody", "short"), defences=("none", "krum"), seeds=2).cases
    assert len(cases) == len(set(cases)) == 2 * 5
    assert {Case("nobody", "none", 1), Case(ALONE, "none", 1)} <= set(cases)


def test_an_unknown_lie_is_refused_with_those_that_are_known() -> None:
    app = typer.Typer()
    app.command()(poisoning.main)
    result = CliRunner().invoke(app, ["--lies", "reversd"])
    assert result.exit_code == 2
    assert "reversd" in result.output and "swapped" in result.output
