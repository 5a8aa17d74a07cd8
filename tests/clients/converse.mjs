// Converse in Chromium: finds the WebSocket by host-meta, logs in by its form, shows the contact, and chats with
// somebody on xmpp.js.
// Usage: node converse.mjs ADDRESS WEB_TLS_PORT C2S_PORT SERVER.pem SCREENSHOT.png USER PASSWORD USER PASSWORD

import { X509Certificate, createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { DOMAIN, XmppJs, subscribe } from "./person.mjs";

const [address, webTls, c2s, certificate, screenshot, ...words] = process.argv.slice(2);
if (words.length !== 4) {
  console.error("usage: node converse.mjs ADDRESS WEB_TLS_PORT C2S_PORT SERVER.pem SCREENSHOT.png (USER PASSWORD){2}");
  process.exit(2);
}
const STEP_MS = 30_000;
const DIST = join(import.meta.dirname, "node_modules/converse.js/dist");
// A page of the domain itself: its origin is allowed without a word in the configuration.
const PAGE = `http://${DOMAIN}/`;
const HTML = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>chat</title>
<link rel="stylesheet" href="/dist/converse.min.css"></head>
<body class="converse-fullscreen"><div id="conversejs-bg"></div>
<script type="module" src="/dist/converse.min.js"></script>
<script type="module">
converse.plugins.add("leave", { initialize() { window.leave = () => this._converse.api.user.logout(); } });
converse.initialize({ whitelisted_plugins: ["leave"],
  view_mode: "fullscreen", discover_connection_methods: true, assets_path: "/dist/", i18n: "en",
  allow_registration: false, auto_reconnect: false, play_sounds: false, show_desktop_notifications: false,
  loglevel: "debug", muc_domain: "none.invalid", clear_cache_on_logout: true,
});</script></body></html>`;

/** The certificate is trusted by its key, and only it: the browser knows nothing of the test's authority. */
const key = new X509Certificate(readFileSync(certificate)).publicKey.export({ type: "spki", format: "der" });
const pin = createHash("sha256").update(key).digest("base64");
const profile = mkdtempSync(join(tmpdir(), "althing-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1200, height: 800 },
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--ignore-certificate-errors-spki-list=${pin}`,
    // A page that is not fetched from a network counts as public, and may not reach loopback.
    "--disable-features=LocalNetworkAccessChecks",
    // Clients ask https://DOMAIN/ for host-meta, and take the port from there.
    `--host-resolver-rules=MAP ${DOMAIN}:443 ${address}:${webTls},MAP ${DOMAIN}:${webTls} ${address}:${webTls},` +
      "MAP * ~NOTFOUND",
  ],
});
const said = [];
let failed = false;

function fail(error) {
  failed = true;
  console.error(`converse: ${error.stack ?? error}`);
}

try {
  const friend = new XmppJs(`xmpp://${address}:${c2s}`, words[2], words[3], fail);
  await friend.arrive();
  const before = new XmppJs(`xmpp://${address}:${c2s}`, words[0], words[1], fail);
  await before.arrive();
  await subscribe(before, friend);
  await subscribe(friend, before);
  await before.leave();
  const page = await context.newPage();
  page.setDefaultTimeout(STEP_MS);
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  const answered = [];
  page.on("response", (response) => answered.push(`${response.status()} ${response.url()}`));
  const sockets = [];
  page.on("websocket", (socket) => sockets.push(socket.url()));
  await page.route(`${PAGE}**`, (route) => {
    const { pathname } = new URL(route.request().url());
    if (pathname === "/") return route.fulfill({ body: HTML, contentType: "text/html" });
    return route.fulfill({ path: join(DIST, pathname.replace("/dist/", "")) });
  });
  await page.goto(PAGE);

  await page.fill("input[name=jid]", `${words[0]}@${DOMAIN}`);
  await page.fill("input[name=password]", words[1]);
  await page.click("input[type=submit], button[type=submit]");
  await page.locator("converse-user-profile").first().waitFor();
  const hostMeta = answered.filter((line) => line.startsWith("200 ") && line.includes("/.well-known/host-meta"));
  if (hostMeta.length === 0) throw new Error(`no host-meta: ${answered.join("\n")}`);
  if (!sockets.includes(`wss://${DOMAIN}:${webTls}/xmpp-websocket`)) throw new Error(`sockets: ${sockets}`);

  // The contact, who is there, and a talk with her.
  const contact = page.locator(`li.current-xmpp-contact.online a[data-jid="${friend.bare}"]`);
  await contact.click();
  const box = page.locator("textarea.chat-textarea");
  await box.fill("Hello from Converse");
  await box.press("Enter");
  const heard = await friend.message();
  if (heard.body !== "Hello from Converse") throw new Error(`another message: ${JSON.stringify(heard)}`);
  await friend.send("message", { to: heard.from, type: "chat" }, { body: "And a good day to you <&>" });
  await page.locator(".chat-msg__text", { hasText: "And a good day to you <&>" }).waitFor();
  await page.locator(".chat-msg__text", { hasText: "Hello from Converse" }).waitFor();
  await page.screenshot({ path: screenshot });

  // A page that is only closed may come back: its stream could be resumed (XEP-0198).
  await page.evaluate(() => window.leave());
  await friend.presence(heard.from, "unavailable");
  await page.close();
  await friend.leave();
} catch (error) {
  fail(error);
  const page = context.pages().at(-1);
  await page?.screenshot({ path: screenshot }).catch(() => {});
  console.error(`the page said:\n${said.slice(-40).join("\n")}\nthe screen is in ${screenshot}`);
}
await context.close();
rmSync(profile, { recursive: true, force: true });
if (!failed) console.log("Converse in Chromium: host-meta, login, contact and messages are fine");
process.exit(failed ? 1 : 0);
