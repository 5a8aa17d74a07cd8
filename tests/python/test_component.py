"""slixmpp's ComponentXMPP as a gateway: on one node, and with several connections on the nodes of a cluster."""

import asyncio
import contextlib
import signal

import pytest
import slixmpp

from node import DOMAIN, SECRET
from person import STEP_S, Person, fresh

GATEWAY = f"gateway.{DOMAIN}"


class Gateway(slixmpp.ComponentXMPP):
    """Answers each message with its own name and the body, from the address that the message was for."""

    def __init__(self, node, name="gateway", secret=SECRET):
        super().__init__(GATEWAY, secret, node.address, node.components)
        self.node, self.called = node, name
        self.auto_authorize, self.auto_subscribe = None, False
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        self.plugin["xep_0030"].add_identity(category="gateway", itype="irc", name="A gateway", jid=GATEWAY)
        self.presences, self.errors = asyncio.Queue(), asyncio.Queue()
        self.add_event_handler("message", self._answer)
        self.add_event_handler("changed_status", self.presences.put_nowait)
        self.add_event_handler("stream_error", lambda error: self.errors.put_nowait(error["condition"]))

    def _answer(self, message):
        if message["type"] in ("chat", "normal"):
            self.send_message(
                mto=message["from"], mfrom=message["to"], mbody=f"{self.called} {message['body']}", mtype="chat"
            )

    async def arrive(self):
        """Connects and attaches."""
        started = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda event: started.done() or started.set_result(None))
        self.connect(self.node.address, self.node.components)
        await asyncio.wait_for(started, STEP_S)
        return self

    async def leave(self):
        """Closes the stream in order."""
        await asyncio.wait_for(self.disconnect(wait=2), STEP_S)


async def asked(person, body, to=f"room@{GATEWAY}"):
    """Which connection answers a message; it waits out the time in which none is there."""
    while True:
        person.send_message(mto=to, mbody=body, mtype="chat")
        answer = await person.message()
        if answer["type"] != "error":
            name, rest = answer["body"].split(" ", 1)
            assert (rest, answer["from"]) == (body, to)
            return name
        assert answer["error"]["condition"] == "service-unavailable", answer
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def persons(node, count):
    """People with accounts of their own, on one node."""
    found = [await Person(node, fresh("user"), register=True).arrive() for _ in range(count)]
    yield found
    for person in found:
        await person.leave()


def test_a_gateway_is_found_asked_and_answers(node, play):
    async def conversation():
        async with persons(node, 1) as [alice]:
            gateway = await Gateway(node).arrive()
            items = await alice.plugin["xep_0030"].get_items(jid=DOMAIN, timeout=STEP_S)
            listed = {item[0]: item[2] for item in items["disco_items"]["items"]}
            assert listed[GATEWAY] == "The gateway"
            info = await alice.plugin["xep_0030"].get_info(jid=GATEWAY, timeout=STEP_S)
            assert ("gateway", "irc", None, "A gateway") in info["disco_info"]["identities"]
            await alice.plugin["xep_0199"].ping(jid=GATEWAY, timeout=STEP_S)
            assert await asked(alice, "hello") == "gateway"
            # The other way: it asks the server and the user.
            await gateway.plugin["xep_0199"].ping(jid=DOMAIN, ifrom=f"bot@{GATEWAY}", timeout=STEP_S)
            await gateway.plugin["xep_0199"].ping(jid=alice.boundjid.full, ifrom=f"bot@{GATEWAY}", timeout=STEP_S)
            # Directed presence, and its end with the session.
            alice.send_presence(pto=f"room@{GATEWAY}/nick")
            seen = await asyncio.wait_for(gateway.presences.get(), STEP_S)
            assert (seen["from"], seen["to"], seen["type"]) == (alice.boundjid, f"room@{GATEWAY}/nick", "available")
            alice.abort()
            seen = await asyncio.wait_for(gateway.presences.get(), STEP_S)
            assert (seen["to"], seen["type"]) == (f"room@{GATEWAY}/nick", "unavailable")
            await gateway.leave()

    play(conversation())


def test_a_wrong_secret_is_refused(node, play):
    async def attempt():
        stranger = Gateway(node, secret="not what the server knows")
        refused = asyncio.create_task(stranger.arrive())
        assert await asyncio.wait_for(stranger.errors.get(), STEP_S) == "not-authorized"
        refused.cancel()
        await stranger.leave()

    play(attempt())


def test_a_gateway_that_comes_back_is_asked_again(node, play):
    async def conversation():
        async with persons(node, 1) as [alice]:
            gateway = await Gateway(node, "first").arrive()
            assert await asked(alice, "one") == "first"
            gateway.abort()
            gateway = await Gateway(node, "second").arrive()
            # The first connection may live on a moment: it is asked until it is gone.
            while await asked(alice, "two") != "second":
                pass
            await gateway.leave()

    play(conversation())


def test_connections_on_two_nodes_share_the_users_and_take_over(cluster, play):
    async def conversation():
        home, one, two = cluster.nodes
        async with persons(home, 10) as people:
            gateways = {"one": await Gateway(one, "one").arrive(), "two": await Gateway(two, "two").arrive()}
            # The table of the users' node knows the second connection a moment after it.
            while len({await asked(person, "begin") for person in people}) < 2:
                pass
            owners = {person: await asked(person, "who") for person in people}
            assert set(owners.values()) == {"one", "two"}
            for person, owner in owners.items():
                assert await asked(person, "still") == owner
            # One goes, in order: nobody notices but by the name.
            await gateways["two"].leave()
            for person in people:
                assert await asked(person, "now") == "one"
            # It comes back: the users that it had are its again.
            gateways["two"] = await Gateway(two, "two").arrive()
            while len({await asked(person, "back") for person in people}) < 2:
                pass
            # Its node dies: what is left of it goes on with the other.
            two.end(signal.SIGKILL)
            gateways["two"].abort()
            for person in people:
                person.send_message(mto=f"room@{GATEWAY}", mbody="after", mtype="chat")
            for person in people:
                # Asked twice where nobody knows whether the dead node had it; answered by the living one.
                answer = await person.message()
                assert answer["body"] == "one after", answer
            await gateways["one"].leave()

    play(conversation(), seconds=120)


def test_users_of_a_node_that_dies_leave_the_gateway(cluster, play):
    async def conversation():
        home, one, _ = cluster.nodes
        gateway = await Gateway(home).arrive()
        lost = await Person(one, fresh("lost"), register=True).arrive()
        lost.send_presence(pto=f"room@{GATEWAY}/nick")
        seen = await asyncio.wait_for(gateway.presences.get(), STEP_S)
        assert seen["from"] == lost.boundjid
        one.end(signal.SIGKILL)
        lost.abort()
        seen = await asyncio.wait_for(gateway.presences.get(), STEP_S)
        assert (seen["from"], seen["type"]) == (lost.boundjid, "unavailable")
        await gateway.leave()

    home, one, two = cluster.nodes
    if two.process is None:
        two.start()
    play(conversation(), seconds=120)
