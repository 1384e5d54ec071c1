"""How long a run is: its optimizer steps, and the rounds that they are divided into."""

from collections.abc import Iterable
from dataclasses import dataclass

from common.config import Config
from common.data.sampling import steps_per_epoch


@dataclass(frozen=True)
class Plan:
    """Steps of the whole run and of one round; the last round may be shorter."""

    total_steps: int
    round_steps: int

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return -(-self.total_steps // self.round_steps)

    def steps(self, round: int) -> range:
        """Return the global steps of a round, which is counted from 1."""
        return range((round - 1) * self.round_steps, self.end(round))

    def end(self, round: int) -> int:
        """Return the number of steps that are done after a round."""
        return min(round * self.round_steps, self.total_steps)


def make_plan(config: Config, train_images: Iterable[int]) -> Plan:
    """Plan a run.

    Parameters
    ----------
    config : Config
        ``epochs``, ``batch-size`` and ``local-steps``.
    train_images : iterable of int
        Training images of every site; the largest sets the length of an epoch.
    """
    epoch = steps_per_epoch(train_images, config.batch_size)
    return Plan(config.epochs * epoch, config.local_steps or epoch)
