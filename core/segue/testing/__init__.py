"""The test kit: contract suites, an in-process world, an independent evaluator."""

from segue.testing.contracts import JournalContract, StoreContract, TransportContract

__all__ = ["JournalContract", "StoreContract", "TransportContract"]
