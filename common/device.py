"""Where a run computes and in which precision: chosen by the configuration, ``auto`` by default."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from common.config.sections import TrainingKeys
from common.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """A device and the precision of its matrix work."""

    device: torch.device
    """Where weights and batches lie."""
    dtype: torch.dtype
    """bfloat16: automatic mixed precision over float32 weights; else the weights' own type."""

    @property
    def images_dtype(self) -> torch.dtype:
        """Type of a batch before the network: float64 under ``precision = 'float64'``."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        if self.dtype != torch.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def describe(self) -> str:
        """Say device and precision for logs and reports."""
        name = f" ({torch.cuda.get_device_name(self.device)})" if self.on_gpu else ""
        return f"{self.device}{name}, {str(self.dtype).removeprefix('torch.')}"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"


def choose_device(config: TrainingKeys) -> Device:
    """Choose device and precision.

    Parameters
    ----------
    config : TrainingKeys
        ``device`` and ``precision``. 'auto' takes a GPU where there is one, and bfloat16 where
        the device computes it natively.

    Raises
    ------
    ConfigError
        If a GPU is asked for that is not there.
    """
    if config.device == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is '{config.device}', but this process sees {torch.cuda.device_count()} "
            "GPUs. Use device = 'auto' or 'cpu'."
        )
    if config.precision != "auto":
        return Device(device, getattr(torch, config.precision))
    return Device(device, torch.bfloat16 if _native_bfloat16(device) else torch.float32)


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # oneDNN also says yes to x86 with plain AVX-512, where it emulates bfloat16 and gains nothing.
    return platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_avx512_bf16_supported()


@contextmanager
def limited_threads(config: TrainingKeys) -> Iterator[None]:
    """Compute with ``config.threads`` CPU threads within a block (0: as many as may be used).

    The order of a sum depends on the number of threads, so two runs agree bit for bit where they
    agree in this number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is where that is more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
