"""What tells hospitals apart: five hand-made ones, and as many more as are asked for.

Hospitals differ in scanner and export first, in their patients second. The first two contrast
most in what normalisation sees: a full lung window against a pale picture of little contrast.
"""

from dataclasses import dataclass, replace

import numpy as np

from simulations.synthetic.scanner import Scanner


@dataclass(frozen=True)
class Hospital:
    """A hospital's scanner and whom it meets.

    Parameters
    ----------
    scanner : Scanner
        How it makes pictures.
    positive_share : float
        Share of patients with COVID-19.
    severity : float
        About 1; extent and density of their lesions.
    confounding : float
        About 1; how often other findings occur.
    """

    scanner: Scanner
    positive_share: float = 0.5
    severity: float = 1.0
    confounding: float = 1.0


PRESETS = (
    # A university hospital: lung window, thin slices, the whole grey range.
    Hospital(Scanner(field_of_view=340)),
    # An emergency ward that exports pale screenshots: wide window, soft kernel, few greys.
    Hospital(
        Scanner(
            window_level=-250,
            window_width=2600,
            window_spread=40,
            field_of_view=390,
            aspect=1.22,
            blur=1.3,
            noise=42,
            grain=1.6,
            gamma=0.75,
            black=45,
            white=235,
            grey_levels=64,
            marker=True,
        ),
        positive_share=0.42,
        severity=1.1,
    ),
    # A low-dose screening unit: sharp and noisy, zoomed into the lungs, hard contrast.
    Hospital(
        Scanner(
            window_level=-650,
            window_width=1050,
            field_of_view=285,
            rotation=3,
            blur=0.5,
            edges=0.9,
            noise=62,
            grain=0.6,
            couch=False,
        ),
        positive_share=0.4,
        severity=1.05,
        confounding=1.2,
    ),
    # A scanner that exports negatives of a round field.
    Hospital(
        Scanner(
            window_level=-500,
            window_width=1700,
            field_of_view=365,
            blur=1.1,
            noise=30,
            grain=1.2,
            gamma=1.2,
            inverted=True,
            circle=True,
        ),
        positive_share=0.35,
    ),
    # A field hospital: dark, coarse and crooked pictures of severe disease.
    Hospital(
        Scanner(
            window_level=-450,
            window_width=1400,
            window_spread=60,
            field_of_view=400,
            field_spread=0.06,
            aspect=0.88,
            rotation=6,
            blur=1.6,
            noise=48,
            grain=2.2,
            gamma=1.5,
            white=210,
            grey_levels=32,
        ),
        positive_share=0.6,
        severity=1.3,
        confounding=1.2,
    ),
)


def choose_hospital(index: int, generator: np.random.Generator) -> Hospital:
    """Return a hospital: a preset with small changes, or a drawn one where they have run out.

    Parameters
    ----------
    index : int
        From 0.
    generator : numpy.random.Generator
        The hospital's own.
    """
    if index >= len(PRESETS):
        return _draw(generator)
    preset = PRESETS[index]
    scanner = preset.scanner
    return replace(
        preset,
        scanner=replace(
            scanner,
            window_level=scanner.window_level + generator.normal(0, 10),
            noise=scanner.noise * generator.uniform(0.92, 1.08),
            field_of_view=scanner.field_of_view * generator.uniform(0.98, 1.02),
        ),
    )


def _draw(generator: np.random.Generator) -> Hospital:
    """Draw a hospital from the range that the presets span."""
    black, white = generator.uniform(0, 50), generator.uniform(200, 255)
    return Hospital(
        Scanner(
            window_level=generator.uniform(-700, -250),
            window_width=generator.uniform(1050, 2600),
            window_spread=generator.uniform(5, 50),
            field_of_view=generator.uniform(285, 400),
            field_spread=generator.uniform(0.02, 0.06),
            aspect=generator.uniform(0.85, 1.3),
            rotation=generator.uniform(1, 6),
            blur=generator.uniform(0.5, 1.6),
            edges=generator.uniform(0.3, 0.9) if generator.random() < 0.4 else 0.0,
            noise=generator.uniform(18, 60),
            grain=generator.uniform(0.6, 2.2),
            gamma=generator.uniform(0.7, 1.5),
            black=black,
            white=white,
            grey_levels=int(generator.choice([32, 64, 256])),
            inverted=bool(generator.random() < 0.2),
            couch=bool(generator.random() < 0.7),
            circle=bool(generator.random() < 0.3),
            marker=bool(generator.random() < 0.3),
        ),
        positive_share=generator.uniform(0.35, 0.6),
        severity=generator.uniform(0.85, 1.3),
        confounding=generator.uniform(0.8, 1.3),
    )
