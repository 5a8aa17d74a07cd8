#!/usr/bin/env python3
"""Builds the runtime image and tries it: the compose file's three containers become a cluster, two clients on different
nodes talk, one node stops and comes back, all end in order on SIGTERM.

    tests/image/run.py [--single] [--keep]

--single  one container without a cluster, instead of the compose file
--keep    leave containers and daemon as they are at the end, to look at them

Needs root and docker. Where no daemon runs, one is started in a network namespace of its own, with its data in a
temporary folder; nothing of it stays. IMAGE_BINARY and PROFILE are for deploy/image/build.
"""

import argparse
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSIDE = pathlib.Path(__file__).with_name("inside.py")
COMPOSE = ROOT / "deploy/compose/compose.yaml"
IMAGE = "althing:image-test"
PROJECT = "althing-image-test"
NODES = ["althing-0", "althing-1", "althing-2"]
# Published ports on 127.0.0.1, as in the compose file.
C2S = {"althing-0": 5222, "althing-1": 5322, "althing-2": 5422}
HTTP = {"althing-0": 5280, "althing-1": 5380, "althing-2": 5480}
# What a node may take to end, in seconds: less than the grace periods of compose.yaml and statefulset.yaml.
STOP_S = 30


def say(text):
    print(f"-- {text}", flush=True)


def run(*command, **options):
    """Runs a command to its end; returns what it wrote, or fails with it."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1800, **options)
    if done.returncode != 0:
        raise SystemExit(f"FAILED ({done.returncode}): {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def eventually(what, seconds, condition):
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: {what}: not within {seconds} s")
        time.sleep(0.1)


@contextlib.contextmanager
def daemon(keep):
    """A docker daemon. Gives the words that a command needs in front to run where its ports are."""
    if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        yield []
        return
    if os.geteuid() != 0:
        raise SystemExit("no docker daemon answers, and only root can start one")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="althing-image-"))
    space = folder.name
    run("ip", "netns", "add", space)
    run("ip", "-n", space, "link", "set", "lo", "up")
    # Not `ip netns exec`: it mounts /sys anew, and the daemon finds no control groups there.
    inside = ["nsenter", f"--net=/run/netns/{space}"]
    (folder / "exec").mkdir()
    options = ["--bridge=none", "--data-root", folder / "root", "--exec-root", folder / "exec"]
    options += ["--pidfile", folder / "pid", "-H", f"unix://{folder}/docker.sock"]
    options += ["--default-address-pool", "base=10.99.128.0/18,size=24"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*inside, "dockerd", *map(str, options)], stdout=log, stderr=log)
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    try:
        answers = lambda: subprocess.run(["docker", "info"], capture_output=True).returncode == 0  # noqa: E731
        eventually("a docker daemon of our own", 60, lambda: answers() or process.poll() is not None)
        if process.poll() is not None:
            raise SystemExit("FAILED: dockerd\n" + (folder / "log").read_text(errors="replace")[-4000:])
        yield inside
    finally:
        if keep:
            say(f"kept: export DOCKER_HOST={os.environ['DOCKER_HOST']}; enter with {' '.join(inside)}")
        else:
            process.terminate()
            process.wait(60)
            subprocess.run(["ip", "netns", "del", space])
            # The daemon unmounts its file systems while it ends.
            shutil.rmtree(folder, ignore_errors=True)


def inspect(container, form):
    return run("docker", "inspect", "--format", form, container)


def check_container(container):
    """The container runs as it is meant to: no root, nothing to write but its volumes."""
    assert inspect(container, "{{.Config.User}}") == "10001:10001"
    assert inspect(container, "{{.HostConfig.ReadonlyRootfs}}") == "true"
    assert inspect(container, "{{.HostConfig.CapDrop}}") == "[ALL]"
    process = pathlib.Path("/proc", inspect(container, "{{.State.Pid}}"), "status").read_text()
    fields = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {"10001"}, fields["Uid"]
    assert int(fields["CapEff"], 16) == 0 and int(fields["NoNewPrivs"]) == 1


def stop(containers):
    """SIGTERM to all at once: each must end by itself, with success."""
    begun = time.monotonic()
    run("docker", "stop", "--time", STOP_S * 2, *containers)
    took = time.monotonic() - begun
    codes = {container: inspect(container, "{{.State.ExitCode}}") for container in containers}
    if set(codes.values()) != {"0"} or took > STOP_S:
        logs = [subprocess.run(["docker", "logs", "--tail", "30", one], capture_output=True, text=True) for one in codes]
        said = "\n".join(log.stderr for log in logs)
        raise SystemExit(f"FAILED: after SIGTERM: exit codes {codes}, {took:.1f} s\n{said}")
    say(f"{len(containers)} ended in order, {took:.1f} s after SIGTERM")


def account(name):
    return {"jid": f"{name}@localhost", "password": secrets.token_hex(8)}


class Trial:
    """What both forms of the test share: clients, probes."""

    def __init__(self, inside, authority):
        self.inside, self.authority = inside, authority

    def ask(self, what, **words):
        """Runs inside.py where the containers' ports are."""
        command = [*self.inside, sys.executable, INSIDE, what]
        return run(*command, input=json.dumps({"authority": str(self.authority), **words}))

    def ready(self, names):
        self.ask("ready", ports=[HTTP[name] for name in names])

    def chat(self, alice, bob, at):
        self.ask("chat", accounts=[alice, bob], ports=[C2S[name] for name in at])
        say(f"clients on {at[0]} and {at[1]} talk")


