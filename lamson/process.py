"""A server as a process of the operating system: its pid file, its daemon, its workers, its user, its signals, its end.

It knows no mail: what it runs is anything with `receiver.start()` and `receiver.stop()`, and perhaps an `outbox` with the same. It
stands before the first message (the terminal hears whether the server came up) and after the last (a server told to end finishes what
it has begun).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pwd
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, Self

from daemon import DaemonContext
from daemon.daemon import DaemonError

from lamson.errors import LamsonError, ProcessError

log = logging.getLogger("lamson.process")

#: Says one line to whoever started the server.
Tell = Callable[[str], None]
#: Listening sockets, bound before privileges were dropped: (host, port) -> socket.
Sockets = Mapping[tuple[str, int], socket.socket]

#: Why a server ends. A SimpleQueue and no Event: a signal handler may put into it at any moment without a lock.
Ending = SimpleQueue[str]
#: What ends a server in good order.
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

#: Seconds that `stop` waits for a server to finish what it has begun: receiver and outbox drain for 30 at most.
PATIENCE = 45.0
#: Seconds between two looks at something that cannot be waited for.
GLANCE = 0.05
#: A worker that died is replaced after this many seconds, then twice as many each time, up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
#: A worker that lived this many seconds is considered well: its successor comes at once.
WELL = 10.0


# -- the pid file


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a pid file names. `running`: that very server runs. `program`: what the process with this number is now; None: there is none."""

    path: str
    pid: int
    running: bool
    program: str | None

    def __str__(self) -> str:
        if self.running:
            return f"A server runs: process {self.pid} ({self.path})"
        if self.program is None:
            return f"{self.path} was left behind by process {self.pid}, which is gone"
        return f"{self.path} names process {self.pid}, which is another program by now ({self.program})"


class PidFile:
    """A pid file that its server keeps locked for as long as it lives.

    The lock (flock) is what tells a living server from a file left behind, whatever became of the number in it: the system drops it
    with the last of the server's processes. Workers inherit it, so a server is gone only when all of them are.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None

    def holder(self) -> Holder | None:
        """Who the file names; None if there is no such file. `ProcessError` if it is something else than a pid file."""
        deadline = time.monotonic() + 1.0
        while True:
            try:
                running, text = self._look()
            except FileNotFoundError:
                return None
            if text.isdecimal():
                return Holder(self.path, int(text), running, program_of(int(text)))
            if not running or time.monotonic() > deadline:
                raise ProcessError(f"{self.path} is no pid file: there is no process number in it. Name another: -pid run/smtp.pid")
            time.sleep(GLANCE)  # it is just being written

    def _look(self) -> tuple[bool, str]:
        with open(self.path, encoding="ascii", errors="replace") as file:
            return not _lock(file.fileno(), fcntl.LOCK_SH), file.read(64).strip()

    def hold(self) -> None:
        """Locks the file and writes this process's number into it. Raises `ProcessError` if a server runs with it."""
        deadline = time.monotonic() + 1.0  # someone who only looks has the lock for an instant
        while True:
            handle = self._open()
            if _lock(handle, fcntl.LOCK_EX) and _same_file(handle, self.path):
                break
            os.close(handle)
            if time.monotonic() > deadline:
                raise runs_already(self.holder())
            time.sleep(GLANCE)
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._lock = handle

    def _open(self) -> int:
        try:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:
            remedy = f"The server's user must own that directory, and logs: chown -R USER {os.path.dirname(self.path) or '.'} logs"
            raise ProcessError(f"The user {os.geteuid()} cannot write {self.path}. {remedy}") from None

    def let_go(self) -> None:
        """Removes the file that is held. The lock goes with the process, so that whoever waits for the end waits for all of it."""
        if self._lock is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.path)

    def __enter__(self) -> Self:
        self.hold()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def remove_stale(self) -> None:
        """Removes the file unless a server holds it."""
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            if _lock(file.fileno(), fcntl.LOCK_EX) and _same_file(file.fileno(), self.path):
                os.unlink(self.path)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(handle: int, path: str) -> bool:
    """Whether the path still leads to the open file: between opening and locking, another may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def program_of(pid: int) -> str | None:
    """The name of the program that runs under this number; None if none does, "?" where the system does not tell."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return "?"
    dead = after.split()[0] in "ZX"  # ended, but its parent has not looked yet
    return None if dead else before.partition("(")[2]


