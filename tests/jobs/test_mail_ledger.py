"""The send-once ledger: who may send a mail, what is recorded of it, and what the next run makes of that."""

from __future__ import annotations

import math
import time

import msgspec
import pytest
from redis import Redis

from packmule.jobs import keys
from packmule.jobs.email.ledger import ClaimLost, Performed, Run, Send, names, reader
from packmule.jobs.email.ledger import run as run_module
from packmule.jobs.email.ledger.acts import resolve
from packmule.jobs.email.ledger.due import DELAYS
from packmule.jobs.email.ledger.reader import InvalidMailFilter, MailFilter
from packmule.jobs.email.ledger.run import MOST_AT_ONCE, QUICKLY
from packmule.jobs.email.ledger.verdict import await_rest
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State
from packmule.jobs.email.suppression.store import Suppressions
from packmule.jobs.interrupts import Retry

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.net"
YES = Outcome(State.ACCEPTED, "250 2.0.0 queued as 4711")
LATER = Outcome(State.DEFERRED, "450 4.2.0 greylisted")
NO = Outcome(State.REFUSED, "550 5.7.1 no")
LOST = Outcome(State.UNKNOWN, "the answer is lost")
SEND = Send(names.send_of_key("k1"), "k1", is_counted=True)
FRESH = 60.0
"""What marks are fresh for here, since the machine may be slow."""


@pytest.fixture(autouse=True)
def long_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "FRESH", FRESH)


def run_of(client: Redis, job: str = "j1", execution: str = "e1", send: Send = SEND, **options) -> Run:
    """A run of a job that a worker has claimed under this execution."""
    claims = keys.claims_key(f"worker of {job}")
    client.hset(claims, job, execution)
    return Run(client, 90_000, Performed(job, execution, claims), send, **options)


def letter(*recipients: str) -> Letter:
    return Letter("<id@example.org>", "mule@example.org", recipients, b"", False)


def sent(run: Run, outcome: Outcome, *recipients: str) -> bool:
    """Send to these as the mailer does; whether the body was allowed to leave."""
    mail = letter(*recipients)
    run.prepare(mail)
    if not run.begin(mail):
        return False
    run.ended(mail, dict.fromkeys(recipients, outcome))
    run.flush()
    return True


def states(client: Redis, *recipients: str, send: Send = SEND) -> list[str | None]:
    return [each and str(each.state) for each in reader.of_send(client, send.name, recipients)]


def counted(client: Redis) -> dict[str, int]:
    return {str(state): count for state, count in reader.counts_of(client, SEND.name).items() if count}


def known(client: Redis, recipient: str):
    (found,) = reader.of_send(client, SEND.name, [recipient])
    return found


# Who may send


def test_what_was_accepted_is_never_ready_again(client):
    first = run_of(client)
    first.reserve([ADA, BOB])
    assert first.ready() == [ADA, BOB]
    assert sent(first, YES, ADA)
    first.close()
    for other in (run_of(client, execution="e2"), run_of(client, "j2")):
        other.reserve([ADA, "BOB@EXAMPLE.ORG".replace("BOB", "bob")])
        assert other.ready() == ["bob@EXAMPLE.ORG"]
        assert other.entries[ADA].reply == YES.reply
        other.close()
    assert states(client, ADA) == ["accepted"]


def test_a_new_run_takes_over_what_was_reserved_and_does_not_know_of_what_was_being_sent(client):
    first = run_of(client)
    first.reserve([ADA, BOB])
    first.prepare(letter(ADA))
    assert first.begin(letter(ADA))
    second = run_of(client, execution="e2")
    second.reserve([ADA, BOB])
    assert second.ready() == [BOB]
    assert second.entries[ADA].state is State.UNKNOWN
    assert states(client, ADA, BOB) == ["unknown", "reserved"]
    assert not sent(first, YES, BOB)  # it was overtaken
    with pytest.raises(ClaimLost):
        first.reserve([EVE])
    assert sent(second, YES, BOB)


