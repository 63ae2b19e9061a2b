"""Registers the adapters of this package."""