def runs_already(holder: Holder | None) -> ProcessError:
    """What someone hears who starts a server twice."""
    path = holder.path if holder else "the pid file"
    return ProcessError(f"{holder or 'A server runs'}. Stop it first: lamson stop -pid {path}")


def check_for_pid(pid: str, force: bool = False) -> str | None:
    """Makes sure that no server runs with the pid file `pid`.

    A file left behind is removed, and the sentence that says so returned. A running server is a `ProcessError`, with `force` it is
    stopped first.
    """
    holder = PidFile(pid).holder()
    if holder is None:
        return None
    if holder.running and not force:
        raise runs_already(holder)
    if holder.running:
        return stop(pid)
    PidFile(pid).remove_stale()
    return f"{holder}; removed it."


# -- stopping


def stop(pid: str, kill: bool = False, patience: float = PATIENCE) -> str:
    """Stops the server of this pid file and waits until it is gone. Returns what became of it. `ProcessError` if there is none."""
    return next(stop_all([pid], kill, patience))


def stop_all(pids: Iterable[str], kill: bool = False, patience: float = PATIENCE) -> Iterator[str]:
    """Tells all of them to end, then waits for each, as they drain side by side, and says what became of it.

    `patience`: seconds for all together. One that cannot be stopped keeps no other running; at the end it is a `ProcessError`.
    """
    failed: list[str] = []
    with ExitStack() as files:
        asked = []
        for path in pids:
            with _noting(failed):
                asked.append(_ask_to_end(path, kill, files))
        deadline = time.monotonic() + patience
        for holder, handle in asked:
            with _noting(failed):
                yield _wait_until_gone(holder, handle, deadline)
    if failed:
        raise ProcessError("; ".join(failed))


@contextmanager
def _noting(failed: list[str]) -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        failed.append(str(error))


def _ask_to_end(path: str, kill: bool, files: ExitStack) -> tuple[Holder, int]:
    """Who is asked, and the open pid file: the server removes it before the last of its processes is gone, and the lock stays on it."""
    try:
        file = files.enter_context(open(path, "rb"))  # noqa: SIM115  # closed with the stack
    except FileNotFoundError:
        raise ProcessError(f"No server runs here: there is no {path}. Name its pid file: -pid FILE") from None
    except PermissionError:
        raise ProcessError(f"{path} belongs to another user. Stop that server as that user") from None
    holder = PidFile(path).holder()
    if holder is None:
        raise ProcessError(f"The server of {path} ended just now")
    if holder.running:
        _send_end(holder, kill)
    return holder, file.fileno()


def _send_end(holder: Holder, kill: bool) -> None:
    try:
        if kill and os.getpgid(holder.pid) == holder.pid:
            os.killpg(holder.pid, signal.SIGKILL)  # a daemon leads a group of its own, so this ends its workers too
        else:
            os.kill(holder.pid, signal.SIGKILL if kill else signal.SIGTERM)
    except PermissionError:
        raise ProcessError(f"Process {holder.pid} ({holder.path}) belongs to another user. Stop it as that user") from None
    except ProcessLookupError:
        log.debug("Process %s is gone; its last workers are ending.", holder.pid)


def _wait_until_gone(holder: Holder, handle: int, deadline: float) -> str:
    while not _lock(handle, fcntl.LOCK_SH):
        if time.monotonic() > deadline:
            remedy = f"Wait, or end it at once: lamson stop -pid {holder.path} -KILL"
            raise ProcessError(f"Process {holder.pid} still finishes what it has begun. {remedy}")
        time.sleep(GLANCE)
    fcntl.flock(handle, fcntl.LOCK_UN)
    PidFile(holder.path).remove_stale()
    return f"Stopped process {holder.pid} ({holder.path})." if holder.running else f"{holder}; removed it."


