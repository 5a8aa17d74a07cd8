// xmpp.js's own stream management (XEP-0198): its connection is cut, it comes back by itself; nothing lost, nothing twice.
// Usage: node resume.mjs HOST:PORT USER PASSWORD USER PASSWORD   (NODE_EXTRA_CA_CERTS names the authority)

import { XmppJs, subscribe, within } from "./person.mjs";

const [address, ...words] = process.argv.slice(2);
if (!address || words.length !== 4) {
  console.error("usage: node resume.mjs HOST:PORT USER PASSWORD USER PASSWORD");
  process.exit(2);
}
const MESSAGES = 50;
const ROUNDS = 3;

function fail(error) {
  console.error(`xmpp.js, resumed: ${error.stack ?? error}`);
  process.exit(1);
}

/** An error of a connection that is cut is what is wanted. */
function shrug(error) {
  if (!["ECONNRESET", "EPIPE", "ECONNABORTED"].includes(error.code)) fail(error);
}

async function numbers(person, from, first, count) {
  for (let number = first; number < first + count; number += 1) {
    const message = await person.message();
    if (message.from !== from || message.body !== `number ${number}`) {
      throw new Error(`expected number ${number} from ${from}, got ${JSON.stringify(message)}`);
    }
  }
}

try {
  const alice = new XmppJs(`xmpp://${address}`, words[0], words[1], shrug);
  const bob = new XmppJs(`xmpp://${address}`, words[2], words[3], fail);
  // Not the roster: xmpp.js never counts an answer to an IQ of its own, and would be sent the last stanza twice.
  await alice.arrive({ asks: false });
  await bob.arrive();
  await subscribe(alice, bob);
  await subscribe(bob, alice);
  const management = alice.xmpp.streamManagement;
  if (!management.enabled || !management.id) throw new Error("the stream cannot be resumed");
  const jid = alice.jid;
  let noticed = 0;
  bob.xmpp.on("stanza", (stanza) => {
    if (stanza.name === "presence" && stanza.attrs.from === jid) noticed += 1;
  });
  alice.xmpp.reconnect.delay = 50;
  alice.xmpp.reconnect.start();
  for (let round = 0; round < ROUNDS; round += 1) {
    const first = round * MESSAGES;
    for (let number = first; number < first + MESSAGES; number += 1) {
      await bob.send("message", { to: jid, type: "chat" }, { body: `number ${number}` });
      await alice.send("message", { to: bob.jid, type: "chat" }, { body: `number ${number}` });
    }
    const resumed = new Promise((resolve, reject) => {
      management.once("resumed", resolve);
      management.once("fail", () => reject(new Error("the stream was not resumed")));
    });
    (alice.xmpp.socket.socket ?? alice.xmpp.socket).destroy();
    await within("the stream is resumed", resumed);
    management.removeAllListeners?.("fail");
    await numbers(alice, bob.jid, first, MESSAGES);
    await numbers(bob, jid, first, MESSAGES);
  }
  if (noticed > 0) throw new Error(`a contact was told ${noticed} presences`);
  alice.xmpp.reconnect.stop();
  await alice.leave();
  await bob.presence(jid, "unavailable");
  await bob.leave();
  console.log(`xmpp.js: resumed ${ROUNDS} times, ${ROUNDS * MESSAGES} messages each way, none lost, none twice`);
  process.exit(0);
} catch (error) {
  fail(error);
}
