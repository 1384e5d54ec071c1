"""How long a run is: its optimizer steps, its rounds, and after which of them figures are taken."""

from collections.abc import Iterable
from dataclasses import dataclass

from common.config.schema import Config


@dataclass(frozen=True)
class Plan:
    """The steps of a run and of its parts."""

    total_steps: int
    """Optimizer steps of the whole run."""
    round_steps: int
    """Those of a round; the last round may be shorter."""
    epoch_steps: int
    """Those in which the largest site is seen once."""

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

    def evaluated(self, round: int) -> bool:
        """Say whether figures are taken after a round: the first to end in another epoch.

        With several rounds an epoch, evaluating each would cost more than training it.
        """
        begun = self.end(round - 1) // self.epoch_steps
        return round == self.rounds or self.end(round) // self.epoch_steps > begun

    def budget(self, batch_size: int) -> dict[str, int]:
        """Return what ``result.json`` says of a run's length, for batches of so many images."""
        return {
            "steps": self.total_steps,
            "rounds": self.rounds,
            "steps_per_round": self.round_steps,
            "batch_size": batch_size,
            "images_per_site": self.total_steps * batch_size,
        }


def steps_per_epoch(train_images: Iterable[int], batch_size: int) -> int:
    """Return the steps in which the largest site is seen once.

    Parameters
    ----------
    train_images : iterable of int
        Training images of each site.
    batch_size : int
        Images of each site in a step.
    """
    return -(-max(train_images) // batch_size)


def make_plan(config: Config, train_images: Iterable[int]) -> Plan:
    """Plan a run.

    Parameters
    ----------
    config : Config
        ``epochs``, ``batch-size`` and ``local-steps``.
    train_images : iterable of int
        Training images of every site, those that a single-site run does not train on too; the
        largest sets the length of an epoch.
    """
    epoch = steps_per_epoch(train_images, config.batch_size)
    return Plan(config.epochs * epoch, config.local_steps or epoch, epoch)
