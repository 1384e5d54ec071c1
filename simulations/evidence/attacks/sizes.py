"""How large each attack is: for the report, and small enough for a test."""

from dataclasses import dataclass

from simulations.evidence.attacks.poisoning import PoisoningPlan


@dataclass(frozen=True)
class AttackSize:
    """Numbers that decide how long the attacks take.

    Attributes
    ----------
    patients : int
        At a hospital whose images are asked about.
    few, many : int
        Epochs of the federations that are released.
    shadows : int
        Networks that the attacker trains, an even number.
    attempts, searches : int
        Batches sought in each setting of gradient inversion, prototypes inverted in each.
    steps, prototype_steps : int
        Of every search.
    poisoning : tuple of PoisoningPlan
        Federations in which somebody lies.
    """

    patients: int = 64
    few: int = 4
    many: int = 30
    shadows: int = 4
    attempts: int = 3
    searches: int = 4
    steps: int = 200
    prototype_steps: int = 60
    poisoning: tuple[PoisoningPlan, ...] = (
        PoisoningPlan(12, 160, ("reversed",), ("compared",)),
        PoisoningPlan(
            4, 96, ("reversed", "short", "swapped"), ("none", "compared", "trimmed-mean")
        ),
    )


QUICK = AttackSize(16, 1, 2, 2, 1, 2, 10, 3, (PoisoningPlan(1, 8, ("reversed",), ("compared",)),))
"""To see that everything runs; its figures say nothing."""
