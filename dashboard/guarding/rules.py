"""Rules: how a site is reached, as its operator has set it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packmule.config import Settings

UNIX = "unix"
"""The name for whoever connects by a unix socket, who has no address."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The names of a site, the networks of the proxies that it believes, and the path that it is below.

    `user_header` is the header in which such a proxy names a user, or nothing.

    >>> Rules(hosts=("jobs.example.com",), proxies=("10.0.0.0/8",), prefix="/packmule")
    Rules(hosts=('jobs.example.com',), proxies=('10.0.0.0/8',), prefix='/packmule', user_header='')
    """

    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    prefix: str = ""
    user_header: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Those that the settings make."""
        return cls(settings.hosts, settings.trusted_proxy, settings.prefix, settings.user_header)

    def trust(self, address: str) -> bool:
        """Whether `address` is that of a proxy whose headers are believed.

        >>> Rules(proxies=("10.0.0.0/8",)).trust("10.1.2.3")
        True
        """
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return address == UNIX and UNIX in self.proxies
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return any(ip in network for network in _networks(self.proxies))


@lru_cache(maxsize=8)
def _networks(proxies: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(each) for each in proxies if each != UNIX]
