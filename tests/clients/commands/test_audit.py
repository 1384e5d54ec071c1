"""Private tensors are looked up in the ledger; what is planted there is found."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch

from clients.commands.ledger_page import audit
from clients.egress.ledger import Entry, LedgerPart, Message, enter, entries
from common.tensor_files import save_tensors

TENSORS = {
    "private/norm.weight": torch.arange(4.0),
    "moment/0/exp_avg": torch.arange(6.0).reshape(2, 3),
    "private/norm.num_batches_tracked": torch.tensor(7),
    "private/norm.bias": torch.zeros(4),
    "memory/last": torch.arange(9.0),
}


def ledger_of(folder: Path, *tensors: torch.Tensor) -> list[Entry]:
    """Return a ledger in which these tensors left."""
    parts = []
    for tensor in tensors:
        data = tensor.numpy().tobytes()
        digest = hashlib.sha256(data).hexdigest()
        parts.append(LedgerPart("shared", "w", tuple(tensor.shape), "float32", len(data), digest))
    enter(folder, Message("north", "run", 1, "training", "sent", "", 99, tuple(parts)))
    return list(entries(folder))


def test_what_left_is_found_and_what_is_shared_or_says_nothing_is_not_looked_up(
    tmp_path: Path,
) -> None:
    own = tmp_path / "run" / "sites" / "north"
    save_tensors(own / "store" / "round-0001.safetensors", TENSORS)
    save_tensors(own / "private.safetensors", {"norm.weight": torch.arange(3.0)})
    # What the site shares, and zeros, which many tensors are at the start.
    clean = ledger_of(tmp_path / "ledger", TENSORS["memory/last"], TENSORS["private/norm.bias"])
    found = audit(tmp_path, clean)
    assert [one.file.name for one in found] == ["private.safetensors", "round-0001.safetensors"]
    assert [(one.tensors, one.skipped, one.left) for one in found] == [(1, 0, ()), (2, 2, ())]
    planted = ledger_of(tmp_path / "ledger", TENSORS["moment/0/exp_avg"], torch.arange(3.0))
    assert [one.left for one in audit(tmp_path, planted)] == [
        ("norm.weight",),
        ("moment/0/exp_avg",),
    ]


def test_a_simulated_site_s_files_lie_beside_its_ledger(tmp_path: Path) -> None:
    save_tensors(tmp_path / "store" / "round-0001.safetensors", TENSORS)
    held = ledger_of(tmp_path / "ledger", TENSORS["private/norm.weight"])
    (found,) = audit(tmp_path, held)
    assert found.left == ("private/norm.weight",)
    assert replace(found, left=()) != found
