// biboumi, a gateway to IRC, attached as an external component: xmpp.js finds it, asks what it can do, runs a command of it, and
// is told that a channel's server cannot be reached. Needs no IRC server.
// Usage: node biboumi.mjs HOST C2S-PORT COMPONENT-PORT SECRET USER PASSWORD   (NODE_EXTRA_CA_CERTS names the authority)

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { xml } from "@xmpp/client";
import { DOMAIN, XmppJs, within } from "./person.mjs";

const [host, port, componentPort, secret, ...words] = process.argv.slice(2);
if (!host || words.length !== 2) {
  console.error("usage: node biboumi.mjs HOST C2S-PORT COMPONENT-PORT SECRET USER PASSWORD");
  process.exit(2);
}
const GATEWAY = `irc.${DOMAIN}`;
const COMMANDS = "http://jabber.org/protocol/commands";
const directory = mkdtempSync(join(tmpdir(), "althing-biboumi-"));
const log = join(directory, "log");
let gateway;

function end(code) {
  gateway?.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
  process.exit(code);
}

function fail(error) {
  console.error(`biboumi: ${error.stack ?? error}`);
  if (existsSync(log)) console.error(`the end of its log:\n${readFileSync(log, "utf8").slice(-3000)}`);
  end(1);
}

// xmpp.js rejects a promise of its own as well when the error comes before it has noted that the request is sent.
process.on("unhandledRejection", (error) => error.condition || fail(error));

function check(right, what) {
  if (!right) throw new Error(what);
}

/** Asks `to`; gives the payload, or the condition of the error. */
async function ask(person, to, type, payload) {
  try {
    const answer = await within(`${to} answers`, person.xmpp.iqCaller.request(xml("iq", { type, to }, payload)));
    return answer.getChildElements()[0];
  } catch (error) {
    if (!error.condition) throw error;
    return error.condition;
  }
}

const query = (what, node) => xml("query", { xmlns: `http://jabber.org/protocol/disco#${what}`, node });

try {
  const alice = new XmppJs(`xmpp://${host}:${port}`, words[0], words[1], fail);
  await alice.arrive();
  const early = await ask(alice, GATEWAY, "get", query("info"));
  check(early === "service-unavailable", `before it is there: ${early}`);

  const file = join(directory, "biboumi.cfg");
  const settings = {
    hostname: GATEWAY,
    password: secret,
    xmpp_server_ip: host,
    port: componentPort,
    db_name: join(directory, "db"),
    log_file: log,
    log_level: 0,
  };
  writeFileSync(file, Object.entries(settings).map(([key, value]) => `${key}=${value}\n`).join(""));
  gateway = spawn("biboumi", [file], { stdio: "ignore" });
  const ended = new Promise((resolve) => gateway.on("exit", resolve));

  // It tells nobody when it is attached.
  const attached = async () => {
    for (;;) {
      const info = await ask(alice, GATEWAY, "get", query("info"));
      if (typeof info !== "string") return info;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const info = await within("biboumi attaches", attached());
  const identity = info.getChild("identity").attrs;
  check(identity.category === "conference" && identity.type === "irc", `another identity: ${JSON.stringify(identity)}`);
  const items = await ask(alice, DOMAIN, "get", query("items"));
  const listed = items.getChildren("item").map((item) => item.attrs);
  check(listed.some((item) => item.jid === GATEWAY && item.name === "IRC"), `not listed: ${JSON.stringify(listed)}`);

  const commands = (await ask(alice, GATEWAY, "get", query("items", COMMANDS))).getChildren("item");
  check(commands.some((item) => item.attrs.node === "ping"), `no command "ping" among ${commands}`);
  const run = xml("command", { xmlns: COMMANDS, node: "ping", action: "execute" });
  const done = await ask(alice, GATEWAY, "set", run);
  check(done.attrs.status === "completed" && done.getChildText("note") === "Pong", `ping: ${done}`);

  // It joins a channel of a server that does not exist; the server's address in the gateway says so.
  const room = `#althing%irc.invalid@${GATEWAY}/alice`;
  await alice.xmpp.send(xml("presence", { to: room }, xml("x", "http://jabber.org/protocol/muc")));
  const failed = (stanza) => stanza.from === `irc.invalid@${GATEWAY}` && /^Connection failed/.test(stanza.body ?? "");
  await alice.next("word that the channel is out of reach", failed);

  gateway.kill("SIGTERM");
  await within("biboumi ends", ended);
  const gone = async () => {
    while ((await ask(alice, GATEWAY, "get", query("info"))) !== "service-unavailable");
  };
  await within("it is gone", gone());
  await alice.leave();
  console.log("biboumi: attached, listed, asked, and gone: all is fine");
  end(0);
} catch (error) {
  fail(error);
}
