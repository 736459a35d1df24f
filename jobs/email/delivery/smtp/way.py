"""An SMTP server as a way out."""

from __future__ import annotations

from packmule.jobs.email.delivery.channel import Limits
from packmule.jobs.email.delivery.smtp.channel import SmtpChannel
from packmule.jobs.email.delivery.smtp.connection import Connection
from packmule.jobs.email.delivery.smtp.server import Server
from packmule.jobs.email.letter import Letter


class SmtpWay:
    """The server at `url` (`Server`). Raises `InvalidServer`."""

    def __init__(self, url: str) -> None:
        self.server = Server(url)
        self.limits = Limits(self.server.connections, self.server.rate)

    def __str__(self) -> str:
        """The server as `host:port`."""
        return str(self.server)

    def knows(self, letter: Letter) -> bool:
        """It knows no mail again."""
        return False

    def open(self) -> SmtpChannel:
        """A fresh channel, as `Way.open` says."""
        return SmtpChannel(Connection(self.server))
