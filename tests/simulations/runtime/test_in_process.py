"""A federated run whose server and sites are this process: it ends, fails and stops as with Ray."""

import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from flwr.supercore.logger import console_handler

from common.console.progress import ProgressListener
from common.errors import ConfigError, RunError
from common.runs.result import read_result
from common.tensor_files import load_tensors
from server.metrics import read_rows
from simulations.federated import backend_named, train_federated
from simulations.runtime.in_process import IN_PROCESS
from simulations.runtime.placement import place, resolve_config
from tests.simulations.tiny import tiny_config


class StopAfter(ProgressListener):
    """Presses Ctrl-C when the log says that a round is done."""

    def __init__(self, round: int) -> None:
        self.round, self.said, self.stretches = round, list[str](), list[tuple[str, int]]()

    def start(self, title: str, total_steps: int) -> None:
        self.stretches.append((title, total_steps))

    def message(self, text: str) -> None:
        self.said.append(text)
        if text.startswith(f"round {self.round}/"):
            os.kill(os.getpid(), signal.SIGINT)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(run)}:{name}": tensor
        for file in sorted(run.glob("**/*shared.safetensors")) + sorted(run.rglob("*private.*"))
        for name, tensor in load_tensors(file)[0].items()
    }


@pytest.mark.usefixtures("interruptible")
def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run", epochs=5)
    whole = train_federated(config, tmp_path / "whole", ProgressListener(), backend=IN_PROCESS)
    stopping, terminal = StopAfter(2), console_handler.stream
    with pytest.raises(KeyboardInterrupt, match=r"Stopped\. Go on with it: --resume run"):
        train_federated(config, tmp_path / "cut", stopping, backend=IN_PROCESS)
    assert console_handler.stream is terminal
    assert stopping.stretches == [("federated training of 2 sites", 5 * 4)]
    cut = tmp_path / "cut" / "run"
    result = read_result(cut)
    assert (result["status"], result["reason"]) == ("interrupted", "stopped by hand")
    assert 1 <= len({row.round for row in read_rows(cut / "metrics.csv")}) < 5

    later = StopAfter(-1)
    resumed = config.changed(resume=True)
    assert train_federated(resumed, tmp_path / "cut", later, backend=IN_PROCESS) == cut
    assert any(text.startswith("round 5/5: a loss ") for text in later.said)
    assert not any(text.startswith("round 1/5") for text in later.said)
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys() and len(expected) > 10
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert "[ROUND 1/5]" in (whole / "flower.txt").read_text()


def test_a_site_that_cannot_take_part_fails_the_run_with_the_reason(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="broken")
    # One image of each class is less than there are folds.
    for folder in (tmp_path / "data" / "b").iterdir():
        for image in sorted(folder.iterdir())[1:]:
            image.unlink()
    with pytest.raises(
        RunError, match=r"run 'broken' failed: .* b says: Site 'b'.*/log.txt and flower.txt"
    ):
        train_federated(config, tmp_path / "runs", ProgressListener(), backend=IN_PROCESS)
    run = tmp_path / "runs" / "broken"
    assert read_result(run)["status"] == "failed"
    assert "RunError: A site cannot take part" in (run / "flower.txt").read_text()


def test_flower_s_own_account_stays_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, run_name="run", epochs=1)
    train_federated(config, tmp_path / "runs", ProgressListener(), backend=IN_PROCESS)
    logging.getLogger("flwr").info("heard again")
    said = capfd.readouterr()
    assert "[ROUND" not in said.out + said.err


def test_a_gpu_keeps_its_number_where_the_process_sees_all_of_them(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, device="cuda:1")
    placement = place(config.changed(device="cpu"))
    assert resolve_config(config, tmp_path, placement, IN_PROCESS.apart).device == "cuda:1"
    assert resolve_config(config, tmp_path, placement).device == "cuda"


def test_backends_have_names() -> None:
    assert backend_named("in-process") is IN_PROCESS
    assert backend_named("ray").name == "Flower and Ray"
    with pytest.raises(ConfigError, match=r"No backend is called 'rey'\. Did you mean 'ray'"):
        backend_named("rey")
