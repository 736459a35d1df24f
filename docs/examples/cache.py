"""A cache in your own code: a slow value is computed once for all processes, and again after a change."""

from __future__ import annotations

from packmule.config import Settings
from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.connection import connect

settings = Settings.from_env()
prices = {"chair": 12, "table": 80}

with connect(settings.redis_url, settings.data_dir) as client, Cache(client, "shop") as cache:

    @cache.cached(ttl=600, stale_ttl=60, key="price/{product}", tags=["prices", "product/{product}"])
    def price(product: str) -> int:
        """Stand in for a slow database."""
        print(f"looking up the {product}")
        return prices[product]

    print(price("chair"), price("chair"), price("table"))

    # Invalidate one result, or all with a tag. A value that is being computed meanwhile isn't kept either.
    prices["chair"] = 14
    price.invalidate("chair")
    print(price("chair"), price("table"))
    prices["table"] = 90
    cache.invalidate_tag("prices")
    print(price("chair"), price("table"))

    # Without a decorator. None is a result like any other, and a tuple comes back as JSON's list.
    for _ in range(2):
        print(cache.get_or_compute("totals", lambda: (sum(prices.values()), None), ttl=60, tags=["prices"]))
    print(cache.get("totals"), cache.get("nothing", "not kept"))
    cache.put("logo", b"\x89PNG", ttl=3600)
    print(cache.get("logo"))
    cache.invalidate_tag("prices")
