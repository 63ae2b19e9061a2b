"""An app: the flows, services and schedules that belong together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from segue.errors import DeclarationError
from segue.model.flow import Flow
from segue.model.schedule import Schedule
from segue.model.service import Service
from segue.model.site import here
from segue.names import check_name


class App:
    """What `--app shop:app` names: flows, services and schedules.

    A flow may call steps of services that are not listed: their code runs elsewhere.

    Args:
        name: Name of the app.
        flows: Its flows.
        services: Services whose code is here.
        schedules: When its flows are started by themselves.

    Attributes:
        name: Its name.
        flows: Flows by name.
        services: Services by name.
        schedules: Schedules by name.

    Raises:
        DeclarationError: A bad name, two of one name, something that is no flow, service or schedule, or a schedule of
            a flow that is not listed.
    """

    def __init__(
        self,
        name: str,
        flows: Iterable[Flow[..., Any]] = (),
        services: Iterable[Service] = (),
        schedules: Iterable[Schedule] = (),
    ) -> None:
        self.name = check_name(name, "app", here())
        self.flows: dict[str, Flow[..., Any]] = _by_name(flows, Flow, "flow", name)
        self.services: dict[str, Service] = _by_name(services, Service, "service", name)
        self.schedules: dict[str, Schedule] = _by_name(schedules, Schedule, "schedule", name)
        for schedule in self.schedules.values():
            if self.flows.get(schedule.flow.name) is not schedule.flow:
                raise DeclarationError(
                    f"{here()}: app {name!r} has a schedule of flow {schedule.flow.name!r}, which it does not list",
                    "add the flow to flows=[...]",
                )

    def hosted(self) -> dict[str, Service]:
        """Its services, with the functions that its flows compute there: what processes serve.

        Raises:
            DeclarationError: A flow cannot be compiled, or a name is taken in the service.
        """
        found = {name: Service(name) for name in self.services}
        for name, service in self.services.items():
            found[name].steps.update(service.steps)
        for flow in self.flows.values():
            for step in flow.computed:
                if step.service not in found:
                    continue
                known = found[step.service].steps.setdefault(step.name, step)
                if known.site != step.site:
                    raise DeclarationError(
                        f"{step.site}: flow {flow.name!r} computes {step.name!r} at service {step.service!r}, which "
                        f"has a step of that name, from {known.site}",
                        "give one of them another name: @compute(name=...)",
                    )
        return found

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
