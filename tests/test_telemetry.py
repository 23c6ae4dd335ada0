"""Spans go to a collector that the variables of OpenTelemetry name, and to nobody else."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from server.work import App, JobLimits, JobSettings, ModelChoice
from tests.conftest import Databases, but
from tests.db.sessions import REPOSITORY
from tests.jobs.model_server import Says, serving_model
from tests.jobs.worker_processes import WORKER, process, until_ended
from tests.jobs.workers import Jobs

LOOK = """
import sys
import server.working
from server.telemetry import sending_spans

with sending_spans("tests") as tracers:
    print(tracers, any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


@dataclass
class Collector:
    """What was sent to a collector on loopback."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list[bytes])

    def spans(self) -> dict[str, Span]:
        return {
            span.name: span
            for body in self.bodies
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        }


@contextmanager
def collecting() -> Generator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def test_without_a_collector_there_are_no_spans_and_nothing_that_makes_them():
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, cwd=REPOSITORY, env={}, check=True
    )

    assert looked.stdout == b"None False\n"


@pytest.mark.anyio
async def test_a_collector_gets_the_span_of_a_job_and_of_what_its_model_was_asked(
    own_app: App, databases: Databases, tmp_path: Path
):
    database = own_app.database.engine.url.database
    assert database
    async with serving_model([Says(["All is well."])]) as model:
        choice = ModelChoice("played", model.url, command=False)
        jobs = Jobs(but(own_app, place=None, jobs=JobSettings(choice, JobLimits())))
        with collecting() as collector:
            env = {
                "DRAMATIS_DATA_ROOT": str(tmp_path / "data"),
                "DRAMATIS_DATABASE_URL": databases.url(database),
                "DRAMATIS_MODEL": "played",
                "DRAMATIS_MODEL_URL": model.url,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            }
            job = await jobs.invoke("Keep this between us.")
            with process(WORKER, env) as worker:
                await jobs.until(job, "complete")
                worker.terminate()
                code = await until_ended(worker)

    spans = collector.spans()
    assert code == 0
    run, chat = spans["run architect"], spans["chat played"]
    assert {one.key: one.value.string_value for one in run.attributes}["dramatis.job.id"] == job
    assert chat.trace_id == run.trace_id
    assert not any(b"between us" in body or b"All is well" in body for body in collector.bodies)
