"""A slixmpp client that waits for what it expects, with deadlines."""

import asyncio
import itertools
import logging
import os
import secrets
import ssl

import slixmpp
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from node import DOMAIN

STEP_S = 20
_names = itertools.count()
logging.getLogger("slixmpp").setLevel(logging.ERROR)


def fresh(prefix):
    """An account nobody else uses: (bare JID, password)."""
    return f"{prefix}-{os.getpid()}-{next(_names)}-{secrets.token_hex(3)}@{DOMAIN}", secrets.token_hex(8)


class Person(slixmpp.ClientXMPP):
    """A client of one account. Stanzas that arrive wait in `messages` and `presences` until asked for."""

    def __init__(self, node, account, direct_tls=False, register=False, resource="slix"):
        super().__init__(f"{account[0]}/{resource}", account[1])
        self.node, self.direct_tls = node, direct_tls
        self.messages, self.presences = asyncio.Queue(), asyncio.Queue()
        # STARTTLS or direct TLS, never plain text, and only with the node's own authority.
        self.enable_plaintext, self.enable_starttls, self.enable_direct_tls = False, not direct_tls, direct_tls
        self.ssl_context = ssl.create_default_context(cafile=node.authority)
        self.auto_authorize, self.auto_subscribe = None, False
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")
        if register:
            self.register_plugin("xep_0077")
            self.plugin["xep_0077"].force_registration = True
            self.add_event_handler("register", self._register)
        self.add_event_handler("failed_all_auth", lambda event: self._fail("no mechanism worked"))
        self.add_event_handler("connection_failed", lambda reason: self._fail(f"no connection: {reason}"))
        everything = Callback("all presence", StanzaPath("presence"), self.presences.put_nowait)
        self.register_handler(everything)
        self.add_event_handler("message", self.messages.put_nowait)

    def _fail(self, why):
        if not self._started.done():
            self._started.set_exception(ConnectionError(why))

    async def _register(self, _form):
        request = self.Iq()
        request["type"] = "set"
        request["register"]["username"] = self.boundjid.user
        request["register"]["password"] = self.password
        await request.send(timeout=STEP_S)

    async def arrive(self, online=True):
        """Connects, logs in and binds; then asks for the roster and, if `online`, sends presence."""
        self._started = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", lambda event: self._started.done() or self._started.set_result(None))
        self.connect(self.node.address, self.node.c2s_tls if self.direct_tls else self.node.c2s)
        await asyncio.wait_for(self._started, STEP_S)
        await self.get_roster(timeout=STEP_S)
        if online:
            self.send_presence()
            await self.presence_from(self.boundjid.full)
        return self

    async def leave(self):
        """Closes the stream in order."""
        await asyncio.wait_for(self.disconnect(wait=2), STEP_S)

    async def presence_from(self, jid, kinds=("available", "away", "chat", "dnd", "xa")):
        """The next presence of one of these kinds from this bare or full JID; others before it are dropped."""
        while True:
            try:
                got = await asyncio.wait_for(self.presences.get(), STEP_S)
            except TimeoutError:
                raise AssertionError(f"{self.boundjid}: no presence {kinds} from {jid}") from None
            sender = got["from"].full if "/" in jid else got["from"].bare
            if sender == jid and got["type"] in kinds:
                return got

    async def message(self):
        """The next message."""
        return await asyncio.wait_for(self.messages.get(), STEP_S)

    async def contact(self, jid, subscription):
        """The roster's item of `jid` once the subscription is as expected: name, groups and so on.

        Each look is a round trip. slixmpp keeps the roster itself and the server may answer that nothing
        has changed (RFC 6121 2.6), so it is not the answer that is looked at.
        """
        async def look():
            while True:
                await self.get_roster(timeout=STEP_S)
                if self.client_roster.has_jid(jid) and self.client_roster[jid]["subscription"] == subscription:
                    return self.client_roster[jid]
        return await asyncio.wait_for(look(), STEP_S)
