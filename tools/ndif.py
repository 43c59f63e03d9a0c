"""A development NDIF server on this machine, for runs with ``remote=URL`` before they go elsewhere.

`python3 run.py ndif start` makes ``build/ndif/venv`` with the pinned packages of
``ndif-requirements.txt`` and starts Redis, an S3 stand-in (moto), Ray, NDIF's controller and its
API on free ports; `stop` and `status` work from any shell. Models run on the CPU, in float32,
loaded when they are first asked for: a Hugging Face id, or a folder of this machine.

Redis, moto, the API and Ray's dashboard listen on 127.0.0.1. Ray's own processes (GCS, raylet, log
and agent ports, its client server) listen on other interfaces too, whatever they are told; they
refuse who does not show a token, which ``state.json`` holds and only you can read. Whoever reaches
the API may run code in the server with your rights, since that is what a trace is: stop it when you
are done, and do not start it where others have accounts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from emotion_concepts.tracing import hosted
from run import ROOT, Problem, environment, logged, say

HOME = ROOT / "build" / "ndif"
STATE, LOGS = HOME / "state.json", HOME / "log"
VENV = HOME / "venv"
PINS = Path(__file__).with_name("ndif-requirements.txt")
NDIF = "ndif==0.1.2"
PARTS = ("redis", "s3", "ray", "api")
PORTS = ("redis", "s3", "gcs", "objects", "client", "dashboard", "agent", "api")
MEMORY = 4 * 2**30  # what the server takes with one small model
MARK = "NDIF_RAY_TEMP_DIR"  # in the environment of every process but that of Redis


@dataclass
class Server:
    """One server, as ``build/ndif/state.json`` remembers it.

    Attributes
    ----------
    url : str
        Of the API; what ``remote=`` takes.
    scratch : str
        Ray's own folder, short because the paths of its sockets must be.
    token : str
        What Ray's processes show each other.
    pids : dict
        {part: [process id, when it began]}: an id that was given out again is not ours.
    """

    url: str
    scratch: str
    token: str
    pids: dict[str, list] = field(default_factory=dict)

    def save(self) -> None:
        part = STATE.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(asdict(self)))
        os.replace(part, STATE)

    def process(self, part: str) -> psutil.Process | None:
        """Return the process of a part if it still runs."""
        with contextlib.suppress(psutil.Error, KeyError):
            pid, began = self.pids[part]
            process = psutil.Process(pid)
            if process.create_time() == began and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def ended(self) -> list[str]:
        """Return the parts that should run and do not."""
        return [part for part in PARTS if not self.process(part)]

    def processes(self) -> list[psutil.Process]:
        """Return what runs of this server: the parts, what they started, and what is left of it."""
        found = set()
        for process in filter(None, map(self.process, PARTS)):
            with contextlib.suppress(psutil.Error):
                found |= {process, *process.children(recursive=True)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.scratch:
                    found.add(process)
        return sorted(found, key=lambda process: process.pid)


def current() -> Server | None:
    """Return the server that was started and not stopped, whole or not."""
    try:
        return Server(**json.loads(STATE.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise Problem(f"{STATE} is damaged ({error}); delete it") from error


# --- what it needs -----------------------------------------------------------------------------


def check_machine() -> None:
    """Refuse what would fail later: no Redis, or too little memory."""
    if not shutil.which("redis-server"):
        raise Problem(
            "NDIF needs redis-server, which is not installed; get it with "
            "`sudo apt-get install redis-server` (Debian, Ubuntu) or `brew install redis` (macOS)"
        )
    if (free := psutil.virtual_memory().available) < MEMORY:
        raise Problem(
            f"NDIF needs about {MEMORY / 2**30:.0f} GiB of memory and {free / 2**30:.1f} GiB are "
            "free; close something else first"
        )


def set_up() -> None:
    """Make the server's own virtual environment, or make it anew when its pins have changed."""
    stamp, wanted = VENV / ".stamp", f"{NDIF}\n{PINS.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    log = HOME / "setup.log"
    log.write_bytes(b"")
    say(f"making the server's environment, which takes a few minutes once (log: {log})")
    shutil.rmtree(VENV, ignore_errors=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install"]
    torch = next(pin for pin in PINS.read_text().splitlines() if pin.startswith("torch=="))
    steps = [
        [sys.executable, "-m", "venv", str(VENV)],
        [*pip, torch],  # first and alone: whichever build this machine gets satisfies the rest
        [*pip, "-r", str(PINS)],
        # it asks for Python 3.12 and runs on 3.11; only its own requirement may be ignored
        [*pip, "--no-deps", "--ignore-requires-python", NDIF],
    ]
    for step in steps:
        if not logged(step, log, ROOT):
            raise Problem(f"NDIF's environment was not made: {last_line(log)}; see {log}")
    stamp.write_text(wanted)


def free_ports(n: int) -> list[int]:
    """Return n ports of 127.0.0.1 that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


# --- start, stop, status -----------------------------------------------------------------------


def start(*, port: int | None = None, seconds: float = 240) -> Server:
    """Start a server, wait until it takes jobs, and return it; one that runs already is kept.

    Parameters
    ----------
    port : int, optional
        Of the API; a free one by default.
    seconds : float
        How long to wait for it.

    Raises
    ------
    Problem
        Without Redis or memory; or when a part ends or is not ready in time, with the last line of
        its log. Nothing is left running then.
    """
    if (server := current()) and not server.ended():
        return server
    stop()
    check_machine()
    HOME.mkdir(parents=True, exist_ok=True)
    set_up()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    ports |= {} if port is None else {"api": port}
    scratch = tempfile.mkdtemp(prefix="ndif-")
    server = Server(f"http://127.0.0.1:{ports['api']}", scratch, secrets.token_hex(32))
    server.save()
    deadline = time.monotonic() + seconds
    try:
        for part in ("redis", "s3", "ray"):
            launch(server, part, ports)
            port_of = "client" if part == "ray" else part
            wait(server, part, deadline, lambda port_of=port_of: listens(ports[port_of]))
        controller = launch(server, "controller", ports)  # it hands its actor to Ray and ends
        wait(server, "ray", deadline, lambda: controller.poll() is not None)
        if controller.returncode:
            log = log_of("controller")
            raise Problem(f"NDIF's controller did not start: {last_line(log)}; see {log}")
        launch(server, "api", ports)
        wait(server, "api", deadline, lambda: hosted(server.url) is not None)
    except BaseException:
        stop()
        raise
    return server


def variables(server: Server, ports: dict[str, int]) -> dict[str, str]:
    """Return the environment of every part."""
    return {
        **environment(),
        MARK: server.scratch,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),  # for tools.ndif_cpu_actor
        "NDIF_HOME": str(HOME / "home"),
        "NDIF_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}",
        "NDIF_OBJECT_STORE_URL": f"http://127.0.0.1:{ports['s3']}",
        "NDIF_API_URL": server.url,
        "NDIF_API_PORT": str(ports["api"]),
        "NDIF_RAY_ADDRESS": f"ray://127.0.0.1:{ports['client']}",
        "NDIF_RAY_HEAD_PORT": str(ports["gcs"]),
        "NDIF_MODEL_IMPORT_PATH": "tools.ndif_cpu_actor.CPUModelActor",
        "NDIF_CONTROLLER_IMPORT_PATH": "tools.ndif_cpu_actor.CPUControllerActor",
        "NDIF_DEFAULT_DTYPE": "float32",
        "NDIF_DEFAULT_PADDING_BIAS": "0",
        "NDIF_MINIMUM_DEPLOYMENT_TIME_SECONDS": "0",
        "NDIF_STATUS_TTL_S": "2",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": server.token,
    }


def command(part: str, ports: dict[str, int], scratch: str) -> tuple[list[str], dict[str, str]]:
    """Return how a part is started, and what it has in its environment besides `variables`."""
    python, local = str(VENV / "bin" / "python"), "127.0.0.1"
    if part == "redis":
        return ["redis-server", "--port", str(ports[part]), "--bind", local, "--save", ""], {}
    if part == "s3":
        return [python, "-m", "moto.server", "-H", local, "-p", str(ports[part])], {}
    if part == "controller":
        module = "ndif.services.ray.deployments.controller.controller"
        return [python, "-m", module], {
            "NDIF_SERVICE": "ray",
            "RAY_ADDRESS": f"{local}:{ports['gcs']}",
        }
    if part == "api":
        options = ["--bind", f"{local}:{ports[part]}"]
        options += ["--config", "python:ndif.services.api.gunicorn_conf"]
        app = "ndif.services.api.app:app"
        return [python, "-m", "gunicorn", *options, app], {"NDIF_SERVICE": "api"}
    # the controller takes only nodes with a GPU, so Ray is told of one that does not exist
    resources = {"head": 10, "cuda_memory_bytes": 8 * 10**9, "cpu_memory_bytes": 8 * 10**9}
    options = {
        "node-ip-address": local,
        "port": ports["gcs"],
        "object-manager-port": ports["objects"],
        "ray-client-server-port": ports["client"],
        "include-dashboard": "true",
        "dashboard-host": local,
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],
        "min-worker-port": 0,
        "max-worker-port": 0,
        "num-cpus": max(2, os.cpu_count()),
        "num-gpus": 1,
        "resources": json.dumps(resources),
        "object-store-memory": 200_000_000,
        "temp-dir": scratch,
    }
    told = [f"--{name}={value}" for name, value in options.items()]
    # to block keeps every process of Ray below this one, where `stop` finds it
    ray = str(VENV / "bin" / "ray")
    return [ray, "start", "--head", "--block", "--disable-usage-stats", *told], {}


def log_of(part: str) -> Path:
    return LOGS / f"{part}.log"


def launch(server: Server, part: str, ports: dict[str, int]) -> subprocess.Popen:
    """Start one part in a session of its own, and record it."""
    LOGS.mkdir(exist_ok=True)
    words, own = command(part, ports, server.scratch)
    with log_of(part).open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=HOME,
            env={**variables(server, ports), **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server.pids[part] = [process.pid, psutil.Process(process.pid).create_time()]
    server.save()
    return process


def wait(server: Server, part: str, deadline: float, ready) -> None:
    """Wait until a part is ready; raise Problem when it ends or time is up."""
    while not ready():
        late = time.monotonic() > deadline
        if late or not server.process(part):
            what, log = "was not ready in time" if late else "ended", log_of(part)
            raise Problem(f"NDIF's {part} {what}: {last_line(log)}; see {log}")
        time.sleep(0.3)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def stop() -> int:
    """End the server by its process ids, and return how many there were."""
    server = current()
    if server is None:
        return 0
    processes = server.processes()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=5)
    for process in {*stubborn, *server.processes()}:  # and what they started meanwhile
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    shutil.rmtree(server.scratch, ignore_errors=True)
    STATE.unlink(missing_ok=True)
    return len(processes)


def main(arguments: list) -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 run.py ndif")
    parser.add_argument("action", choices=("start", "stop", "status"))
    action = parser.parse_args(arguments).action
    if action == "start":
        server = start()
        say(f"NDIF takes jobs at {server.url}; for example:")
        say(f"  python3 run.py book --only 01_vectors -p remote={server.url}")
        return 0
    if action == "stop":
        ended = stop()
        say(f"NDIF is stopped ({ended} processes)" if ended else "NDIF was not running")
        return 0
    server = current()
    if server is None or server.ended():
        what = f"not whole: {', '.join(server.ended())} ended" if server else "not running"
        say(f"NDIF is {what}")
        return 1
    models = hosted(server.url)
    say(f"NDIF runs at {server.url}, with {', '.join(models or []) or 'no model loaded yet'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        sys.exit(problem.status)
