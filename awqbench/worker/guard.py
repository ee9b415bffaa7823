"""The process between a client and its worker: whatever happens to either, nothing that the worker started stays.

It forks off the worker before anything heavy is imported, and from then on only waits: for the end of the worker, or
for the end of the client, which closes a pipe. It adopts orphans (Linux), so that children which called setsid or lost
their parents still are its descendants, and ends as the worker ended. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys

from awqbench.worker import family

# A client that forked (not execed) children has copies of the pipe's end in them; its own end shows by this, late.
CHECK_SECONDS = 2.0
# The kernel, out of memory, is to take the worker and not the client. Anybody may raise the figure; 1000 is the most.
OOM_SCORE = 500
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def fork_under_guard(control: int, client: int, connection: int) -> None:
    """Returns in a new process, the worker's. The calling process becomes its guard and never returns.

    `control` is the reading end of a pipe that only the client writes to, `client` the client's process id,
    `connection` the worker's socket.
    """
    wake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's to handle
    guard, worker = os.getpid(), os.fork()
    if worker:
        os.close(connection)
        _end_like(_watch(control, client, worker, wake))
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for descriptor in (control, wake, wakes):
        os.close(descriptor)
    os.set_inheritable(connection, False)
    _belong_to(guard)


def die_with_parent() -> None:
    """On Linux, have the kernel end this process when the thread that started it ends, however it ends."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _belong_to(guard: int) -> None:
    """The worker ends with its guard, however that ends, and is the kernel's first choice when memory runs out."""
    if not _LINUX:
        os.setpgid(0, 0)
        return
    die_with_parent()
    if os.getppid() != guard:  # it ended before the line above
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as score:
        wanted = max(int(score.read()), OOM_SCORE)
        score.seek(0)
        score.write(str(wanted))


def _watch(control: int, client: int, worker: int, wake: int) -> int:
    """Wait for the end of the worker or of the client, then end all descendants. Returns the worker's wait status."""
    status: list[int] = []

    def reap() -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == worker:
                    status.append(ended[1])

    events = select.poll()
    events.register(control, select.POLLIN)
    events.register(wake, select.POLLIN)
    while not status and os.getppid() == client:
        ready = [descriptor for descriptor, _ in events.poll(CHECK_SECONDS * 1000)]
        if control in ready or (wake in ready and signal.SIGTERM in os.read(wake, 4096)):
            break
        reap()
    if _LINUX:
        family.end(lambda: family.descendants(os.getpid()), reap)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)
        if not status:
            status.append(os.waitpid(worker, 0)[1])
    reap()
    return status[0] if status else signal.SIGKILL


def _end_like(status: int) -> None:
    """End this process with the worker's exit status, or by the signal that ended the worker."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file, the worker's, is enough
        with contextlib.suppress(OSError):  # SIGKILL has no handler to remove
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))
