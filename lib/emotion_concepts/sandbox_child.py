"""The script in which `sandbox.run_python` runs code: it locks its own process, then runs it.

Not for import by others: `lock` cannot be undone. It uses few modules, since it starts anew for
every piece of code.
"""

import ctypes
import errno
import math
import os
import signal
import struct
import sys
from contextlib import suppress

# System calls that may be made, with their numbers on x86_64 and aarch64. What is not here fails
# with EPERM: sockets, new processes, programs, signals to others, limits, mounts, owners, modes.
_CALLS = """
read 0 63, write 1 64, close 3 57, fstat 5 80, lseek 8 62, mmap 9 222, mprotect 10 226,
munmap 11 215, brk 12 214, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
pread64 17 67, pwrite64 18 68, readv 19 65, writev 20 66, sched_yield 24 124, mremap 25 216,
madvise 28 233, dup 32 23, nanosleep 35 101, getitimer 36 102, setitimer 38 103, getpid 39 172,
exit 60 93, uname 63 160, ftruncate 77 46, getcwd 79 17, chdir 80 49,
gettimeofday 96 169, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174,
getgid 104 176, geteuid 107 175, getegid 108 177, getppid 110 173, sigaltstack 131 132,
gettid 186 178, futex 202 98, sched_getaffinity 204 123, getdents64 217 61,
set_tid_address 218 96, restart_syscall 219 128, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, exit_group 231 94, newfstatat 262 79, readlinkat 267 78,
faccessat 269 48, pselect6 270 72, ppoll 271 73, set_robust_list 273 99, dup3 292 24,
pipe2 293 59, getrandom 318 278, membarrier 324 283, statx 332 291, rseq 334 293,
faccessat2 439 439,
stat 4 -, lstat 6 -, poll 7 -, access 21 -, pipe 22 -, select 23 -, dup2 33 -, alarm 37 -,
readlink 89 -, arch_prctl 158 -, time 201 -
"""
# Allowed only where Landlock keeps them inside the temporary directory.
_CHANGES = """
mkdirat 258 34, unlinkat 263 35, renameat 264 38, renameat2 316 276,
rename 82 -, mkdir 83 -, rmdir 84 -, unlink 87 -
"""
# Judged by their arguments.
_JUDGED = "open 2 -, openat 257 56, clone 56 220, fcntl 72 25, ioctl 16 29, clone3 435 435"
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # the names of linux/audit.h

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_ALL = 0x1FFF  # the access rights of its first version
_LANDLOCK_READ, _LANDLOCK_LIST, _LANDLOCK_WRITE = 0x4, 0x8, 0x2
_LANDLOCK_OWN = 0x1FFF & ~(0x1 | 0x40 | 0x200 | 0x400 | 0x800)  # run, devices, sockets, pipes

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_FILTER = 1, 22, 38, 2
_FILE_BYTES = 2**22
_OPEN_FILES = 64
OUT_OF_MEMORY = 86  # exit status of the child after a MemoryError that nobody caught


def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def has_filters() -> bool:
    """Return whether the kernel knows seccomp filters; one at address 0 cannot be set."""
    libc().prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, None)
    return ctypes.get_errno() == errno.EFAULT


def has_landlock() -> bool:
    """Return whether the kernel can confine what a process reads and writes."""
    return libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1) >= 1


def run(seconds: float, memory_mb: int, tell: int, landlock: bool) -> None:
    """Lock this process, say so on the pipe `tell`, and run the code on standard input."""
    code = sys.stdin.read()
    lock(seconds, memory_mb, landlock)
    os.write(tell, b"1")
    os.close(tell)
    module = type(sys)("solution")  # not __main__: a script's main part does not run
    sys.modules["solution"] = module
    status = 0
    try:
        exec(compile(code, "<code>", "exec"), vars(module))
    except MemoryError:
        status = OUT_OF_MEMORY
    except Exception as raised:
        status = 1
        _show(raised, code)
    sys.exit(status)


