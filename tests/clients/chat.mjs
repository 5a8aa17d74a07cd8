// xmpp.js over TCP with STARTTLS: two accounts log in, subscribe to each other, see presence and chat.
// Usage: node chat.mjs HOST:PORT USER PASSWORD USER PASSWORD   (NODE_EXTRA_CA_CERTS names the authority)

import { once } from "node:events";
import { client, xml } from "@xmpp/client";

const DOMAIN = "localhost";
const STEP_MS = 20_000;
const MESSAGES = 100;

const [address, ...words] = process.argv.slice(2);
if (!address || words.length !== 4) {
  console.error("usage: node chat.mjs HOST:PORT USER PASSWORD USER PASSWORD");
  process.exit(2);
}

/** Fails when `promise` takes longer than a step. */
function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${STEP_MS} ms`)), STEP_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A client whose stanzas wait until they are asked for. */
class Person {
  #waiting = [];
  #asking = null;

  constructor(username, password) {
    this.bare = `${username}@${DOMAIN}`;
    this.xmpp = client({ service: `xmpp://${address}`, domain: DOMAIN, resource: "js", username, password });
    this.xmpp.reconnect.stop();
    this.xmpp.on("error", (error) => fail(error));
    this.xmpp.on("stanza", (stanza) => {
      this.#waiting.push(stanza);
      this.#asking?.();
    });
  }

  async arrive() {
    this.jid = (await within(`login of ${this.bare}`, this.xmpp.start())).toString();
    if (!this.xmpp.socket?.encrypted && !this.xmpp.socket?.socket?.encrypted) {
      throw new Error(`${this.bare} is not under TLS`);
    }
    await this.xmpp.iqCaller.request(xml("iq", { type: "get" }, xml("query", "jabber:iq:roster")));
    await this.xmpp.send(xml("presence"));
    await this.next("its own presence", (stanza) => stanza.is("presence") && stanza.attrs.from === this.jid);
  }

  /** The next stanza that `wanted` says yes to; those before it are dropped. */
  next(what, wanted) {
    const look = async () => {
      for (;;) {
        while (this.#waiting.length > 0) {
          const stanza = this.#waiting.shift();
          if (wanted(stanza)) return stanza;
        }
        await new Promise((resolve) => (this.#asking = resolve));
      }
    };
    return within(`${this.bare} waits for ${what}`, look());
  }

  presence(from, type) {
    const wanted = (stanza) => stanza.is("presence") && stanza.attrs.from === from && stanza.attrs.type === type;
    return this.next(`presence ${type ?? "available"} from ${from}`, wanted);
  }

  send(name, attributes, ...children) {
    return this.xmpp.send(xml(name, attributes, ...children));
  }
}

function fail(error) {
  console.error(`xmpp.js: ${error.stack ?? error}`);
  process.exit(1);
}

async function subscribe(asker, contact) {
  await asker.send("presence", { to: contact.bare, type: "subscribe" });
  await contact.presence(asker.bare, "subscribe");
  await contact.send("presence", { to: asker.bare, type: "subscribed" });
  await asker.presence(contact.jid, undefined);
}

/** Numbered messages one way, which must arrive in order. */
async function talk(from, to) {
  for (let number = 0; number < MESSAGES; number += 1) {
    await from.send("message", { to: to.jid, type: "chat" }, xml("body", {}, `number ${number}`));
  }
  for (let number = 0; number < MESSAGES; number += 1) {
    const message = await to.next(`message ${number}`, (stanza) => stanza.is("message"));
    const [sender, body] = [message.attrs.from, message.getChildText("body")];
    if (sender !== from.jid || body !== `number ${number}`) {
      throw new Error(`expected number ${number} from ${from.jid}, got ${message}`);
    }
  }
}

try {
  const alice = new Person(words[0], words[1]);
  const bob = new Person(words[2], words[3]);
  await alice.arrive();
  await bob.arrive();
  await subscribe(alice, bob);
  await subscribe(bob, alice);
  await talk(alice, bob);
  await talk(bob, alice);
  await alice.send("presence", {}, xml("show", {}, "away"), xml("status", {}, "lunch"));
  const seen = await bob.next("alice away", (stanza) => stanza.is("presence") && stanza.getChildText("show") === "away");
  if (seen.getChildText("status") !== "lunch") throw new Error(`another status: ${seen}`);
  await within("alice leaves", alice.xmpp.stop());
  await bob.presence(alice.jid, "unavailable");
  await within("bob leaves", bob.xmpp.stop());
  console.log(`xmpp.js: login with STARTTLS, presence and ${2 * MESSAGES} messages are fine`);
  process.exit(0);
} catch (error) {
  fail(error);
}
