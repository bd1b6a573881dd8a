"""Why a cache does not work: each step on the way to it, tried in order."""

from fleche.doctor._examine import examine
from fleche.doctor._probe import Step

__all__ = ["Step", "examine"]
