"""What code in the sandbox cannot do, each tried from inside; and that ordinary code works."""

import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from emotion_concepts import sandbox, sandbox_child
from emotion_concepts.errors import BadInput, SandboxUnavailable
from emotion_concepts.sandbox import run_python

linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(params=["landlock", "seccomp alone"])
def either_way(request, monkeypatch):
    """Run with Landlock, and as on a kernel without it."""
    if request.param == "seccomp alone":
        monkeypatch.setattr(sandbox_child, "has_landlock", lambda: False)
    elif not sandbox.reads_are_confined():
        pytest.skip("this kernel has no Landlock")


def fails_with(error, code, **options):
    """Run the code, and say whether it ended with this exception."""
    outcome = run_python(code, **options)
    return outcome.status == "error" and error in outcome.stderr.splitlines()[-1]


def children():
    return {process.pid for process in psutil.Process().children(recursive=True)}


# --- what works --------------------------------------------------------------------------------


@linux
@pytest.mark.usefixtures("either_way")
def test_ordinary_code_works():
    code = """
import collections, dataclasses, decimal, hashlib, itertools, json, re, statistics, sys, threading

@dataclasses.dataclass
class Point:
    x: int

total = []
threads = [threading.Thread(target=total.append, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(total), Point(3), hashlib.sha256(b"tea").hexdigest()[:4], json.dumps({"ä": 1}))
print("careful", file=sys.stderr)
"""
    outcome = run_python(code)
    assert outcome.status == "ok"
    assert outcome.stdout == '6 Point(x=3) a9f7 {"\\u00e4": 1}\n'
    assert outcome.stderr == "careful\n" and 0 < outcome.seconds < 5


@linux
def test_the_temporary_directory_is_fresh_usable_and_gone_afterwards():
    if not sandbox.reads_are_confined():
        pytest.skip("this kernel has no Landlock")
    code = """
import os, tempfile
assert os.listdir() == []
open("a", "w").write("x")
os.rename("a", "c")
os.mkdir("b")
os.rmdir("b")
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/d", "w").write("y")
print(os.getcwd(), os.listdir(), open("c").read())
"""
    where, rest = run_python(code).stdout.split(" ", 1)
    assert rest == "['c'] x\n" and not Path(where).exists()


@linux
@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("1 / 0", "error", 'File "<code>", line 1, in <module>\n    1 / 0'),
        ("def f(:", "error", "SyntaxError"),
        ("import sys; sys.exit(3)", "error", ""),
        ("import sys; sys.exit(0)", "ok", ""),
        ("import ctypes; ctypes.string_at(0)", "killed", ""),
        ("import numpy", "error", "ModuleNotFoundError"),
        ("input()", "error", "EOFError"),
        ("a = 'caf\\udce9'\nprint(len(a))", "ok", ""),
    ],
)
def test_status_says_how_the_code_ended(code, status, said):
    outcome = run_python(code)
    assert outcome.status == status and said in outcome.stderr


@linux
def test_a_main_part_does_not_run_and_the_callers_variables_are_unknown(monkeypatch):
    monkeypatch.setenv("API_TOKEN", "secret-7")
    outcome = run_python("import os\nif __name__ == '__main__': 1/0\nprint(dict(os.environ))")
    assert outcome.status == "ok" and "secret-7" not in outcome.stdout


# --- what does not -----------------------------------------------------------------------------


@linux
@pytest.mark.usefixtures("either_way")
def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        exec(connect)  # outside it can be reached
        server.accept()[0].close()
        server.settimeout(0.1)
        assert fails_with("PermissionError", connect)
        with pytest.raises(TimeoutError):
            server.accept()
    assert fails_with("PermissionError", "import socket; socket.socket(socket.AF_UNIX)")


CHANGES = """
open(old, 'w')
open(old, 'r+')
open(old, 'a')
open(folder + '/new', 'w')
os.open(folder, os.O_TMPFILE | os.O_RDWR)
os.remove(old)
os.truncate(old, 0)
os.chmod(old, 0)
os.utime(old, (0, 0))
os.rename(old, folder + '/new')
os.rename(old, 'stolen')
os.link(old, 'linked')
os.symlink(old, folder + '/new')
os.mkdir(folder + '/new')
os.rmdir(folder + '/empty')
os.mkfifo(folder + '/new')
os.setxattr(old, 'user.a', b'1')
shutil.rmtree(folder)
sqlite3.connect(folder + '/new').execute('create table t (x)')
"""


