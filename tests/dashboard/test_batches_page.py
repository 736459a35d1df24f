"""The pages of batches and flows: their counts and pictures, and what operators do with them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule import Batch, Flow, chain, group, result
from packmule.dashboard.pages import flow_picture, flows
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import batch_state, flow_graph, keys
from packmule.jobs.flow_graph import Node
from packmule.observe import audit
from packmule.tests.dashboard.browser import NARROW, opened, shoot, sideways
from packmule.tests.dashboard.visits import Visit, visiting
from packmule.tests.worker import flow_jobs, pool_jobs
from packmule.worker import Worker

pytestmark = pytest.mark.usefixtures("produce")


@pytest.fixture
def visit(client: Redis) -> Iterator[Visit]:
    with visiting(client) as found:
        yield found


def work(client: Redis) -> None:
    Worker(["default"], connection=client).work(burst=True)


@pytest.fixture
def flow(client: Redis, tmp_path: Path) -> Flow:
    """A flow of six nodes, of which one failed and one is canceled for that."""
    with Flow("import") as flow:
        first, other = flow.add(flow_jobs.add.call(1)), flow.add(flow_jobs.add.call(2))
        failed = flow.add(flow_jobs.fail.call(str(tmp_path / "gate")), after=first)
        flow.add(flow_jobs.shown.call(), after=[failed, other])
        flow.add(flow_jobs.shown.call(), after=failed, on_failure="run")
        flow.add(flow_jobs.shown.call(), after=failed, on_failure="go on")
    work(client)
    return flow


@pytest.fixture
def batch(client: Redis, tmp_path: Path) -> Batch:
    """An ended batch of three jobs, of which one failed."""
    with Batch.create("November <b>", on_complete=pool_jobs.noop.prepare()) as batch:
        pool_jobs.noop.options(batch=batch.id).enqueue_many([()] * 2)
        flow_jobs.fail.options(batch=batch.id).enqueue(str(tmp_path / "gate"))
    work(client)
    return batch


def ids(page: str, kind: str = "batches") -> list[str]:
    return re.findall(rf'<td class="wide"><a href="/{kind}/([^"]*)"><b>', page)


def test_without_any_the_pages_say_where_they_come_from(visit):
    assert "Batch.create(…)" in visit.text("/batches")
    assert "Flow(…)" in visit.text("/flows")


def test_batches_and_flows_are_listed_apart(visit, batch, flow):
    growing = Batch.create("growing")
    assert ids(visit.get("/batches")) == [growing.id, batch.id]
    assert ids(visit.get("/flows"), "flows") == [flow.id]
    shown = visit.text("/batches")
    assert "November <b> ended 3 2 1 0 0" in shown
    assert "growing growing 0 0 0 0 0" in shown
    assert ids(visit.get("/batches", state="growing")) == [growing.id]
    assert ids(visit.get("/batches", state="failed")) == [batch.id]
    assert ids(visit.get("/batches", q="NOVEMBER")) == [batch.id]
    assert ids(visit.get("/batches", q=growing.id[:8])) == [growing.id]
    assert "No batch matches." in visit.text("/batches", q="December")
    assert "<b>" not in visit.text("/batches").replace("November <b>", "")


def test_a_batch_shows_its_counts_failed_jobs_and_callbacks(visit, batch):
    shown = visit.text(f"/batches/{batch.id}")
    assert "2 finished 1 failed" in shown
    assert "Done 66.7% 2 Failed 1 Pending 0" in shown
    assert "flow_jobs.fail failed ValueError: as it should" in shown
    assert "When all have ended packmule.tests.worker.pool_jobs.noop" in shown
    visit.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    assert "as it should" not in visit.get(f"/batches/{batch.id}")
    assert "failed ValueError" in visit.text(f"/batches/{batch.id}")


def test_a_batch_is_retried_paused_resumed_and_canceled_by_operators(visit, client, batch, tmp_path):
    visit.viewer = Viewer("ada", Role.OPERATOR)
    (tmp_path / "gate").touch()
    assert visit.post(f"/batches/{batch.id}/retry") == "1 of its failed jobs run again."
    work(client)
    assert batch.state().counts == (3, 3, 0, 0)
    assert visit.post(f"/batches/{batch.id}/pause") == "It was already paused, or has ended."
    other = Batch.create("other")
    pool_jobs.noop.options(batch=other.id).enqueue_many([()] * 2)
    other.seal()
    assert visit.post(f"/batches/{other.id}/pause") == "It is paused: workers take no more of its jobs."
    assert other.state().is_paused
    assert visit.post(f"/batches/{other.id}/resume") == "It is resumed."
    assert visit.post(f"/batches/{other.id}/cancel") == "2 of its jobs are canceled, and 0 are being stopped."
    done = [(each.action, each.subject) for each in audit.read(client)]
    assert done[0] == ("batch retry", {"id": batch.id, "jobs": 1})
    assert [action for action, _ in done] == [
        "batch retry",
        "batch pause",
        "batch pause",
        "batch resume",
        "batch cancel",
    ]


def test_a_batch_is_retried_twice_at_once_or_after_a_lost_reply_without_doubling(client, batch):
    assert (batch.retry(), batch.retry()) == (1, 0)
    assert batch.state().counts.pending == 1


def test_a_flow_is_drawn_with_states_edges_and_links(visit, flow):
    page = visit.get(f"/flows/{flow.id}")
    shown = visit.text(f"/flows/{flow.id}")
    assert page.count('<a transform="translate(') == 6
    dashes = {
        means: re.search(rf'stroke-dasharray="{dashes}">(.*?)</g>', page, re.DOTALL)[1].count("<path")
        for means, dashes in (("go on", "6 4"), ("run", "2 4"))
    }
    assert dashes == {"go on": 1, "run": 1}
    assert "add done, node 0" in shown
    assert "fail failed, node 2" in shown
    assert "shown canceled, node 3" in shown
    assert f'href="/jobs/{flow.id}-2"' in page
    assert "4 finished 1 failed 1 canceled" in shown
    assert "2 2 packmule.tests.worker.flow_jobs.fail failed 0 ValueError: as it should" in shown
    assert "2 (run)" in shown
    assert "fail failed, node 2" in visit.text(f"/batches/{flow.id}"), "it leads to the flow's page"
    visit.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False)
    assert "as it should" not in visit.get(f"/flows/{flow.id}")


def test_a_flow_is_retried_from_where_it_failed(visit, client, flow, tmp_path):
    (tmp_path / "gate").touch()
    assert visit.post(f"/batches/{flow.id}/retry") == "1 of its failed jobs run again."
    work(client)
    assert flow.state().counts.done == 6
    assert [(each.action, each.subject) for each in audit.read(client)] == [
        ("flow retry", {"id": flow.id, "jobs": 1})
    ]


def test_like_nodes_of_a_large_flow_share_a_box(visit, client):
    chain(
        group(*[flow_jobs.add.call(1)] * 400), flow_jobs.total.call(result), flow_jobs.fail.call()
    ).enqueue()
    work(client)
    id = batch_state.page(client).states[0].id
    page, shown = visit.get(f"/flows/{id}"), visit.text(f"/flows/{id}")
    assert page.count("<a transform") == 3
    assert "add × 400 done" in shown
    assert "fail failed, node 401" in shown
    assert "A stacked box stands for several nodes" in shown
    assert "All 402" in shown
    assert "1 to 25 of 402" in shown
    assert shown.index("3 401 packmule.tests.worker.flow_jobs.fail") < shown.index("1 0 packmule"), (
        "first in need"
    )
    (link,) = re.findall(r'href="([^"]*)#nodes"><title>', page)
    rows = visit.text(f"{html.unescape(link)}&cursor=375")
    assert "376 to 400 of 400" in rows
    assert "Only layer 1" in rows
    assert "1 of 402" not in visit.text(f"/flows/{id}", state="failed")
    assert visit.get(f"/flows/{id}", state="failed").count('<td class="wide"><a class="id"') == 1


def test_a_flow_beyond_all_bounds_shows_its_counts(visit, flow, monkeypatch):
    monkeypatch.setattr(flows, "MOST_READ", 5)
    shown = visit.text(f"/flows/{flow.id}")
    assert "4 finished 1 failed 1 canceled" in shown
    assert "too large to show here" in shown


def node(name: int, after: Iterable[int], layer: int, state: str = "done", calls: str = "shop.add") -> Node:
    return Node(f"f-{name}", str(name), state, calls, dict.fromkeys(map(str, after), "stop"), layer)


def test_a_node_is_called_by_its_function_or_by_its_own_description():
    nodes = [node(0, [], 1, calls="shop.reports.add"), node(1, [0], 2, calls="table: orders.2026.csv")]
    assert [box.lines[0] for box in flow_picture.drawn(nodes).boxes] == ["add", "table: orders.2026.csv"]


def test_a_picture_is_folded_no_more_than_it_must_be():
    alone = [node(n, [n - 1] if n % 6 else [], n % 6 + 1, calls=f"shop.job{n}") for n in range(60)]
    assert [len(flow_picture.drawn(alone).boxes), flow_picture.drawn(alone).is_folded] == [60, False]
    like = [node(n, [], 1, calls=f"shop.job{n % 3}") for n in range(300)] + [node(300, range(300), 2)]
    assert [box.lines[0] for box in flow_picture.drawn(like).boxes] == [
        *(f"job{n} × 100" for n in range(3)),
        "add",
    ]
    unlike = [node(n, [], 1, calls=f"shop.job{n}") for n in range(300)] + [node(300, range(300), 2)]
    assert [box.lines for box in flow_picture.drawn(unlike).boxes] == [
        ("300 nodes", "done"),
        ("add", "done, node 300"),
    ]


def test_a_failed_node_is_seen_among_thousands_of_layers():
    chained = [node(n, [n - 1] if n else [], n + 1, "failed" if n == 700 else "done") for n in range(5000)]
    picture = flow_picture.drawn(chained)
    assert 20 < len(picture.boxes) <= flow_picture.MOST_BOXES
    assert 15 < len(picture.edges) <= flow_picture.MOST_EDGES
    (failed,) = [box for box in picture.boxes if box.state == "failed"]
    assert (failed.job, failed.lines) == ("f-700", ("add", "failed, node 700"))
    assert sum(len(box.nodes) for box in picture.boxes) == 5000
    assert picture.boxes[0].lines == ("add × 250", "done, layers 1 to 250")


def test_nodes_lie_beside_those_that_they_come_after():
    nodes = [
        Node("a", "a", "done", "", {}, 1),
        Node("b", "b", "done", "", {}, 1),
        Node("d", "d", "waits", "", {"b": "stop"}, 2),
        Node("c", "c", "waits", "", {"a": "stop", "gone": "stop"}, 2),
    ]
    picture = flow_picture.drawn(nodes)
    places = {box.nodes[0].name: (box.x, box.y) for box in picture.boxes}
    assert places["a"][1] == places["c"][1] < places["b"][1] == places["d"][1]
    assert places["a"][0] < places["c"][0]
    assert len(picture.edges) == 2
    assert flow_picture.drawn([]).boxes == []


def test_a_viewer_can_change_no_batch(visit, client, batch, flow):
    visit.viewer = Viewer("eve", Role.VIEWER, may_see_payloads=True)
    for id in (batch.id, flow.id):
        for act in ("pause", "resume", "cancel", "retry"):
            assert "this needs an operator" in visit.refused(f"/batches/{id}/{act}")
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("id", ["nothing", "a/b", "%ff", "x" * 300])
def test_an_unknown_batch_or_flow_is_said_in_words(visit, client, batch, id):
    assert "no batch has the id" in visit.text(f"/batches/{id}", status=404)
    assert "no batch has the id" in visit.text(f"/flows/{id}", status=404)
    visit.refused(f"/batches/{id}/cancel", 404)
    visit.refused(f"/batches/{batch.id}/explode", 404)
    assert "is not a flow" in visit.text(f"/flows/{batch.id}", status=404)
    assert list(audit.read(client)) == []


@pytest.mark.parametrize("value", ["-1", "1e9", "NaN", "9" * 300, "\x00", "²", "<script>"])
def test_numbers_and_words_from_outside_are_clamped(visit, batch, flow, value):
    for name in ("cursor", "state", "q", "region"):
        visit.get("/batches", **{name: value})
        visit.get("/flows", **{name: value})
    for name in ("cursor", "state", "layer", "region"):
        visit.get(f"/flows/{flow.id}", **{name: value})


def test_garbage_stops_no_page(visit, client, batch, flow):
    client.zadd(keys.BATCHES, {"text": 9e15, b"\xff": 9e14, "gone": 9e13})
    client.set(keys.batch_key("text"), "of another type")
    client.hset(keys.batch_key(batch.id), mapping={"failed": "-1", "total": "x", "ended": "never"})
    assert batch.id in ids(visit.get("/batches"))
    assert flow.id in ids(visit.get("/flows"), "flows")
    client.hset(f"{keys.batch_key(batch.id)}:jobs", mapping={b"\xff": "f", "batch:<b>": "f", "p": "p"})
    visit.get(f"/batches/{batch.id}")
    client.hset(f"{keys.batch_key(flow.id)}:children", mapping={"0/1": "x0 sno-such s0", "<": "\xff"})
    visit.get(f"/flows/{flow.id}")
    client.set(keys.BATCHES, "of another type")
    visit.get("/batches")


def test_ten_thousand_batches_come_in_pages(visit, client):
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            id = f"b{number:05}"
            pipeline.hset(
                keys.batch_key(id),
                mapping={"created": str(time.time()), "name": "odd" if number == 7 else "n", "sealed": "1"},
            )
            pipeline.zadd(keys.BATCHES, {id: number})
        pipeline.execute()
    first = visit.get("/batches")
    assert ids(first)[0] == "b09999"
    assert len(ids(first)) == 50
    assert "cursor=50" in first
    assert ids(visit.get("/batches", cursor="50"))[0] == "b09949"
    far = visit.get("/batches", q="odd")
    assert "None of the 2,000 searched so far matches." in far
    assert "cursor=2000" in far
    assert ids(visit.get("/batches", q="odd", cursor="8000")) == ["b00007"]


def test_a_flow_moves_and_is_retried_in_a_browser(browser, dashboard, client, flow, tmp_path):
    with opened(browser) as (page, _):
        page.goto(f"{dashboard.address}/flows")
        shoot(page, "flows-1280-light")
        page.get_by_role("link", name="import").click()
        page.get_by_role("heading", name="import").wait_for()
        page.get_by_role("link", name="flow_jobs.fail, failed").wait_for()
        shoot(page, "flow-1280-light")
        (tmp_path / "gate").touch()
        page.get_by_role("button", name="Retry failed").click()
        page.get_by_role("dialog").get_by_role("button", name="Yes").click()
        page.get_by_text("1 of its failed jobs run again.").wait_for()
        work(client)
        page.get_by_role("link", name="flow_jobs.fail, done").wait_for()  # live
        page.get_by_text("As a table").click()
        page.get_by_role("row", name="flow_jobs.fail").wait_for()
    assert {node.state for node in flow_graph.read(client, flow.id)[1]} == {"done"}


def test_batches_fit_a_telephone(browser, dashboard, batch, flow):
    paths = {"batches": "/batches", "batch": f"/batches/{batch.id}", "flow": f"/flows/{flow.id}"}
    with opened(browser, NARROW, "dark") as (page, _):
        for name, path in paths.items():
            page.goto(dashboard.address + path)
            shoot(page, f"{name}-390-dark")
            assert sideways(page) == 0
