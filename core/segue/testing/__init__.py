"""The test kit: contract suites, a whole Segue in one process, and a simulator of both modes in any weather."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue.testing.contracts import JournalContract, ObjectsContract, StoreContract, TransportContract
    from segue.testing.everywhere import Difference, Everywhere, run_everywhere
    from segue.testing.sim.faults import CROWDED, LOSSY, QUIET, ROUGH, STORMY, Faults
    from segue.testing.sim.orders import Orders
    from segue.testing.world import World

__all__ = [
    "CROWDED",
    "LOSSY",
    "QUIET",
    "ROUGH",
    "STORMY",
    "Difference",
    "Everywhere",
    "Faults",
    "JournalContract",
    "ObjectsContract",
    "Orders",
    "StoreContract",
    "TransportContract",
    "World",
    "run_everywhere",
]

_PLACES = {
    "contracts": ("JournalContract", "ObjectsContract", "StoreContract", "TransportContract"),
    "everywhere": ("Difference", "Everywhere", "run_everywhere"),
    "sim.faults": ("CROWDED", "LOSSY", "QUIET", "ROUGH", "STORMY", "Faults"),
    "sim.orders": ("Orders",),
    "world": ("World",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Each part is imported at its first use: a plugin of pytest lives here, which all tests of a user load."""
    if name not in _MODULES:
        raise AttributeError(f"module 'segue.testing' has no attribute {name!r}")
    value = getattr(import_module(f"segue.testing.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
