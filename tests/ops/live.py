#!/usr/bin/env python3
"""Lets a real Prometheus scrape running nodes, then asks it everything that the dashboard asks and looks at its rules.

    tests/ops/live.py 127.0.0.1:5280 127.0.0.2:5280 127.0.0.3:5280       # the nodes of `althing dev --nodes 3`
    tests/ops/live.py --single 127.0.0.1:5280

Fails when an expression or a rule is refused, or when a panel stays empty. With --single the panels of the rows
"Cluster" and "Links and tasks" may be empty: one node has no cluster. Needs `prometheus` (tests/ops/tools).
"""

import argparse
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIABLES = {"$__rate_interval": "10s", "$job": "althing", "$namespace": ".*", "$instance": ".*"}
OF_THE_CLUSTER = {"Cluster", "Links and tasks"}
WAIT_S = 60


def panels():
    """Row, title and expression of each target."""
    row = None
    for panel in json.loads((ROOT / "deploy/grafana/althing.json").read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield row, panel["title"], expression


class Prometheus:
    """A Prometheus on loopback, with its data in a temporary folder."""

    def __init__(self, folder, nodes):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deploy/alerts/althing.rules.yml")],
            "scrape_configs": [{"job_name": "althing", "static_configs": [{"targets": nodes}]}],
        }))
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        options.append(f"--web.listen-address={self.address}")
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)

    def ask(self, path, **query):
        """The answer of the API; None while nobody answers; an error as text."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            return json.load(error).get("error", str(error))
        except OSError:
            return None

    def series(self, expression):
        """The series of an expression; text when it is refused."""
        answer = self.ask("query", query=expression)
        return answer["result"] if isinstance(answer, dict) else answer or "no answer"

    def end(self):
        self.process.terminate()
        self.process.wait(30)


def until(what, condition):
    """Waits until the condition gives something true, and returns it."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: {what}: not within {WAIT_S} s")
        time.sleep(0.2)
    return found


def check(prometheus, nodes, single):
    """What is wrong, a line each."""
    def scraped():
        found = prometheus.series('count_over_time(up{job="althing"}[30s]) >= 5 and up == 1')
        return isinstance(found, list) and len(found) == len(nodes)

    until("all nodes are scraped five times", scraped)
    def judged():
        """All rules, once each has been evaluated."""
        rules = [rule for group in (prometheus.ask("rules") or {"groups": []})["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = until("rules are evaluated", judged)
    wrong = [f"rule {rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    filled = {}
    for row, title, expression in panels():
        found = prometheus.series(expression)
        if isinstance(found, str):
            wrong.append(f"panel {title}: {found}\n    {expression}")
        filled[row, title] = filled.get((row, title), False) or bool(found)
    empty = [(row, title) for (row, title), some in filled.items() if not some]
    wrong += [f"panel {title}: no data" for row, title in empty if not (single and row in OF_THE_CLUSTER)]
    print(f"{len(filled)} panels, {len(empty)} empty; {len(rules)} rules evaluated")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--single", action="store_true")
    parser.add_argument("nodes", nargs="+", metavar="HOST:PORT")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="althing-ops-") as folder:
        prometheus = Prometheus(pathlib.Path(folder), options.nodes)
        try:
            wrong = check(prometheus, options.nodes, options.single)
        finally:
            prometheus.end()
    if wrong:
        raise SystemExit("FAILED:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
