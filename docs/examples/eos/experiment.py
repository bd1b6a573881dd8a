"""What has been measured, to compare with: the fcc metals that EMT has parameters for."""

from __future__ import annotations

# Charles Kittel, Introduction to Solid State Physics, 8th edition (Wiley, 2005): lattice constants
# (Å, room temperature) from chapter 1, table 3; bulk moduli (GPa, room temperature) from chapter 3,
# table 3.
SOURCE = "C. Kittel, Introduction to Solid State Physics, 8th ed., ch. 1 and 3, table 3"
EXPERIMENT = {
    "Al": (4.05, 72.2),
    "Cu": (3.61, 137.0),
    "Ag": (4.09, 100.7),
    "Au": (4.08, 173.2),
    "Ni": (3.52, 186.0),
    "Pd": (3.89, 180.8),
    "Pt": (3.92, 278.3),
}


def percent(found: float, expected: float) -> float:
    """Return the difference in percent of what was expected, to one decimal."""
    return round(100 * (found / expected - 1), 1) + 0.0  # no -0.0
