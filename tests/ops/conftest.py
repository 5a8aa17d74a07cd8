"""What the checks of deploy/ and k8s/ share: the tree, the tools, the rendered manifests."""

import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options):
    """Runs a tool; when it fails, shows all that it said. Returns its standard output."""
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is not installed: `tests/ops/tools` installs what is missing")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def rendered():
    """k8s/base as kubectl renders it, in text."""
    return run("kubectl", "kustomize", ROOT / "k8s/base")


@pytest.fixture(scope="session")
def manifests(rendered):
    """The rendered objects, by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(rendered)}


@pytest.fixture(scope="session")
def rules():
    """The alerting rules, by name."""
    groups = yaml.safe_load((ROOT / "deploy/alerts/althing.rules.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