def _show(raised: Exception, code: str) -> None:
    import linecache
    import traceback

    linecache.cache["<code>"] = (len(code), None, code.splitlines(keepends=True), "<code>")
    traceback.print_exception(raised.with_traceback(raised.__traceback__.tb_next))


def lock(seconds: float, memory_mb: int, landlock: bool) -> None:
    """Limit this process and all that it may ask of the kernel, for good."""
    import resource  # not on Windows, where this module can still be imported

    for limit, value in (
        (resource.RLIMIT_CPU, math.ceil(seconds) + 1),
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    c = libc()
    _check(c.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    _check(c.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if landlock:
        _confine_files(c)
    program = _filter(os.uname().machine, landlock)
    lines = ctypes.create_string_buffer(program, len(program))
    address = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
    _check(c.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, address))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _confine_files(c: ctypes.CDLL) -> None:
    """Let this process read libraries and own its working directory; no other file access."""
    handled = struct.pack("Q", _LANDLOCK_ALL)
    rules = _check(c.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), 0))
    own = {os.getcwd(): _LANDLOCK_OWN, "/dev/null": _LANDLOCK_READ | _LANDLOCK_WRITE}
    libraries = (
        os.path.dirname(os.__file__),
        f"{sys.base_prefix}/lib",
        *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"),
    )
    read = dict.fromkeys(libraries, _LANDLOCK_READ | _LANDLOCK_LIST)
    read["/etc/ld.so.cache"] = _LANDLOCK_READ
    for path, access in (read | own).items():
        with suppress(FileNotFoundError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access, place)
            _check(c.syscall(_LANDLOCK_ADD, rules, 1, rule, 0))
            os.close(place)
    _check(c.syscall(_LANDLOCK_RESTRICT, rules, 0))
    os.close(rules)


def _filter(machine: str, changes: bool) -> bytes:
    """Return the seccomp program: system calls on the list pass, the others fail with EPERM.

    changes: whether files may be opened to write, made, renamed and deleted (where Landlock says).
    """
    load, keep, equal, at_least, any_bit, end = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
    allow, kill, fail = 0x7FFF0000, 0x80000000, 0x00050000  # fail + an errno

    def line(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    def argument(i: int) -> bytes:
        return line(load, 16 + 8 * i)

    passes, refused = line(end, allow), line(end, fail | errno.EPERM)
    to_write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    to_read = [passes] if changes else [line(any_bit, to_write, yes=1), passes, refused]
    thread, namespaces = 0x10000, 0x7E020000
    judged = {
        "open": [argument(1), *to_read],
        "openat": [argument(2), *to_read],
        # a thread, and no process
        "clone": [
            argument(0),
            line(keep, thread | namespaces),
            line(equal, thread, no=1),
            passes,
            refused,
        ],
        # flags, copies and locks; not F_SETOWN and F_SETSIG, by which others get signals
        "fcntl": [
            argument(1),
            line(at_least, 8, yes=1),
            passes,
            line(equal, 1030, no=1),
            passes,
            refused,
        ],
        "ioctl": [line(end, fail | errno.ENOTTY)],  # what open() takes for "not a terminal"
        "clone3": [line(end, fail | errno.ENOSYS)],  # libc then takes clone
    }
    table = f"{_CALLS},{_CHANGES}" if changes else _CALLS
    blocks = {number: [passes] for number in _numbers(table, machine).values()}
    blocks |= {number: judged[name] for name, number in _numbers(_JUDGED, machine).items()}
    program = [
        line(load, 4),
        line(equal, MACHINES[machine], yes=1),
        line(end, kill),
        line(load, 0),
    ]
    for number, block in blocks.items():
        program += [line(equal, number, no=len(block)), *block]
    return b"".join([*program, refused])


def _numbers(table: str, machine: str) -> dict[str, int]:
    column = 1 + list(MACHINES).index(machine)
    rows = (row.split() for row in table.split(","))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


if __name__ == "__main__":
    run(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True")
