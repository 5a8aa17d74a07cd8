"""The dashboard: Grafana cannot run here, so its rules for good dashboards are checked one by one."""

import json
import re

import pytest

from conftest import ROOT, run

DASHBOARD = json.loads((ROOT / "deploy/grafana/althing.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SELECTOR = 'job=~"$job", namespace=~"$namespace", instance=~"$instance"'
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$job": "althing", "$namespace": ".*", "$instance": ".*"}


def expressions():
    return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def test_each_row_has_panels():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Service", "Cluster", "Store", "Links and tasks", "System"]
    kinds = [panel["type"] == "row" for panel in DASHBOARD["panels"]]
    assert kinds[0] and not kinds[-1] and (True, True) not in zip(kinds, kinds[1:])


def test_ids_and_places_are_unique():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        own = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        assert not own & cells, f"{panel['title']} lies over another panel"
        cells |= own


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_explains_itself(panel):
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for part in [panel, *panel["targets"]]:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["legendFormat"]
        # Each series is chosen by the variables at the top, rates fit the width of the panel.
        assert target["expr"].count("{") == target["expr"].count(SELECTOR)
        assert not re.search(r"rate\([^[]*\[(?!\$__rate_interval)", target["expr"])


def test_variables_are_defined():
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert defined == {"datasource", "job", "namespace", "instance"}


def test_prometheus_parses_each_expression(tmp_path):
    rules = []
    for number, (_, expression) in enumerate(expressions()):
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        rules.append({"record": f"panel:{number}", "expr": expression})
    path = tmp_path / "panels.yml"
    # JSON is YAML.
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    run("promtool", "check", "rules", path)
