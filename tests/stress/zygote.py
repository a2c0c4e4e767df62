"""Runs of the command line in forked processes, counted call by call, which can be killed or refused at any of them.

A zygote is a process that has imported poolembed and torch and has started no thread. It forks for every run, so a run
costs what it does and not two seconds of imports. Linux alone can do this: a filter of system calls (seccomp) stops
every call of a run that changes files, whichever library makes it, until the zygote has looked at it. The zygote
counts them, and at the one that was asked for it kills the run with SIGKILL, or has the call fail as on a full disk.

    with Zygote() as zygote:
        done = zygote.run(["embed", "songs", "-o", "out"], cwd=root, at=17)
"""

from __future__ import annotations

import array  # noqa: F401 - of socket.send_fds, which may no longer open files when it is called
import atexit
import ctypes
import fcntl
import importlib
import json
import os
import platform
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LIMIT = 900.0
"""Seconds after which a run counts as one that hangs."""

# What changes files, by number. The newer machines have only the calls of the first line.
_CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        **{"write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328, "sendfile": 40},
        **{"ftruncate": 77, "fallocate": 285, "copy_file_range": 326, "fsync": 74, "fdatasync": 75, "openat": 257},
        **{"renameat": 264, "renameat2": 316, "linkat": 265, "unlinkat": 263, "mkdirat": 258},
        **{"open": 2, "creat": 85, "rename": 82, "link": 86, "unlink": 87, "mkdir": 83, "rmdir": 84},
    },
    "aarch64": {
        **{"write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "pwritev2": 287, "sendfile": 71},
        **{"ftruncate": 46, "fallocate": 47, "copy_file_range": 285, "fsync": 82, "fdatasync": 83, "openat": 56},
        **{"renameat": 38, "renameat2": 276, "linkat": 37, "unlinkat": 35, "mkdirat": 34},
    },
}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_OF_A_FILE = {"write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "fsync", "fdatasync"}
_REMOVING = {"unlink", "unlinkat", "rmdir"}  # a full disk does not keep anybody from this

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls of a seccomp listener
_CONTINUE = 1
_NEVER_BEFORE_A_FORK = ("lance", "pyarrow")  # start threads when imported
_PRELOADED = (
    "poolembed.cli",
    "poolembed.cli.report",
    "poolembed.embed.model",
    "poolembed.embed.run",
    "poolembed.embed.outputs",
    "poolembed.map",
    "poolembed.map.layout",
    "poolembed.train.run",
    "av",
    "soundfile",
    "soxr",
    "threadpoolctl",
    "rich.progress",
)
_OF_TRAINING = ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg")


def supported() -> bool:
    """Whether this machine lets a process look at the system calls of its children."""
    if platform.system() != "Linux" or platform.machine() not in _CALLS:
        return False
    # In a process of its own: what pytest has imported by now does not like to be forked.
    trial = [sys.executable, "-c", "from tests.stress.zygote import _filter; _filter([])"]
    return subprocess.run(trial, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode == 0


@dataclass
class Request:
    """A run.

    Attributes:
        command: the arguments of ``poolembed``.
        cwd: working directory.
        out, err: files that take what it says.
        stdin: a file, or None for none.
        at: the number, from 1, of the call that is hit; None counts only.
        error: the errno with which the call that is hit fails; None sends `strike` instead.
        strike: the signal, SIGKILL unless told otherwise.
        lasting: all calls after it fail likewise.
        below: only calls on files below this directory fail.
        kill_after: seconds after which it is killed.
        limit: seconds after which it counts as hanging, and is killed.
        resources: limits by the names of the module resource; that of AS is what may come on top.
        environment: variables set for it.
        setup: ``module:function`` that is called with the arguments that follow, in the run, before the command.
        imports: modules that it has before limits hold and it becomes somebody else, who may not read them.
        user: number of the user it runs as.
    """

    command: list[str]
    cwd: str
    out: str
    err: str
    stdin: str | None = None
    at: int | None = None
    error: int | None = None
    strike: int = signal.SIGKILL
    lasting: bool = False
    below: str | None = None
    kill_after: float | None = None
    limit: float = LIMIT
    resources: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    setup: list[Any] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    user: int | None = None


@dataclass(frozen=True)
class Done:
    """What became of a run.

    Attributes:
        code: exit code, or minus the signal that ended it.
        calls: calls that change files, those to standard output and error left out.
        hit: whether the call that was asked for came, or the time.
        hung: whether it reached the limit.
        peak: most bytes of memory that were resident, those shared with the zygote included.
        seconds: that it took; of the processor: ``cpu``.
        out, err: what it said.
    """

    code: int
    calls: int
    hit: bool
    hung: bool
    peak: int
    seconds: float
    cpu: float = 0.0
    out: bytes = b""
    err: str = ""

    @property
    def traceback(self) -> str:
        """The first of Python's own complaints, or of ours about a fault of our own; of an exception what it is."""
        words = r"Traceback|Exception ignored|\.py:\d+: \w*Warning|Fatal Python error|a fault of poolembed"
        lines = self.err.splitlines()
        at = next((number for number, line in enumerate(lines) if re.search(words, line)), None)
        if at is None:
            return ""
        raised = [line for line in lines[at + 1 :] if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b", line)]
        return raised[0] if "Traceback" in lines[at] and raised else lines[at]


class Zygote:
    """The process that forks, from outside. One run at a time; several zygotes run beside one another.

    Args:
        training: it also imports what training alone needs, which takes as long again.
    """

    def __init__(self, *, training: bool = False) -> None:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {**os.environ, **threads, "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1"}
        variables["COLUMNS"] = "200"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.zygote", *(_OF_TRAINING if training else ())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=variables,
        )
        self.resting = int(self._read()["resting"])

    def run(self, command: Sequence[str | Path], cwd: Path, **options: Any) -> Done:
        """Run ``poolembed`` with some arguments; the options are those of a `Request`."""
        talk = cwd.parent / f"{cwd.name}.talk"
        talk.mkdir(exist_ok=True)
        out, err = talk / f"out.{self._process.pid}", talk / f"err.{self._process.pid}"
        request = Request([str(word) for word in command], str(cwd), str(out), str(err), **options)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        self._process.stdin.flush()
        return Done(**self._read(), out=out.read_bytes(), err=err.read_text("utf-8", "replace"))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote is gone; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Inside the zygote


def _serve() -> None:
    for name in (*_PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    assert not any(name in sys.modules for name in _NEVER_BEFORE_A_FORK)
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads before the first fork"
    # Python's own output belongs to the runs; answers go out by another number.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"resting": _resident()}), file=answers, flush=True)
    while line := sys.stdin.buffer.readline():
        request = Request(**json.loads(line))
        ours, theirs = socket.socketpair()
        began = time.perf_counter()
        child = os.fork()
        if not child:
            ours.close()
            answers.close()
            _become(request, theirs)  # does not return
        theirs.close()
        try:
            answer = _watch(request, child, ours)
        finally:
            ours.close()
        print(json.dumps({**answer, "seconds": time.perf_counter() - began}), file=answers, flush=True)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _become(request: Request, supervisor: socket.socket) -> None:
    os.setsid()
    os.chdir(request.cwd)
    for number, path, flags in (
        (0, request.stdin or os.devnull, os.O_RDONLY),
        (1, request.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request.err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = ["poolembed", *request.command]
    os.environ.update(request.environment)
    if request.setup:
        module, _, name = request.setup[0].partition(":")
        getattr(importlib.import_module(module), name)(*request.setup[1:])
    for module in request.imports:
        importlib.import_module(module)
    if request.user is not None:
        os.setgroups([])
        os.setgid(request.user)
        os.setuid(request.user)
    for name, value in request.resources.items():
        number = getattr(resource, f"RLIMIT_{name}")
        if name == "AS":
            has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(number, (has + value, resource.RLIM_INFINITY))
        else:
            resource.setrlimit(number, (value, resource.getrlimit(number)[1]))
    listener = _filter(list(_CALLS[platform.machine()].values()))
    socket.send_fds(supervisor, [b"."], [listener])
    os.close(listener)
    supervisor.close()
    from poolembed.cli import main

    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as Python does at its end
        traceback.print_exc()
        code = 1
    # All of Python's end but the taking apart of modules, which takes longer than such a run, and does nothing.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        os.write(2, f"Exception ignored in: {error}\n".encode())
        code = 120
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _filter(numbers: list[int]) -> int:
    """Stop these system calls until they are looked at; the file to look at them."""
    library = ctypes.CDLL(None, use_errno=True)

    def step(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    program = step(0x20, 0, 0, 0)  # the number of the call
    for number in numbers:
        program += step(0x15, 0, 1, number) + step(0x06, 0, 0, 0x7FC00000)
    program += step(0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(program, len(program))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    library.prctl(38, 1, 0, 0, 0)  # without it, only root may
    listener = int(library.syscall(_SECCOMP[platform.machine()], 1, 8, whole))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    os.set_inheritable(listener, False)
    return listener


def _watch(request: Request, child: int, ours: socket.socket) -> dict[str, Any]:
    _, files, _, _ = socket.recv_fds(ours, 1, 1)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    listener = files[0] if files else -1
    if files:
        poll.register(listener, select.POLLIN)
    names = {number: name for name, number in _CALLS[platform.machine()].items()}
    said = {os.path.realpath(request.out), os.path.realpath(request.err)}
    calls, hit, hung = 0, False, False
    began = time.monotonic()
    due: list[tuple[float, Callable[[], None]]] = [(request.limit, lambda: _kill(child))]
    if request.kill_after is not None:
        due.append((request.kill_after, lambda: _kill(child)))
    due.sort(key=lambda one: one[0])
    while True:
        passed = time.monotonic() - began
        while due and due[0][0] <= passed:
            after, act = due.pop(0)
            hung |= after == request.limit
            hit |= after == request.kill_after
            act()
        events = dict(poll.poll(max(0.0, due[0][0] - passed) * 1000 if due else None))
        if listener in events:
            if not events[listener] & select.POLLIN:
                poll.unregister(listener)
                continue
            notice = bytearray(80)
            try:
                fcntl.ioctl(listener, _RECEIVE, notice)
            except OSError:  # killed meanwhile
                continue
            number, pid, _, call, _, _, *arguments = struct.unpack("QIIiIQ6Q", notice)
            error = 0
            if _counts(names[call], pid, arguments, said):
                calls += 1
                there = request.at is not None and (calls == request.at or (request.lasting and calls > request.at))
                if there and request.error is None:
                    hit = True
                    _send(child, request.strike)
                    if request.strike == signal.SIGKILL:
                        continue
                if there and request.error is not None and _fails(names[call], pid, arguments, request.below):
                    hit, error = True, request.error
            answer = struct.pack("QqiI", number, 0, -error, 0 if error else _CONTINUE)
            with suppress(OSError):  # killed meanwhile
                fcntl.ioctl(listener, _SEND, answer)
        elif ended in events:
            break
    _, status, used = os.wait4(child, 0)
    _send(child, signal.SIGKILL)  # whatever it left behind
    for opened in (ended, *files):
        os.close(opened)
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code,
        "calls": calls,
        "hit": hit and not hung,
        "hung": hung,
        "peak": used.ru_maxrss * 1024,
        "cpu": used.ru_utime + used.ru_stime,
    }


def _counts(name: str, pid: int, arguments: list[int], said: set[str]) -> bool:
    """Whether a call changes a file other than what the run says."""
    if name in ("open", "openat"):
        flags = arguments[1 if name == "open" else 2]
        return bool(flags & (os.O_CREAT | os.O_TRUNC))
    if name in _OF_A_FILE:
        path = _path(pid, arguments[0])
        return path.startswith("/") and not path.startswith(("/dev/", "/proc/", "/memfd:")) and path not in said
    return True


def _fails(name: str, pid: int, arguments: list[int], below: str | None) -> bool:
    if name in _REMOVING:
        return False
    if below is None:
        return True
    if name in _OF_A_FILE:
        return _path(pid, arguments[0]).startswith(below)
    at = name.removesuffix("2").endswith("at")
    try:
        base = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:  # noqa: PTH123
            memory.seek(arguments[1 if at else 0])
            named = os.fsdecode(memory.read(4096).partition(b"\0")[0])
    except OSError:
        return True
    if at and arguments[0] < 1 << 31:
        base = _path(pid, arguments[0])
    return os.path.normpath(os.path.join(base, named)).startswith(below)  # noqa: PTH118


def _path(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number & 0xFFFFFFFF}")  # noqa: PTH115 - called thousands of times
    except OSError:
        return ""


def _kill(child: int) -> None:
    _send(child, signal.SIGKILL)


def _send(child: int, number: int) -> None:
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(child, number)
            return


if __name__ == "__main__":
    try:
        _serve()
    except Exception:
        traceback.print_exc()
        raise
