"""More of the science: what heat does to a metal, and tables and figures of energy curves."""

from __future__ import annotations

import io

import eos
import numpy as np
import pandas as pd
from ase.data import atomic_numbers, reference_states
from matplotlib.figure import Figure

from fleche import fleche


@fleche
def thermal_amplitude(metal: str, kelvin: float) -> float:
    """Return the root mean square distance (Å) of atoms from their places at a temperature."""
    return eos.amplitude(eos.vibrate(metal, kelvin, steps=40))


@fleche
def energy_curve(metal: str, points: int) -> pd.DataFrame:
    """Return energies (eV per atom) and their slope (eV/Å) by lattice constant (Å)."""
    guess = reference_states[atomic_numbers[metal]]["a"]
    lengths = [round(guess * (1 + percent / 100), 4) for percent in eos.around_zero(points)]
    energies = [eos.energy(metal, a) for a in lengths]
    return pd.DataFrame({"a": lengths, "energy": energies, "slope": np.gradient(energies, lengths)})


@fleche
def curve_figure(metal: str, points: int) -> bytes:
    """Return the picture of an energy curve, as PNG."""
    curve = energy_curve(metal, points)
    figure = Figure(figsize=(4.6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve["a"], curve["energy"], "o-", color="#2b6f8e")
    axes.set(xlabel="lattice constant (Å)", ylabel="energy (eV)", title=f"{metal}, EMT")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
