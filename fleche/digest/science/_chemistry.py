"""Molecules of rdkit, atoms and calculators of ASE."""

from __future__ import annotations

import sys
from typing import Any

from fleche.digest._builtin import Attributes
from fleche.digest._registry import package_of
from fleche.digest.science._parts import Parts, parts, refuse, without

PERCEIVED = frozenset(
    [
        *("__computedProps", "_ChiralityPossible", "_CIPRank", "_StereochemDone"),
        *("_ringStereoAtoms", "_ringStereochemCand", "_ringStereoOtherAtom"),
        *("_smilesAtomOutputOrder", "_smilesBondOutputOrder"),
    ]
)
NOTES_OF_CALCULATORS = (
    *("atoms", "results", "get_spin_polarized", "use_cache", "implemented_properties"),
    *("nl", "neighbor_list", "energy", "energies", "forces", "stress", "stresses", "virials"),
)
NOTES_BY_CALCULATOR = {"EMT": ("rc", "rc_list", "acut", "ia2iz", "par", "chi", "deds")}
"""What a calculator works out from the atoms that it was last used with."""


def properties(obj: Any) -> Attributes:
    """Return the properties that a program has given to a molecule, an atom or a bond.

    What rdkit has worked out is left out, and so are its notes on the way there.
    """
    names = [name for name in obj.GetPropNames(True, False) if is_given(name)]
    found = obj.GetPropsAsDict(True, False, False)  # a text stays one, even if it is a number
    return Attributes({name: found.get(name, None) for name in names})


def is_given(name: str) -> bool:
    """Whether a property says more than what rdkit has seen when it looked for stereochemistry."""
    return name not in PERCEIVED


@parts
def molecule(obj: Any) -> Parts:
    """Describe a molecule by its atoms, bonds, conformers and properties.

    Rings, valences and the like, which rdkit works out when they are asked for, do not count.
    """
    chem = sys.modules["rdkit.Chem.rdchem"]
    return {
        "atoms": [describe_atom(atom) for atom in obj.GetAtoms()],
        "bonds": [describe_bond(bond) for bond in obj.GetBonds()],
        "conformers": [
            (conformer.GetId(), conformer.Is3D(), conformer.GetPositions(), properties(conformer))
            for conformer in obj.GetConformers()
        ],
        "stereo": [describe_stereo(group) for group in obj.GetStereoGroups()],
        "groups": [describe_group(group) for group in chem.GetMolSubstanceGroups(obj)],
        "properties": properties(obj),
        "attributes": Attributes(without(obj)),
    }


def describe_atom(atom: Any) -> Any:
    residue = atom.GetMonomerInfo()
    return (
        *(atom.GetAtomicNum(), atom.GetFormalCharge(), atom.GetIsotope(), atom.GetAtomMapNum()),
        *(atom.GetNumExplicitHs(), atom.GetNoImplicit(), atom.GetNumRadicalElectrons()),
        *(str(atom.GetChiralTag()), str(atom.GetHybridization()), atom.GetIsAromatic()),
        (atom.GetSmarts(), atom.DescribeQuery()) if atom.HasQuery() else None,
        residue and describe_residue(residue),
        properties(atom),
    )


def describe_residue(residue: Any) -> Any:
    """Return what a record of a PDB file says of an atom."""
    getters = sorted(name for name in dir(type(residue)) if name.startswith("Get"))
    return [(name, plain(getattr(residue, name)())) for name in getters]


def plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def describe_bond(bond: Any) -> Any:
    return (
        *(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), str(bond.GetBondType())),
        *(str(bond.GetBondDir()), str(bond.GetStereo()), list(bond.GetStereoAtoms())),
        *(bond.GetIsAromatic(), bond.GetIsConjugated()),
        bond.GetSmarts() if bond.HasQuery() else None,
        properties(bond),
    )


def describe_stereo(group: Any) -> Any:
    atoms = sorted(atom.GetIdx() for atom in group.GetAtoms())
    bonds = sorted(bond.GetIdx() for bond in group.GetBonds())
    return (str(group.GetGroupType()), group.GetReadId(), atoms, bonds)


def describe_group(group: Any) -> Any:
    members = (group.GetAtoms(), group.GetBonds(), group.GetParentAtoms())
    return (*map(list, members), properties(group))


@parts
def conformer(obj: Any) -> Parts:
    return {
        "id": obj.GetId(),
        "3d": obj.Is3D(),
        "positions": obj.GetPositions(),
        "properties": properties(obj),
    }


@parts
def reaction(obj: Any) -> Parts:
    return {
        "reactants": list(obj.GetReactants()),
        "agents": list(obj.GetAgents()),
        "products": list(obj.GetProducts()),
        "properties": properties(obj),
    }


@parts
def part_of_molecule(obj: Any) -> Parts:
    raise refuse(
        obj,
        "it belongs to a molecule",
        "pass the molecule and the index",
    )


@parts
def ase_atoms(obj: Any) -> Parts:
    """Describe atoms by their arrays, cell, boundary conditions, info, constraints, calculator."""
    return {
        **without(obj, "_calc"),
        "arrays": Attributes(obj.arrays),
        "calculator": obj.calc,
    }


@parts
def ase_calculator(obj: Any) -> Parts:
    """Describe a calculator by what it was made with, not by what it was last asked for.

    One that only keeps results is these results, and the atoms that they belong to.
    """
    kind = type(obj)
    notes = NOTES_BY_CALCULATOR.get(kind.__name__, ()) if package_of(kind) == "ase" else ()
    found: Parts = {"attributes": Attributes(without(obj, *NOTES_OF_CALCULATORS, *notes))}
    if kind.__name__.startswith("SinglePoint"):
        atoms = obj.atoms
        known = {name: value for name, value in obj.results.items() if value is not None}
        found["results"] = Attributes(known)
        found["of"] = None if atoms is None else (atoms.arrays, atoms.cell, atoms.pbc)
    return found


@parts
def ase_constraint(obj: Any) -> Parts:
    """Describe a constraint by what ASE would make it from, not by the forces that it has found."""
    if package_of(type(obj)) == "ase" and hasattr(obj, "todict"):
        made = obj.todict()
        return {"name": made["name"], "from": Attributes(made["kwargs"])}
    return without(obj)


@parts
def ase_symbols(obj: Any) -> Parts:
    return {"numbers": obj.numbers}
