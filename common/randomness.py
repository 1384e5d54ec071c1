"""Generators seeded by what they are for: (seed, site name, step, purpose).

Nothing in xsite draws from a global generator. Two sites, two steps or two purposes never share
a stream, and a stream does not depend on what was drawn before: a resumed run draws what the
uninterrupted one would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

# Most of who draws here draws with NumPy: tables and synthetic patients need no second of PyTorch.
if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *parts: str | int) -> int:
    """Hash a run's seed and what the draw is for into a seed in [0, 2⁶³).

    Parameters
    ----------
    seed : int
        The run's seed.
    *parts : str or int
        What the stream is for, for example ``("hospital-a", 120, "augment")``.

    Returns
    -------
    int
        The first eight bytes of a SHA-256 over the parts, without the sign bit.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *parts: str | int) -> np.random.Generator:
    """Return a NumPy generator of its own for ``(seed, *parts)``."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *parts)))


def torch_generator(seed: int, *parts: str | int) -> "torch.Generator":
    """Return a CPU torch generator of its own for ``(seed, *parts)``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *parts))


@contextmanager
def seeded_torch(seed: int, *parts: str | int) -> Iterator[None]:
    """Seed torch's global generator within a block and restore it afterwards.

    For library code that accepts no generator: weight initialisation and dropout.
    """
    import torch

    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, *parts))
        yield
