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
            for port in (5222, 5223, 5280, 5281):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            return address
        except OSError:
            continue
    raise OSError("no free address in 127.0.0.0/8")


class Node:
    """One node in `directory`; its data stays there over restarts."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.address, self.c2s, self.c2s_tls, self.http = free_address(), 5222, 5223, 5280
        self.web_tls = 5281
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
            name = "node-0"
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
            """
        )

    @property
    def log(self):
        """The whole log so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self):
        """Starts the process and waits until it serves."""
        assert self.process is None, "the node still runs"
        command = [binary(), "run", "--exit-with-parent", "--config", str(self.directory / "althing.toml")]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
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
