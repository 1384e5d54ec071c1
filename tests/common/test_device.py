import os

import pytest
import torch

from common import device as rooms
from common.device import choose_device, limited_threads
from common.errors import ConfigError
from tests.common.small_training import config


def test_the_cpu_in_each_precision() -> None:
    for precision, dtype, images in [
        ("float32", torch.float32, torch.float32),
        ("bfloat16", torch.bfloat16, torch.float32),
        ("float64", torch.float64, torch.float64),
    ]:
        chosen = choose_device(config(device="cpu", precision=precision))
        assert chosen.device == torch.device("cpu") and not chosen.on_gpu
        assert chosen.dtype == dtype and chosen.images_dtype == images
        assert chosen.describe() == f"cpu, {precision}"


@pytest.mark.parametrize("native, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_only_where_it_is_native(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_native_bfloat16", lambda device: native)
    assert choose_device(config(device="cpu")).dtype == dtype


def test_autocast_rounds_matrix_work_in_bfloat16_alone() -> None:
    for precision, expected in [("bfloat16", torch.bfloat16), ("float32", torch.float32)]:
        with choose_device(config(device="cpu", precision=precision)).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="device is 'cuda:1', but this process sees 1"):
        choose_device(config(device="cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(config(device="auto")).device.type == "cpu"


def test_threads_are_limited_within_the_block_alone() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), limited_threads(config(threads=3)):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before
    with limited_threads(config()):
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
