"""The shape of traces: what must be equal between two runs of one flow, whatever their mode, ids and times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from opentelemetry.sdk.trace import ReadableSpan

ELSEWHERE = "(elsewhere)"
"""A parent or link that is not among the spans."""
_VARYING = frozenset({"segue.mode", "segue.run", "segue.key"})


class SpanShape(NamedTuple):
    """A span without ids and times; spans are named by name, tag, attempt and revision."""

    name: str
    parent: str
    links: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    status: str


def shape(spans: Iterable[ReadableSpan]) -> list[SpanShape]:
    """A comparable form of exported spans, in an order that does not depend on time.

    Args:
        spans: The spans of one run; links to spans that are not among them count as "elsewhere".
    """
    found = list(spans)
    names = {span.context.span_id: _name(span) for span in found if span.context is not None}
    shapes = []
    for span in found:
        links = sorted(names.get(link.context.span_id, ELSEWHERE) for link in span.links)
        attributes = sorted((key, repr(value)) for key, value in (span.attributes or {}).items() if key not in _VARYING)
        parent = names.get(span.parent.span_id, ELSEWHERE) if span.parent is not None else ""
        shapes.append(SpanShape(_name(span), parent, tuple(links), tuple(attributes), span.status.status_code.name))
    return sorted(shapes)


def _name(span: ReadableSpan) -> str:
    attributes = span.attributes or {}
    again = f" r{attributes['segue.revision']!s}" if "segue.revision" in attributes else ""
    if "segue.attempt" not in attributes:
        return span.name + again
    tag = str(attributes.get("segue.tag", ""))
    return f"{span.name}{tag and '/' + tag}#{attributes['segue.attempt']!s}{again}"
