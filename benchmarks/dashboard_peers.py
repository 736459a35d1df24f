"""The dashboards of others that `dashboard.py` measures: rq-dashboard and bull-board."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import search
from peers import elsewhere

from packmule.coordination.redis.embedded_server import EmbeddedServer

JOBS = "jobs/default/finished/50/asc/1"
PAGES = {
    "rq-dashboard: queues": ["/", "/0/data/queues.json", "/0/data/workers.json"],
    "rq-dashboard: 50 finished jobs": [f"/0/view/{JOBS}", f"/0/data/{JOBS}.json"],
}
"""What is asked for one after the other until a page is there: rq-dashboard's scripts fetch what it shows."""
OF_BULL_BOARD = {
    "bull-board: queues": ["/ui/", "/ui/api/queues?page=1&jobsPerPage=10"],
    "bull-board: 50 completed jobs": [
        "/ui/queue/default",
        "/ui/api/queues?activeQueue=default&status=completed&page=1&jobsPerPage=50",
    ],
}


def serve(server: EmbeddedServer, listening: socket.socket) -> None:
    """Serve rq-dashboard as its own command does."""
    from rq.serializers import JSONSerializer
    from rq_dashboard import cli
    from werkzeug import serving

    logging.getLogger("werkzeug").disabled = True
    app = cli.make_flask_app(None, None, None, "")
    app.config["RQ_DASHBOARD_REDIS_URL"] = server.url
    cli.service_config.serializer = JSONSerializer
    cli.setup_rq_connection(app)
    host, port = listening.getsockname()
    serving.make_server(host, port, app, threaded=True, fd=listening.fileno()).serve_forever()


@contextmanager
def bull_board(server: EmbeddedServer, count: int) -> Iterator[tuple[int, int]]:
    """The port and the process of bull-board, once so many jobs have ended."""
    script = Path(elsewhere.NODE).with_name("bull-board.js")
    command = ["node", str(script), server.url.removeprefix("unix://"), "1", str(count), *search.QUEUES]
    found = os.environ | {"NODE_PATH": str(elsewhere.NODE_MODULES), "NODE_ENV": "production"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=found) as node:
        assert node.stdout
        try:
            yield int(node.stdout.readline()), node.pid
        finally:
            node.kill()
