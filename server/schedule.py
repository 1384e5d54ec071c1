"""How long a run is: its optimizer steps, its rounds, and after which of them figures are taken."""

from collections.abc import Iterable
from dataclasses import dataclass

from common.config.schema import Config
from common.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """The steps of a run and of its parts."""

    total_steps: int
    """Optimizer steps of the whole run."""
    round_steps: int
    """Those of a round; the last round may be shorter."""
    epoch_steps: int
    """Those in which the largest site is seen once."""
    alone_steps: int = 0
    """Those of a last round of its own length, after which nothing is averaged; 0: there is none.
    The steps before it fill whole rounds."""

    @property
    def rounds(self) -> int:
        """Number of rounds, with the one that each site takes alone."""
        exchanged = self.total_steps - self.alone_steps
        return -(-exchanged // self.round_steps) + (self.alone_steps > 0)

    def alone(self, round: int) -> bool:
        """Say whether each site takes a round alone."""
        return self.alone_steps > 0 and round == self.rounds

    def steps(self, round: int) -> range:
        """Return the global steps of a round, which is counted from 1."""
        return range(self.end(round - 1), self.end(round))

    def end(self, round: int) -> int:
        """Return the number of steps that are done after a round."""
        return self.total_steps if round >= self.rounds else round * self.round_steps

    def evaluated(self, round: int) -> bool:
        """Say whether figures are taken after a round: the first to end in another epoch.

        With several rounds an epoch, evaluating each would cost more than training it. The last
        average is evaluated too where the sites go on from it alone.
        """
        begun = self.end(round - 1) // self.epoch_steps
        last = round == self.rounds or self.alone(round + 1)
        return last or self.end(round) // self.epoch_steps > begun

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
        ``epochs``, ``batch-size``, ``local-steps`` and ``finish-alone``.
    train_images : iterable of int
        Training images of every site, those that a single-site run does not train on too; the
        largest sets the length of an epoch.

    Raises
    ------
    ConfigError
        If ``finish-alone`` leaves no round in which anything is exchanged.
    """
    epoch = steps_per_epoch(train_images, config.batch_size)
    total, length = config.epochs * epoch, config.local_steps or epoch
    if not config.finish_alone:
        return Plan(total, length, epoch)
    # 0.6 · 150 is a little less than 90 to a computer.
    exchanged = int(total * (1 - config.finish_alone) / length + 1e-9)
    exchanged = min(exchanged, (total - 1) // length)
    if not exchanged:
        raise ConfigError(
            f"finish-alone = {config.finish_alone:g} leaves less than a round of {length} steps "
            f"(local-steps) of {total} for the exchange. Lower one of them, or set more epochs."
        )
    return Plan(total, length, epoch, total - exchanged * length)
