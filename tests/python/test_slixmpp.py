"""Two slixmpp clients talk through a node: login, roster, subscription, presence, messages in order, restart."""

import asyncio
import contextlib

import pytest

from person import Person, fresh

MESSAGES = 10_000
WINDOW = 200


async def befriend(alice, bob):
    """The handshake both ways; ends when each has seen the other's presence."""
    for one, other in ((alice, bob), (bob, alice)):
        one.send_presence(pto=other.boundjid.bare, ptype="subscribe")
        await other.presence_from(one.boundjid.bare, ("subscribe",))
        other.send_presence(pto=one.boundjid.bare, ptype="subscribed")
        await one.presence_from(other.boundjid.bare, ("subscribed",))
        await one.presence_from(other.boundjid.full)
    await alice.contact(bob.boundjid.bare, "both")
    await bob.contact(alice.boundjid.bare, "both")


@contextlib.asynccontextmanager
async def two(node, direct_tls=False, accounts=None):
    """Two persons with accounts of their own, online."""
    register = accounts is None
    accounts = accounts or (fresh("alice"), fresh("bob"))
    persons = [Person(node, account, direct_tls, register) for account in accounts]
    for person in persons:
        await person.arrive()
    yield persons
    for person in persons:
        await person.leave()


@pytest.mark.parametrize("direct_tls", [False, True], ids=["starttls", "direct-tls"])
def test_login_roster_subscription_and_presence(node, play, direct_tls):
    async def conversation():
        async with two(node, direct_tls) as (alice, bob):
            for person in (alice, bob):
                chosen = person.plugin["feature_mechanisms"].mech.name
                assert chosen.startswith("SCRAM-"), f"slixmpp chose {chosen}"
                assert person.transport.get_extra_info("ssl_object") is not None
            await befriend(alice, bob)
            alice.send_presence(pshow="away", pstatus="lunch")
            seen = await bob.presence_from(alice.boundjid.full, ("away",))
            assert seen["status"] == "lunch"
            bob.send_presence(pshow="dnd", pstatus="busy")
            seen = await alice.presence_from(bob.boundjid.full, ("dnd",))
            assert seen["status"] == "busy"
            await alice.update_roster(bob.boundjid.bare, name="Bob", groups=["Friends"])
            item = await alice.contact(bob.boundjid.bare, "both")
            assert (item["name"], item["groups"]) == ("Bob", ["Friends"])
            bob.send_presence(ptype="unavailable")
            await alice.presence_from(bob.boundjid.full, ("unavailable",))

    play(conversation())


def test_wrong_password_is_refused(node, play):
    async def attempt():
        account = fresh("alice")
        await (await Person(node, account, register=True).arrive()).leave()
        stranger = Person(node, (account[0], "wrong"))
        with pytest.raises(ConnectionError, match="no mechanism"):
            await stranger.arrive()

    play(attempt())


def test_ten_thousand_messages_each_way_in_order(node, play):
    async def talk(one, other):
        """Sends numbered messages and takes the other's, at most WINDOW ahead."""
        sent = received = 0
        while received < MESSAGES:
            while sent < min(MESSAGES, received + WINDOW):
                one.send_message(mto=other.boundjid, mbody=f"number {sent}", mtype="chat")
                sent += 1
            got = await one.message()
            assert got["type"] == "chat" and got["from"] == other.boundjid, got
            assert got["body"] == f"number {received}"
            received += 1
        await one.plugin["xep_0199"].ping(timeout=20)
        assert one.messages.empty(), "something came twice"

    async def conversation():
        async with two(node) as (alice, bob):
            await asyncio.gather(talk(alice, bob), talk(bob, alice))

    play(conversation(), seconds=240)


def test_accounts_and_rosters_survive_a_kill(own_node, play):
    accounts = (fresh("alice"), fresh("bob"))

    async def before():
        persons = [await Person(own_node, account, register=True).arrive() for account in accounts]
        alice, bob = persons
        await befriend(alice, bob)
        await alice.update_roster(bob.boundjid.bare, name="Bob", groups=["Friends"])
        await alice.get_roster()
        own_node.end()
        for person in persons:
            person.abort()

    async def after():
        async with two(own_node, accounts=accounts) as (alice, bob):
            item = await alice.contact(bob.boundjid.bare, "both")
            assert (item["name"], item["groups"]) == ("Bob", ["Friends"])
            await bob.contact(alice.boundjid.bare, "both")
            # The subscription works, it does not merely stand there.
            bob.send_presence(pstatus="back again")
            while (await alice.presence_from(bob.boundjid.full))["status"] != "back again":
                pass

    play(before())
    own_node.start()
    play(after())