@linux
@pytest.mark.usefixtures("either_way")
def test_nothing_outside_is_written_or_deleted(tmp_path):
    old = tmp_path / "old"
    old.write_text("kept")
    (tmp_path / "empty").mkdir()
    before = old.stat()
    code = f"""
import os, shutil, sqlite3
folder = {str(tmp_path)!r}
old = folder + "/old"
for change in {CHANGES!r}.split("\\n")[1:-1]:
    try:
        exec(change)
    except (OSError, sqlite3.OperationalError):
        print(change)
"""
    assert run_python(code).stdout == CHANGES.lstrip()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "old"]
    assert old.read_text() == "kept"
    kept = ("st_mode", "st_mtime", "st_nlink", "st_size")
    assert all(getattr(old.stat(), name) == getattr(before, name) for name in kept)


@linux
@pytest.mark.parametrize("folder", [Path.home(), Path(sandbox.__file__).parent], ids=str)
def test_home_and_the_library_cannot_be_written(folder):
    path = folder / "written-by-the-sandbox"
    assert fails_with("PermissionError", f"open({str(path)!r}, 'w')")
    assert not path.exists()


@linux
def test_secrets_outside_cannot_be_read(tmp_path):
    if not sandbox.reads_are_confined():
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "secret").write_text("x")
    for path in (tmp_path / "secret", "/etc/passwd", f"/proc/{os.getpid()}/environ", __file__):
        assert fails_with("PermissionError", f"open({str(path)!r}).read()")
    assert fails_with("PermissionError", f"import os; os.listdir({str(tmp_path)!r})")
    link = f"import os; os.symlink({str(tmp_path / 'secret')!r}, 'a'); open('a').read()"
    assert fails_with("PermissionError", link)


@linux
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    "start",
    [
        "import os\nwhile True: os.fork()",
        "import os; os.posix_spawn('/bin/sleep', ['sleep', '60'], {})",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
    ],
)
def test_no_other_process_can_be_started(start):
    before = children()
    assert run_python(start, seconds=2).status == "error"
    assert children() <= before


@linux
def test_fork_by_a_raw_system_call_fails_too():
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.fork(), libc.vfork(), libc.syscall(435, None, 0), libc.unshare(0x10000000))
print(libc.kill(os.getppid(), 0), libc.ptrace(16, os.getppid(), 0, 0))
"""
    assert run_python(code).stdout == "-1 -1 -1 -1\n-1 -1\n"


@linux
@pytest.mark.parametrize(
    "signal",
    [
        "os.kill({pid}, 9)",
        "os.killpg({group}, 9)",
        "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {pid})",
        "fcntl.fcntl(os.pipe()[0], 10, 9)",
    ],
)
def test_others_cannot_be_signalled(signal):
    own = signal.format(pid=os.getpid(), group=os.getpgid(0))
    assert fails_with("PermissionError", f"import os, fcntl; {own}")


@linux
@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        "import signal, time\nsignal.pthread_sigmask(0, range(1, 64)); time.sleep(60)",
    ],
)
def test_time_is_bounded(code):
    before, began = children(), time.perf_counter()
    outcome = run_python(code, seconds=0.2)
    assert outcome.status == "timeout" and outcome.seconds >= 0.2
    assert time.perf_counter() - began < 2.5 and children() <= before


@linux
def test_memory_is_bounded():
    assert run_python("a = [0] * 10**9").status == "memory"
    assert run_python("a = []\nwhile True: a.append('x' * 10**6)").status == "memory"
    assert run_python("a = bytearray(2 * 10**8)", memory_mb=128).status == "memory"
    assert run_python("a = bytearray(2 * 10**8)", memory_mb=512).status == "ok"


@linux
def test_limits_cannot_be_raised():
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))"
    assert run_python(code).status == "error"


@linux
def test_output_is_cut():
    assert run_python("print('ab' * 10**6)").stdout == "ab" * 5000
    assert run_python("print('ä' * 50)", output_chars=20).stdout == "ä" * 20
    flood = "import sys\nwhile True: sys.stdout.write('x' * 10**6)"
    assert fails_with("File too large", flood + "\n")


@linux
def test_many_open_files_fail():
    code = "files = [open('/dev/null') for _ in range(100)]"
    assert fails_with("Too many open files", code)


# --- where it cannot be had --------------------------------------------------------------------


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_the_code_is_not_run(monkeypatch, tmp_path, system):
    sandbox._check_machine.cache_clear()
    monkeypatch.setattr(sandbox.sys, "platform", system)
    with pytest.raises(SandboxUnavailable, match="Linux"):
        run_python(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert not list(tmp_path.iterdir())


@linux
def test_code_is_not_run_when_the_lock_fails(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
    with pytest.raises(SandboxUnavailable, match="not run"):
        run_python("print(1)")


@pytest.mark.parametrize("options", [{"seconds": 0}, {"memory_mb": 1}])
def test_limits_that_make_no_sense_are_refused(options):
    with pytest.raises(BadInput, match="seconds above 0"):
        run_python("1", **options)
