"""The server's start and stop as far as they need no server; tests/remote/ has the rest."""

import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from run import Problem
from tools import ndif
from tools.ndif import Server


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No state of a server that may be running for other work."""
    monkeypatch.setattr(ndif, "HOME", tmp_path)
    monkeypatch.setattr(ndif, "STATE", tmp_path / "state.json")
    monkeypatch.setattr(ndif, "LOGS", tmp_path / "log")
    monkeypatch.setattr(ndif, "VENV", tmp_path / "venv")
    return tmp_path


@pytest.fixture
def server(tmp_path):
    return Server("http://127.0.0.1:1", str(tmp_path / "scratch"), "secret")


@pytest.fixture
def sleeper(server):
    """A process that carries the mark of the server and ignores SIGTERM, with a child."""
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "os.fork(); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, ndif.MARK: server.scratch},
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(2):
        process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_missing_redis_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Problem, match="needs redis-server.*apt-get install redis-server"):
        ndif.start()


def test_too_little_memory_is_told_before_anything_starts(monkeypatch, home):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    with pytest.raises(Problem, match="about 4 GiB of memory and 1.0 GiB are free"):
        ndif.start()
    assert not list(home.iterdir())


def test_a_failing_pip_is_told_in_one_sentence_and_redone(monkeypatch):
    asked = []

    def logged(command, log, root):
        asked.append(command)
        log.write_text("WARNING: slow\nERROR: No matching distribution found for ray\n\n")
        return "-r" not in command

    monkeypatch.setattr(ndif, "logged", logged)
    for _ in range(2):
        with pytest.raises(Problem, match=r"not made: ERROR: No matching.*; see .*setup\.log"):
            ndif.set_up()
    assert len(asked) == 6 and asked[1][-1].startswith("torch==")


def test_the_server_and_its_client_share_what_they_exchange():
    mine, theirs = (
        dict(line.split("==") for line in path.read_text().splitlines() if "==" in line)
        for path in (ndif.PINS, ndif.ROOT / "constraints.txt")
    )
    for name in ("nnsight", "torch", "transformers", "numpy"):
        assert mine[name] == theirs[name]


def test_a_part_that_ends_is_named_with_the_last_line_of_its_log(home, server):
    ndif.LOGS.mkdir()
    ndif.log_of("redis").write_text("starting\nCan't open the port\n\n")
    with pytest.raises(Problem, match=r"NDIF's redis ended: Can't open the port; see .*redis\.log"):
        ndif.wait(server, "redis", float("inf"), lambda: False)


def test_a_part_that_takes_too_long_is_named(server):
    server.pids["ray"] = [os.getpid(), psutil.Process().create_time()]
    with pytest.raises(Problem, match="NDIF's ray was not ready in time: no message"):
        ndif.wait(server, "ray", 0, lambda: False)


def test_a_reused_process_id_is_not_taken_for_ours(server):
    server.pids["ray"] = [os.getpid(), 1.0]
    assert server.process("ray") is None and "ray" in server.ended()
    server.pids["ray"][1] = psutil.Process().create_time()
    assert server.process("ray").pid == os.getpid() and "ray" not in server.ended()


def test_stop_ends_what_is_marked_even_if_it_resists_and_nothing_else(server, sleeper):
    [child] = psutil.Process(sleeper.pid).children()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    server.save()
    assert stat.S_IMODE(ndif.STATE.stat().st_mode) == 0o600  # it holds the token
    assert ndif.stop() == 2
    assert not psutil.pid_exists(sleeper.pid) and not child.is_running()
    assert other.poll() is None and not ndif.STATE.exists()
    other.kill()
    other.wait()


def test_without_a_server_stop_and_status_say_so(capsys):
    assert ndif.main(["stop"]) == 0 and "was not running" in capsys.readouterr().out
    assert ndif.main(["status"]) == 1 and "NDIF is not running" in capsys.readouterr().out


def test_a_server_that_lost_a_part_is_not_whole(server, capsys):
    server.save()
    assert ndif.main(["status"]) == 1
    assert "not whole: redis, s3, ray, api ended" in capsys.readouterr().out


def test_a_damaged_state_is_named(home):
    ndif.STATE.write_text("{")
    with pytest.raises(Problem, match=r"state\.json is damaged.*delete it"):
        ndif.stop()


def test_ports_are_free_and_differ():
    ports = ndif.free_ports(8)
    assert len(set(ports)) == 8 and not any(map(ndif.listens, ports))
