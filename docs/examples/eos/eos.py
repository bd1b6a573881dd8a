"""The science: equations of state and vibrations of metals, computed by ASE with its EMT potential.

This module is all that a user of fleche writes. Nothing in it knows where results are kept: that is
the business of the ``fleche.toml`` beside the person who runs it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import ase.eos
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_numbers, reference_states
from ase.md.verlet import VelocityVerlet

from fleche import fleche

GIGAPASCAL = 1e9 * units.Pascal
FRAME_STEPS = 5

bodies_run: Counter[str] = Counter()
"""How often the body of each function has run in this process. A hit never gets there."""


@dataclass(frozen=True)
class Fit:
    """A fitted equation of state.

    Attributes:
        a0: lattice constant at zero pressure, in Å.
        bulk_modulus: in GPa.
    """

    a0: float
    bulk_modulus: float


@fleche
def energy(metal: str, a: float) -> float:
    """Return the energy of an fcc crystal with lattice constant ``a`` (Å), in eV per atom."""
    bodies_run["energy"] += 1
    crystal = bulk(metal, "fcc", a=a)
    crystal.calc = EMT()
    return float(crystal.get_potential_energy())


@fleche
def fit_eos(metal: str, points: int) -> Fit:
    """Fit a Birch-Murnaghan equation of state to ``points`` crystals, 1 % apart in length."""
    bodies_run["fit_eos"] += 1
    guess = reference_states[atomic_numbers[metal]]["a"]
    lengths = [round(guess * (1 + percent / 100), 4) for percent in around_zero(points)]
    energies = [energy(metal, a) for a in lengths]
    volumes = [a**3 / 4 for a in lengths]
    fit = ase.eos.EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, _, bulk_modulus = fit.fit()
    return Fit(float((4 * volume) ** (1 / 3)), float(bulk_modulus / GIGAPASCAL))


@fleche
def vibrate(metal: str, kelvin: float, steps: int) -> np.ndarray:
    """Return the positions (frame, atom, xyz; Å) of 256 atoms that vibrate at about ``kelvin``.

    They move for ``steps`` steps of 5 fs at constant energy. Every fifth is a frame; those of the
    first quarter are left out, since the crystal begins with every atom in its place.
    """
    bodies_run["vibrate"] += 1
    a0 = fit_eos(metal, points=7).a0
    crystal = bulk(metal, "fcc", a=a0, cubic=True).repeat(4)
    crystal.calc = EMT()
    masses = crystal.get_masses()[:, np.newaxis]
    # Twice the temperature: half of the kinetic energy goes into the springs.
    width = np.sqrt(2 * kelvin * units.kB * masses)
    momenta = width * np.random.default_rng(seed=1).normal(size=(len(crystal), 3))
    crystal.set_momenta(momenta - momenta.mean(axis=0))
    dynamics = VelocityVerlet(crystal, timestep=5 * units.fs)
    frames = []
    for _ in range(steps // FRAME_STEPS):
        dynamics.run(FRAME_STEPS)
        frames.append(crystal.positions.copy())
    return np.array(frames[len(frames) // 4 :])


@fleche
def amplitude(frames: np.ndarray) -> float:
    """Return the root mean square distance (Å) of the atoms from their mean positions."""
    bodies_run["amplitude"] += 1
    apart = frames - frames.mean(axis=0)
    return float(np.sqrt((apart**2).sum(axis=-1).mean()))


def around_zero(points: int) -> range:
    """Return ``points`` whole numbers around zero; ``points`` is odd."""
    return range(-(points // 2), points // 2 + 1)