def test_that_a_server_accepted_a_mail_counts_whoever_tells_it(client):
    first = run_of(client)
    first.reserve([ADA, BOB])
    first.prepare(letter(ADA))
    assert first.begin(letter(ADA))
    second = run_of(client, execution="e2", on_unknown="resend")
    second.reserve([ADA, BOB])
    assert second.ready() == [ADA, BOB]
    first.ended(letter(ADA), {ADA: YES})
    first.ended(letter(BOB), {BOB: NO})
    first.flush()
    assert states(client, ADA, BOB) == ["accepted", "reserved"]
    assert not sent(second, NO, ADA)
    second.ended(letter(ADA), {ADA: NO})
    second.flush()
    assert states(client, ADA) == ["accepted"]


def test_a_mail_that_another_job_is_about_to_send_is_left_to_it_until_its_run_is_over(client):
    first, second = run_of(client), run_of(client, "j2", "e2")
    first.reserve([ADA, BOB])
    first.prepare(letter(ADA))
    assert first.begin(letter(ADA))
    second.reserve([ADA, BOB])
    assert (second.ready(), sorted(second.held())) == ([], [ADA, BOB])
    client.hdel(keys.claims_key("worker of j1"), "j1")
    second.reserve([ADA, BOB])
    assert second.ready() == [BOB]
    assert (second.held(), states(client, ADA, BOB)) == ({}, ["unknown", "reserved"])
    assert not sent(first, YES, BOB)


