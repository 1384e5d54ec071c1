"""Which tensors travelled and which stayed: names, shapes and sizes from a run's files."""

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.formatting import numbers
from common.formatting.tables import Table, plain_table
from simulations.report.records import RunRecord

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def tensor_tables(records: Sequence[RunRecord]) -> tuple[Table, ...]:
    """Return the shared and the private tensors of a federated run, or else of a pooled one.

    Sizes come from the run's files; where these are not at hand (private tensors stay at a
    deployed site), the names alone come from its result.
    """
    chosen = [run for run in records if run.mode in ("federated", "pooled")]
    if not chosen:
        return ()
    run = min(chosen, key=lambda run: run.mode)
    shared = _tensors(run.path / "shared.safetensors") or _names(run, "shared")
    private = [
        entry
        for site in run.config.site_names
        for entry in _tensors(run.path / "sites" / site / "private.safetensors")
    ] or _names(run, "private")
    return _tensor_table("Shared", shared), _tensor_table("Private", private)


TensorEntry = tuple[str, tuple[int, ...] | None, int]


def _tensor_table(title: str, entries: Sequence[TensorEntry]) -> Table:
    total = sum(octets for _, _, octets in entries)
    values = sum(math.prod(shape) for _, shape, _ in entries if shape is not None)
    known = f", {numbers.count(values)} values, {numbers.size(total)}" if values else ""
    rows = [
        (
            name,
            "–" if shape is None else " × ".join(map(str, shape)) or "1",
            numbers.size(octets) if octets else "–",
        )
        for name, shape, octets in entries
    ]
    noun = "tensor" if len(entries) == 1 else "tensors"
    caption = f"{title}: {numbers.count(len(entries))} {noun}{known}"
    return plain_table(caption, ("Tensor", "Shape", "Size"), rows, prose=True)


def _tensors(path: Path) -> list[TensorEntry]:
    """Return name, shape and bytes of a file's tensors without reading their values."""
    try:
        with safe_open(path, framework="np") as file:
            parts = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
            entries = [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in parts]
    except (OSError, SafetensorError):
        return []
    return [(name, shape, math.prod(shape) * BYTES[kind]) for name, shape, kind in entries]


def _names(run: RunRecord, part: str) -> list[TensorEntry]:
    return [(str(name), None, 0) for name in run.result.get(part, ())]
