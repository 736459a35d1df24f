"""Lost replies: some scripts are sent twice, as if the connection had ended before the first reply."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis

from packmule.coordination.redis import scripts


@contextmanager
def lost_replies(share: float) -> Iterator[None]:
    """Within this, lose so many of this process's replies."""
    exchange = scripts._exchange

    def twice(client: Redis, ask: Callable[[Any, Any], Any], asked: Sequence[Any]) -> Any:
        if random.random() < share:
            exchange(client, ask, asked)
        return exchange(client, ask, asked)

    scripts._exchange = twice
    try:
        yield
    finally:
        scripts._exchange = exchange
