"""k8s/base: it renders, fits the schemas of Kubernetes, and says what the server needs."""

import re
import tomllib

import pytest
import yaml

from conftest import ROOT, run

# preStop.sleep is on by default from 1.30.
KUBERNETES = ["1.30", "1.33", "1.37"]
# What `Node::stop` may take, in seconds: farewell, sockets, HTTP; and the store's last flush.
STOP_S = 10 + 2 + 1 + 5


@pytest.fixture(scope="module")
def stateful_set(manifests):
    return manifests["StatefulSet", "althing"]["spec"]


@pytest.fixture(scope="module")
def pod(stateful_set):
    return stateful_set["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.fixture(scope="module")
def configuration(manifests):
    (data,) = [one["data"] for (kind, _), one in manifests.items() if kind == "ConfigMap"]
    return tomllib.loads(data["althing.toml"])


@pytest.mark.parametrize("version", KUBERNETES)
def test_schemas_hold(rendered, manifests, version):
    import kubernetes_validate

    for one in yaml.safe_load_all(rendered):
        kubernetes_validate.validate(one, version, strict=True)
    assert len(manifests) == 7


def test_cold_start_needs_no_order(stateful_set, manifests):
    assert stateful_set["podManagementPolicy"] == "Parallel"
    headless = manifests["Service", stateful_set["serviceName"]]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True


def test_founders_are_the_pods_by_their_dns_names(stateful_set, configuration, container):
    service = stateful_set["serviceName"]
    names = [f"althing-{ordinal}" for ordinal in range(stateful_set["replicas"])]
    assert configuration["cluster"]["initial"] == [f"{name}={name}.{service}:5275" for name in names]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    assert variables["ALTHING__NODE__NAME"] == "$(POD_NAME)"
    assert variables["ALTHING__CLUSTER__ADVERTISE"] == f"$(POD_NAME).{service}:5275"
    assert variables["ALTHING__CLUSTER__CERTIFICATE"].endswith("/$(POD_NAME).pem")
    assert variables["ALTHING__CLUSTER__KEY"].endswith("/$(POD_NAME).key")
    # $(POD_NAME) stands for a variable that is defined before.
    sources = [(one["name"], one.get("valueFrom")) for one in container["env"]]
    name = ("POD_NAME", {"fieldRef": {"fieldPath": "metadata.name"}})
    later = [number for number, one in enumerate(container["env"]) if "$(POD_NAME)" in one.get("value", "")]
    assert sources.index(name) < min(later)


def test_each_path_of_the_configuration_is_mounted(configuration, container):
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    paths = [configuration["tls"]["certificate"], configuration["tls"]["key"], configuration["cluster"]["ca"]]
    paths += [one["value"] for one in container["env"] if one.get("value", "").startswith("/")]
    assert "/etc/althing/config/althing.toml" in paths
    for path in paths:
        assert path.rsplit("/", 1)[0] in mounts, path
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {configuration["node"]["data_dir"]}


def test_probes_ask_for_what_the_server_answers(container):
    source = (ROOT / "server/src/admin/http.rs").read_text()
    served = re.findall(r'\.route\("(/\w+)"', source)
    for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
        assert path in served
    startup, readiness = container["startupProbe"], container["readinessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300, "a snapshot may have to come"
    assert readiness["periodSeconds"] * readiness["failureThreshold"] >= 10, "an election must not make all unready"


def test_the_node_ends_before_it_is_killed(pod, container):
    slept = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= 2 * (slept + STOP_S)


def test_services_lead_to_ports_of_the_pod(manifests, container):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"c2s": 5222, "c2s-tls": 5223, "web-tls": 5281, "cluster": 5275, "http": 5280}
    for (kind, name), one in manifests.items():
        if kind == "Service":
            assert all(ports[port["targetPort"]] == port["port"] for port in one["spec"]["ports"]), name
    assert {port["port"] for port in manifests["Service", "althing-c2s"]["spec"]["ports"]} == {5222, 5223, 5281}


def test_selectors_meet_the_pods(manifests, stateful_set):
    labels = stateful_set["template"]["metadata"]["labels"].items()
    selectors = [stateful_set["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for (kind, _), one in manifests.items() if kind == "Service"]
    selectors += [manifests["PodDisruptionBudget", "althing"]["spec"]["selector"]["matchLabels"]]
    selectors += [manifests["NetworkPolicy", "althing"]["spec"]["podSelector"]["matchLabels"]]
    assert all(selector.items() <= labels for selector in selectors)


def test_one_node_at_a_time_leaves_a_majority(manifests, stateful_set):
    budget = manifests["PodDisruptionBudget", "althing"]["spec"]
    assert budget["maxUnavailable"] == 1 and stateful_set["replicas"] >= 3


def test_the_pod_has_no_rights(pod, container):
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert "cpu" not in container["resources"]["limits"], "throttled nodes miss heartbeats"
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_secrets_are_for_the_owner_only(pod):
    secrets = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert {secret["secretName"] for secret in secrets} == {"althing-tls", "althing-cluster"}
    assert all(secret["defaultMode"] == 0o400 for secret in secrets)


def test_only_nodes_reach_the_cluster_port(manifests):
    policy = manifests["NetworkPolicy", "althing"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    open_to_all = {port["port"] for rule in policy["ingress"] if "from" not in rule for port in rule["ports"]}
    assert open_to_all == {"c2s", "c2s-tls", "web-tls"}
    peers = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "althing"}}}
    cluster = {"protocol": "TCP", "port": "cluster"}
    assert {"from": [peers], "ports": [cluster]} in policy["ingress"]
    assert {"to": [peers], "ports": [cluster]} in policy["egress"]


def test_data_is_kept(stateful_set):
    kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == kept


def test_the_image_has_the_user_and_the_folders_of_the_pod(pod, container):
    dockerfile = (ROOT / "deploy/image/Dockerfile").read_text()
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in dockerfile
    assert run("shellcheck", ROOT / "deploy/image/build") == ""
    folders = re.search(r"rootfs/\{(.*)\}", (ROOT / "deploy/image/build").read_text()).group(1).split(",")
    mounts = {mount["mountPath"].lstrip("/") for mount in container["volumeMounts"]}
    assert set(folders) <= mounts
