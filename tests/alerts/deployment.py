"""A deployment on this machine to be watched: Redis, the services, a scripted model, nodes and workers, each a process."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from declared import ROOT

# Any secret of at least 32 bytes.
SECRET = "watched-secret-of-more-than-32-bytes"
# What clients call themselves.
APP = "Watched"
START_SECONDS = 30
STOP_SECONDS = 20
# Starts the model of the end-to-end tests.
MODEL = "const {{ startModel }} = await import('{file}'); await startModel({port});"


@dataclass(frozen=True)
class Role:
    """A node or a worker, as a pod of its own would be: where it is watched, and where clients connect."""

    name: str
    component: str
    ops: str
    url: str | None = None


def free_port():
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    """The body of what is there."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def until_answers(url):
    """Waits until there is something."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return get(url)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


class Deployment:
    """All of it; leaving the `with` ends it, the last started first."""

    def __init__(self, binary, nodes, workers, users, rooms):
        self.binary = binary
        self.counts = (nodes, workers)
        self.people = (users, rooms)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="roomcast-watched-"))
        self.processes = {}
        self.roles = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind:
            print(f"logs are in {self.folder}")
        else:
            shutil.rmtree(self.folder)

    def run(self, name, *command, **settings):
        """Starts a process with nothing but these settings; its output goes to a file of its name."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)} | settings
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for us: we end them, in order.
                start_new_session=True,
            )

    def start(self):
        redis, services, model = free_port(), free_port(), free_port()
        users, rooms = self.people
        self.redis = ("redis-cli", "-p", str(redis))
        self.services = f"http://127.0.0.1:{services}"
        self.run("redis", "redis-server", "--port", redis, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder)
        source = MODEL.format(file=ROOT / "tests/e2e/lib/model.mjs", port=model)
        self.run("model", "node", "--input-type=module", "--eval", source)
        seeds = ("--seed-users", users, "--seed-rooms", rooms, "--open-login")
        listen = ("--listen", f"127.0.0.1:{services}", "--database", "sqlite://services.db")
        self.run("backend", self.binary, "backend", *listen, *seeds, JWT_SECRET=SECRET)
        until_answers(f"{self.services}/openapi.json")
        common = {
            "REDIS_URL": f"redis://127.0.0.1:{redis}",
            "JWT_SECRET": SECRET,
            "AUTH_URL": self.services,
            "API_URL": self.services,
            "VISION_APP_INFO": APP,
            "GPT_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "ROOMCAST_DRAIN_SPREAD": "0s",
        }
        nodes, workers = self.counts
        for component, count in (("node", nodes), ("worker", workers)):
            for number in range(count):
                self.add(f"{component}-{number}", component, common)
        for role in self.roles:
            until_answers(f"{role.ops}/readyz")

    def add(self, name, component, common):
        listen, ops = free_port(), free_port()
        addresses = {"ROOMCAST_LISTEN": f"127.0.0.1:{listen}", "ROOMCAST_OPS_LISTEN": f"127.0.0.1:{ops}"}
        self.run(name, self.binary, component, **common, **addresses)
        url = f"http://127.0.0.1:{listen}" if component == "node" else None
        self.roles.append(Role(name, component, f"http://127.0.0.1:{ops}", url))

    def ended(self):
        """Names of what has ended although nobody asked it to."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def stop(self):
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
