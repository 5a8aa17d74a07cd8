"""The alerts: they parse, do what their tests say, and each has a test and a runbook."""

import re

import yaml

from conftest import ROOT, run

ALERTS = ROOT / "deploy/alerts"


def test_rules_and_scrape_configuration_are_read_by_prometheus():
    run("promtool", "check", "rules", "--lint-fatal", ALERTS / "althing.rules.yml")
    run("promtool", "check", "config", ROOT / "deploy/prometheus/prometheus.yml")


def test_rules_do_what_their_tests_say():
    run("promtool", "test", "rules", ALERTS / "althing.test.yml")


def test_each_alert_has_a_test_in_which_it_is_quiet_and_one_in_which_it_fires(rules):
    tests = yaml.safe_load((ALERTS / "althing.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for name in rules:
        expected = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        assert True in expected and False in expected, name


def test_each_alert_has_a_runbook_and_each_runbook_an_alert(rules):
    sections = re.findall(r"^### (\w+)\n\n(\S+)", (ALERTS / "README.md").read_text(), re.MULTILINE)
    assert [name for name, _ in sections] == list(rules)
    for name, rule in rules.items():
        assert rule["annotations"]["runbook"] == f"deploy/alerts/README.md#{name.lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_runbooks_name_only_alerts_that_exist(rules):
    text = (ALERTS / "README.md").read_text()
    assert set(re.findall(r"\bAlthing[A-Z]\w+", text)) <= set(rules)