def test_what_was_not_sent_is_left_without_a_trace(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    run.prepare(letter(ADA))
    run.close()
    assert states(client, ADA, BOB) == [None, None]
    assert (reader.counts(client)["active"], counted(client)) == (0, {})


def test_a_body_that_may_have_left_is_not_taken_back_when_its_run_ends_early(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    run.prepare(letter(ADA))
    assert run.begin(letter(ADA))
    run.unreached([ADA, BOB], "the connection was lost")
    run.close()
    assert states(client, ADA, BOB) == ["sending", "deferred"]
    again = run_of(client, execution="e2")
    again.reserve([ADA, BOB])
    assert again.entries[ADA].state is State.UNKNOWN
    assert again.ready() == [BOB]


def test_new_mails_are_reserved_and_marked_in_one_call_and_known_ones_are_not(client):
    run = run_of(client)
    run.reserve([ADA, BOB], likely="")
    assert states(client, ADA, BOB) == ["sending", "sending"]
    run.prepare(letter(ADA, BOB))
    assert not run._channel.has_unread
    assert run.begin(letter(ADA, BOB))
    run.ended(letter(ADA, BOB), {ADA: YES, BOB: LATER})
    run.flush()
    run.close()
    again = run_of(client, execution="e2")
    again.reserve([ADA, BOB, EVE], likely="")
    assert states(client, ADA, BOB, EVE) == ["accepted", "reserved", "reserved"]
    assert sent(again, YES, BOB, EVE)
    assert counted(client) == {"accepted": 3}


def test_no_mail_is_marked_early_of_another_life_of_its_job_or_for_a_suppressed_recipient(client):
    own = Send(names.send_of_content("job j1", "x"), is_of_job=True)
    run = run_of(client, send=own)
    run.reserve([ADA], likely="another")
    assert states(client, ADA, send=own) == ["reserved"]
    assert sent(run, YES, ADA)
    Suppressions(client).add(BOB, "asked by phone")
    both = run_of(client)
    both.reserve([ADA, BOB], likely="")
    assert states(client, ADA, BOB) == ["reserved", "suppressed"]


def test_what_was_marked_early_and_not_begun_is_left_without_a_trace(client):
    run = run_of(client)
    run.reserve([ADA], likely="")
    run.close()
    assert (states(client, ADA), counted(client)) == ([None], {})


def test_a_mark_that_is_old_is_made_again_before_the_body(client):
    run = run_of(client)
    run.reserve([ADA], likely="")
    run._marked[ADA] -= FRESH
    asked_at = time.monotonic()
    assert run.begin(letter(ADA))
    assert run._channel.sent_at > asked_at


@pytest.mark.parametrize("is_early", [True, False])
def test_a_process_that_was_frozen_sends_nothing_once_its_job_is_taken_over(client, monkeypatch, is_early):
    run = run_of(client)
    run.reserve([ADA], likely="" if is_early else None)
    run.prepare(letter(ADA))
    again = run_of(client, execution="e2", on_unknown="resend")
    again.reserve([ADA])
    assert sent(again, YES, ADA)
    monkeypatch.setattr(run_module, "FRESH", 0.0)
    assert not run.begin(letter(ADA))
    run.close()
    assert states(client, ADA) == ["accepted"]


def test_a_process_that_was_frozen_within_a_body_does_not_end_it_once_its_job_is_taken_over(
    client, monkeypatch
):
    run = run_of(client)
    run.reserve([ADA])
    run.prepare(letter(ADA))
    assert run.begin(letter(ADA))
    again = run_of(client, execution="e2", on_unknown="resend")
    again.reserve([ADA])
    assert sent(again, YES, ADA)
    assert run.still(letter(ADA))  # nobody can have taken it over so early
    now = run_module.clock()
    monkeypatch.setattr(run_module, "clock", lambda: now + FRESH)
    assert not run.still(letter(ADA))
    run.close()
    assert states(client, ADA) == ["accepted"]


def test_a_body_that_took_long_may_end_if_its_job_is_still_ours(client, monkeypatch):
    run = run_of(client)
    run.reserve([ADA])
    run.prepare(letter(ADA))
    assert run.begin(letter(ADA))
    now = run_module.clock()
    monkeypatch.setattr(run_module, "clock", lambda: now + FRESH)
    asked_at = run._channel.sent_at
    assert run.still(letter(ADA))
    assert run._channel.sent_at > asked_at
    run.ended(letter(ADA), {ADA: YES})
    run.close()
    assert states(client, ADA) == ["accepted"]


# What is unknown and may be sent again


def unknown_of(client: Redis) -> None:
    run = run_of(client)
    run.reserve([ADA])
    assert sent(run, LOST, ADA)
    run.close()


@pytest.mark.parametrize("ends", ["early", "unreached", "refused for now"])
def test_what_is_unknown_stays_so_until_it_is_sent_again(client, ends):
    unknown_of(client)
    run = run_of(client, execution="e2", on_unknown="resend")
    run.reserve([ADA])
    assert run.ready() == [ADA]
    assert (states(client, ADA), counted(client)) == (["unknown"], {"unknown": 1})
    if ends == "early":
        run.prepare(letter(ADA))
    elif ends == "unreached":
        run.unreached([ADA], "no server")
        with pytest.raises(Retry, match="the answer is lost"):
            await_rest(run)
    else:
        assert sent(run, LATER, ADA)
    run.flush()
    run.close()
    assert (states(client, ADA), counted(client)) == (["unknown"], {"unknown": 1})
    assert search_unknown(client) == [ADA]
    last = run_of(client, execution="e3", on_unknown="resend")
    last.reserve([ADA])
    assert sent(last, YES, ADA)
    assert (states(client, ADA), counted(client), search_unknown(client)) == (
        ["accepted"],
        {"accepted": 1},
        [],
    )


def test_what_a_run_that_is_over_was_sending_again_stays_unknown_too(client):
    unknown_of(client)
    for execution in ("e2", "e3"):
        run = run_of(client, execution=execution, on_unknown="resend")
        run.reserve([ADA])
        run.prepare(letter(ADA))
        assert run.begin(letter(ADA))
    client.hdel(keys.claims_key("worker of j1"), "j1")
    assert search_unknown(client) == [ADA]
    park = run_of(client, execution="e4")
    park.reserve([ADA])
    assert (park.entries[ADA].state, park.ready()) == (State.UNKNOWN, [])


def test_an_unknown_mail_that_is_resolved_meanwhile_is_not_sent_again(client):
    unknown_of(client)
    run = run_of(client, execution="e2", on_unknown="resend")
    run.reserve([ADA])
    resolve(client, [known(client, ADA)], was_sent=True)
    assert not sent(run, YES, ADA)
    run.close()
    assert states(client, ADA) == ["accepted"]


def search_unknown(client: Redis) -> list[str]:
    return [each.recipient for each in reader.search(client, MailFilter([State.UNKNOWN])).mails]


# What comes of recipients that are refused for now


def test_a_deferred_recipient_is_tried_after_longer_and_longer_spans_and_given_up_at_last(client):
    spans = []
    for attempt in range(8):
        run = run_of(client, execution=f"e{attempt}", give_up_after=3 * 3600)
        run.reserve([ADA, BOB])
        assert sent(run, LATER, ADA)
        if attempt == 0:
            assert sent(run, YES, BOB)
        run.close()
        entry = known(client, ADA)
        if entry.state is State.REFUSED:
            break
        spans.append(round(entry.due - entry.changed, -1))
    assert spans == list(DELAYS[:3])
    assert "given up after 3 h: 450" in entry.reply
    assert states(client, BOB) == ["accepted"]


@pytest.mark.parametrize(("after", "due"), [(1.0, 2.0), (77.0, 77.0), (10.0**7, 86_400.0)])
def test_a_server_that_says_when_to_come_again_is_not_asked_before(client, after, due):
    run = run_of(client)
    run.reserve([ADA])
    said_at = time.time()
    run.unreached([ADA], "busy", said_at + after)
    run.flush()
    entry = known(client, ADA)
    assert due - (time.time() - said_at) - 1 <= entry.due - entry.changed <= due + 1
    assert entry.tries == 1


def test_the_pace_of_a_domain_is_obeyed_and_is_no_attempt(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    when = time.time() + 77
    run.ended(letter(ADA), {ADA: Outcome(State.DEFERRED, "pace", retry_at=when)})
    run.ended(letter(BOB), {BOB: LATER})
    run.flush()
    run.close()
    assert abs(known(client, ADA).due - when) < 2
    assert (known(client, ADA).tries, known(client, BOB).tries) == (0, 1)
    again = run_of(client, execution="e2")
    again.reserve([ADA, BOB])
    assert again.ready() == [ADA, BOB]  # none is due, so somebody asked for it


def test_only_those_that_are_due_are_tried(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    run.ended(letter(ADA), {ADA: LATER})
    run.flush()
    run.close()
    again = run_of(client, execution="e2")
    again.reserve([ADA, BOB])
    assert again.ready() == [BOB]
    again.close()
    assert states(client, ADA, BOB) == ["deferred", None]
    last = run_of(client, execution="e3")
    last.reserve([ADA, BOB])
    assert sent(last, YES, BOB)
    with pytest.raises(Retry, match=r"waiting: 1 of 2 recipients \(ada@example.org: 450 4.2.0") as raised:
        await_rest(last)
    assert DELAYS[0] / 2 < raised.value.after <= DELAYS[0]


def test_refused_mails_stay_refused_within_their_job_and_are_tried_by_others(client):
    run = run_of(client)
    run.reserve([ADA])
    assert sent(run, NO, ADA)
    again = run_of(client, execution="e2")
    again.reserve([ADA])
    assert again.ready() == []
    again.reserve([ADA], reopen=True)
    assert again.ready() == [ADA]
    again.close()
    other = run_of(client, "j2")
    other.reserve([ADA])
    assert other.ready() == [ADA]


# The list of suppressed addresses


def test_suppressed_recipients_are_not_sent_to_until_their_time_is_over(client):
    listed = Suppressions(client)
    assert listed.add("Ada@Example.ORG", "asked by phone", seconds=1000)
    assert listed.add("example.net", "a trap", "import")
    run = run_of(client)
    run.reserve([ADA, BOB, EVE])
    assert run.ready() == [BOB]
    assert states(client, ADA, EVE) == ["suppressed", "suppressed"]
    assert known(client, ADA).reply == "asked by phone"
    run.close()
    listed.remove("ada@example.org")
    packed = msgspec.msgpack.encode(["over", "operator", 1, 2])
    client.hset("pm:mail-suppressed", "@example.net", packed)
    again = run_of(client, execution="e2")
    again.reserve([ADA, EVE])
    assert again.ready() == [ADA, EVE]
    assert client.hlen("pm:mail-suppressed") == 0


@pytest.mark.parametrize("name", [ADA, "example.org"])
def test_whoever_is_suppressed_after_the_mail_was_reserved_does_not_get_it(client, name):
    run = run_of(client)
    run.reserve([ADA, EVE])
    Suppressions(client).add(name, "asked by phone")
    assert not sent(run, YES, ADA)
    assert sent(run, YES, EVE)
    run.close()
    assert states(client, ADA, EVE) == ["suppressed", "accepted"]
    assert known(client, ADA).reply == "asked by phone"
    assert counted(client) == {"suppressed": 1, "accepted": 1}


def test_letters_that_go_quickly_are_marked_together_and_each_may_begin_or_not_by_itself(client, monkeypatch):
    monkeypatch.setattr(run_module, "QUICKLY", 60.0)
    everybody = [f"user{number}@example.org" for number in range(40)]
    run = run_of(client)
    run.reserve(everybody)
    run.line_up(everybody)
    Suppressions(client).add(everybody[30], "asked by phone")
    begun, most = [], 0
    for to in everybody:
        run.prepare(letter(to))
        if run.begin(letter(to)):
            begun.append(to)
            most = max(most, states(client, *everybody).count("sending"))
            run.ended(letter(to), {to: YES})
    run.flush()
    assert begun == [to for to in everybody if to != everybody[30]]
    assert 1 < most <= MOST_AT_ONCE
    assert counted(client) == {"accepted": 39, "suppressed": 1}


def test_letters_that_go_slowly_are_marked_one_by_one(client):
    everybody = [f"user{number}@example.org" for number in range(9)]
    run = run_of(client)
    run.reserve(everybody)
    run.line_up(everybody)
    for to in everybody:
        run.prepare(letter(to))
        assert run.begin(letter(to))
        assert states(client, *everybody).count("sending") == 1
        time.sleep(2 * QUICKLY)  # the server's time
        run.ended(letter(to), {to: YES})
    run.close()


def test_what_is_marked_and_not_begun_is_left_to_the_next_run(client, monkeypatch):
    monkeypatch.setattr(run_module, "QUICKLY", 60.0)
    everybody = [f"user{number}@example.org" for number in range(40)]
    run = run_of(client)
    run.reserve(everybody)
    run.line_up(everybody)
    while "sending" not in states(client, *everybody[1:]):
        to = everybody.pop(0)
        run.prepare(letter(to))
        assert run.begin(letter(to))
        run.ended(letter(to), {to: YES})
    run.close()
    assert counted(client) == {"accepted": 40 - len(everybody)}


def test_an_address_that_does_not_exist_is_suppressed_and_one_that_is_refused_is_not(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    run.ended(letter(ADA), {ADA: Outcome(State.REFUSED, "550 5.1.1 nobody", is_bad_address=True)})
    run.ended(letter(BOB), {BOB: NO})
    run.flush()
    found = Suppressions(client).find(ADA)
    assert found is not None
    assert (found.reason, found.source, found.until) == ("550 5.1.1 nobody", "refused", None)
    assert Suppressions(client).find(BOB) is None


# Crashes, lost replies, and garbage


def test_a_repeated_call_changes_nothing_more(client):
    run = run_of(client)
    for _ in range(2):
        run.reserve([ADA, BOB])
        run.prepare(letter(ADA))
        assert run.begin(letter(ADA))
    key_names, args = run._arguments([(ADA, "d", "later", 1, 5, "", "")], (BOB,))
    for _ in range(3):
        assert client.eval(_record_source(), len(key_names), *key_names, *args) == b"1"
    assert counted(client) == {"deferred": 1, "sending": 1}
    assert known(client, ADA).tries == 1


def _record_source() -> str:
    from packmule.jobs.email.ledger import run

    return run._record.source


def test_a_lost_connection_costs_no_mark(client):
    run = run_of(client)
    run.reserve([ADA])
    run.prepare(letter(ADA))
    client.client_kill_filter(_type="normal", skipme=True)
    assert run.begin(letter(ADA))
    client.client_kill_filter(_type="normal", skipme=True)
    client.script_flush()
    run.ended(letter(ADA), {ADA: YES})
    run.flush()
    assert states(client, ADA) == ["accepted"]


def test_counts_are_those_of_the_entries(client):
    everybody = [f"p{number}@example.org" for number in range(60)]
    outcomes = [YES, LATER, NO, LOST, None]
    for execution in range(4):
        run = run_of(client, execution=f"e{execution}", on_unknown="resend" if execution == 3 else "park")
        run.reserve(everybody)
        for place, to in enumerate(run.ready()):
            outcome = outcomes[(place + execution) % len(outcomes)]
            if outcome is not None:
                sent(run, outcome, to)
            elif place % 2:
                run.prepare(letter(to))
                run.begin(letter(to))
        if execution % 2:
            run.close()
        told = [each for each in states(client, *everybody) if each]
        assert counted(client) == {state: told.count(state) for state in set(told)}
        by_index = reader.counts(client)
        assert by_index["active"] == told.count("reserved") + told.count("sending")
        assert by_index["unknown"] == told.count("unknown")


@pytest.mark.parametrize("garbage", ["--5", "²", "9" * 5000, "-3", "1.5", b"\xff", 2**63 - 1])
def test_garbage_in_the_counts_counts_nothing_and_keeps_no_mail(client, garbage):
    client.hset(names.counts_key(SEND.name), mapping={"d": garbage, "r": garbage, "x": 2})
    assert counted(client) == {"refused": 2}
    run = run_of(client)
    run.reserve([ADA, BOB])
    assert sent(run, NO, ADA)
    assert sent(run, LATER, BOB)
    assert states(client, ADA, BOB) == ["refused", "deferred"]
    assert counted(client)["refused"] == 3


GARBAGE = [
    *(b"", b"garbage", b"\xc1", b"x" * 5000, None),
    *map(msgspec.msgpack.encode, (["a", 1, 2], ["z", "", "", 1, "", 0, ""])),
    msgspec.msgpack.encode(["a", ADA, "250 XX", 1, "", 0, ""]).replace(b"XX", b"\xff\xfe"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_unreadable_entry_is_unknown_and_the_innocent_go_on(client, garbage):
    key = names.mail_key(names.mail_id(SEND.name, ADA))
    if garbage is None:
        client.rpush(key, "a list")
    else:
        client.set(key, garbage)
    for index in names.INDEXES:
        client.set(index, "a text")
    client.set(names.counts_key(SEND.name), "a text")
    run = run_of(client)
    run.reserve([ADA, BOB])
    assert run.ready() == [BOB]
    assert run.entries[ADA].state is State.UNKNOWN
    assert sent(run, YES, BOB)
    assert [each.recipient for each in reader.search(client, MailFilter([State.UNKNOWN])).mails] == [ADA]
    assert client.llen(keys.QUARANTINE) > 0
    again = run_of(client, execution="e2", on_unknown="resend")
    again.reserve([ADA])
    assert again.ready() == [ADA]


def test_garbage_in_the_list_of_suppressed_addresses_suppresses(client):
    client.hset("pm:mail-suppressed", ADA, b"\xc1")
    odd = msgspec.msgpack.encode(["XX", "operator", 1, 0]).replace(b"XX", b"\xff\xfe")
    client.hset("pm:mail-suppressed", EVE, odd)
    timeless = "timeless@example.org"
    client.hset("pm:mail-suppressed", timeless, msgspec.msgpack.encode(["asked", "operator", 1, math.nan]))
    run = run_of(client)
    run.reserve([ADA, BOB, EVE, timeless])
    assert run.ready() == [BOB]
    client.delete("pm:mail-suppressed")
    client.set("pm:mail-suppressed", "a text")
    other = run_of(client, "j3", send=Send(names.send_of_key("k2"), "k2"))
    other.reserve([BOB])
    assert other.ready() == []


# Finding and resolving


def unknown_mails(client, count: int = 3) -> None:
    run = run_of(client)
    run.reserve([f"u{number}@example.org" for number in range(count)])
    for to in run.ready():
        assert sent(run, LOST, to)


def test_mails_are_found_by_all_that_is_known_of_them(client):
    unknown_mails(client)
    other = run_of(client, "j2", send=Send(names.send_of_key("k2"), "k2"))
    other.reserve([EVE, ADA])
    assert sent(other, LATER, EVE)
    assert sent(other, YES, ADA)

    def found(**wanted) -> list[str]:
        return sorted(each.recipient for each in reader.search(client, MailFilter(**wanted)).mails)

    assert found(states=[State.UNKNOWN]) == [f"u{number}@example.org" for number in range(3)]
    assert found(states=[State.DEFERRED]) == found(domain="EXAMPLE.net") == found(job="j2") == [EVE]
    assert found(key="k2") == [EVE]
    assert found(address="u1@Example.Org") == ["u1@example.org"]
    assert found(since=time.time() + 60) == found(batch="b") == []
    assert len(found(until=time.time() + 60)) == 4
    with pytest.raises(InvalidMailFilter, match="packmule email show JOB"):
        found(states=[State.ACCEPTED])
    with pytest.raises(InvalidMailFilter, match="cursor"):
        reader.search(client, MailFilter(), after="x")


def test_a_list_goes_on_behind_its_cursor(client):
    unknown_mails(client, 25)
    found, after = [], None
    while True:
        page = reader.search(client, MailFilter([State.UNKNOWN]), 10, after)
        found += [each.recipient for each in page.mails]
        if (after := page.cursor) is None:
            break
    assert len(found) == len(set(found)) == 25


def test_what_a_run_that_is_over_was_sending_is_found_as_unknown_and_can_be_resolved(client):
    run = run_of(client)
    run.reserve([ADA, BOB])
    run.prepare(letter(ADA, BOB))
    assert run.begin(letter(ADA, BOB))
    assert reader.search(client, MailFilter([State.UNKNOWN])).mails == []
    client.hdel(keys.claims_key("worker of j1"), "j1")
    found = reader.search(client, MailFilter([State.UNKNOWN])).mails
    assert {each.recipient for each in found} == {ADA, BOB}
    first, second = sorted(found, key=lambda each: each.recipient)
    done = resolve(client, [first], was_sent=True, who="ada@ops")
    assert (done.done, done.refused, done.jobs, done.left) == (1, [], [], [])
    done = resolve(client, [first, second], was_sent=False)
    assert (done.done, len(done.refused)) == (1, 1)
    assert "is gone: enqueue its mail again" in str(done.left[0])
    assert states(client, ADA, BOB) == ["accepted", "reserved"]
    assert known(client, ADA).reply == "resolved by ada@ops: it was sent"
    again = run_of(client, "j2")
    again.reserve([ADA, BOB])
    assert again.ready() == [BOB]
    assert counted(client) == {"accepted": 1, "reserved": 1}


def test_ids_of_expired_mails_leave_the_index(client):
    unknown_mails(client, 1)
    client.zadd(names.INDEXES[3], {f"old{number}": 1 for number in range(4)})
    other = run_of(client, "j2", send=Send(names.send_of_key("k2"), "k2"))
    other.reserve([ADA, BOB])
    assert sent(other, LOST, ADA)
    assert sent(other, LOST, BOB)
    assert client.zcard(names.INDEXES[3]) == 3
    assert 89_000 < client.ttl(names.mail_key(names.mail_id(SEND.name, "u0@example.org"))) <= 90_000
