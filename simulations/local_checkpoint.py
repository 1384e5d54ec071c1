"""Where a local training stands, on disk: weights, optimizer, position; the last two are kept."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.errors import CheckpointError
from common.files import load_tensors, number_of, numbered, save_tensors
from common.formatting.from_json import from_json
from common.learning.loop import TrainSummary
from common.models.network import Network

KEPT = 2


@dataclass(frozen=True)
class RoundLosses:
    """Mean losses over the steps of a round that are done."""

    steps: int = 0
    loss: float = 0.0
    cross_entropy: float = 0.0
    contrastive: float = 0.0

    def after(self, summary: TrainSummary) -> "RoundLosses":
        """Return the means with further steps of the same round."""
        steps = self.steps + summary.steps
        if steps == 0:
            return self
        share = summary.steps / steps
        return RoundLosses(
            steps,
            self.loss + share * (summary.loss - self.loss),
            self.cross_entropy + share * (summary.cross_entropy - self.cross_entropy),
            self.contrastive + share * (summary.contrastive - self.contrastive),
        )


@dataclass(frozen=True)
class Position:
    """How far a training is.

    Attributes
    ----------
    next_step : int
        The step to take next, from 0.
    evaluated : int
        Rounds whose figures are written.
    losses : RoundLosses
        Of the round that is not evaluated yet.
    best_round : int
        The round that validation likes best so far; 0: none yet.
    best_auc : float
        Its mean AUC over the sites.
    seconds : float
        Time spent so far, evaluation included.
    """

    next_step: int = 0
    evaluated: int = 0
    losses: RoundLosses = field(default_factory=RoundLosses)
    best_round: int = 0
    best_auc: float = 0.0
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return the position as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Position":
        """Read what :meth:`to_json` wrote; ValueError if it is nothing of the kind."""
        return from_json(cls, text)


def save_checkpoint(
    folder: Path, network: Network, optimizer: Optimizer, position: Position, config_digest: str
) -> None:
    """Write a checkpoint, atomically, and remove all but the last two.

    Raises
    ------
    RunError
        If the disk is full; the checkpoints that were there are unharmed.
    """
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                tensors[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
    path = folder / f"step-{position.next_step:07d}.safetensors"
    save_tensors(path, tensors, {"position": position.to_json(), "config": config_digest})
    for old in checkpoints(folder)[:-KEPT]:
        if not old.is_dir():
            old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return numbered(folder, "step-")


def load_checkpoint(
    folder: Path, network: Network, optimizer: Optimizer, config_digest: str
) -> Position:
    """Load the newest checkpoint that is whole.

    Parameters
    ----------
    folder : Path
        Where :func:`save_checkpoint` wrote.
    network, optimizer : Network, Optimizer
        Freshly made; changed in place, or not at all where there is no checkpoint.
    config_digest : str
        Digest of the run's configuration.

    Returns
    -------
    Position
        The beginning where there is no checkpoint.

    Raises
    ------
    CheckpointError
        If there are checkpoints and none can be read, or one belongs to another configuration.
    """
    broken: CheckpointError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            tensors, about = load_tensors(path)
        except CheckpointError as error:
            broken = error
            continue
        if about.get("config") != config_digest:
            raise CheckpointError(f"The checkpoint {path} belongs to another configuration.")
        try:
            position = Position.from_json(about.get("position", ""))
            if position.next_step != number_of(path) or position.evaluated < 0:
                raise ValueError(f"it says that it is of step {position.next_step}")
            _load(network, optimizer, tensors)
            return position
        except ValueError as error:
            broken = CheckpointError(
                f"The checkpoint {path} is damaged, or another program changed it ({error}). "
                "Restore it, or start a new run."
            )
    if broken is not None:
        raise broken
    return Position()


def _load(network: Network, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load a checkpoint's tensors, or change nothing.

    Raises
    ------
    ValueError
        If they do not fit.
    """
    own, held = network.state_dict(), _below("network/", tensors)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = _below("optimizer/", tensors)
    _refuse_misfits(own, held)
    _refuse_strange_moments(parameters, moments)
    # Not load_state_dict: it makes up the counters that shared BatchNorms do without.
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(held[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        index, _, key = name.partition("/")
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            # Fused optimizers walk through memory, so moments need their parameter's strides.
            tensor = torch.empty_like(like, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _refuse_misfits(own: dict[str, Tensor], held: dict[str, Tensor]) -> None:
    if own.keys() != held.keys():
        raise ValueError("it lacks tensors of the network, or holds others")
    for name, tensor in held.items():
        if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
            raise ValueError(f"{name} is {tuple(tensor.shape)} of {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")


def _refuse_strange_moments(parameters: list[Tensor], moments: dict[str, Tensor]) -> None:
    for name, tensor in moments.items():
        index = name.partition("/")[0]
        known = index.isdecimal() and int(index) < len(parameters)
        if not known or tensor.shape not in ((), parameters[int(index)].shape):
            raise ValueError(f"the optimizer's {name} is of shape {tuple(tensor.shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"the optimizer's {name} is not finite")


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
