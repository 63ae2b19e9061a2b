"""A collector of traces: whether every run has one connected trace, and what of it died with a process."""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from segue.trace import ids


class Seen(NamedTuple):
    """A span; `node` is "" for that of a run."""

    node: str
    tag: str
    id: int
    parent: int


class Collector:
    """Receives spans over OTLP (HTTP, protobuf), by run."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Seen]] = defaultdict(list)
        self.url = ""

    def add(self, body: bytes) -> None:
        """Keep what a process exported."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    facts = {item.key: item.value.string_value for item in span.attributes}
                    undo = ":undo" if span.name.endswith(":undo") else ""
                    node = facts["segue.node"] + undo if "segue.node" in facts else ""
                    parent, own = int.from_bytes(span.parent_span_id, "big"), int.from_bytes(span.span_id, "big")
                    self.spans[span.trace_id.hex()].append(Seen(node, facts.get("segue.tag", ""), own, parent))

    def connected(self, run: str) -> set[tuple[str, str]]:
        """The places that a run's trace has spans of; ("", "") is the run itself.

        Raises:
            AssertionError: A span hangs on nothing, or the run has two.
        """
        found = self.spans[run]
        root = ids.root_id(run)
        assert all(span.parent == (root if span.node else 0) for span in found), (run, found)
        assert {span.id for span in found if not span.node} <= {root}, (run, found)
        return {(span.node, span.tag) for span in found}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.add(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
