"""A week of work on equations of state at three machines, played in a minute.

Each session is a process of its own, whose clock and machine are set to what they are played to be;
everything else is real. The pictures in the documentation show the cache that this leaves behind:

    python docs/examples/eos/week.py DIRECTORY
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

SESSIONS = (
    # days ago, hour, machine, user, metals, points, temperatures
    (6, 9, "laptop", "ada", ("Cu", "Ag"), 7, ()),
    (6, 14, "laptop", "ada", ("Cu", "Ag", "Au"), 11, (100, 200)),
    (5, 10, "laptop", "ada", ("Cu", "Ag", "Au"), 11, (100, 200, 300)),
    (5, 16, "workstation", "ada", ("Cu", "Ag", "Au", "Ni"), 11, (100, 200, 300, 400)),
    (4, 11, "notebook", "bob", ("Cu", "Ag", "Au", "Ni"), 11, (100, 200, 300, 400)),
    (4, 15, "workstation", "bob", ("Cu", "Ag", "Au", "Ni", "Pd"), 11, (100, 300, 500)),
    (3, 9, "notebook", "bob", ("Cu", "Ag", "Au", "Ni", "Pd"), 11, (100, 200, 300, 400, 500)),
    (2, 13, "workstation", "ada", ("Cu", "Ag", "Au", "Ni", "Pd", "Pt"), 21, (200, 400, 600)),
    (1, 10, "laptop", "ada", ("Cu", "Ag", "Au", "Ni", "Pd", "Pt"), 21, (100, 200, 300, 400, 600)),
    (1, 17, "notebook", "bob", ("Cu", "Ag", "Au", "Ni", "Pd", "Pt"), 21, (100, 300, 500, 600)),
    (0, 1, "workstation", "ada", ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"), 21, (300,)),
)


def pretend(session: int) -> None:
    """Set the clock and the names of machine and account to those of a session."""
    days, hour, machine, user, *_ = SESSIONS[session]
    real, this = time.time, os.uname()
    midnight = real() // 86400 * 86400
    shift = midnight - days * 86400 + hour * 3600 - real() if days else -600.0
    time.time = lambda: real() + shift
    os.uname = lambda: type(this)((this[0], machine, *this[2:]))
    os.environ["LOGNAME"] = user


def work(session: int, directory: Path) -> None:
    """Do what one session does: mostly what was done before, and a little more."""
    pretend(session)
    import eos
    import thermal

    import fleche
    from fleche.caches import Local

    *_, metals, points, temperatures = SESSIONS[session]
    fleche.cache(Local(directory))
    with fleche.tags(project="fcc metals", study="eos"):
        for metal in metals:
            eos.fit_eos(metal, points)
            thermal.curve_figure(metal, points)
            for kelvin in temperatures:
                thermal.thermal_amplitude(metal, float(kelvin))


def main() -> None:
    """Play the week, or one session of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="of the cache")
    parser.add_argument("--session", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.session is not None:
        work(chosen.session, chosen.directory)
        return
    for session in range(len(SESSIONS)):
        command = [sys.executable, __file__, str(chosen.directory), "--session", str(session)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
