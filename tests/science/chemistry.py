"""Cases of rdkit and ASE."""

from __future__ import annotations

from typing import Any

from tests.science import Case, Cases, Refused

__all__ = ["ase", "rdkit"]


def rdkit() -> Cases:
    from rdkit import Chem, DataStructs
    from rdkit.Chem import AllChem, Descriptors, rdFingerprintGenerator
    from rdkit.Geometry import Point3D

    def molecule(smiles: str = "C[C@H](O)N", change: Any = None) -> Any:
        found = Chem.MolFromSmiles(smiles)
        if change is not None:
            change(found)
        return found

    def changed(change: Any) -> Any:
        return lambda: molecule(change=change)

    def placed(x: float = 1 / 3) -> Any:
        found = molecule()
        conformer = Chem.Conformer(found.GetNumAtoms())
        conformer.SetAtomPosition(0, Point3D(x, 0.1, 0.2))
        found.AddConformer(conformer)
        return found

    def used(m: Any) -> object:
        return (
            *(
                Descriptors.MolWt(m),
                Chem.MolToSmiles(m),
                Chem.MolToMolBlock(m),
                m.GetRingInfo().NumRings(),
            ),
            rdFingerprintGenerator.GetMorganGenerator().GetFingerprint(m),
            *(m.GetSubstructMatch(m), Chem.FindMolChiralCenters(m), Descriptors.TPSA(m)),
            *(
                Chem.rdMolDescriptors.CalcMolFormula(m),
                AllChem.ComputeGasteigerCharges(Chem.Mol(m)),
            ),
            Chem.AssignStereochemistry(m, cleanIt=False, force=True),
        )

    def charged(value: float) -> Any:
        return changed(lambda m: m.GetAtomWithIdx(0).SetDoubleProp("charge", value))

    pdb = "ATOM      1  CA  ALA A   1       1.000   2.000   3.000  1.00  0.00           C"
    return {
        "function": Case(
            lambda: Chem.rdMolDescriptors.CalcTPSA,
            [lambda: Chem.rdMolDescriptors.CalcMolFormula],
            copies=["parcel"],
        ),
        "molecule": Case(
            molecule,
            [
                lambda: molecule("C[C@@H](O)N"),
                lambda: molecule("CC(O)N"),
                lambda: molecule("NC(O)C"),
                lambda: molecule("C[C@H](O)[15NH2]"),
                lambda: molecule("C[C@H](O)[NH3+]"),
                lambda: molecule("C[C@H](O)[NH2:7]"),
                changed(lambda m: m.SetDoubleProp("activity", 7.1)),
                changed(lambda m: m.SetDoubleProp("activity", 3.2)),
                changed(lambda m: m.SetProp("activity", "3.2")),
                changed(lambda m: m.SetIntProp("activity", 3)),
                changed(lambda m: m.SetProp("_Name", "ethanolamine")),
                charged(0.1),
                charged(0.2),
                changed(lambda m: m.GetBondWithIdx(0).SetProp("note", "x")),
                changed(lambda m: m.GetAtomWithIdx(0).SetProp("_TriposAtomName", "C1")),
                lambda: Chem.RWMol(molecule()),
                lambda: Chem.AddHs(molecule()),
                placed,
                lambda: placed(0.4),
                lambda: placed(1 / 3 + 1e-12),
            ],
            use=used,
        ),
        "coordinates": Case(placed, [lambda: placed(1 / 3 + 1e-12)], use=used),
        "properties": Case(charged(0.1), [charged(0.1 + 1e-15)], use=used),
        "named": Case(
            changed(lambda m: (m.SetProp("_Name", "x"), m.SetDoubleProp("activity", 7.1))), use=used
        ),
        "aromatic": Case(
            lambda: molecule("c1ccccc1C=CF"),
            [
                lambda: molecule("c1ccccc1/C=C/F"),
                lambda: molecule("c1ccccc1/C=C\\F"),
                lambda: molecule("C1CCCCC1C=CF"),
            ],
            use=used,
        ),
        "query": Case(
            lambda: Chem.MolFromSmarts("[C;R]"),
            [
                lambda: Chem.MolFromSmarts("[C;!R]"),
                lambda: Chem.MolFromSmarts("C"),
                lambda: molecule("C"),
            ],
            use=lambda q: molecule("C1CC1").GetSubstructMatches(q),
        ),
        "residue": Case(
            lambda: Chem.MolFromPDBBlock(pdb),
            [
                lambda: Chem.MolFromPDBBlock(pdb.replace("ALA", "GLY")),
                lambda: Chem.MolFromPDBBlock(pdb.replace("1.000", "1.001")),
            ],
            use=used,
        ),
        "enhanced stereo": Case(
            lambda: molecule("C[C@H](O)N |o1:1|"),
            [lambda: molecule("C[C@H](O)N |&1:1|"), molecule],
            use=used,
        ),
        "reaction": Case(
            lambda: AllChem.ReactionFromSmarts("[C:1]O>>[C:1]N"),
            [lambda: AllChem.ReactionFromSmarts("[C:1]O>>[C:1]S")],
            use=lambda r: (r.Initialize(), r.RunReactants((molecule("CO"),))),
            copies=("parcel",),
        ),
        "fingerprint": Case(
            lambda: DataStructs.CreateFromBitString("0101"),
            [lambda: DataStructs.CreateFromBitString("0111")],
            use=lambda v: (v.ToBitString(), DataStructs.TanimotoSimilarity(v, v)),
        ),
        "atom": Refused(lambda: molecule().GetAtomWithIdx(0), "molecule"),
    }


