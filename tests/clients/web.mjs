// xmpp.js and Strophe.js over WebSockets with TLS, and xmpp.js over TCP: all three subscribe to each other, see
// presence and chat.
// Usage: node web.mjs ADDRESS WEB_TLS_PORT C2S_PORT (USER PASSWORD){3}   (NODE_EXTRA_CA_CERTS names the authority)

import * as strophe from "strophe.js";
import { DOMAIN, StropheJs, XmppJs, domainIsAt, subscribe, talk } from "./person.mjs";

const [address, webTls, c2s, ...words] = process.argv.slice(2);
if (words.length !== 6) {
  console.error("usage: node web.mjs ADDRESS WEB_TLS_PORT C2S_PORT (USER PASSWORD){3}");
  process.exit(2);
}

function fail(error) {
  console.error(`web: ${error.stack ?? error}`);
  process.exit(1);
}

try {
  domainIsAt(address);
  const service = `wss://${DOMAIN}:${webTls}/xmpp-websocket`;
  const people = [
    new XmppJs(service, words[0], words[1], fail),
    new StropheJs(strophe, service, words[2], words[3], fail),
    new XmppJs(`xmpp://${address}:${c2s}`, words[4], words[5], fail),
  ];
  for (const person of people) await person.arrive();
  const pairs = people.flatMap((one) => people.filter((other) => other !== one).map((other) => [one, other]));
  let messages = 0;
  for (const [asker, contact] of pairs) await subscribe(asker, contact);
  for (const [from, to] of pairs) messages += await talk(from, to);
  // A message larger than what a frame's short forms tell, and with what must be escaped.
  const long = `<&>"'\u{1f600}${"x".repeat(100_000)}`;
  await people[1].send("message", { to: people[0].jid, type: "chat" }, { body: long });
  if ((await people[0].message()).body !== long) throw new Error("a long message has changed");
  await people[0].send("presence", {}, { show: "away", status: "lunch" });
  for (const person of people.slice(1)) {
    const seen = await person.next("away", (stanza) => stanza.name === "presence" && stanza.show === "away");
    if (seen.status !== "lunch") throw new Error(`another status: ${JSON.stringify(seen)}`);
  }
  for (const leaving of [people[1], people[0]]) {
    await leaving.leave();
    await people[2].presence(leaving.jid, "unavailable");
  }
  await people[2].leave();
  console.log(`xmpp.js and Strophe.js: WebSocket with TLS, presence and ${messages} messages are fine`);
  process.exit(0);
} catch (error) {
  fail(error);
}
