"""Fixtures: one node for all tests that do not kill it, and nodes of their own for those that do."""

import asyncio

import pytest

from node import Cluster, Node


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """A running node, shared."""
    started = Node(tmp_path_factory.mktemp("node"))
    started.start()
    yield started
    started.end()


@pytest.fixture
def own_node(tmp_path):
    """A running node that the test may kill."""
    started = Node(tmp_path)
    started.start()
    yield started
    started.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes that are one server."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.start()
    yield started
    started.end()


@pytest.fixture
def play():
    """Runs a coroutine to its end, within a deadline in seconds."""

    def run(coroutine, seconds=60):
        return asyncio.run(asyncio.wait_for(coroutine, seconds))

    return run


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the end of the node's log when a test fails."""
    report = (yield).get_result()
    if report.failed:
        for name in ("node", "own_node", "cluster"):
            used = getattr(item, "funcargs", {}).get(name)
            if used is not None:
                report.sections.append((f"the end of the log of {name}", used.log[-4000:]))