def ase() -> Cases:
    import ase.build
    import ase.db
    import ase.io
    import numpy as np
    from ase.calculators.calculator import Calculator
    from ase.calculators.emt import EMT
    from ase.calculators.lj import LennardJones
    from ase.calculators.mixing import SumCalculator
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.calculators.tip3p import TIP3P
    from ase.constraints import FixAtoms, FixBondLength

    def atoms(calculator: Any = None, change: Any = None) -> Any:
        found = ase.build.bulk("Cu", cubic=True)
        found.rattle(0.01, seed=1)
        found.calc = calculator
        if change is not None:
            change(found)
        return found

    def changed(change: Any) -> Any:
        return lambda: atoms(change=change)

    def computed(energy: float) -> Any:
        found = atoms()
        found.calc = SinglePointCalculator(found, energy=energy)
        return found

    def used(a: Any) -> object:
        return (
            *(
                repr(a),
                a.get_masses(),
                a.symbols,
                len(a),
                a.get_all_distances(),
                a.get_scaled_positions(),
            ),
            *(a.cell.lengths(), a.get_volume(), a.get_center_of_mass(), a[0], a.todict(), list(a)),
        )

    def simulated(a: Any) -> object:
        return (used(a), a.get_potential_energy(), a.get_forces(), a.get_stress())

    class Spring(Calculator):  # type: ignore[misc]
        implemented_properties = ("energy",)

        def __init__(self, strength: float) -> None:
            super().__init__()
            self.strength = strength

        def calculate(self, *arguments: Any) -> None:
            super().calculate(*arguments)
            self.results["energy"] = self.strength * float((self.atoms.positions**2).sum())

    ase.io.write("data.traj", [atoms(), atoms()])
    return {
        "atoms": Case(
            atoms,
            [
                changed(lambda a: a.rattle(0.1)),
                changed(lambda a: a.set_chemical_symbols("Cu3Au")),
                changed(lambda a: a.set_pbc(False)),
                changed(lambda a: a.set_cell(a.cell * 2)),
                changed(lambda a: a.info.update(source="x")),
                changed(lambda a: a.set_array("weight", np.ones(len(a)))),
                changed(lambda a: a.set_initial_magnetic_moments([1, 0, 0, 0])),
                changed(lambda a: a.set_tags([1, 0, 0, 0])),
                changed(lambda a: a.set_constraint(FixAtoms([0]))),
                changed(lambda a: a.set_constraint(FixAtoms([1]))),
                changed(lambda a: a.set_constraint(FixBondLength(0, 1))),
                changed(lambda a: a.set_celldisp([0, 0, 0.5])),
                changed(lambda a: a.__delitem__(0)),
                lambda: atoms(EMT()),
                lambda: atoms(LennardJones()),
                lambda: atoms(LennardJones(sigma=2.0)),
                lambda: computed(1.0),
                lambda: computed(2.0),
            ],
            use=used,
        ),
        "calculator": Case(lambda: atoms(EMT()), use=simulated, copies=("deepcopy", "parcel")),
        "pair potential": Case(
            lambda: atoms(LennardJones(sigma=2.0)), use=simulated, copies=("deepcopy", "parcel")
        ),
        "results": Case(
            lambda: computed(1.0),
            use=lambda a: (used(a), a.get_potential_energy()),
            copies=("deepcopy", "parcel"),
        ),
        "own calculator": Case(
            lambda: atoms(Spring(1.0)),
            [lambda: atoms(Spring(2.0)), lambda: atoms(SumCalculator([Spring(1.0), EMT()]))],
            use=lambda a: a.get_potential_energy(),
            copies=("deepcopy",),
        ),
        "mixed": Case(
            lambda: atoms(SumCalculator([LennardJones(), EMT()])),
            [lambda: atoms(SumCalculator([EMT(), EMT()])), lambda: atoms(TIP3P(rc=5.0))],
            use=simulated,
            copies=("deepcopy", "parcel"),
        ),
        "constraint": Case(
            changed(lambda a: a.set_constraint(FixAtoms([0]))),
            use=lambda a: (used(a), a.constraints),
        ),
        "bond": Case(
            lambda: atoms(EMT(), lambda a: a.set_constraint(FixBondLength(0, 1))),
            use=lambda a: a.get_forces(),
            copies=("deepcopy", "parcel"),
        ),
        "cell": Case(
            lambda: atoms().cell,
            [lambda: (atoms() * 2).cell],
            use=lambda c: (c.lengths(), c.get_bravais_lattice(), repr(c)),
        ),
        "atom": Case(
            lambda: ase.Atom("H"), [lambda: ase.Atom("He")], use=lambda a: (a.mass, repr(a))
        ),
        "database": Refused(lambda: ase.db.connect("data.db"), "rows"),
        "trajectory": Refused(lambda: ase.io.Trajectory("data.traj"), "frames"),
    }
