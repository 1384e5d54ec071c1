"""A hospital without labels is taken in by a run: its files, its figures, what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from clients.adapt.adapt import ADAPTATIONS, adapt_to_site, load_trained, predict_met
from clients.onboarding import onboard
from clients.prediction import predict_images
from common.config.schema import Config
from common.device import choose_device
from common.errors import CheckpointError, RunError
from common.learning.local_site import LocalSite, open_site
from common.models.network import build_network
from common.runs.predictions import PredictionsTable, write_predictions
from common.tensor_files import load_tensors
from server.run_folder import RunFolder
from simulations.cli import app
from simulations.study.analyses import evaluate_unseen
from tests.common.data.dicom_files import grey_file
from tests.common.runs.written import write_private, write_shared
from tests.simulations.tiny import tiny_config, write_site


def make_run(base: Path, mode: str = "pooled", status: str = "completed", **keys: str) -> Path:
    """A run folder with the weights of an untrained network, its sites told apart a little."""
    config = tiny_config(base, run_name="run").changed(**keys)
    folder = RunFolder.create(config, mode, base / "runs")
    network = build_network(config, config.site_names)
    for name, tensor in network.state_dict().items():
        if ".sites.b." in name and tensor.is_floating_point():
            tensor += 0.5
    if mode == "single":
        for site in config.site_names:
            write_shared(folder, build_network(config, [site]), site=site)
            write_private(folder, build_network(config, [site]), site)
    else:
        write_shared(folder, network)
        for site in config.site_names:
            write_private(folder, network, site)
    for site in config.site_names:
        probabilities = np.array([[0.2, 0.8], [0.6, 0.4]])
        path = folder.site(site) / "predictions.csv"
        labels = np.array([1, 1])
        write_predictions(
            path, {"test": PredictionsTable(["x", "y"], labels, probabilities, config.class_names)}
        )
    if status == "completed":
        folder.finish({})
    return folder.path


def without_labels(folder: Path, images: int = 70) -> Path:
    """Images at two depths, named so that no name tells a class."""
    generator = np.random.default_rng(5)
    for number in range(images):
        path = folder / ("deep/er" if number % 2 else "deep") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 200, (40, 40), dtype=np.uint8)).save(path)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "onboarded" not in path.parts
    }


def invoke(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["onboard", *map(str, words), "--device", "cpu"])
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


def test_what_is_written_and_that_predict_uses_it(tmp_path: Path) -> None:
    run, images = make_run(tmp_path), without_labels(tmp_path / "new")
    before = files_of(run)
    code, said = invoke(run, "--site", f"new={images}")
    assert code == 0, said
    assert before == files_of(run)
    folder = run / "onboarded" / "new"
    about = json.loads((folder / "onboard.json").read_text())
    assert about["classified"] == about["adapted_to"] == 70
    assert about["adaptation"] == about["recommended"] == "re-estimated"
    assert set(about["distances"]) == {"a", "b"} and about["figures"] == {}
    assert about["distances_of_trained_sites"][0]["sites"] == ["a", "b"]
    for sentence in about["advice"]:
        assert " ".join(sentence.split()) in said
    assert "Re-estimated on its images" in said and "Not a medical device" in said
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["adaptation"] for row in rows[:4]] == list(ADAPTATIONS) and len(rows) == 280
    tensors, metadata = load_tensors(folder / "private.safetensors")
    assert metadata["site"] == "new" and all(".sites.new." in name for name in tensors)
    found = predict_images(run, "new", [images / "deep" / "000.png"], device="cpu")
    expected = [float(rows[0]["non-covid"]), float(rows[0]["covid"])]
    np.testing.assert_allclose(found.probabilities[0], expected, atol=2e-6)
    with pytest.raises(RunError, match="its sites are a, b, new"):
        predict_images(run, "other", [images / "deep" / "000.png"])
    shutil.copy(run / "shared.safetensors", run / "best-shared.safetensors")
    with pytest.raises(CheckpointError, match="onboarded with the final weights"):
        predict_images(run, "new", [images / "deep" / "000.png"], which="best")


def test_the_same_again_is_allowed_and_another_is_not(tmp_path: Path) -> None:
    run, images = make_run(tmp_path), without_labels(tmp_path / "new", 6)
    onboard(run, "new", images, device="cpu")
    first = load_tensors(run / "onboarded/new/private.safetensors")[0]
    onboard(run, "new", images, adaptation="averaged", device="cpu")
    second = load_tensors(run / "onboarded/new/private.safetensors")[0]
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    (images / "deep" / "000.png").unlink()
    with pytest.raises(RunError, match="'new' was onboarded before, with other images"):
        onboard(run, "new", images, device="cpu")
    # Killed before its record was written: goes on. Somebody's own folder: stays.
    (run / "onboarded/new/onboard.json").unlink()
    onboard(run, "new", images, device="cpu")
    (run / "onboarded/mine").mkdir()
    (run / "onboarded/mine/thesis.txt").write_text("")
    with pytest.raises(RunError, match=r"files that no onboarding wrote \(thesis.txt\)"):
        onboard(run, "mine", images, device="cpu")


def test_labels_are_read_for_figures_alone(tmp_path: Path) -> None:
    run, site = make_run(tmp_path), tmp_path / "new"
    write_site(site, images=5, shift=40)
    (site / "masks").mkdir()
    shutil.copy(site / "covid" / "p00.png", site / "masks")
    blind = onboard(run, "new", site, device="cpu")
    assert len(blind.files) == 10 and blind.figures == {}
    seen = onboard(run, "new", site, evaluate=True, device="cpu")
    for adaptation in ADAPTATIONS:
        np.testing.assert_array_equal(
            blind.probabilities[adaptation], seen.probabilities[adaptation]
        )
        decisions = seen.probabilities[adaptation].argmax(axis=1)
        truth = [int(file.parent.name == "covid") for file in seen.files]
        assert seen.figures[adaptation]["accuracy"] == np.mean(decisions == truth)
    # The classes' folders exchanged: the same images, the same network, other figures.
    (site / "covid").rename(site / "x")
    (site / "non-covid").rename(site / "covid")
    (site / "x").rename(site / "non-covid")
    other = onboard(run, "other", site, evaluate=True, device="cpu")
    accuracy = other.figures["averaged"]["accuracy"]
    assert accuracy == pytest.approx(1 - seen.figures["averaged"]["accuracy"])
    code, said = invoke(run, "--data", tmp_path, "--site", "new", "--evaluate")
    assert code == 1 and "onboarded before" in said
    code, said = invoke(run, "--site", f"third={site}", "--evaluate")
    assert code == 0 and "AUC" in said and "10 images are few" in said
    assert "describe these very images" in said and "add --evaluate" not in said


def test_shared_normalisation_becomes_the_new_site_s(tmp_path: Path) -> None:
    run = make_run(tmp_path, normalisation="shared")
    images = without_labels(tmp_path / "new", 66)
    found = onboard(run, "new", images, device="cpu")
    again = predict_images(run, "new", found.files, device="cpu")
    np.testing.assert_allclose(again.probabilities, found.probabilities["re-estimated"], atol=1e-6)
    trained = predict_images(run, "a", found.files, device="cpu")
    np.testing.assert_allclose(trained.probabilities, found.probabilities["averaged"], atol=1e-6)
    assert not np.allclose(trained.probabilities, again.probabilities, atol=1e-3)


def test_a_broken_image_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    run, images = make_run(tmp_path), without_labels(tmp_path / "new", 5)
    (images / "broken.png").write_bytes(b"not an image")
    code, said = invoke(run, "--site", f"new={images}")
    assert code == 1 and str(images / "broken.png") in said and "5 images" in said
    about = json.loads((run / "onboarded/new/onboard.json").read_text())
    assert about["unreadable"] == [str(images / "broken.png")]
    assert about["classified"] == 5


def test_what_is_refused_and_why(tmp_path: Path) -> None:
    run, images = make_run(tmp_path), without_labels(tmp_path / "new", 4)
    for words, sentence in (
        ((run, "--site", f"a={images}"), "was trained at 'a'"),
        ((run, "--site", f"New={images}"), "'New' is no site name"),
        ((run, "--site", "new"), "give --site name=folder, or --site name with --data"),
        ((run, "--site", f"new={tmp_path / 'absent'}"), "There is no folder"),
        ((run, "--site", f"new={images}", "--evaluate"), "is no class of this run"),
        ((tmp_path / "nothing", "--site", f"new={images}"), "There is no run"),
    ):
        code, said = invoke(*words)
        assert code in (1, 2) and sentence in said and "Traceback" not in said, said
    (tmp_path / "one").mkdir()
    shutil.copy(images / "deep" / "000.png", tmp_path / "one")
    code, said = invoke(run, "--site", f"new={tmp_path / 'one'}")
    assert code == 1 and "1 images to adapt to" in said
    assert not (run / "onboarded").exists()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"mode": "single"}, "it holds a network for each of a, b and none of them all"),
        ({"status": "running"}, "is running, not completed"),
        ({"share": "prototypes"}, "its sites share no weights"),
        ({"normalisation": "none"}, "a new site needs none"),
        ({"algorithm": "fedrdn"}, "changes images by their site's training images"),
    ],
)
def test_runs_that_can_take_nobody_in(tmp_path: Path, keys: dict[str, str], sentence: str) -> None:
    run = make_run(tmp_path, **keys)
    code, said = invoke(run, "--site", f"new={without_labels(tmp_path / 'new', 4)}")
    assert code == 1 and sentence in said


def test_private_tensors_that_lie_at_the_hospitals(tmp_path: Path) -> None:
    run = make_run(tmp_path, mode="federated")
    (run / "sites" / "b" / "private.safetensors").unlink()
    code, said = invoke(run, "--site", f"new={without_labels(tmp_path / 'new', 4)}")
    assert code == 1 and "private tensors lie at the site alone" in said


def held_out(tmp_path: Path, config: Config) -> Config:
    write_site(tmp_path / "data" / "c", images=8, shift=60)
    return config.changed(sites="a,b,c")


def test_a_study_s_figures_of_a_site_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    config = held_out(tmp_path, tiny_config(tmp_path))
    data = open_site(config, "c")
    device = choose_device(config)
    told = evaluate_unseen(run, data, config, device)
    assert set(told) == {*ADAPTATIONS, "distances", "trust"}
    assert json.loads(json.dumps(told)).keys() == told.keys()
    network, own = load_trained(run)
    local = LocalSite.of(data, config, device)
    test = local.split.test
    met = adapt_to_site(network, local, own)
    for adaptation in ADAPTATIONS:
        said = predict_met(met.networks[adaptation], local, test, own)
        assert told[adaptation]["images"] == len(test)
        assert told[adaptation]["accuracy"] == np.mean(said.argmax(axis=1) == data.labels[test])
    assert set(told["distances"]) == {"a", "b"}


def test_a_single_site_run_of_one_site_can_meet_another(tmp_path: Path) -> None:
    run = make_run(tmp_path, mode="single", sites="a")
    config = held_out(tmp_path, tiny_config(tmp_path))
    told = evaluate_unseen(run, open_site(config, "c"), config, choose_device(config))
    assert told["averaged"] == pytest.approx(told["nearest"], nan_ok=True)
    assert np.isnan(told["trust"]["usual_distance"])


def test_named_frames_and_own_class_names_are_evaluated(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes_map="COVID-19=covid,Normal=non-covid,unsure=")
    site, rows = tmp_path / "new", ["file_name,label"]
    values = np.random.default_rng(3).integers(0, 256, (2, 4, 40, 40))
    frames_of = {"COVID-19": (2, 4), "Normal": (1,)}
    for (folder, frames), stored in zip(frames_of.items(), values, strict=True):
        (site / folder).mkdir(parents=True)
        (site / folder / "scan.dcm").write_bytes(grey_file(stored, 8))
        rows += [f"{folder}/scan.dcm#{frame},{folder.lower()}" for frame in frames]
    rows += ["COVID-19/scan.dcm#1,unsure"]
    (site / "metadata.csv").write_text("\n".join(rows) + "\n")
    found = onboard(run, "new", site, evaluate=True, device="cpu")
    names = [file.relative_to(site).as_posix() for file in found.files]
    assert names == ["COVID-19/scan.dcm#2", "COVID-19/scan.dcm#4", "Normal/scan.dcm#1"]
    for adaptation in ADAPTATIONS:
        decided = found.probabilities[adaptation].argmax(axis=1)
        assert found.figures[adaptation]["accuracy"] == np.mean(decided == [1, 1, 0])