# -- starting


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how it is to run.

    `load()` boots: it gives what has a `receiver` and perhaps an `outbox`. `bind()` runs earlier, while the process has all its
    privileges, and gives the sockets that it could bind. Paths are as the server sees them: in `chroot`, relative to `chdir`. `uid`,
    `gid`: numbers, or None to stay who we are. `workers`: more than one are processes of their own, replaced when they die.
    `foreground`: does not detach. `output`: where a detached server writes what no logging caught. `spread`: a process's threads run on all
    cores; else each process keeps to one (`keep_to_one_core`).
    """

    load: Callable[[], Any]
    bind: Callable[[], Sockets] = dict
    pid: str = "run/smtp.pid"
    force: bool = False
    chroot: str | None = None
    chdir: str = "."
    uid: int | None = None
    gid: int | None = None
    umask: int = 0o077
    workers: int = 1
    foreground: bool = False
    output: str = "logs/lamson.err"
    spread: bool = False

    def start(self, tell: Tell = print) -> None:
        """Starts it and returns when it takes mail (in the foreground: when it has ended). `ProcessError` says why it could not."""
        _open_streams()
        if self.foreground:
            self._run(tell)
            return
        child = fork(self._run)
        os.waitpid(child.pid, 0)  # the first of the daemon's three, gone at once
        tell(child.hear(f"The server ended before it took mail; {self.output} may tell why"))

    def _run(self, tell: Tell) -> None:
        ending: Ending = SimpleQueue()
        self._detach(tell, ending)
        if self.force:
            self._rehearse()
        stale = check_for_pid(self.pid, self.force)
        sockets = self.bind()
        drop_priv(self.uid, self.gid)
        with PidFile(self.pid), closing_all(sockets):
            if not self.foreground:
                _write_output_to(self.output)
            self._serve(sockets, ending, lambda where: tell(self._ready(stale, where)))

    def _detach(self, tell: Tell, ending: Ending) -> None:
        context = _context(self.chroot, self.chdir, self.umask, [tell], self.foreground)
        context.signal_map = {number: lambda which, _: ending.put(signal.Signals(which).name) for number in END_SIGNALS}
        _open(context)
        if not self.foreground:
            os.setpgid(0, 0)

    def _rehearse(self) -> None:
        """Boots in a child that ends at once: a mistake in the new settings shall not cost the server that runs."""

        def boot(tell: Tell) -> None:
            drop_priv(self.uid, self.gid)
            self.load()
            tell("It boots.")

        child = fork(boot)
        os.waitpid(child.pid, 0)
        child.hear("The server ended while it booted")

    def _ready(self, stale: str | None, where: str) -> str:
        crew = f" with {self.workers} workers" if self.workers > 1 else ""
        ready = f"Mail is taken on {where}{crew}: process {os.getpid()} ({self.pid})."
        return f"{stale}\n{ready}" if stale else ready

    def _serve(self, sockets: Sockets, ending: Ending, tell: Tell) -> None:
        first = os.getpid()  # so that two servers do not both begin with core 0

        def serve(tell: Tell, worker: int = 0) -> None:
            if not self.spread:
                keep_to_one_core(first + worker)
            work(self.load, sockets, ending, tell)

        if self.workers > 1:
            Crew(self.workers, serve, ending).serve(sockets, tell)
        else:
            serve(tell)


def start_server(  # the order of 1.x
    pid: str,
    force: bool,
    chroot: str | None,
    chdir: str,
    uid: int | None,
    gid: int | None,
    umask: int,
    settings_loader: Callable[[], Any],
    debug: bool = False,
) -> None:
    """Starts what `settings_loader()` gives as a daemon, in the foreground with `debug`. `Server` can do more."""
    Server(settings_loader, pid=pid, force=force, chroot=chroot, chdir=chdir, uid=uid, gid=gid, umask=umask, foreground=debug).start()


def work(load: Callable[[], Any], sockets: Sockets, ending: Ending, tell: Tell) -> None:
    """Boots, takes mail until it is told to end, and finishes what it has begun: the receiver, the outbox, the database's connections."""
    with ExitStack() as stack:
        settings = load()
        stack.callback(getattr(getattr(settings, "database", None), "dispose", bool))
        for service in (getattr(settings, "outbox", None), settings.receiver):
            if service is not None:
                service.start(**({"sockets": sockets} if service is settings.receiver and sockets else {}))
                stack.callback(service.stop)
        where = address_text(settings.receiver)
        close_unused(sockets, where)
        tell(where)
        log.info("process %s is up", os.getpid())
        log.info("told to end by %s: finishes what it has begun", _awaited(ending))
    log.info("process %s has ended", os.getpid())


