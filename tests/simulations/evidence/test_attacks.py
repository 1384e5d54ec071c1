"""Lies are the lies that are told of, and what they cost is held against honest training."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from torch import Tensor
from typer.testing import CliRunner

from clients.site_check import check_folder
from common.config.schema import Config
from common.data.folder import read_site
from common.tensor_files import load_tensors
from simulations.evidence.attacks import poisoning
from simulations.evidence.attacks import run as everything
from simulations.evidence.attacks.poisoning import (
    ALONE,
    HONEST,
    SITES,
    PoisoningCase,
    PoisoningOutcome,
    PoisoningPlan,
    poisoning_rows,
    reverse,
    swap_labels,
)
from simulations.evidence.federation import federate
from tests.federation.hospitals import tiny_config, write_site


def rows(folder: Path) -> dict[str, tuple[int, str | None]]:
    """Return label and patient by the image's name."""
    site = read_site("a", folder, ("non-covid", "covid"))
    found = zip(site.files, site.labels.tolist(), site.patients, strict=True)
    return {Path(file).name: (label, patient) for file, label, patient in found}


def test_labels_are_swapped_and_the_images_and_patients_stay(tmp_path: Path) -> None:
    write_site(tmp_path / "a", images=4, seed=0)
    swapped = swap_labels(tmp_path / "a", tmp_path / "b")
    assert check_folder("b", swapped, tiny_config(tmp_path)).fit
    before, after = (rows(folder) for folder in (tmp_path / "a", swapped))
    assert len(before) == 8
    assert after == {name: (1 - label, who) for name, (label, who) in before.items()}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return the configuration of five hospitals, of whom four suffice."""
    return tiny_config(
        tmp_path_factory.mktemp("five"), SITES, epochs=1, min_sites=len(HONEST), run_name="five"
    )


@pytest.fixture(scope="module")
def alone(five: Config) -> Mapping[str, Tensor]:
    """Return the weights of the four honest hospitals without the fifth."""
    run = federate(five.changed(sites=",".join(HONEST), run_name="alone", min_sites=0))
    return load_tensors(run / "shared.safetensors")[0]


@pytest.mark.parametrize("factor", [-10.0, -4.0])
def test_the_liar_is_left_out_by_name_and_the_others_are_as_without_it(
    five: Config, alone: Mapping[str, Tensor], factor: float
) -> None:
    run = federate(five.changed(run_name=f"lied{factor:g}"), tamper=reverse(factor))
    log = (run / "log.txt").read_text()
    assert log.count("LEFT OUT") == log.count("hospital-e LEFT OUT: its weights moved") == 1
    weights, _ = load_tensors(run / "shared.safetensors")
    assert weights.keys() == alone.keys()
    assert all(weights[name].equal(alone[name]) for name in alone)


def test_without_the_comparison_the_liar_takes_part(
    five: Config, alone: Mapping[str, Tensor]
) -> None:
    run = federate(five.changed(run_name="undefended"), False, reverse(-10.0))
    assert "LEFT OUT" not in (run / "log.txt").read_text()
    weights, _ = load_tensors(run / "shared.safetensors")
    assert not all(weights[name].equal(alone[name]) for name in alone)


def test_a_complete_federation_is_not_trained_again_and_another_one_is(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=1)
    run = federate(config)
    (run / "kept").touch()
    assert federate(config) == run and (run / "kept").exists()
    assert federate(config.changed(seed=1)) == run and not (run / "kept").exists()


def test_a_lie_is_held_against_five_honest_and_against_the_four_alone() -> None:
    found = {
        PoisoningCase("nobody", "none", 0): PoisoningOutcome(0.80, "five"),
        PoisoningCase(ALONE, "none", 0): PoisoningOutcome(0.78, "four"),
        PoisoningCase("reversed", "compared", 0): PoisoningOutcome(0.78, "four"),
        PoisoningCase("nobody", "none", 1): PoisoningOutcome(0.90, "other five"),
        PoisoningCase(ALONE, "none", 1): PoisoningOutcome(0.90, "other four"),
        PoisoningCase("reversed", "compared", 1): PoisoningOutcome(0.89, "none of these"),
        PoisoningCase("short", "compared", 0): PoisoningOutcome(0.78, "four"),
        PoisoningCase("reversed", "none", 0): PoisoningOutcome(),
    }
    lied, compared = "−10 times its step", "steps compared"
    # Against five: −2 and −1; against four: 0 and −1.
    differences = ("−1.5 [−2.0 to −1.0]", "−0.5 [−1.0 to 0.0]")
    assert poisoning_rows(found)[2:] == [
        (lied, compared, "2", "83.5", *differences, "no"),
        ("−2.9 times its step", compared, "1", "78.0", "−2.0", "0.0", "yes"),
        (lied, "none", "1", "ended early", "", "", ""),
    ]


def test_a_plan_holds_what_lies_are_measured_by_once_for_each_seed() -> None:
    cases = PoisoningPlan(lies=("nobody", "short"), defences=("none", "krum"), seeds=2).cases
    assert len(cases) == len(set(cases)) == 2 * 5
    assert {PoisoningCase("nobody", "none", 1), PoisoningCase(ALONE, "none", 1)} <= set(cases)


def test_an_unknown_lie_is_refused_with_those_that_are_known() -> None:
    app = typer.Typer()
    app.command()(poisoning.main)
    result = CliRunner().invoke(app, ["--lies", "reversd"])
    assert result.exit_code == 2
    assert "reversd" in result.output and "swapped" in result.output


def test_the_page_says_how_it_came_to_be_and_shows_its_picture(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(everything.main)
    page = tmp_path / "attacks.md"
    result = CliRunner().invoke(
        app, ["--quick", "--attacks", "inversion,prototypes", "--output", str(page)]
    )
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "A quick run" in text and "(attacks.png)" in text
    assert (tmp_path / "attacks.png").read_bytes().startswith(b"\x89PNG")
    # A row for every setting, and for 1 and 4 images behind a prototype, noise or none.
    assert (
        sum(line.startswith(("| 1 image", "| 4 images", "| a round")) for line in text.splitlines())
        == 9
    )
    assert sum(line.startswith(("| 1 | ", "| 4 | ")) for line in text.splitlines()) == 4
