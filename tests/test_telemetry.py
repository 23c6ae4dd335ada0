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
from dirty_equals import IsPartialDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from server.work import App, JobLimits, JobSettings, ModelChoice
from tests.conftest import Databases, but
from tests.db.sessions import REPOSITORY
from tests.jobs.model_server import Answers, Says, serving_model
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

    def spans(self, name: str) -> list[Span]:
        return [
            span
            for body in self.bodies
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
            if span.name == name
        ]


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


def _attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value for one in span.attributes}


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
    async with serving_model([Says(["All is well."]), Answers(400)]) as model:
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
                await jobs.until(await jobs.invoke(persona="qa"), "failed")
                worker.terminate()
                code = await until_ended(worker)

    (run,), (failed,) = (collector.spans(f"run {persona}") for persona in ("architect", "qa"))
    asked = collector.spans("chat played")
    assert code == 0
    assert _attributes(run) == IsPartialDict(
        {"dramatis.job.id": job, "dramatis.job.status": "complete"}
    )
    assert run.status.code == Status.STATUS_CODE_UNSET
    assert _attributes(failed) == IsPartialDict(
        {"dramatis.job.status": "failed", "error.type": "run_failed"}
    )
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert [one.trace_id for one in asked] == [run.trace_id, failed.trace_id]
    assert not any(b"between us" in body or b"All is well" in body for body in collector.bodies)
