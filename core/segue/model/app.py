"""An app: the flows and services that belong together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from segue.errors import DeclarationError
from segue.model.flow import Flow
from segue.model.service import Service
from segue.model.site import here
from segue.names import check_name


class App:
    """What `--app shop:app` names: flows and services.

    A flow may call steps of services that are not listed: their code runs elsewhere.

    Args:
        name: Name of the app.
        flows: Its flows.
        services: Services whose code is here.

    Attributes:
        name: Its name.
        flows: Flows by name.
        services: Services by name.

    Raises:
        DeclarationError: A bad name, two of one name, or something that is no flow or service.
    """

    def __init__(self, name: str, flows: Iterable[Flow[..., Any]] = (), services: Iterable[Service] = ()) -> None:
        self.name = check_name(name, "app", here())
        self.flows: dict[str, Flow[..., Any]] = _by_name(flows, Flow, "flow", name)
        self.services: dict[str, Service] = _by_name(services, Service, "service", name)

    def __repr__(self) -> str:
        return f"App({self.name!r}, flows={list(self.flows)}, services={list(self.services)})"


def _by_name(given: Iterable[Any], kind: type[Any], what: str, app: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in given:
        if not isinstance(item, kind):
            raise DeclarationError(f"{here()}: app {app!r} lists {item!r} as a {what}", f"it must be made with {what}")
        if item.name in found:
            raise DeclarationError(f"{here()}: app {app!r} has two {what}s named {item.name!r}", "rename one of them")
        found[item.name] = item
    return found
