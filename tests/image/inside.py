"""The part of the image test that runs where the containers' ports are. The first argument says what to do; the
particulars come as JSON on standard input."""

import asyncio
import http.client
import json
import pathlib
import sys
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from person import Person  # noqa: E402  (needs the path above)

ADDRESS = "127.0.0.1"
READY_S = 120


def answer(port):
    """What a node says about its readiness: status and text, or why there is no answer."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)
    finally:
        connection.close()


def ready(words):
    """Waits until all nodes are ready."""
    deadline = time.monotonic() + READY_S
    while True:
        answers = {port: answer(port) for port in words["ports"]}
        if all(status == 200 for status, _ in answers.values()):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready within {READY_S} s: {answers}")
        time.sleep(0.2)


async def chat(words):
    """Two clients, each on a node of its own, send each other a message."""
    people = []
    for account, port in zip(words["accounts"], words["ports"], strict=True):
        node = types.SimpleNamespace(address=ADDRESS, c2s=port, authority=words["authority"])
        people.append(await Person(node, (account["jid"], account["password"])).arrive())
    alice, bob = people
    for one, other, text in ((alice, bob, "Can you hear me?"), (bob, alice, "Loud and clear.")):
        one.send_message(mto=other.boundjid.full, mbody=text)
        heard = await other.message()
        assert (heard["body"], heard["from"].full) == (text, one.boundjid.full), heard
    for person in people:
        await person.leave()


if __name__ == "__main__":
    particulars = json.load(sys.stdin)
    if sys.argv[1] == "ready":
        ready(particulars)
    else:
        asyncio.run(asyncio.wait_for(chat(particulars), 120))
