"""Pages while Redis is away, full, a replica, or holds keys of the wrong types; and after that."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.dashboard.viewer import Role
from packmule.jobs import keys
from packmule.tests.dashboard import addresses
from packmule.tests.dashboard.asking import OWN, always, ask, guarded
from packmule.tests.dashboard.test_attacks import HTML, streams
from packmule.tests.network import replicate


def pages(site) -> list[str]:
    """Every page that a browser can open without an id of something."""
    found = [each for each in addresses.of_pages(site) if each.method == "GET" and not streams(each)]
    return [each.path for each in found if not each.parameters] + ["/rq/0/data/queues.json"]


def test_pages_say_that_redis_is_away_and_come_back_with_it(spare_server):
    spare = spare_server()
    with connect(spare.url, spare.data_dir) as client:  # without a URL it would start the server again
        site = guarded(client, identify=always(Role.ADMIN))
        well = {path: ask(site, path, headers=HTML).status for path in pages(site)}
        assert max(well.values()) < 500
        spare.stop()
        for path in ("/jobs", "/workers", "/errors", "/rq/0/data/queues.json"):
            answer = ask(site, path, headers=HTML)
            assert (answer.status, answer.headers.get("retry-after")) == (503, "5"), path
            assert "Unavailable" in answer.text, path
        spare.ensure()
        assert {path: ask(site, path, headers=HTML).status for path in well} == well


def test_a_full_redis_shows_pages_and_says_why_nothing_changes(spare_server):
    with connect(None, spare_server().data_dir) as client:
        client.sadd(keys.QUEUES, keys.queue_key("default"))
        site = guarded(client, identify=always(Role.ADMIN))
        well = {path: ask(site, path, headers=HTML).status for path in pages(site)}
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        assert {path: ask(site, path, headers=HTML).status for path in well} == well
        answer = ask(site, "/queues/default/pause", "POST", headers=OWN | HTML)
        assert answer.status == 503, answer.text
        assert "Redis is full" in answer.text
        client.config_set("maxmemory", "0")
        assert ask(site, "/queues/default/pause", "POST", headers=OWN).status == 303


def test_a_primary_that_became_a_replica_says_why_nothing_changes(spare_server):
    first, second = spare_server(), spare_server()
    with connect(None, first.data_dir) as client:
        client.sadd(keys.QUEUES, keys.queue_key("default"))
        site = guarded(client, identify=always(Role.ADMIN))
        replicate(second, first)
        answer = ask(site, "/queues/default/pause", "POST", headers=OWN | HTML)
        assert (answer.status, answer.headers.get("retry-after")) == (503, "5"), answer.text
        assert "replica" in answer.text


@pytest.mark.parametrize("kind", ["string", "list", "hash", "zset", "stream"])
def test_keys_of_the_wrong_type_break_no_page(client: Redis, kind: str):
    """Each page is a page, or says that a key is of another type."""
    names = [
        *(keys.QUEUES, keys.WORKERS, keys.PAUSED, keys.QUEUE_RATES, keys.LEASES, keys.QUIET, keys.BATCHES),
        *(keys.PAUSED_BATCHES, keys.QUARANTINE, keys.ERRORS, keys.SETTLED_ERRORS, keys.JOB_EVENTS),
        *(keys.queue_key("default"), keys.queue_key("low"), *keys.INDEXES.values(), "pm:bulks", keys.AUDIT),
        *(keys.registry_key(status, "default") for status in keys.REGISTRIES),
    ]
    command, *values = {
        "string": ("SET", "x"),
        "list": ("RPUSH", b"\xff", "x"),
        "hash": ("HSET", "x", b"\xff"),
        "zset": ("ZADD", "inf", b"\xff", "1", "x"),
        "stream": ("XADD", "*", "x", b"\xff"),
    }[kind]
    for name in names:
        client.execute_command(command, name, *values)
    site = guarded(client, identify=always(Role.ADMIN))
    for path in pages(site):
        answer = ask(site, path, headers=HTML)
        assert answer.status < 500, f"{path}: {answer.text[-1500:]}"
    client.flushall()
    assert max(ask(site, path, headers=HTML).status for path in pages(site)) < 500
