// xmpp.js over TCP with STARTTLS: two accounts log in, subscribe to each other, see presence and chat.
// Usage: node chat.mjs HOST:PORT USER PASSWORD USER PASSWORD   (NODE_EXTRA_CA_CERTS names the authority)

import { XmppJs, subscribe, talk } from "./person.mjs";

const [address, ...words] = process.argv.slice(2);
if (!address || words.length !== 4) {
  console.error("usage: node chat.mjs HOST:PORT USER PASSWORD USER PASSWORD");
  process.exit(2);
}

function fail(error) {
  console.error(`xmpp.js: ${error.stack ?? error}`);
  process.exit(1);
}

try {
  const alice = new XmppJs(`xmpp://${address}`, words[0], words[1], fail);
  const bob = new XmppJs(`xmpp://${address}`, words[2], words[3], fail);
  await alice.arrive();
  await bob.arrive();
  await subscribe(alice, bob);
  await subscribe(bob, alice);
  const messages = (await talk(alice, bob)) + (await talk(bob, alice));
  await alice.send("presence", {}, { show: "away", status: "lunch" });
  const seen = await bob.next("alice away", (stanza) => stanza.name === "presence" && stanza.show === "away");
  if (seen.status !== "lunch") throw new Error(`another status: ${JSON.stringify(seen)}`);
  await alice.leave();
  await bob.presence(alice.jid, "unavailable");
  await bob.leave();
  console.log(`xmpp.js: login with STARTTLS, presence and ${messages} messages are fine`);
  process.exit(0);
} catch (error) {
  fail(error);
}
