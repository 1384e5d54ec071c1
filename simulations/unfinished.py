"""A round that was stopped between two of its steps, where nothing is exchanged.

A site's round is done again from its start if it is cut short. An epoch over the images of all
sites takes longer, and so what is done of it is kept when somebody asks to stop.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.optim import Optimizer

from common.errors import CheckpointError, RunError, StoreError
from common.formatting.from_json import from_json
from common.learning.loop import TrainSummary
from common.learning.optimiser import load_moments, moments_of
from common.models.network import Network
from common.models.sharing import load_private, pack, private_state, unpack
from common.tensor_files import below, load_tensors, save_tensors

PRIVATE, MOMENT, SHARED = "private/", "moment/", "shared"


def join_summaries(first: TrainSummary, then: TrainSummary) -> TrainSummary:
    """Return the account of steps that follow each other, with the mean losses of all."""
    steps = first.steps + then.steps
    if steps == 0:
        return then
    share = then.steps / steps

    def mean(name: str) -> float:
        before = float(getattr(first, name))
        return before + share * (float(getattr(then, name)) - before)

    return replace(
        then,
        steps=steps,
        images=first.images + then.images,
        seconds=first.seconds + then.seconds,
        loss=mean("loss"),
        cross_entropy=mean("cross_entropy"),
        contrastive=mean("contrastive"),
    )


@dataclass(frozen=True)
class UnfinishedRound:
    """The place on disk of a round that was stopped.

    Attributes
    ----------
    path : Path
        The file.
    config : str
        Digest of the run's configuration.
    """

    path: Path
    config: str

    def save(self, network: Network, optimizer: Optimizer, done: TrainSummary) -> None:
        """Write what is done of the round, atomically.

        Raises
        ------
        RunError
            If the disk is full.
        """
        tensors = {SHARED: torch.from_numpy(pack(network))}
        tensors |= {f"{PRIVATE}{name}": tensor for name, tensor in private_state(network).items()}
        tensors |= {f"{MOMENT}{name}": tensor for name, tensor in moments_of(optimizer).items()}
        about = {"done": json.dumps(asdict(done)), "config": self.config}
        save_tensors(self.path, tensors, about)

    def load(self, network: Network, optimizer: Optimizer, steps: range) -> TrainSummary:
        """Go on with what is done of the round, if anything is, and if it is whole.

        Parameters
        ----------
        network, optimizer : Network, Optimizer
            As at the round's start; changed in place, or not at all.
        steps : range
            Of the whole round.

        Returns
        -------
        TrainSummary
            What is done; no step where the round is to be begun.

        Raises
        ------
        CheckpointError
            If it belongs to another configuration.
        """
        nothing = TrainSummary(0, 0, 0.0, 0.0, 0.0, 0.0, True, steps.start)
        if not self.path.exists():
            return nothing
        try:
            tensors, about = load_tensors(self.path)
        except CheckpointError:
            return nothing
        if about.get("config") != self.config:
            raise CheckpointError(f"The checkpoint {self.path} belongs to another configuration.")
        before = pack(network), private_state(network)
        try:
            done = from_json(TrainSummary, about.get("done", ""))
            if not steps.start < done.next_step < steps.stop or done.steps < 1:
                return nothing
            unpack(network, tensors[SHARED].numpy())
            load_private(network, below(PRIVATE, tensors))
            load_moments(optimizer, below(MOMENT, tensors))
        except (KeyError, ValueError, RunError, StoreError):
            # Damaged: the round is done again, which takes longer and comes to the same.
            unpack(network, before[0])
            load_private(network, before[1])
            return nothing
        return done