def single(inside, folder, keep):
    """One container, without a cluster."""
    (folder / "althing.toml").write_text(
        '[xmpp]\ndomains = ["localhost"]\n'
        '[tls]\ncertificate = "/etc/althing/tls/server.pem"\nkey = "/etc/althing/tls/server.key"\n'
    )
    name = f"{PROJECT}-single"
    locked = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
    places = ["-v", f"{name}-tls:/etc/althing/tls", "-v", f"{name}-data:/var/lib/althing"]
    places += ["-v", f"{folder}/althing.toml:/etc/althing/althing.toml:ro"]
    alice, bob = account("alice"), account("bob")
    run("docker", "network", "create", PROJECT)
    once = ["docker", "run", "--rm", "-i", "--network", "none", *locked, *places, IMAGE]
    run(*once, "cert", "dev", "--dir", "/etc/althing/tls")
    for one in (alice, bob):
        run(*once, "user", "add", "--password-stdin", one["jid"], input=one["password"])
    ports = ["-p", "127.0.0.1:5222:5222", "-p", "127.0.0.1:5280:5280"]
    try:
        run("docker", "run", "-d", "--name", name, "--network", PROJECT, *locked, *places, *ports, IMAGE)
        run("docker", "cp", f"{name}:/etc/althing/tls/ca.pem", folder / "ca.pem")
        trial = Trial(inside, folder / "ca.pem")
        trial.ready(["althing-0"])
        check_container(name)
        trial.chat(alice, bob, ["althing-0", "althing-0"])
        stop([name])
    finally:
        if not keep:
            run("docker", "rm", "-f", name)
            run("docker", "volume", "rm", f"{name}-tls", f"{name}-data")
            run("docker", "network", "rm", PROJECT)


def cluster(inside, folder, keep):
    """The compose file."""
    compose = ["docker-compose", "-p", PROJECT, "-f", COMPOSE]
    environment = {**os.environ, "ALTHING_IMAGE": IMAGE}
    try:
        run(*compose, "up", "-d", env=environment)
        containers = {name: run(*compose, "ps", "-q", name, env=environment) for name in NODES}
        run("docker", "cp", f"{containers['althing-0']}:/etc/althing/tls/ca.pem", folder / "ca.pem")
        trial = Trial(inside, folder / "ca.pem")
        trial.ready(NODES)
        say("three nodes are ready")
        for name, container in containers.items():
            check_container(container)
            healthy = lambda one=container: inspect(one, "{{.State.Health.Status}}") == "healthy"  # noqa: E731
            eventually(f"the health check of {name}", 60, healthy)
        alice, bob = account("alice"), account("bob")
        for one in (alice, bob):
            words = ["althing", "user", "add", "--password-stdin", one["jid"]]
            run("docker", "exec", "-i", containers["althing-1"], *words, input=one["password"])
        trial.chat(alice, bob, ["althing-0", "althing-2"])
        stop([containers["althing-2"]])
        trial.chat(alice, bob, ["althing-0", "althing-1"])
        run("docker", "start", containers["althing-2"])
        trial.ready(NODES)
        trial.chat(alice, bob, ["althing-2", "althing-1"])
        stop(list(containers.values()))
    except SystemExit:
        logs = subprocess.run([*map(str, compose), "logs", "--tail=40"], env=environment, capture_output=True, text=True)
        print(logs.stdout[-12000:], flush=True)
        raise
    finally:
        if not keep:
            run(*compose, "down", "--volumes", "--timeout", "5", env=environment)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    with daemon(options.keep) as inside, tempfile.TemporaryDirectory(prefix="althing-image-test-") as folder:
        say("building the image")
        run(ROOT / "deploy/image/build", IMAGE, env={**os.environ, "IMAGE_TOOL": "docker"})
        trial = single if options.single else cluster
        trial(inside, pathlib.Path(folder), options.keep)
    say("passed")


if __name__ == "__main__":
    main()
