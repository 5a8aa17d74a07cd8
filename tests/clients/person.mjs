// A person with a client: xmpp.js or Strophe.js, behind one face. Stanzas wait until they are asked for.

import dns from "node:dns";
import { client, xml } from "@xmpp/client";
import ws from "ws";

export const DOMAIN = "localhost";
const STEP_MS = 20_000;
const MESSAGES = 100;

// xmpp.js takes the browser's; Node has one of its own from version 22 on.
globalThis.WebSocket ??= ws;

/** From now on the domain is at this address: certificates are for the name, the node is where it found room. */
export function domainIsAt(address) {
  const lookup = dns.lookup;
  dns.lookup = (host, options, callback) => {
    if (host !== DOMAIN) return lookup(host, options, callback);
    return options.all ? callback(null, [{ address, family: 4 }]) : callback(null, address, 4);
  };
}

/** Fails when `promise` takes longer than a step. */
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${STEP_MS} ms`)), STEP_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What is the same whatever the library: what came, and what is made of it. */
class Person {
  #waiting = [];
  #asking = null;

  constructor(username) {
    this.bare = `${username}@${DOMAIN}`;
  }

  /** Takes a stanza as `{ name, from, type, body, show, status }`. */
  came(stanza) {
    this.#waiting.push(stanza);
    this.#asking?.();
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
    const wanted = (stanza) => stanza.name === "presence" && stanza.from === from && stanza.type === type;
    return this.next(`presence ${type ?? "available"} from ${from}`, wanted);
  }

  message() {
    return this.next("a message", (stanza) => stanza.name === "message" && stanza.body);
  }
}

/** With xmpp.js; `service` is `xmpp://HOST:PORT` or `wss://HOST:PORT/PATH`. */
export class XmppJs extends Person {
  constructor(service, username, password, fail) {
    super(username);
    this.xmpp = client({ service, domain: DOMAIN, resource: "js", username, password });
    this.xmpp.reconnect.stop();
    this.xmpp.on("error", fail);
    this.xmpp.on("stanza", (stanza) => {
      const { from, type } = stanza.attrs;
      const [body, show, status] = ["body", "show", "status"].map((name) => stanza.getChildText(name));
      this.came({ name: stanza.name, from, type, body, show, status });
    });
  }

  /** Logs in, asks for the roster if `asks`, and is available. */
  async arrive({ asks = true } = {}) {
    const managed = this.#managed();
    this.jid = (await within(`login of ${this.bare}`, this.xmpp.start())).toString();
    await within(`stream management of ${this.bare}`, managed);
    const secured = this.xmpp.socket?.encrypted || this.xmpp.socket?.socket?.encrypted || this.xmpp.socket?.secure;
    if (!secured) throw new Error(`${this.bare} is not under TLS`);
    if (asks) await this.xmpp.iqCaller.request(xml("iq", { type: "get" }, xml("query", "jabber:iq:roster")));
    await this.xmpp.send(xml("presence"));
    await this.presence(this.jid, undefined);
  }

  /**
   * Until stream management is on. xmpp.js begins to count when the promise of its `<enabled/>` is done, so it
   * forgets a stanza that came in the same read.
   */
  #managed() {
    return new Promise((resolve) => {
      const enabled = (element) => {
        if (!element.is("enabled", "urn:xmpp:sm:3")) return;
        this.xmpp.off("nonza", enabled);
        setImmediate(resolve);
      };
      this.xmpp.on("nonza", enabled);
    });
  }

  send(name, attributes, children = {}) {
    const elements = Object.entries(children).map(([name, text]) => xml(name, {}, text));
    return this.xmpp.send(xml(name, attributes, ...elements));
  }

  leave() {
    return within(`${this.bare} leaves`, this.xmpp.stop());
  }
}

/** With Strophe.js over a WebSocket. */
export class StropheJs extends Person {
  constructor({ Strophe, $build, $iq, $pres }, service, username, password, fail) {
    super(username);
    Object.assign(this, { Strophe, $build, $iq, $pres, password, fail });
    this.connection = new Strophe.Connection(service);
  }

  async arrive() {
    const { Strophe } = this;
    await within(
      `login of ${this.bare}`,
      new Promise((resolve, reject) => {
        this.connection.connect(`${this.bare}/strophe`, this.password, (status, condition) => {
          if (status === Strophe.Status.CONNECTED) resolve();
          if (status === Strophe.Status.DISCONNECTED) this.left?.();
          const failed = [Strophe.Status.CONNFAIL, Strophe.Status.AUTHFAIL, Strophe.Status.ERROR].includes(status);
          if (failed) reject(new Error(`${this.bare}: status ${status}, ${condition}`));
        });
      }),
    );
    this.jid = this.connection.jid;
    this.connection.addHandler((stanza) => {
      const text = (name) => stanza.getElementsByTagName(name)[0]?.textContent ?? null;
      const [from, type] = ["from", "type"].map((name) => stanza.getAttribute(name) ?? undefined);
      this.came({ name: stanza.tagName, from, type, body: text("body"), show: text("show"), status: text("status") });
      return true;
    });
    const request = this.$iq({ type: "get" }).c("query", { xmlns: "jabber:iq:roster" });
    await within("the roster", new Promise((resolve, reject) => this.connection.sendIQ(request, resolve, reject)));
    this.connection.send(this.$pres());
    await this.presence(this.jid, undefined);
  }

  async send(name, attributes, children = {}) {
    const stanza = this.$build(name, { xmlns: "jabber:client", ...attributes });
    for (const [name, text] of Object.entries(children)) stanza.c(name).t(text).up();
    this.connection.send(stanza);
  }

  leave() {
    const left = new Promise((resolve) => (this.left = resolve));
    this.connection.disconnect();
    return within(`${this.bare} leaves`, left);
  }
}

export async function subscribe(asker, contact) {
  await asker.send("presence", { to: contact.bare, type: "subscribe" });
  await contact.presence(asker.bare, "subscribe");
  await contact.send("presence", { to: asker.bare, type: "subscribed" });
  await asker.presence(contact.jid, undefined);
}

/** Numbered messages one way, which must arrive in order; returns how many. */
export async function talk(from, to) {
  for (let number = 0; number < MESSAGES; number += 1) {
    await from.send("message", { to: to.jid, type: "chat" }, { body: `number ${number}` });
  }
  for (let number = 0; number < MESSAGES; number += 1) {
    const message = await to.message();
    if (message.from !== from.jid || message.body !== `number ${number}`) {
      throw new Error(`expected number ${number} from ${from.jid}, got ${JSON.stringify(message)}`);
    }
  }
  return MESSAGES;
}
