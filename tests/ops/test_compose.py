"""The compose file: docker-compose reads it, and the three nodes are alike and locked down."""

import tomllib

import pytest
import yaml

from conftest import ROOT, run

FILE = ROOT / "deploy/compose/compose.yaml"


@pytest.fixture(scope="module")
def services():
    """The services as docker-compose understands them."""
    return yaml.safe_load(run("docker-compose", "--file", FILE, "config"))["services"]


def nodes(services):
    return {name: service for name, service in services.items() if name.startswith("althing-")}


def test_nodes_are_the_founders_of_the_configuration(services):
    cluster = tomllib.loads((FILE.parent / "althing.toml").read_text())["cluster"]
    assert cluster["initial"] == [f"{name}={name}:5275" for name in nodes(services)]
    for name, service in nodes(services).items():
        environment = service["environment"]
        assert service["hostname"] == environment["ALTHING__NODE__NAME"] == name
        assert environment["ALTHING__CLUSTER__CERTIFICATE"] == f"/etc/althing/cluster/{name}.pem"
        assert environment["ALTHING__CLUSTER__KEY"] == f"/etc/althing/cluster/{name}.key"
    made = services["cluster-certs"]["command"]
    assert [name for name in made if name.startswith("althing-")] == list(nodes(services))


def test_nodes_share_neither_data_nor_ports(services):
    data = [volume for service in nodes(services).values() for volume in service["volumes"] if "data-" in str(volume)]
    assert len(data) == len({str(volume) for volume in data}) == 3
    ports = [str(port) for service in nodes(services).values() for port in service["ports"]]
    assert len(ports) == len(set(ports)) == 9
    assert all("127.0.0.1" in port for port in ports), "not for the whole network without asking"


def test_health_is_asked_of_the_node_itself(services):
    for service in nodes(services).values():
        assert service["healthcheck"]["test"] == ["CMD", "althing", "cluster", "status"]


def test_every_container_is_locked_down(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["user"] == "10001:10001", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "ulimits", "devices"} & set(service), name
