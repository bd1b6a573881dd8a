"""The story that the demo tells, and the claims it makes on the way."""

from __future__ import annotations

import json

from experiment import EXPERIMENT, SOURCE, percent
from runs import Job, Laptop, Report, run_python
from screen import INDENT, Screen
from workstation import Workstation

STEPS = 7
POINTS, FINER, FINEST = 7, 11, 13
"""Crystals in an equation of state: at first, when more are asked for, and offline."""

SHOW_TABLE = """\
import fleche
table = fleche.cache().query(name="fit_eos").sorted().table()
print(table)
"""
SHOW_USERS = "print(*(row.user for row in table))\n"


class Story:
    """Two laptops and a workstation, in seven steps."""

    def __init__(self, job: Job, workstation: Workstation, screen: Screen) -> None:
        self.job = job
        self.workstation = workstation
        self.screen = screen
        layer, place = workstation.layer(), workstation.directory.parent
        self.a = Laptop(place / "laptop-a", "ada", layer)
        self.b = Laptop(place / "laptop-b", "bob", layer)

    def run(self) -> None:
        """Tell it."""
        self.introduce()
        first = self.compute()
        self.share(first)
        finer = self.refine()
        self.go_offline(finer)
        self.list_calls()
        self.use_commands()
        self.compare(finer)

    def introduce(self) -> None:
        """Say who takes part."""
        screen, place = self.screen, self.workstation.directory.parent
        screen.say(
            f"The job: equations of state of {', '.join(self.job.metals)}, and the vibrations of "
            "256 copper atoms, with ASE and its EMT potential. The functions are in "
            "docs/examples/eos/eos.py, each marked @fleche; they call one another."
        )
        print()
        screen.show(
            f"{place}/\n"
            "  laptop-a/      ada works here\n"
            "  laptop-b/      bob works here\n"
            f"  workstation/   reached through {self.workstation.route}"
        )
        print("\nBoth laptops have the same fleche.toml:\n")
        screen.show((self.a.directory / "fleche.toml").read_text())

    def compute(self) -> Report:
        """The laptop that is first computes everything."""
        screen, job = self.screen, self.job
        screen.step("laptop A knows nothing, computes, and pushes", STEPS)
        screen.say("No result is stored anywhere. Every call is a miss, so every body runs.")
        report = self.a.run(job, POINTS, push=True)
        screen.say(f"Took {report.seconds:.1f} s. Function bodies that ran:")
        screen.show("\n".join(f"{name:10}{count:4}" for name, count in report.bodies_run.items()))
        expected = {
            "energy": job.count * POINTS,
            "fit_eos": job.count,
            "vibrate": 1,
            "amplitude": 1,
        }
        screen.claim("each distinct call ran exactly once", report.bodies_run == expected)
        screen.claim(
            f"all {report.pushed} calls were pushed to the workstation, the largest with an array "
            f"of {report.frames['bytes']:,} bytes",
            report.pushed == report.computed > 0,
        )
        return report

    def share(self, first: Report) -> None:
        """The other laptop computes nothing."""
        screen, job = self.screen, self.job
        screen.step("laptop B runs the same analysis, with an empty cache", STEPS)
        screen.say("Another directory, another process. What it needs is on the workstation.")
        report = self.b.run(job, POINTS)
        screen.say(f"Took {report.seconds:.1f} s. Function bodies that ran: {report.computed}")
        screen.claim("laptop B computed nothing", report.computed == 0)
        wanted = job.count + 2  # equations of state, positions, amplitude
        screen.claim(
            f"the {wanted} results it asked for came from the workstation and are now in its own "
            "cache, too; the energies below them were not even asked for",
            report.cache.get("copied") == wanted,
        )
        screen.claim(
            "every number is the same to the last bit, those of the array "
            f"({' x '.join(map(str, report.frames['shape']))}) included",
            report.results() == first.results(),
        )
        logins = self.workstation.logins()
        if logins is not None:
            # one to see whether the server works, one for each laptop
            screen.claim("each laptop logged in once and kept its connection", logins == 3)

    def refine(self) -> Report:
        """Functions that call one another share what lies below them."""
        screen, job = self.screen, self.job
        screen.step(f"laptop B wants {FINER} points instead of {POINTS}, and pushes", STEPS)
        screen.say(
            "The equations of state are new, but most of the energies below them are not: only "
            f"{FINER - POINTS} of {FINER} for each metal are left to compute."
        )
        report = self.b.run(job, FINER, push=True)
        expected = {"energy": job.count * (FINER - POINTS), "fit_eos": job.count}
        screen.claim(
            f"computed: {expected['energy']} energies and {job.count} fits, no more",
            report.bodies_run == expected,
        )
        screen.claim(
            f"from the workstation: {job.count * POINTS} energies",
            report.cache.get("copied") == job.count * POINTS,
        )
        return report

    def go_offline(self, finer: Report) -> None:
        """Without the workstation, work goes on."""
        screen = self.screen
        screen.step("the workstation is switched off", STEPS)
        self.workstation.stop()
        screen.say("Laptop B repeats its analysis. Its own disk has it all by now.")
        again = self.b.run(self.job, FINER)
        screen.claim("computed nothing, the results are the same", _repeats(again, finer))
        screen.claim("did not even try to reach the workstation", not again.complaints)
        screen.say(f"Now something new: copper with {FINEST} points.")
        new = self.b.run(Job(("Cu",), self.job.steps), FINEST)
        expected = {"energy": FINEST - FINER, "fit_eos": 1}
        screen.claim("computed 2 energies and 1 fit, and went on", new.bodies_run == expected)
        screen.claim("said once that the workstation was missing:", len(new.complaints) == 1)
        for complaint in new.complaints:
            screen.quote(complaint)
        self.workstation.start()

    def list_calls(self) -> None:
        """The workstation knows who computed what."""
        screen, job = self.screen, self.job
        screen.step("who computed what, and when", STEPS)
        screen.say("The workstation is on again. In its directory, these lines")
        print()
        screen.show(SHOW_TABLE)
        print()
        screen.say("print, without opening a value (eos.py is not on its path):")
        print()
        script, directory = SHOW_TABLE + SHOW_USERS, self.workstation.directory
        printed = run_python(["-c", script], directory, "operator", capture=True)
        table, _, users = printed.rstrip().rpartition("\n")
        print(f"{table}\n", flush=True)
        screen.claim(
            f"{job.count} fits by ada, then {job.count} by bob",
            users.split() == ["ada"] * job.count + ["bob"] * job.count,
        )

    def use_commands(self) -> None:
        """What is stored can be seen from a shell."""
        screen, laptop = self.screen, self.b.directory
        screen.step("what a shell shows of it", STEPS)
        for words, said in (
            ("log fit_eos --user bob -n 3", "The newest fits that bob has computed:"),
            ("du", "What takes the space on his laptop:"),
        ):
            screen.say(said)
            print(f"\n{INDENT}$ fleche {words}", flush=True)
            run_python(["-m", "fleche", *words.split()], laptop, "bob")
            print()
        newest = json.loads(
            run_python(
                ["-m", "fleche", "log", "vibrate", "-n", "1", "--json"], laptop, "bob", capture=True
            )
        )
        screen.say("What the positions of the atoms were computed from:")
        print(f"\n{INDENT}$ fleche tree {newest['key'][:8]}", flush=True)
        run_python(["-m", "fleche", "tree", newest["key"]], laptop, "bob")
        print()
        report = run_python(["-m", "fleche", "verify", "--json"], laptop, "bob", capture=True)
        screen.claim(
            "'fleche verify' has checked every byte, and all is well", '"ok": true' in report
        )

    def compare(self, finer: Report) -> None:
        """The numbers mean something."""
        screen = self.screen
        screen.step("the physics", STEPS)
        screen.say(
            f"Equations of state with {FINER} points (EMT: at rest; experiment: at room "
            f"temperature, {SOURCE})."
        )
        print()
        screen.show("       lattice constant (Å)           bulk modulus (GPa)")
        screen.show("        EMT    exp.  difference       EMT   exp.  difference")
        worst = 0.0
        for metal, fit in finer.fits.items():
            a0, bulk_modulus = EXPERIMENT[metal]
            off = percent(fit["a0"], a0)
            worst = max(worst, abs(off))
            screen.show(
                f"{metal:4}{fit['a0']:8.3f}{a0:7.2f}{off:9.1f} %"
                f"{fit['bulk_modulus']:13.1f}{bulk_modulus:7.1f}"
                f"{percent(fit['bulk_modulus'], bulk_modulus):9.1f} %"
            )
        print()
        screen.claim(
            f"every lattice constant is within 2 % of experiment (the worst: {worst:.1f} %)",
            worst < 2,
        )
        screen.say(
            "What is left is the error of EMT, which is largest for the bulk modulus of aluminium."
        )


def _repeats(report: Report, earlier: Report) -> bool:
    return report.computed == 0 and bool(report.results() == earlier.results())
