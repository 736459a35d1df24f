"""rq-dashboard on this system's Redis, mounted at `/rq`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi import WSGIMiddleware
from flask import Flask
from rq.serializers import JSONSerializer
from rq_dashboard import web

if TYPE_CHECKING:
    from redis import Redis
    from starlette.types import ASGIApp


def create_app(client: Redis, url: str) -> ASGIApp:
    """An application that shows the queues, jobs and workers of `client`'s server, which it calls `url`."""
    # rq-dashboard's pages name its own static folder and the application's, both at /static: so they are one.
    app = Flask(__name__, static_folder=web.blueprint.static_folder)
    app.config["RQ_DASHBOARD_REDIS_URL"] = (url,)
    web.config.serializer = JSONSerializer
    # Left alone it connects again for each page, and knows neither an embedded server nor every Sentinel URL.
    web.from_url = lambda *args, **options: (None, client)
    web.setup_rq_connection(app)
    app.register_blueprint(web.blueprint)
    return WSGIMiddleware(app)  # type: ignore[arg-type, return-value]  # a2wsgi's own types of WSGI and ASGI
