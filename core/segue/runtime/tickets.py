"""Deliveries and what they still wait for."""

from __future__ import annotations

from collections.abc import Iterable

from segue.ports.transport import Consumer, Delivery


class Ticket:
    """A delivery and how many things must still happen before it may be acknowledged."""

    __slots__ = ("consumer", "delivery", "holds")

    def __init__(self, delivery: Delivery, consumer: Consumer) -> None:
        self.delivery = delivery
        self.consumer = consumer
        self.holds = 0


Tickets = tuple[Ticket, ...]


def redelivered(tickets: Tickets) -> bool:
    """Whether somebody had one of these before, and did not acknowledge it."""
    return any(ticket.delivery.deliveries > 1 for ticket in tickets)


def join_tickets(several: Iterable[Tickets]) -> Tickets:
    """Each ticket once."""
    return tuple(dict.fromkeys(ticket for tickets in several for ticket in tickets))
