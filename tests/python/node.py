"""A node of Althing as a process, for the Python tests."""

import http.client
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import time

DOMAIN = "localhost"
START_S = 30
# What all components of the tests know, and nobody else.
SECRET = "the tests know this secret"
ROOT = pathlib.Path(__file__).resolve().parents[2]
_numbers = itertools.count()


def binary():
    """The `althing` binary: ALTHING_BIN, or the newest build below target/."""
    if path := os.environ.get("ALTHING_BIN"):
        return path
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for path in (target / "debug/althing", target / "release/althing") if path.is_file()]
    if not built:
        raise FileNotFoundError("no `althing` below target/: run `cargo build --bin althing`, or set ALTHING_BIN")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def free_address():
    """An address in 127.0.0.0/8 where the ordinary ports are free, so that tests can run side by side."""
    for _ in range(1000):
        number = os.getpid() * 7 + next(_numbers)
        # The first block belongs to `althing dev`, those from 127.1 on to the Rust tests.
        address = f"127.{202 + number // 62500 % 50}.{number // 250 % 250}.{1 + number % 250}"
        try:
            for port in (5222, 5223, 5275, 5280, 5281, 5347):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            return address
        except OSError:
            continue
    raise OSError("no free address in 127.0.0.0/8")


class Node:
    """One node in `directory`; its data stays there over restarts. With `cluster` it is one of several: see `Cluster`."""

    def __init__(self, directory, name="node-0", address=None, cluster=""):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.address, self.c2s, self.c2s_tls, self.http = address or free_address(), 5222, 5223, 5280
        self.web_tls, self.components = 5281, 5347
        self.process = None
        certificates = self.directory / "certs"
        command = [binary(), "cert", "dev", "--dir", str(certificates), "--domain", DOMAIN]
        subprocess.run(command, check=True, capture_output=True, timeout=START_S)
        self.authority = str(certificates / "ca.pem")
        self.certificate = str(certificates / "server.pem")
        (self.directory / "althing.toml").write_text(
            f"""
            [xmpp]
            domains = ["{DOMAIN}"]
            [node]
            name = "{name}"
            data_dir = "{self.directory / 'data'}"
            [listen]
            c2s = ["{self.address}:{self.c2s}"]
            c2s_tls = ["{self.address}:{self.c2s_tls}"]
            http = "{self.address}:{self.http}"
            web_tls = ["{self.address}:{self.web_tls}"]
            [tls]
            certificate = "{certificates / 'server.pem'}"
            key = "{certificates / 'server.key'}"
            [registration]
            enabled = true
            unlimited_on_loopback = true
            [components]
            listen = ["{self.address}:{self.components}"]
            [[components.external]]
            domain = "gateway.{DOMAIN}"
            name = "The gateway"
            secret = "{SECRET}"
            [[components.external]]
            domain = "irc.{DOMAIN}"
            name = "IRC"
            secret = "{SECRET}"
            {cluster}
            """
        )

    @property
    def log(self):
        """The whole log so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self):
        """Starts the process and waits until it serves."""
        self.spawn()
        self.until_ready()

    def spawn(self):
        """Starts the process."""
        assert self.process is None, "the node still runs"
        command = [binary(), "run", "--exit-with-parent", "--config", str(self.directory / "althing.toml")]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def until_ready(self):
        """Waits until it serves."""
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the node ended with {self.process.returncode}:\n{self.log[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node does not serve after {START_S} s:\n{self.log[-4000:]}")
            time.sleep(0.02)

    def _ready(self):
        connection = http.client.HTTPConnection(self.address, self.http, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def end(self, sign=signal.SIGKILL):
        """Ends the process by this signal and waits until it is gone."""
        if self.process is None:
            return
        self.process.send_signal(sign)
        self.process.stdin.close()
        self.process.wait(START_S)
        self.process = None


class Cluster:
    """Three nodes that are one server, below `directory`."""

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        names, peers = [f"node-{number}" for number in range(3)], directory / "peers"
        command = [binary(), "cert", "cluster", "--dir", str(peers), "--name", *names]
        subprocess.run(command, check=True, capture_output=True, timeout=START_S)
        addresses = [free_address() for _ in names]
        initial = ", ".join(f'"{name}={address}:5275"' for name, address in zip(names, addresses))
        self.nodes = [
            Node(
                directory / name,
                name,
                address,
                f"""
                [cluster]
                enabled = true
                listen = "{address}:5275"
                initial = [{initial}]
                ca = "{peers / 'ca.pem'}"
                certificate = "{peers / name}.pem"
                key = "{peers / name}.key"
                """,
            )
            for name, address in zip(names, addresses)
        ]

    def start(self):
        """Starts all nodes and waits until each serves."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.until_ready()

    def end(self):
        """Ends all that run."""
        for node in self.nodes:
            node.end()

    @property
    def log(self):
        """The ends of the logs."""
        return "\n".join(node.log[-1300:] for node in self.nodes)
