"""Schedules: when runs are due, and what happens while an earlier one is open. Pure: no I/O, no clock."""