def keep_to_one_core(number: int) -> None:
    """Keeps this process's threads on one core, the `number`-th of those it may use, counted round about; where the system cannot, nothing.

    Python runs one of them at a time. On several cores each that lets go of the interpreter for the moment of a system call loses it to
    another core, and waits to have it back: that doubled the CPU time of a message (docs/design.md).
    """
    with suppress(AttributeError, OSError):  # a sandbox may forbid it: systemd's SystemCallFilter has it among @resources
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})


def _awaited(ending: Ending) -> str:
    """Waits for the word to end. It wakes now and then, for Python sees a signal that another thread was given only when this one runs."""
    while True:
        with suppress(Empty):
            return ending.get(timeout=1.0)


def address_text(receiver: Any) -> str:
    """Where a receiver takes mail, in words."""
    address = getattr(receiver, "address", None) or getattr(receiver, "queue_dir", None) or type(receiver).__name__
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)


def close_unused(sockets: Sockets, where: str) -> None:
    """Closes those that the receiver, which takes mail at `where`, did not want: it may be a queue's, and nobody would answer there. A
    worker's successor finds them closed."""
    for listening in sockets.values():
        if listening.fileno() >= 0 and ":".join(map(str, listening.getsockname()[:2])) != where:
            listening.close()


def drop_priv(uid: int | None, gid: int | None) -> None:
    """Becomes the user and the group for good. A user without a group takes its own groups. None stays as it is."""
    try:
        if gid is not None or uid is not None:
            _set_groups(uid, gid)
        if uid is not None:
            os.setuid(uid)
    except PermissionError:
        raise ProcessError("Only root may become another user or group. Start as root, or leave out -uid and -gid") from None
    except KeyError:
        raise ProcessError(f"There is no user with the number {uid}. Name a group too: -gid GROUP") from None


def _set_groups(uid: int | None, gid: int | None) -> None:
    if uid is None or gid is not None:
        group = gid if gid is not None else os.getgid()
        os.setgroups([group])
        os.setgid(group)
    else:
        user = pwd.getpwuid(uid)
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)


def daemonize(
    pid: str, chdir: str = ".", chroot: str | None = None, umask: int = 0o077, files_preserve: list[Any] | None = None, do_open: bool = True
) -> DaemonContext:
    """Turns this very process into a daemon that holds the pid file; the caller's process ends. For programs of one's own."""
    context = _context(chroot, chdir, umask, files_preserve or [], foreground=False)
    context.pidfile = PidFile(pid)
    if do_open:
        _open(context)
    return context


def _context(chroot: str | None, chdir: str, umask: int, preserve: list[Any], foreground: bool) -> DaemonContext:
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr} if foreground else {}
    return DaemonContext(
        chroot_directory=chroot,
        working_directory=chdir,
        umask=umask,
        detach_process=not foreground,
        files_preserve=[file for file in preserve if hasattr(file, "fileno")],
        **streams,
    )


def _open_streams() -> None:
    """Standard streams that whoever called us had closed are opened to nowhere, before a pipe gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for the life of the process


def _open(context: DaemonContext) -> None:
    try:
        context.open()
    except DaemonError as error:
        raise ProcessError(f"Cannot become a daemon: {error}") from error


def _write_output_to(path: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


@contextmanager
def closing_all(sockets: Sockets) -> Iterator[None]:
    """Closes what is left of them at the end. Closing a socket twice does no harm."""
    try:
        yield
    finally:
        for listening in sockets.values():
            listening.close()


# -- children and what they report


class Report:
    """The child's end of the pipe on which its parent waits: one report, then nothing."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def fileno(self) -> int:
        return self._handle

    def __call__(self, text: str, well: bool = True) -> None:
        with suppress(BrokenPipeError):  # the parent was interrupted, or does not care
            os.write(self._handle, f"{json.dumps([well, text])}\n".encode())
        os.close(self._handle)
        self._handle = os.open(os.devnull, os.O_WRONLY)


