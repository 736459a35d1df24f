"""Flows: each node runs when, and only when, those in front of it allow it; results are handed on."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from packmule import Flow, chain, group, result
from packmule.jobs import control, delivery, keys, reader, wire
from packmule.jobs.batch import _cancel
from packmule.jobs.batch_state import Counts
from packmule.jobs.delivery import BatchClosed
from packmule.jobs.flow import FlowStarted
from packmule.jobs.flow_plan import InvalidFlow, Plan
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.options import InvalidOption
from packmule.jobs.queues import purge
from packmule.scheduler.maintenance import batch_settler
from packmule.tests.worker import batch_jobs, flow_jobs
from packmule.tests.worker.batches import settle
from packmule.tests.worker.pools import lines, pool
from packmule.worker import Worker
from packmule.worker.dependents import Dependents
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.outcome import failed
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


def work(client: Redis) -> None:
    Worker(["high", "default", "low"], connection=client).work(burst=True)


def states(flow: Flow) -> dict[str, str]:
    """How each node stands, by its name."""
    found = flow.redis.hgetall(f"{keys.batch_key(flow.id)}:jobs")
    return {id.decode().removeprefix(f"{flow.id}-"): state.decode() for id, state in found.items()}


def in_order(flow: Flow) -> str:
    """How the nodes stand, in the order in which they were added."""
    return "".join(states(flow)[str(number)] for number in range(len(states(flow))))


def test_a_chain_hands_each_result_to_the_next_call(client):
    flow = chain(
        flow_jobs.add.call(1), flow_jobs.add.call(result, 2), flow_jobs.add.call(3, result)
    ).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(3, 3, 0, 0)
    assert reader.read(client, f"{flow.id}-2").result == 6


def test_a_group_hands_on_a_list_in_the_order_of_its_steps(client):
    flow = chain(
        flow_jobs.add.call(1),
        group(flow_jobs.add.call(result), flow_jobs.add.call(result, 10), chain(flow_jobs.add.call(5))),
        flow_jobs.shown.call(result),
    ).enqueue("adding")
    work(client)
    assert reader.read(client, f"{flow.id}-4").result == "[1, 11, 5]"
    assert flow.state().name == "adding"


def test_a_field_of_a_result_is_handed_on(client):
    with Flow() as flow:
        one, two = flow.add(flow_jobs.facts.call(1)), flow.add(flow_jobs.facts.call(2))
        sums = flow.add(flow_jobs.total.call(flow.result(one, two)["number"]))
        without = flow.add(flow_jobs.add.call(flow.result(one)["size"]))
        plain = flow.add(flow_jobs.add.call(flow.result(sums)["size"]))
    work(client)
    assert reader.read(client, sums).result == 3
    for lacking, name in ((without, 0), (plain, 2)):
        said = f"the result of node {name} has no size, which the job takes"
        assert said in reader.read(client, lacking).reason
    with pytest.raises(TypeError):
        iter(result)


@pytest.mark.parametrize("part", [group, lambda part: chain(flow_jobs.add.call(), group(part))])
def test_a_group_of_one_hands_on_a_list_too(client, part):
    flow = chain(part(flow_jobs.add.call(1)), group(flow_jobs.total.call(result))).enqueue()
    work(client)
    assert flow.wait(10).counts.failed == 0


def test_a_node_waits_for_all_in_front_of_it(client, tmp_path):
    notes = tmp_path / "notes"
    with Flow() as flow:
        top = flow.add(flow_jobs.step.call(str(notes), "top"))
        sides = [flow.add(flow_jobs.step.call(str(notes), name), after=top) for name in "lr"]
        end = flow.add(flow_jobs.step.call(str(notes), "end"), after=sides)
        assert flow.redis.exists(keys.batch_key(flow.id)) == 0
    assert [each.status for each in (top, *sides, end)] == ["queued", "deferred", "deferred", "deferred"]
    work(client)
    assert lines(notes) == ["+top", "-top", "+l", "-l", "+r", "-r", "+end", "-end"]
    assert client.zcard("rq:deferred:default") == 0


def test_a_failure_cancels_all_that_is_behind_it(client):
    flow = chain(*[flow_jobs.add.call(1)], flow_jobs.fail.call(), *[flow_jobs.add.call(1)] * 3).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(5, 1, 1, 3)
    assert in_order(flow) == "dfccc"
    assert reader.read(client, f"{flow.id}-4").status == "canceled"
    assert 600_000 < client.ttl(keys.job_key(f"{flow.id}-4")) <= 604_800


def test_a_node_that_goes_on_runs_however_the_other_ends(client):
    with Flow() as flow:
        failed = flow.add(flow_jobs.fail.call())
        canceled = flow.add(flow_jobs.add.call(), after=failed)
        flow.add(flow_jobs.shown.call(flow.result(failed)), after={failed: "go on"})
        flow.add(flow_jobs.add.call(2), after=canceled, on_failure="go on")
    work(client)
    assert in_order(flow) == "fcdd"
    assert reader.read(client, f"{flow.id}-2").result == "None"


def test_a_compensation_runs_only_if_one_in_front_failed(client):
    with Flow() as flow:
        well, ill = flow.add(flow_jobs.add.call(1)), flow.add(flow_jobs.fail.call())
        behind = flow.add(flow_jobs.add.call(2), after=ill)
        flow.add(flow_jobs.add.call(3), after=[well, ill, behind], on_failure="run")
        skipped = flow.add(flow_jobs.add.call(4), after=well, on_failure="run")
        flow.add(flow_jobs.add.call(5), after=skipped)
        flow.add(flow_jobs.add.call(6), after=skipped, on_failure="go on")
    work(client)
    assert in_order(flow) == "dfcdssd"
    assert flow.wait(10).counts == Counts(7, 5, 1, 1)
    assert reader.read(client, skipped).status == "canceled"


def test_a_flow_whose_compensation_is_skipped_succeeds(client, tmp_path):
    well = flow_jobs.report.prepare(str(tmp_path / "notes"), "well")
    with Flow(on_success=well) as flow:
        first = flow.add(flow_jobs.add.call(1))
        flow.add(flow_jobs.add.call(2), after=first, on_failure="run")
    work(client)
    assert lines(tmp_path / "notes") == ["well: 2, 2, 0, 0"]


def test_a_flow_calls_back_once(client, tmp_path):
    done, well = (flow_jobs.report.prepare(str(tmp_path / "notes"), each) for each in ("done", "well"))
    chain(flow_jobs.fail.call(), flow_jobs.add.call(1)).enqueue(on_complete=done, on_success=well)
    work(client)
    assert lines(tmp_path / "notes") == ["done: 2, 0, 1, 1"]


def test_kinds_of_jobs_can_be_nodes(client, tmp_path):
    path = str(tmp_path / "once")
    flow = chain(
        flow_jobs.isolated.call(1),
        flow_jobs.single.call(result),
        flow_jobs.asynchronous.call(result),
        flow_jobs.shown.call(result),
        flow_jobs.limited.call(result),
        flow_jobs.once.call(path),
        flow_jobs.shown.options(at_front=True, queue="high", expires=60, result_ttl=0).call(value=result),
        group(flow_jobs.limited.call("a"), flow_jobs.limited.call("a")),
    ).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(9, 9, 0, 0)
    assert reader.read(client, f"{flow.id}-4").result == "4"


def test_a_failed_flow_is_retried_from_the_failed_node(client, tmp_path):
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    with Flow() as flow:
        first = flow.add(flow_jobs.step.call(str(notes), "first"))
        failed = flow.add(flow_jobs.fail.call(str(gate)), after=first)
        behind = flow.add(flow_jobs.step.call(str(notes), "behind"), after=failed)
        flow.add(flow_jobs.add.call(flow.result(failed), 1), after=[failed, behind])
    work(client)
    assert in_order(flow) == "dfcc"
    with pytest.raises(control.NotRetried, match="after jobs of its flow that did not finish"):
        control.retry(client, behind)
    gate.touch()
    assert flow.retry() == 1
    assert (in_order(flow), flow.state().ended) == ("dppp", None)
    assert [each.status for each in (failed, behind)] == ["queued", "deferred"]
    assert client.zcard("rq:canceled:default") == 0
    work(client)
    assert flow.wait(10).counts == Counts(4, 4, 0, 0)
    assert lines(notes) == ["+first", "-first", "+behind", "-behind"]
    assert reader.read(client, f"{flow.id}-3").result == 2


def test_a_node_that_fails_again_cancels_those_behind_it_again(client):
    flow = chain(flow_jobs.fail.call(), flow_jobs.add.call(1), flow_jobs.add.call(1)).enqueue()
    for _ in range(3):
        work(client)
        assert flow.wait(10).counts == Counts(3, 0, 1, 2)
        control.retry(client, f"{flow.id}-0")
        assert flow.state().counts == Counts(3, 0, 0, 0)


def test_a_flow_is_canceled_whole_and_can_be_retried(client):
    with Flow() as flow:
        first = flow.add(flow_jobs.add.call(1))
        second = flow.add(group(*[flow_jobs.add.call(2)] * 250), after=first)
        flow.add(flow_jobs.add.call(3), after=second)
    flow.cancel()
    assert flow.wait(10).counts == Counts(252, 0, 0, 252)
    work(client)
    assert client.zcard("rq:deferred:default") == 0
    assert flow.retry() == 1
    work(client)
    assert flow.wait(10).counts == Counts(252, 252, 0, 0)


def test_a_node_of_a_canceled_flow_that_is_retried_adds_others(client):
    flow = chain(flow_jobs.fan_out.call(2)).enqueue()
    flow.cancel()
    assert flow.retry() == 1
    work(client)
    assert flow.wait(10).counts == Counts(4, 4, 0, 0)
    assert not flow.state().is_canceled


def test_a_flow_that_was_canceled_before_it_began_is_not_retried(client):
    flow = Flow()
    flow.add(chain(flow_jobs.add.call(1), flow_jobs.add.call(2)))
    flow._write(flow._planned(), None)
    flow.cancel()
    assert flow.retry() == 0
    assert flow.wait(10).counts == Counts(2, 0, 0, 2)
    assert client.zcard("rq:deferred:default") == 0


def test_a_node_that_waits_can_be_canceled_alone(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2), flow_jobs.add.call(3)).enqueue()
    assert control.cancel(client, f"{flow.id}-1") == "canceled"
    work(client)
    assert in_order(flow) == "dcc"


def test_a_paused_flow_goes_on_when_it_is_resumed(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2)).enqueue()
    flow.pause()
    work(client)
    assert in_order(flow) == "pp"
    flow.resume()
    work(client)
    assert in_order(flow) == "dd"


def test_more_nodes_than_a_call_looks_at_go_on_by_themselves(server, client):
    wide = group(*[flow_jobs.add.call(1)] * 1200)
    flow = chain(flow_jobs.add.call(0), wide, flow_jobs.add.call(2)).enqueue()
    failed = chain(flow_jobs.fail.call(), wide, flow_jobs.add.call(2)).enqueue()
    with pool(server):
        assert flow.wait(60).counts == Counts(1202, 1202, 0, 0)
        assert failed.wait(60).counts == Counts(1202, 0, 1, 1201)
    assert client.zcard(keys.PARENTS) == 0


def test_a_flow_within_a_flow_is_one_of_its_nodes(client, tmp_path):
    gate = tmp_path / "gate"
    with Flow("outer") as outer:
        inner = Flow("inner")
        inner.add(flow_jobs.fail.call(str(gate)), after=inner.add(flow_jobs.add.call(1)))
        first = outer.add(flow_jobs.add.call(2))
        assert outer.add(inner, after=first) is inner
        outer.add(flow_jobs.add.call(3), after=inner)
    assert reader.read(client, f"{inner.id}-0").status == "deferred"
    work(client)
    assert inner.wait(10).counts == Counts(2, 1, 1, 0)
    assert states(outer) == {"0": "d", f"batch:{inner.id}": "f", "2": "c"}
    gate.touch()
    assert outer.retry() == 1
    work(client)
    assert (inner.wait(10).counts, outer.wait(10).counts) == (Counts(2, 2, 0, 0), Counts(3, 3, 0, 0))


def test_a_flow_that_is_never_reached_is_canceled_or_skipped_whole(client, tmp_path):
    gate = tmp_path / "gate"
    with Flow() as outer:
        first = outer.add(flow_jobs.fail.call(str(gate)))
        stopped, skipped = Flow(), Flow()
        for each in (stopped, skipped):
            each.add(chain(flow_jobs.add.call(1), flow_jobs.add.call(2)))
        outer.add(stopped, after=first)
        second = outer.add(flow_jobs.add.call(1))
        outer.add(skipped, after=second, on_failure="run")
        outer.add(flow_jobs.add.call(1), after=skipped)
    work(client)
    assert states(outer) == {
        "0": "f", "2": "d", f"batch:{stopped.id}": "c", f"batch:{skipped.id}": "s", "4": "s",
    }  # fmt: skip
    assert (in_order(stopped), in_order(skipped)) == ("cc", "ss")
    gate.touch()
    assert outer.retry() == 1
    work(client)
    assert (in_order(stopped), outer.wait(10).counts) == ("dd", Counts(5, 5, 0, 0))


def test_a_running_node_adds_others(client):
    flow = chain(flow_jobs.fan_out.call(900), flow_jobs.add.call(1)).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(903, 903, 0, 0)
    assert reader.read(client, f"{flow.id}-0_900").result == sum(range(900))


def test_a_node_that_runs_again_behind_its_steps_adds_each_node_once(client, tmp_path):
    grows = flow_jobs.grows_in_steps.options(retries=1, retry_intervals=(0,))
    flow = chain(grows.call(str(tmp_path / "x"))).enqueue(collect=True)
    work(client)
    assert sorted(each.value for each in flow.results()) == [0, 1, 2, 3, 4]


def test_a_flow_that_a_running_node_may_not_add_can_start_by_itself(client):
    flow = chain(flow_jobs.nests.call(1)).enqueue()
    work(client)
    assert "takes no more parts" in reader.read(client, f"{flow.id}-0").result


def test_a_node_added_behind_one_that_has_ended_is_decided_by_how_that_ended(client, tmp_path):
    gate = tmp_path / "gate"
    with Flow() as flow:
        failed = flow.add(flow_jobs.fail.call(str(gate)))
        flow.add(flow_jobs.add.call(1), after=failed)
        for how in ("stop", "run", "go on"):
            flow.add(flow_jobs.add_behind.call("0", how), after=failed, on_failure="go on")
    work(client)
    assert states(flow) == {
        "0": "f",
        "1": "c",
        "2": "d",
        "3": "d",
        "4": "d",
        "2_0": "c",
        "3_0": "d",
        "4_0": "d",
    }
    gate.touch()
    assert flow.retry() == 1
    work(client)
    assert set(states(flow).values()) == {"d"}
    assert flow.wait(10).counts == Counts(8, 8, 0, 0)


@pytest.mark.parametrize(("ttl", "shows"), [(500, "3"), (0, None)])
def test_a_node_takes_the_result_of_one_that_had_ended_when_it_was_added(client, ttl, shows):
    with Flow() as flow:
        first = flow.add(flow_jobs.add.options(result_ttl=ttl).call(3))
        flow.add(flow_jobs.add_behind.call("0", "stop", True), after=first)
    work(client)
    added = reader.read(client, f"{flow.id}-1_0")
    assert added.result == shows
    assert shows or "the result of node 0 is no longer kept" in added.reason


def test_nodes_behind_unknown_ones_are_not_added(client):
    flow = chain(flow_jobs.add_behind.call("nobody")).enqueue()
    work(client)
    assert "no node of the flow is called nobody" in reader.read(client, f"{flow.id}-0").reason
    assert flow.wait(10).counts == Counts(1, 0, 1, 0)


def test_a_node_that_runs_again_adds_the_same_nodes_once(client, tmp_path):
    flow = chain(
        flow_jobs.fan_out.options(retries=1, retry_intervals=(0,)).call(3, str(tmp_path / "x"))
    ).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(5, 5, 0, 0)


def test_a_node_adds_one_behind_itself_again_and_again(client):
    flow = chain(flow_jobs.pages.call(60)).enqueue()
    work(client)
    assert flow.wait(10).counts == Counts(61, 61, 0, 0)


def test_a_result_that_is_too_large_fails_the_call_that_takes_it(client):
    flow = chain(flow_jobs.large.call(100_000), flow_jobs.shown.call(result)).enqueue()
    many = chain(group(*[flow_jobs.large.call(40_000)] * 6), flow_jobs.shown.call(result)).enqueue()
    work(client)
    for each, name in ((flow, "0"), (many, "4")):
        (failed,) = each.failed()
        assert f"the result of node {name} is too large to hand on" in reader.read(client, failed).reason
        assert "put the data in storage" in reader.read(client, failed).reason


def test_a_result_that_does_not_fit_names_the_node_it_is_from(client):
    flow = chain(flow_jobs.shown.call(1), flow_jobs.isolated.call(result)).enqueue()
    work(client)
    reason = reader.read(client, f"{flow.id}-1").reason
    assert reason.endswith("argument number: expected `int`, got `str`; the call takes the result of node 0")


def test_bad_input_is_one_clear_line_and_sends_nothing(client, monkeypatch):
    flow, other = Flow(), Flow()
    node, elsewhere = flow.add(flow_jobs.add.call(1)), other.add(flow_jobs.add.call(1))
    later = f"{flow.id}-1"
    for wrong, why in [
        (lambda: flow.add(flow_jobs.add.call(1), after="nobody"), "is called 'nobody': add it first"),
        (lambda: flow.add(flow_jobs.add.call(1), after=later), "add it first"),
        (lambda: flow.add(flow_jobs.add.call(flow.result(later))), "add it first"),
        (lambda: flow.add(flow_jobs.add.call(1), after=elsewhere), "add it first"),
        (lambda: flow.add(flow_jobs.add.call(1), after=[node, [node]]), "names node .* twice"),
        (lambda: flow.add(flow_jobs.add.call(1), after=node, on_failure="never"), "'stop', 'go on', 'run'"),
        (lambda: flow.add(flow_jobs.add.call(1), after=3), "3 is not a node"),
        (lambda: flow.add(flow_jobs.add.call(result)), "calls before it"),
        (lambda: flow.add(flow_jobs.add), "is not a part: give a call"),
        (lambda: flow.add(chain()), "a chain has no parts"),
        (lambda: flow.add(flow), "can't be a part"),
        (lambda: flow.add(Flow()), "the flow has no nodes"),
        (lambda: Flow().start(), "the flow has no nodes"),
    ]:  # fmt: skip
        with pytest.raises(InvalidFlow, match=why) as raised:
            wrong()
        assert "\n" not in str(raised.value)
    for option in ({"delay": 1}, {"unique": True}, {"job_id": "x"}, {"batch": "x"}):
        with pytest.raises(InvalidOption, match="a flow decides when its jobs run"):
            flow.add(flow_jobs.add.options(**option).call(1))
    with pytest.raises(InvalidCall, match="argument number"):
        flow.add(flow_jobs.isolated.call("x"))
    with pytest.raises(InvalidCall, match="missing a required argument"):
        flow.add(flow_jobs.step.call(flow.result(node)))
    with pytest.raises(InvalidCall, match="can't be written as JSON"):
        flow.add(flow_jobs.shown.call([flow.result(node)]))
    monkeypatch.setattr("packmule.jobs.handed.MOST_TAKEN", 2)
    with pytest.raises(InvalidFlow, match="takes 3 results, over the limit of 2"):
        flow.add(flow_jobs.add.call(*[flow.result(node)] * 3))
    monkeypatch.setattr("packmule.jobs.flow_plan.MOST_NODES", 2)
    flow.add(flow_jobs.add.call(1))
    with pytest.raises(InvalidFlow, match="2 nodes"):
        flow.add(flow_jobs.add.call(1))
    assert client.keys("*") == []


def test_a_flow_starts_once_and_takes_no_more_nodes(client):
    with Flow() as flow:
        flow.add(flow_jobs.add.call(1))
    with pytest.raises(FlowStarted):
        flow.start()
    with pytest.raises(FlowStarted):
        flow.add(flow_jobs.add.call(1))
    with pytest.raises(FlowStarted):
        Flow.at(flow.id).add(flow_jobs.add.call(1))


def test_a_block_that_raises_sends_nothing(client):
    with pytest.raises(ZeroDivisionError), Flow() as flow:
        flow.add(flow_jobs.add.call(1 // 0))
    assert client.keys("*") == []


def test_a_flow_that_was_not_sent_whole_never_begins_and_is_canceled(client, monkeypatch):
    flow = Flow()
    flow.add(chain(flow_jobs.add.call(1), flow_jobs.add.call(2)))
    flow._write(flow._plan, None)  # its producer dies before the seal
    work(client)
    settle(client)
    assert in_order(flow) == "pp"
    monkeypatch.setattr(batch_settler, "ABANDONED_SECONDS", -1.0)
    settle(client)
    assert flow.wait(10).counts == Counts(2, 0, 0, 2)
    work(client)
    assert in_order(flow) == "cc"


def test_a_seal_that_is_sent_again_begins_nothing_twice(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2)).enqueue()
    assert not flow.seal()
    work(client)
    assert not flow.seal()
    assert flow.wait(10).counts == Counts(2, 2, 0, 0)


def test_a_flow_that_is_sent_twice_is_there_once(client):
    flow = Flow()
    flow.add(chain(flow_jobs.add.call(1), flow_jobs.add.call(2)))
    plan = flow._plan
    for _ in range(2):
        flow._write(plan, None)
    flow.seal()
    flow._write(plan, None)  # a command that comes late
    work(client)
    assert flow.wait(10).counts == Counts(2, 2, 0, 0)


def test_nodes_that_rqs_code_cancels_or_deletes_stop_those_behind_them(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2), flow_jobs.add.call(3)).enqueue()
    client.delete(keys.job_key(f"{flow.id}-1"))
    work(client)
    settle(client)
    assert in_order(flow) == "dcc"


def test_what_rqs_worker_returned_is_handed_on(client):
    with Flow() as flow:
        first = flow.add(flow_jobs.add.call(1, 2))
        last = flow.add(flow_jobs.shown.call(flow.result(first)))
    SimpleWorker(["default"], connection=client, serializer=JSONSerializer).work(burst=True)
    settle(client)
    work(client)
    assert last.result(timeout=10) == "3"
    assert list(client.hgetall(f"{keys.batch_key(flow.id)}:results")) == [first.encode()]


@pytest.mark.parametrize("part", [":nodes", ":children", ":ahead", ":results", ":jobs", ""])
def test_a_corrupt_flow_stops_no_worker_and_no_other_flow(client, part):
    broken, well = (
        chain(flow_jobs.add.call(1), flow_jobs.add.call(result), flow_jobs.add.call(3)).enqueue()
        for _ in "xy"
    )
    client.set(f"{keys.batch_key(broken.id)}{part}", "garbage")
    batch_jobs.double.enqueue(1)
    work(client)
    settle(client)
    assert well.wait(10).counts == Counts(3, 3, 0, 0)
    assert client.llen("rq:queue:default") == 0


@pytest.mark.parametrize("keep", ["nan", "inf", "1e300", "-7", "never"])
def test_a_flow_that_is_to_be_kept_for_nonsense_stops_no_worker(client, keep):
    flow = chain(flow_jobs.fail.call(), flow_jobs.add.call(1)).enqueue()
    client.hset(keys.batch_key(flow.id), "keep", keep)
    other = batch_jobs.double.enqueue(1)
    work(client)
    assert (in_order(flow), other.status) == ("fc", "finished")
    assert 600_000 < client.ttl(keys.job_key(f"{flow.id}-1")) <= 604_800


@pytest.mark.parametrize(
    "fields", [{"takes": "{"}, {"takes": '[[9,["0"]]]'}, {"given": "[]"}, {"takes": "[[0,[1]]]"}]
)
def test_a_node_with_corrupt_fields_fails_with_a_line(client, fields):
    flow = chain(flow_jobs.add.call(1), flow_jobs.shown.call(result)).enqueue()
    client.hset(keys.job_key(f"{flow.id}-1"), mapping=fields)
    if "given" in fields:
        client.hdel(keys.job_key(f"{flow.id}-1"), "takes")
    work(client)
    state = in_order(flow)
    assert state == ("dd" if "given" in fields else "df")


def test_a_canceled_flow_takes_no_nodes(client):
    flow = Flow()
    flow.add(chain(flow_jobs.add.call(1), flow_jobs.add.call(2)))
    plan = flow._plan
    flow._write(plan, None)
    flow.cancel()
    with pytest.raises(BatchClosed):
        flow._write(plan, None)


def test_a_purge_of_a_nodes_queue_stops_those_behind_it(client):
    with Flow() as flow:
        first = flow.add(flow_jobs.add.options(queue="low").call(1))
        flow.add(flow_jobs.add.call(2), after=first)
        flow.add(flow_jobs.add.call(3), after=first, on_failure="go on")
    assert purge(client, "low") == 1
    work(client)
    assert in_order(flow) == "ccd"


def test_nodes_that_stock_rq_performs_let_those_behind_them_go_on(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.call(2)).enqueue()
    queue = Queue("default", client, serializer=JSONSerializer)
    SimpleWorker([queue], connection=client, serializer=JSONSerializer).work(burst=True, max_jobs=1)
    settle(client)
    assert in_order(flow) == "dp"
    assert reader.read(client, f"{flow.id}-1").status == "queued"
    work(client)
    assert in_order(flow) == "dd"


def test_a_singleton_that_a_newer_one_replaces_stops_those_behind_it(client):
    flow = chain(flow_jobs.replaced.call(1), flow_jobs.add.call(2)).enqueue()
    flow_jobs.replaced.enqueue(2)
    work(client)
    assert in_order(flow) == "cc"


@pytest.mark.parametrize(("name", "ends"), [("1", "dfc"), ("0", "fcc")])
def test_a_node_whose_record_is_garbage_fails_and_nothing_innocent_waits(client, name, ends):
    flow, well = (chain(*[flow_jobs.add.call(1)] * 3).enqueue() for _ in "xy")
    client.delete(keys.job_key(f"{flow.id}-{name}"))
    client.set(keys.job_key(f"{flow.id}-{name}"), "garbage")
    work(client)
    settle(client)
    assert (in_order(well), in_order(flow)) == ("ddd", ends)
    assert client.llen(keys.QUARANTINE) > 0


def test_a_node_that_runs_out_of_time_fails_when_it_could_have_started(client):
    flow = chain(flow_jobs.add.call(1), flow_jobs.add.options(expires=1000).call(2)).enqueue()
    client.hset(keys.job_key(f"{flow.id}-1"), "expires", "-1")
    work(client)
    assert in_order(flow) == "df"


def test_a_node_that_waits_for_a_signal_is_left_alone_by_a_retry_in_front_of_it(client, tmp_path):
    gate = tmp_path / "gate"
    with Flow() as flow:
        failed = flow.add(flow_jobs.fail.call(str(gate)))
        waiting = flow.add(flow_jobs.signaled.call(), after=failed, on_failure="go on")
    work(client)
    assert waiting.status == "deferred"
    gate.touch()
    flow.retry()
    Worker(["default"], connection=client).work(burst=True, max_jobs=1)
    assert (in_order(flow), waiting.status, client.llen("rq:queue:default")) == ("dp", "deferred", 0)
    waiting.signal("go", 7)
    work(client)
    assert (in_order(flow), waiting.refresh().result) == ("dd", "7")


def added(flow: Flow, edges: dict[str, str], times: int = 1) -> None:
    """Add a node called x0 as a running one would, in calls that are sent so often."""
    plan = Plan(flow.id, flow.client, lambda number: f"x{number}", is_open=True)
    plan.place(flow_jobs.add.call(1), edges)
    for _ in range(times):
        flow._send_added(plan)


def test_a_node_that_is_added_twice_waits_for_all_in_front_of_it(client):
    with Flow() as flow:
        flow.add(group(*[flow_jobs.add.call(1)] * 3))
    added(flow, {"0": "s", "1": "s", "2": "s"}, times=2)
    for ended in range(3):
        assert states(flow)["x0"] == "p"
        assert reader.read(client, f"{flow.id}-x0").status == "deferred", ended
        Worker(["default"], connection=client).work(burst=True, max_jobs=1)
    work(client)
    assert flow.wait(10).counts == Counts(4, 4, 0, 0)


def end(client: Redis, count: int, error: str = "") -> None:
    """Let a worker that dies afterwards end so many jobs in one call."""
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], count).jobs
    ends = [failed(job, error, 1.0, 2.0) if error else finished(job, b"1", 1.0, 2.0) for job in jobs]
    claims.finish_and_claim(claims.next_id(), ends, 0)


def test_a_node_added_while_a_change_is_on_its_way_counts_that_once(client):
    with Flow() as flow:
        first, second = flow.add(flow_jobs.add.call(1)), flow.add(flow_jobs.add.call(1))
        flow.add(group(*[flow_jobs.add.call(1)] * 330), after=first)
        flow.add(flow_jobs.add.call(1), after=second)
        slow = flow.add(flow_jobs.add.options(queue="low").call(1))
    end(client, 2)
    assert client.llen(f"{keys.batch_key(flow.id)}:ahead") == 2
    added(flow, {"1": "s", slow.removeprefix(f"{flow.id}-"): "s"})
    Worker(["default"], connection=client).work(burst=True)
    settle(client)
    assert reader.read(client, f"{flow.id}-x0").status == "deferred"
    work(client)
    assert flow.wait(10).counts == Counts(335, 335, 0, 0)


def test_a_retry_is_behind_the_failure_that_is_still_on_its_way(client):
    wide = group(*[flow_jobs.add.call(1)] * 330)
    flow = chain(flow_jobs.add.call(1), wide, flow_jobs.add.call(1)).enqueue()
    end(client, 1, "no")
    ahead = f"{keys.batch_key(flow.id)}:ahead"
    assert client.exists(ahead)
    control.retry(client, f"{flow.id}-0")
    while client.exists(ahead) or client.llen("rq:queue:default"):
        Dependents(client).enqueue_of([], [flow.id])
        work(client)
    assert flow.wait(10).counts == Counts(332, 332, 0, 0)


def test_edges_that_are_sent_again_late_change_nothing(client):
    flow = Flow()
    flow.add(chain(group(flow_jobs.add.call(1), flow_jobs.add.call(2)), flow_jobs.add.call(3)))
    plan = flow._plan
    flow.start()
    Worker(["default"], connection=client).work(burst=True, max_jobs=1)
    delivery.write_edges(client, flow.id, *plan.fields())
    work(client)
    assert flow.wait(10).counts == Counts(3, 3, 0, 0)


def test_a_cancel_that_comes_late_leaves_a_skipped_node_as_it_is(client):
    with Flow() as flow:
        skipped = flow.add(flow_jobs.add.call(2), after=flow.add(flow_jobs.add.call(1)), on_failure="run")
    work(client)
    _cancel(client, [keys.batch_key(flow.id)], [flow.id, wire.time_text(0), 1, skipped])
    assert flow.wait(10).counts == Counts(2, 2, 0, 0)
