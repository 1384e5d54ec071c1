"""Synthetic hospitals: CT-like chest slices with COVID-19-like lesions, made from a seed.

They stand in where no data may be used: demonstrations, tests, a first look at a configuration.
They resemble CT in geometry, densities and in how hospitals differ; results on them say nothing
about patients.
"""

from simulations.synthetic.hospital import write_hospital
from simulations.synthetic.lesions import FINDINGS

__all__ = ["FINDINGS", "write_hospital"]
