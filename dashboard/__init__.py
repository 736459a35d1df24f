"""The dashboard: rq-dashboard on this system's Redis."""

from __future__ import annotations

from flask import Flask
from redis import Redis
from rq.serializers import JSONSerializer
from rq_dashboard import web

from packmule.config import mask


def create_app(client: Redis, url: str) -> Flask:
    """A WSGI application that shows the queues, jobs and workers of `client`'s server, which it calls `url`.

    It has no login: let it listen on this machine only, or put one in front of it.

    >>> create_app(client, "redis://localhost:6379/0")  # doctest: +SKIP
    """
    # rq-dashboard's pages name its own static folder and the application's, both at /static: so they are one.
    app = Flask(__name__, static_folder=web.blueprint.static_folder)
    app.config["RQ_DASHBOARD_REDIS_URL"] = (mask(url),)
    web.config.serializer = JSONSerializer
    # Left alone it connects again for each page, and knows neither an embedded server nor every Sentinel URL.
    web.from_url = lambda *args, **options: (None, client)
    web.setup_rq_connection(app)
    app.register_blueprint(web.blueprint)
    return app
