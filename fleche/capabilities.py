"""What a storage or a cache is, as data, so that nobody needs to ask for its class."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Capabilities"]


@dataclass(frozen=True)
class Capabilities:
    """What a storage or a cache is, as data.

    Attributes:
        read_only: every save and every evict is refused.
        persistent: entries outlive the process.
        shared: several processes may use the same entries at the same time.
        opens_parcels: values are taken apart and made again, which needs the user's modules.
    """

    read_only: bool = False
    persistent: bool = False
    shared: bool = False
    opens_parcels: bool = False
