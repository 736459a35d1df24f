"""The dashboard: rq-dashboard on this system's Redis."""

from __future__ import annotations

from flask import Flask
from rq.serializers import JSONSerializer
from rq_dashboard.web import blueprint, config, setup_rq_connection


def create_app(redis_url: str) -> Flask:
    """A WSGI application that shows the queues, jobs and workers of the server at `redis_url`.

    It has no login: let it listen on this machine only, or put one in front of it.

    >>> create_app("redis://localhost:6379/0")  # doctest: +SKIP
    """
    # rq-dashboard's pages name its own static folder and the application's, both at /static: so they are one.
    app = Flask(__name__, static_folder=blueprint.static_folder)
    app.config["RQ_DASHBOARD_REDIS_URL"] = (redis_url,)
    config.serializer = JSONSerializer
    setup_rq_connection(app)
    app.register_blueprint(blueprint)
    return app


def close(app: Flask) -> None:
    """Close the connection of an application that serves no more."""
    app.redis_conn.close()  # type: ignore[attr-defined]  # where rq-dashboard keeps it
