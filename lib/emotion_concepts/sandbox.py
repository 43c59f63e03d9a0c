"""Run Python code that nobody has read, written by a model, in a locked process.

Linux only, without privileges or further packages. The child locks itself before the code runs:
resource limits, a seccomp filter that lets through only the system calls on a short list, and
Landlock rules on files. All three hold for the code whatever it imports, and cannot be undone.
"""

from __future__ import annotations

import functools
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Literal

from emotion_concepts import sandbox_child
from emotion_concepts.errors import BadInput, SandboxUnavailable


@dataclass(frozen=True)
class Outcome:
    """How a piece of code ended.

    Attributes
    ----------
    status : str
        "ok"; "error" (an exception, or an exit status other than 0); "timeout"; "memory" (an
        uncaught MemoryError); "killed" (by any other signal).
    stdout, stderr : str
        The first characters of what was printed.
    seconds : float
        Wall-clock time from the code's first line.
    """

    status: Literal["ok", "error", "timeout", "memory", "killed"]
    stdout: str
    stderr: str
    seconds: float


def run_python(
    code: str, *, seconds: float = 5, memory_mb: int = 512, output_chars: int = 10_000
) -> Outcome:
    """Run untrusted Python in a fresh temporary directory, with the standard library only.

    Guaranteed by the kernel, for any user including root:

    - no network, and no socket of any kind;
    - no other process or program (threads are allowed), no signal to another process, no change of
      limits, modes or owners;
    - nothing is written, renamed or deleted outside the temporary directory, which is removed;
    - `seconds` of wall-clock time, `memory_mb` of address space, 4 MiB a file and for each stream
      of output, 64 open files;
    - an environment without the caller's variables.

    Where the kernel has Landlock (Linux 5.13 or later, unless it is switched off), file contents
    can be read only in the temporary directory, Python's own library and the system's libraries.
    Where it has not, whatever the user can read can be read, and nothing can be written at all, not
    even in the temporary directory. `reads_are_confined` says which.

    Not guaranteed: that names, sizes and dates of files elsewhere stay unknown; a bound on the
    number of files in the temporary directory; safety from faults of the kernel itself. Code can
    end with status "ok" by leaving early: to know that it came to an end, let its last line print
    something it cannot know.

    Returns
    -------
    Outcome

    Raises
    ------
    SandboxUnavailable
        On anything but Linux on x86_64 or aarch64 with seccomp. The code is not run.

    Examples
    --------
    >>> run_python("print(6 * 7)").stdout
    '42\\n'
    >>> run_python("while True: pass", seconds=0.2).status
    'timeout'
    >>> run_python("import socket; socket.socket()").status
    'error'
    """
    if not seconds > 0 or memory_mb < 64:
        raise BadInput("give seconds above 0, and memory_mb of 64 or more for Python to start")
    _check_machine()
    with (
        TemporaryDirectory() as box,
        TemporaryFile() as source,
        TemporaryFile() as out,
        TemporaryFile() as err,
    ):
        source.write(code.encode("utf-8", "replace"))
        source.seek(0)
        ready, tell = os.pipe()
        limits = map(str, (seconds, memory_mb, tell, sandbox_child.has_landlock()))
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", sandbox_child.__file__, *limits],
            stdin=source,
            stdout=out,
            stderr=err,
            cwd=box,
            env={"HOME": box, "TMPDIR": box, "LANG": "C.UTF-8"},
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(tell)
        try:
            locked = os.read(ready, 1)  # waits until the child has locked itself, or is gone
            begun = time.perf_counter()
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
            took = time.perf_counter() - begun
        finally:
            os.close(ready)
            if timed_out := child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(4 * output_chars).decode("utf-8", "replace")[:output_chars])
        if not locked:
            raise SandboxUnavailable(f"the code was not run, its process had no lock: {texts[1]}")
    status = {0: "ok", sandbox_child.OUT_OF_MEMORY: "memory", -signal.SIGXCPU: "timeout"}.get(
        child.returncode, "killed" if child.returncode < 0 else "error"
    )
    return Outcome("timeout" if timed_out else status, *texts, took)


def reads_are_confined() -> bool:
    """Return whether code in the sandbox is kept from reading the user's files here.

    >>> refused = run_python("open('/etc/passwd')").status == "error"
    >>> refused == reads_are_confined()
    True
    """
    _check_machine()
    return sandbox_child.has_landlock()


@functools.cache
def _check_machine() -> None:
    if (
        sys.platform != "linux"
        or platform.machine() not in sandbox_child.MACHINES
        or sys.maxsize < 2**32
    ):
        raise SandboxUnavailable(
            "untrusted code runs only on 64-bit Linux (x86_64 or aarch64); on other systems use a "
            "Linux container or virtual machine"
        )
    if not sandbox_child.has_filters():
        raise SandboxUnavailable("this kernel has no seccomp filters, so code cannot be locked in")
