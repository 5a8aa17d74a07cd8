"""slixmpp's own stream management (XEP-0198): a connection is cut, the stream resumed; nothing lost, nothing twice."""

import asyncio
import signal

import pytest

from person import STEP_S, Person, fresh
from test_slixmpp import befriend

MESSAGES = 100
ROUNDS = 5


def once(person, event):
    """A future that ends with the event."""
    future = asyncio.get_running_loop().create_future()
    person.add_event_handler(event, lambda data: future.done() or future.set_result(data), disposable=True)
    return future


async def cut(person):
    """The connection is gone, without a word."""
    gone = once(person, "disconnected")
    person.transport.abort()
    await asyncio.wait_for(gone, STEP_S)


async def resume(person, node):
    """Comes back at `node`, by the stream of before."""
    resumed, failed = once(person, "session_resumed"), once(person, "sm_failed")
    person.ssl_context.load_verify_locations(cafile=node.authority)
    person.connect(node.address, node.c2s)
    await asyncio.wait([resumed, failed], timeout=STEP_S, return_when=asyncio.FIRST_COMPLETED)
    assert resumed.done(), "the stream was not resumed"


async def numbers(person, sender, first, count):
    """The next messages are these, in order."""
    for number in range(first, first + count):
        got = await person.message()
        assert (got["from"], got["body"]) == (sender, f"number {number}"), got


async def conversation(home, away, nodes):
    """Alice is cut off again and again, and comes back at one node after the other."""
    alice, bob = Person(home, fresh("alice"), register=True), Person(away, fresh("bob"), register=True)
    alice.register_plugin("xep_0198")
    enabled = once(alice, "sm_enabled")
    await alice.arrive()
    await bob.arrive()
    assert (await asyncio.wait_for(enabled, STEP_S))["resume"]
    await befriend(alice, bob)
    while not bob.presences.empty():
        bob.presences.get_nowait()
    address = alice.boundjid
    for turn in range(ROUNDS):
        first = turn * MESSAGES
        for number in range(first, first + MESSAGES):
            alice.send_message(mto=bob.boundjid, mbody=f"number {number}", mtype="chat")
            bob.send_message(mto=alice.boundjid, mbody=f"number {number}", mtype="chat")
        # Some of hers are on their way, some of his have come: nobody has acknowledged anything.
        await alice.message()
        await cut(alice)
        bob.send_message(mto=alice.boundjid, mbody=f"number {first + MESSAGES}", mtype="chat")
        await resume(alice, nodes[turn % len(nodes)])
        assert alice.boundjid == address
        await numbers(alice, bob.boundjid, first + 1, MESSAGES - 1)
        last = await alice.message()
        assert last["body"] == f"number {first + MESSAGES}"
        await numbers(bob, alice.boundjid, first, MESSAGES)
    for person in (alice, bob):
        await person.plugin["xep_0199"].ping(timeout=STEP_S)
        assert person.messages.empty(), "something came twice"
    assert bob.presences.empty(), "a contact noticed"
    # Its end is its end: a contact hears of it, once.
    await alice.leave()
    await bob.presence_from(address.full, ("unavailable",))
    await bob.leave()


def test_r3_a_stream_is_resumed(node, play):
    play(conversation(node, node, [node]))


def test_r3_a_stream_is_resumed_on_another_node(cluster, play):
    first, second, third = cluster.nodes
    play(conversation(first, second, [second, third, first]), seconds=120)


def test_r3_a_stream_goes_on_when_its_node_stops(cluster, play):
    """SIGTERM: the session waits on another node, and a contact notices nothing."""

    async def attempt():
        home, away, other = cluster.nodes
        alice, bob = Person(home, fresh("alice"), register=True), Person(away, fresh("bob"), register=True)
        alice.register_plugin("xep_0198")
        await alice.arrive()
        await bob.arrive()
        await befriend(alice, bob)
        while not bob.presences.empty():
            bob.presences.get_nowait()
        address, gone = alice.boundjid, once(alice, "disconnected")
        for number in range(MESSAGES):
            bob.send_message(mto=address, mbody=f"number {number}", mtype="chat")
        await alice.message()
        await asyncio.to_thread(home.end, signal.SIGTERM)
        await asyncio.wait_for(gone, STEP_S)
        bob.send_message(mto=address, mbody=f"number {MESSAGES}", mtype="chat")
        await resume(alice, other)
        assert alice.boundjid == address
        await numbers(alice, bob.boundjid, 1, MESSAGES)
        alice.send_message(mto=bob.boundjid, mbody="number 0", mtype="chat")
        await numbers(bob, address, 0, 1)
        await alice.plugin["xep_0199"].ping(timeout=STEP_S)
        assert alice.messages.empty(), "something came twice"
        assert bob.presences.empty(), "a contact noticed"
        for person in (alice, bob):
            await person.leave()
        await asyncio.to_thread(home.start)

    play(attempt(), seconds=120)


