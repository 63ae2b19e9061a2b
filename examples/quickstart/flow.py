"""A first flow. `segue dev flow:app` runs it here; `segue start place_order --input ... --wait` starts a run."""

import msgspec

from segue import App, Retry, Service, flow


class Order(msgspec.Struct):
    id: str
    total: int


payments, inventory, email = Service("payments"), Service("inventory"), Service("email")


@payments.step(retry=Retry(max_attempts=5), timeout=30)
async def charge(order: Order) -> str:
    return f"receipt of {order.total}"


@inventory.step
async def reserve(order: Order) -> str:
    return f"shelf {order.id[-1]}"


@email.step
async def notify(order: Order, receipt: str, shelf: str) -> str:
    return f"Order {order.id}: {receipt}, from {shelf}"


@flow(key=lambda order: order.id)
def place_order(order: Order) -> str:
    receipt = charge(order)
    shelf = reserve(order)
    return notify(order, receipt, shelf)


app = App("shop", flows=[place_order], services=[payments, inventory, email])
