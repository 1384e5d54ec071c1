"""No private tensor, image, label, prediction, patient or file name is in any message.

Proved on the bytes that went over the wire, with searches that are shown to find what is planted.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import flwr.app
import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from numpy.typing import NDArray

from common.config.schema import Config
from common.data.folds import split_site
from common.errors import RunError
from common.exchange.messages import RoundReply
from common.exchange.wire import decode, encode
from common.learning.local_site import open_site
from common.runs.predictions import read_predictions
from common.tensor_files import load_tensors
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import federate, make_grid, run_of, tiny_config
from tests.federation.hospitals import server as server_app
from tests.federation.search import Wire, pieces, pieces_as, words_of

END = ("low", "high")
SETTINGS = {"epochs": 2, "validation_fraction": 0.3}


class Collector:
    """Reads, after every message, all that the sites have written to their disks."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tensors: dict[str, torch.Tensor] = {}

    def __call__(self, _question: Message, reply: Message) -> list[Message]:
        for site in self.config.site_names:
            own = run_of(self.config) / "sites" / site
            for path in own.rglob("*.safetensors"):
                tensors, _ = load_tensors(path)
                self.tensors |= {f"{path}:{name}": value for name, value in tensors.items()}
        return [reply]

    def pieces(self, kinds: Iterable[type[np.floating]] = (np.float32,)) -> list[bytes]:
        arrays = [tensor.numpy() for tensor in self.tensors.values() if tensor.is_floating_point()]
        return pieces_as(arrays, kinds)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Wire, Collector]:
    config = tiny_config(tmp_path_factory.mktemp("privacy"), **SETTINGS)
    collector = Collector(config)
    return config, Wire(federate(config, tamper=collector).wire()), collector


def test_no_private_tensor_and_no_moment_is_in_any_message(
    federation: tuple[Config, Wire, Collector],
) -> None:
    _, wire, collector = federation
    names = " ".join(collector.tensors)
    for part in ("running_mean", "running_var", "exp_avg", "norm", "evaluated-", "private.safe"):
        assert part in names
    wanted = collector.pieces((np.float32, np.float64))
    assert len(wanted) > 10_000
    assert wire.found(wanted) == []


def test_the_search_finds_shared_tensors_which_do_travel(
    federation: tuple[Config, Wire, Collector],
) -> None:
    config, wire, _ = federation
    shared, _ = load_tensors(run_of(config) / "shared.safetensors")
    wanted = [piece for tensor in shared.values() for piece in pieces(tensor.numpy())][::97]
    assert len(wanted) > 200
    assert wire.found(wanted) == wanted


def test_the_search_finds_a_private_tensor_that_is_planted(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **SETTINGS)
    collector = Collector(config)
    planted: list[NDArray[np.floating]] = []

    def plant(question: Message, reply: Message) -> list[Message]:
        collector(question, reply)
        if question.metadata.message_type == "train":
            said = decode(RoundReply, reply.content)
            name = next(n for n in collector.tensors if "running_mean" in n)
            planted.append(collector.tensors[name].numpy()[:4].copy())
            shared = said.shared.copy()
            # At an odd place, as if a private module were packed among the shared ones.
            shared[1001:1005] = planted[-1]
            reply.content = encode(replace(said, shared=shared), flwr.app)
        return [reply]

    wire = Wire(federate(config, tamper=plant).wire())
    assert planted
    assert planted[0].tobytes() in wire.found(collector.pieces())


def test_no_image_label_or_prediction_is_in_any_message(
    federation: tuple[Config, Wire, Collector],
) -> None:
    config, wire, _ = federation
    for site in config.site_names:
        data = open_site(config, site)
        split = split_site(data, config)
        images = pieces(np.asarray(data.images))
        assert len(images) > 500
        assert wire.found(images) == []
        assert Wire(b"at any offset" + images[7] + b"rest").found(images) == [images[7]]
        for labels in (data.labels, data.labels[split.train], data.labels[split.test]):
            assert labels.astype(np.int64).tobytes() not in wire.content
        for subset in ("test", "validation"):
            said = read_predictions(run_of(config) / "sites" / site / "predictions.csv", subset)
            assert len(said.probabilities)
            for kind in (np.float64, np.float32):
                for row in said.probabilities.astype(kind):
                    assert row.tobytes() not in wire.content


def test_figures_that_leave_are_the_listed_ones(tmp_path: Path) -> None:
    figures = ("accuracy", "f1", "sensitivity", "precision", "specificity", "auc")
    figures += ("loss", "images")
    training = ("loss", "cross_entropy", "contrastive", "images", "seconds")
    told = {f"{subset}/{name}" for subset in ("test", "validation") for name in figures}
    listed = {
        "train": told | {f"train/{name}" for name in training} | {"seconds"},
        "evaluate": told | {f"{s}/auc_{end}" for s in ("test", "validation") for end in END},
    }
    seen: dict[str, set[str]] = {"train": set(), "evaluate": set()}

    def watch(question: Message, reply: Message) -> list[Message]:
        kind = question.metadata.message_type
        if kind != "query":
            seen[kind] |= set(reply.content["metrics"])
        return [reply]

    federate(tiny_config(tmp_path, **SETTINGS), tamper=watch)
    assert seen == listed


def test_no_patient_file_or_folder_is_named_in_any_message(
    federation: tuple[Config, Wire, Collector],
) -> None:
    config, wire, _ = federation
    words = [config.data, config.runs_dir, config.cache_dir, *words_of(config)]
    assert len(words) > 100
    assert [word for word in words if word.encode() in wire.content] == []


BROKEN = "jane-roe-1962-04-17.png"


def break_a_file(config: Config) -> None:
    (Path(config.data) / "south" / "covid" / BROKEN).write_bytes(b"no image")
    metadata = Path(config.data) / "south" / "metadata.csv"
    metadata.write_text(metadata.read_text() + f"covid/{BROKEN},covid,jane-roe\n")


def failing_late(config: Config) -> Callable[[Message], None]:
    """Break a file once the sites have joined."""

    def before(question: Message) -> None:
        missing = not (Path(config.data) / "south" / "covid" / BROKEN).exists()
        if question.metadata.message_type == "train" and missing:
            break_a_file(config)

    return before


@pytest.mark.parametrize("late", [False, True])
def test_a_site_that_fails_on_a_patient_s_file_names_neither(late: bool, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    if not late:
        break_a_file(config)
    grid = make_grid(config, before=failing_late(config) if late else None)
    with pytest.raises(RunError, match=r"south: .*not fit for training \(code 103") as caught:
        run_server(server_app, grid)
    run = run_of(config)
    told = grid.wire().decode(errors="replace") + str(caught.value)
    told += (run / "log.txt").read_text() + (run / "result.json").read_text()
    for secret in ("jane", "roe", "1962", BROKEN, str(tmp_path), "no image"):
        assert secret not in told
    # The hospital's own log has it, under the reference that the server knows.
    reference = str(caught.value).partition("reference ")[2][:8]
    own = (run / "sites/south/log.txt").read_text()
    assert f"reference {reference}" in own
    assert BROKEN in own


def test_what_flower_does_by_itself_would_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path)
    break_a_file(config)

    def frank(error: Exception, *_: object) -> Error:
        return Error(103, str(error))

    monkeypatch.setattr("clients.app.refuse", frank)
    grid = make_grid(config)
    with pytest.raises(RunError):
        run_server(server_app, grid)
    assert BROKEN.encode() in grid.wire()