@dataclass(frozen=True, slots=True)
class Child:
    """A child process, as its parent sees it."""

    pid: int
    pipe: int

    def hear(self, silence: str) -> str:
        """Waits for the child's report. `ProcessError` with its text if the child failed, with `silence` if it died without one."""
        with open(self.pipe, encoding="utf-8") as pipe:
            report = pipe.readline()  # and not to the end: the child's own children have the pipe, too
        well, text = json.loads(report) if report else (False, silence)
        if not well:
            raise ProcessError(text)
        return str(text)


def fork(task: Callable[[Tell], None]) -> Child:
    """Runs `task(tell)` in a child process that ends with it."""
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        os.close(read)
        _live(task, Report(write))
    os.close(write)
    return Child(pid, read)


def _live(task: Callable[[Tell], None], report: Report) -> NoReturn:
    """The whole life of a child, which must never return into its parent's code."""
    status = 1
    try:
        task(report)
        status = 0
    except (LamsonError, OSError) as error:
        log.error("%s", error, exc_info=error.__cause__)
        report(str(error), well=False)
    except BaseException as error:
        traceback.print_exc()
        report(f"An error that nobody foresaw, {type(error).__name__}: {error}. Its traceback is in the .err file in logs", well=False)
        raise
    finally:
        logging.shutdown()
        os._exit(status)  # not sys.exit: a handler that hangs in its thread must not keep the process


class Crew:
    """Workers: processes that do the same task, each with a number of its own below `count`. One that dies is replaced; all end when this
    process closes the life line or dies."""

    def __init__(self, count: int, task: Callable[[Tell, int], None], ending: Ending) -> None:
        self._count = count
        self._task = task
        self._ending = ending
        self._born: dict[int, tuple[int, float]] = {}  # pid -> its number, and when
        self._life, self._hold = os.pipe()
        self._pause = 0.0
        self._not_before = 0.0

    def serve(self, sockets: Sockets, tell: Tell) -> None:
        """Starts them, keeps their number until told to end, and waits for all. What it logs itself goes to standard error."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        try:
            where = self._start()
            close_unused(sockets, where)
            tell(where)
            self._tend()
        finally:
            for listening in sockets.values():
                listening.close()  # or clients would wait at a door behind which nobody is
            os.close(self._hold)
            for pid in self._born:
                os.waitpid(pid, 0)

    def _start(self) -> str:
        children = [self._add() for _ in range(self._count)]
        reports = [child.hear("A worker ended before it took mail") for child in children]
        return reports[0]

    def _add(self) -> Child:
        number = min(set(range(self._count)) - {number for number, _ in self._born.values()})
        child = fork(lambda tell: self._live(tell, number))
        self._born[child.pid] = (number, time.monotonic())
        return child

    def _live(self, tell: Tell, number: int) -> None:
        os.close(self._hold)
        logging.getLogger().handlers.clear()  # the boot sets up its own
        threading.Thread(target=self._watch_life_line, name="lamson-life-line", daemon=True).start()
        self._task(tell, number)

    def _watch_life_line(self) -> None:
        os.read(self._life, 1)
        self._ending.put("the end of the server's first process")

    def _tend(self) -> None:
        while True:
            with suppress(Empty):
                log.info("told to end by %s", self._ending.get(timeout=4 * GLANCE))
                return
            self._bury()
            if len(self._born) < self._count and time.monotonic() >= self._not_before:
                self._replace()

    def _replace(self) -> None:
        try:
            os.close(self._add().pipe)
        except OSError as error:  # no process or descriptor is to be had just now; the other workers go on
            self._wait(longer=True)
            log.error("A worker's successor cannot be started: %s. The next attempt comes in %g s.", error.strerror, self._pause)

    def _wait(self, longer: bool) -> None:
        """Before the next one is started."""
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE) if longer else 0.0
        self._not_before = time.monotonic() + self._pause

    def _bury(self) -> None:
        """Takes note of the workers that died, and of when their successors may come."""
        for pid in list(self._born):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                self._note_death(pid, time.monotonic() - self._born.pop(pid)[1], status)

    def _note_death(self, pid: int, lived: float, status: int) -> None:
        self._wait(longer=lived <= WELL)
        code = os.waitstatus_to_exitcode(status)
        log.error("Worker %s died with status %s after %.1f s; its successor comes in %g s.", pid, code, lived, self._pause)
