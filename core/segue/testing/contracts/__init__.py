"""Contract suites: what every adapter of a port must do, as tests to inherit."""

from segue.testing.contracts.journal import JournalContract
from segue.testing.contracts.objects import ObjectsContract
from segue.testing.contracts.store import StoreContract
from segue.testing.contracts.transport import TransportContract

__all__ = ["JournalContract", "ObjectsContract", "StoreContract", "TransportContract"]
