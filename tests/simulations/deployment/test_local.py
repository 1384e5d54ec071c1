"""A real SuperLink and two authenticated SuperNodes over TLS, beside the same run simulated."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from clients.flower_host.prefork import STANDBY
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.errors import ConfigError, RunError
from server.deployment.consortium import Consortium
from server.deployment.folders import COORDINATOR, write_folders
from simulations.commands.deploy import backend_of, runs_of
from simulations.federated import train_federated
from simulations.rehearsal import plan_consortium, standing
from simulations.runtime.bundle import write_app
from simulations.runtime.flower_inside import build_fab_from_disk
from simulations.runtime.placement import child_environment, place
from simulations.runtime.processes import program_line
from tests.federation.hospitals import tiny_config
from tests.federation.pinned import tensors_of, weights_of
from tests.federation.test_pinned_weights import PINS, config_of, train


def test_a_path_that_cannot_stand_in_a_script_is_named(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "a b")
    with pytest.raises(ConfigError, match=r"site\.1\.data-dir: .* is no absolute path of letters"):
        plan_consortium(config, tmp_path / "runs" / "one")


@pytest.fixture(scope="module")
def standing_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, Consortium]]:
    """A consortium that stands, and the configuration of a run whose weights are pinned."""
    folder = tmp_path_factory.mktemp("lab")
    config = config_of(PINS["half-deltas"], folder, "")
    made = plan_consortium(config, folder / "state" / "run")
    scripts = write_folders(made, folder / "lab")
    environment = child_environment(folder, config, place(config))
    with standing(made, scripts, folder, environment):
        yield config, made.model_copy(update={"folder": str(scripts / COORDINATOR)})


def over(lab: tuple[Config, Consortium], name: str, **values: object) -> Path:
    """Run a configuration over the consortium, as `xsite deploy run` does."""
    config, plan = lab
    settings = config.changed(runs_dir="", run_name=name, join_timeout=120.0, **values)
    return train_federated(settings, runs_of(plan), ProgressListener(), backend=backend_of(plan))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hospital_runs_no_code_but_the_xsite_that_is_installed_there(
    standing_lab: tuple[Config, Consortium], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(folder: Path, painter: bool) -> bytes:
        write_app(folder, painter)
        with (folder / "clients" / "round.py").open("a") as file:
            file.write("# and send the images as well\n")
        return build_fab_from_disk(folder)

    monkeypatch.setattr("simulations.commands.deploy.make_bundle", changed)
    expected = r"A site cannot take part\. .*clients/round\.py is not as it is installed here"
    with pytest.raises(RunError, match=expected):
        over(standing_lab, "changed")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_over_a_consortium_that_stands_ends_with_the_pinned_weights(
    standing_lab: tuple[Config, Consortium], tmp_path: Path
) -> None:
    config, plan = standing_lab
    run = over(standing_lab, "good")
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert not (run / "sites").exists()
    found = {"shared.safetensors": tensors_of(run / "shared.safetensors")}
    for site in config.site_names:
        private = runs_of(plan).parents[1] / site / "good" / "sites" / site
        found[f"sites/{site}/private.safetensors"] = tensors_of(private / "private.safetensors")
    # In this process it is held against what is pinned.
    pin = PINS["half-deltas"]
    assert found == weights_of(train(pin, config_of(pin, tmp_path, "good")))


def standing_by(plan: Consortium) -> list[psutil.Process]:
    """Not by descent: one whose SuperExec was killed is nobody's child."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = str(Path(plan.folder).parent) in " ".join(process.cmdline())
            if ours and program_line(process) == STANDBY:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_whose_superexec_or_what_stands_by_was_killed_goes_on(
    standing_lab: tuple[Config, Consortium],
) -> None:
    one, other = standing_by(standing_lab[1])
    superexec = one.parent()
    assert superexec is not None
    superexec.kill()
    other.kill()
    run = over(standing_lab, "again", epochs=1)
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert len(standing_by(standing_lab[1])) == 2
