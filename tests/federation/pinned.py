"""Of a run's weights: what is pinned of them, and how they differ from it."""

import hashlib
import json
import math
import os
import platform
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch

from common.tensor_files import load_tensors

PINNED = Path(__file__).with_name("pinned_weights.json")
SHORT = 16
LIMITING = ("MKL_", "ONEDNN_", "DNNL_", "NPY_DISABLE", "NPY_ENABLE")
"""Beginnings of environment variables that choose kernels."""
TOLERANCE = 1e-9
"""Of a tensor's numbers: between MKL's kernels for AVX2 and AVX-512 they differ by up to 7e-11."""
TOLERANCES = {"half-deltas": 1e-6}
"""Where a value lies between two of float16, the last bit of float64 moves it by 2⁻¹¹ of a
change."""
SMALLEST = 1e-3
"""Magnitude below which a mean magnitude counts as this: some biases are rounding alone."""


@dataclass(frozen=True)
class Pinned:
    """A tensor: its name, type and shape, and what its values come to.

    The digest is over type, shape and bytes, not over the name, so that a tensor under another
    name is found again.
    """

    name: str
    kind: str
    total: float
    absolute: float
    first: float
    digest: str


Weights = dict[str, list[Pinned]]
"""File within the run → its tensors, in the order of their names."""


def weights_of(run: Path) -> Weights:
    files = [*run.glob("*.safetensors"), *run.glob("sites/*/*.safetensors")]
    return {str(file.relative_to(run)): tensors_of(file) for file in sorted(files)}


def tensors_of(file: Path) -> list[Pinned]:
    tensors, _ = load_tensors(file)
    return [pinned(name, tensors[name]) for name in sorted(tensors)]


def pinned(name: str, tensor: torch.Tensor) -> Pinned:
    values = tensor.contiguous().numpy()
    kind = f"{values.dtype} {values.shape}"
    digest = hashlib.sha256(kind.encode() + b"\n" + values.tobytes()).hexdigest()
    flat = values.astype(np.float64).ravel()
    total, absolute = float(flat.sum()), float(np.abs(flat).sum())
    return Pinned(name, kind, total, absolute, float(flat[0]), digest)


def whole_digest(tensors: list[Pinned]) -> str:
    """Return a SHA-256 over the names, types, shapes and bytes of all tensors of a file."""
    text = "".join(f"{one.name} {one.digest}\n" for one in tensors)
    return hashlib.sha256(text.encode()).hexdigest()


def machine() -> str:
    """Name all on which the bits of a sum in float64 depend: libraries, kernels and processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0] if info.exists() else ""
    facts = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", lines, re.MULTILINE))
    # Without the file: what else a process has loaded by now is no matter.
    kernels = {
        f"{one['internal_api']} {one.get('architecture', '')}".strip()
        for one in threadpoolctl.threadpool_info()
        if one["user_api"] == "blas"
    }
    # MKL is linked into PyTorch, where nobody can ask it: it chooses by processor and these.
    limits = [f"{n}={os.environ[n]}" for n in sorted(os.environ) if n.startswith(LIMITING)]
    return ", ".join(
        [
            f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
            f"numpy {np.__version__}",
            *sorted(kernels),
            " ".join(facts.values()) or platform.processor() or platform.machine(),
            *limits,
        ]
    )


@cache
def stored() -> dict[str, Any]:
    """Return numbers of every tensor, and digests by machine."""
    read: dict[str, Any] = json.loads(PINNED.read_text())
    return read


def far(found: Pinned, numbers: list[Any], tolerance: float) -> bool:
    """Say whether a tensor's numbers are not the pinned ones, measured by its mean magnitude."""
    _, kind, total, absolute, first = numbers
    size = math.prod(int(n) for n in re.findall(r"\d+", kind.partition(" ")[2]))
    whole = max(absolute, size * SMALLEST)
    one = max(abs(first), absolute / max(size, 1), SMALLEST)
    return not (
        abs(found.total - total) <= tolerance * whole
        and abs(found.absolute - absolute) <= tolerance * whole
        and abs(found.first - first) <= tolerance * one
    )


def digests_of(weights: Weights) -> dict[str, dict[str, Any]]:
    """Return of every file the digest of the whole, and the beginning of each tensor's."""
    return {
        file: {"whole": whole_digest(own), "tensors": [one.digest[:SHORT] for one in own]}
        for file, own in weights.items()
    }


def names_of(weights: Weights) -> dict[str, list[str]]:
    return {file: [one.name for one in own] for file, own in weights.items()}


def difference(
    found: dict[str, dict[str, Any]],
    expected: dict[str, dict[str, Any]],
    names: dict[str, list[str]],
    expected_names: dict[str, list[str]],
) -> str:
    """Say how a run's weights are not the pinned ones: values, or nothing but names; '' if equal.

    Files may be others too: what is compared then is all tensors of the run.
    """
    if found == expected and names == expected_names:
        return ""
    now = Counter(digest for own in found.values() for digest in own["tensors"])
    then = Counter(digest for own in expected.values() for digest in own["tensors"])
    if now == then:
        there = {(file, one) for file, own in names.items() for one in own}
        known = {(file, one) for file, own in expected_names.items() for one in own}
        return (
            "Every value is the pinned one, but names differ. "
            f"New: {sorted(there - known)}; gone: {sorted(known - there)}"
        )
    other = [
        f"{file}:{name}"
        for file, own in found.items()
        for name, digest in zip(names[file], own["tensors"], strict=True)
        if digest not in then
    ]
    return f"{len(other)} of {now.total()} tensors have other values than pinned: {other[:10]}"


def numbers_of(weights: Weights) -> dict[str, list[list[Any]]]:
    return {
        file: [[one.name, one.kind, one.total, one.absolute, one.first] for one in own]
        for file, own in weights.items()
    }


def compared(
    name: str,
    weights: Weights,
    numbers: dict[str, list[list[Any]]] | None,
    digests: dict[str, dict[str, Any]] | None,
) -> str:
    """Say how a run differs from what is pinned; '' where it does not."""
    if numbers is None:
        return "not pinned yet"
    names = {file: [one[0] for one in own] for file, own in numbers.items()}
    if digests is not None:
        return difference(digests_of(weights), digests, names_of(weights), names)
    if names != names_of(weights):
        return "names differ, and no digests are pinned for this kind of machine"
    tolerance = TOLERANCES.get(name, TOLERANCE)
    count = sum(
        far(one, pin, tolerance)
        for file, own in weights.items()
        for one, pin in zip(own, numbers[file], strict=True)
    )
    return f"{count} tensors have other numbers than pinned" if count else ""


def compact(content: dict[str, Any]) -> str:
    """Return JSON with one tensor a line."""
    text = json.dumps(content, indent=0)
    return re.sub(r"\n(?!\[|\"(?:[a-z-]+|[^\"\n]+)\": )", "", text) + "\n"