def stanza_id(message, account):
    """The id that the account's server has given a message (XEP-0359)."""
    ids = [found for found in message.xml.findall("{urn:xmpp:sid:0}stanza-id") if found.get("by") == account]
    assert len(ids) == 1, message
    return ids[0].get("id")


async def first_copies(person, count, name, got):
    """Messages `number 0` and on, each known by its name; those that come again have the same name, and are passed over."""
    bodies = {}
    while len(bodies) < count:
        message = got.pop(0) if got else await person.message()
        was = bodies.setdefault(name(message), message["body"])
        assert was == message["body"], "one name stands for two messages"
    assert list(bodies.values()) == [f"number {number}" for number in range(count)]
    return bodies


def test_r4_a_crash_tells_how_far_it_came_and_brings_what_was_pending(cluster, play):
    """SIGKILL: the stream is lost, but not what it had taken or was to bring. The client learns the number (XEP-0198 §5),
    sends what is above it once more, and tells by their ids what it has got twice."""

    async def attempt():
        home, away, other = cluster.nodes
        alice, bob = Person(home, fresh("alice"), register=True), Person(away, fresh("bob"), register=True)
        alice.register_plugin("xep_0198")
        enabled = once(alice, "sm_enabled")
        await alice.arrive()
        await bob.arrive()
        await asyncio.wait_for(enabled, STEP_S)
        management = alice.plugin["xep_0198"]
        written, acknowledged = [], []
        alice.add_event_handler("stanza_acked", acknowledged.append)
        gone, failed = once(alice, "disconnected"), once(alice, "sm_failed")
        alice.add_event_handler("disconnected", lambda _: written.extend(management.unacked_queue), disposable=True)

        for number in range(MESSAGES):
            bob.send_message(mto=alice.boundjid, mbody=f"number {number}", mtype="chat")
            alice.send_message(mto=bob.boundjid, mbody=f"number {number}", mtype="chat")
        management.request_ack()
        while not any(stanza.name == "message" for stanza in acknowledged):
            await alice.plugin["xep_0199"].ping(timeout=STEP_S)
        before = [await alice.message()]
        # Messages and whatever else.
        safe = len(acknowledged)
        await asyncio.to_thread(home.end, signal.SIGKILL)
        await asyncio.wait_for(gone, STEP_S)
        bob.send_message(mto=alice.boundjid, mbody=f"number {MESSAGES}", mtype="chat")

        alice.node = other
        alice.ssl_context.load_verify_locations(cafile=other.authority)
        await alice.arrive()
        handled = int((await asyncio.wait_for(failed, STEP_S)).xml.get("h"))
        assert handled >= safe, "less than what was acknowledged"
        for number, stanza in written:
            if number > handled and stanza.name == "message":
                stanza.send()

        ids = await first_copies(bob, MESSAGES, lambda message: message["id"], [])
        pending = await first_copies(alice, MESSAGES + 1, lambda message: stanza_id(message, alice.boundjid.bare), before)
        for person, known in ((alice, pending), (bob, ids)):
            await person.plugin["xep_0199"].ping(timeout=STEP_S)
            while not person.messages.empty():
                again = person.messages.get_nowait()
                assert any(again["body"] == body for body in known.values()), again
        for person in (alice, bob):
            await person.leave()
        await asyncio.to_thread(home.start)

    play(attempt(), seconds=120)


def test_r4_who_does_not_come_back_in_time_binds_anew(node, play):
    """What was not acknowledged goes to another resource, with the time of its delivery (XEP-0203)."""

    async def attempt():
        account = fresh("alice")
        alice, bob = Person(node, account, register=True), Person(node, fresh("bob"), register=True)
        alice.register_plugin("xep_0198")
        await alice.arrive()
        await bob.arrive()
        tablet = Person(node, account, resource="tablet")
        await tablet.arrive()
        await cut(alice)
        # Delivered to a session without a connection.
        bob.send_message(mto=alice.boundjid, mbody="for you", mtype="chat")
        await bob.plugin["xep_0199"].ping(timeout=STEP_S)
        # Another client takes the address, and is not available: the one that waits to be resumed ends.
        again = Person(node, account)
        await again.arrive(online=False)
        got = await tablet.message()
        assert (got["body"], got["from"]) == ("for you", bob.boundjid)
        assert got.xml.find("{urn:xmpp:delay}delay") is not None
        with pytest.raises(AssertionError, match="not resumed"):
            await resume(alice, node)
        assert again.messages.empty()
        for person in (again, tablet, bob):
            await person.leave()
        alice.abort()

    play(attempt())
