"""Servers as real processes: started, told to end, killed, started twice; pid files left behind and taken by others."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from lamson import process
from lamson.errors import ProcessError

PROGRAM = Path(__file__).with_name("small_server.py")
PID = "run/x.pid"
DEADLINE = 20.0

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(run_folder: Path) -> Iterator[Start]:
    """Runs the program with a pid file in the run folder. Whatever still runs afterwards is killed."""

    def run(terms: dict[str, Any] | None = None, **wrong: Any) -> subprocess.CompletedProcess[str]:
        arguments = [json.dumps({"pid": PID, "output": "logs/x.err"} | (terms or {})), json.dumps(wrong)]
        return subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=DEADLINE)

    yield run
    for path in run_folder.glob("run/*.pid"):
        holder = process.PidFile(str(path)).holder()
        if holder and holder.running:
            process.stop(str(path), kill=True)


several_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, on a system that can keep a process to one",
)


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def address_in(text: str) -> tuple[str, int]:
    found = re.search(r"Mail is taken on ([0-9.]+):(\d+)", text)
    assert found, text
    return found[1], int(found[2])


def pid_in(text: str) -> int:
    found = re.search(r"process (\d+)", text)
    assert found, text
    return int(found[1])


def ask(address: tuple[str, int]) -> int:
    """The process number of who answers. One that is killed meanwhile says nothing; then the next is asked."""
    while True:
        with socket.create_connection(address, DEADLINE) as connection, suppress(ConnectionError):
            if answer := connection.recv(20):
                return int(answer)


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def is_gone(pid: int) -> bool:
    return process.program_of(pid) is None


# -- starting and stopping


def test_it_starts_answers_and_stops(start: Start) -> None:
    ready = told(start())
    pid = int(Path(PID).read_text())
    assert pid_in(ready) == pid == ask(address_in(ready))
    assert process.stop(PID) == f"Stopped process {pid} ({PID})."
    assert not Path(PID).exists()
    assert Path("outbox").read_text() == "after the receiver"
    wait_for(lambda: is_gone(pid))


def test_it_is_a_daemon(start: Start) -> None:
    told(start())
    pid = int(Path(PID).read_text())
    assert os.getpgid(pid) == pid, "it leads a group of its own"
    assert os.getsid(pid) != os.getsid(0), "it has left the terminal's session"
    assert Path(PID).stat().st_mode & 0o777 == 0o600, "umask 077"
    assert "printed by the boot" in Path("logs/x.err").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_drains(start: Start, number: signal.Signals) -> None:
    told(start(drains_until="go"))
    pid = int(Path(PID).read_text())
    os.kill(pid, number)
    wait_for(lambda: number.name in Path("logs/x.err").read_text())
    assert process.PidFile(PID).holder() is not None, "it has a message to finish"
    Path("go").touch()
    wait_for(lambda: process.PidFile(PID).holder() is None)
    assert Path("drained").exists()


def test_stop_waits_until_it_is_gone_and_then_says_how_to_kill(start: Start) -> None:
    told(start(drains_until="go"))
    pid = int(Path(PID).read_text())
    with pytest.raises(ProcessError, match=f"Process {pid} still finishes what it has begun.*-KILL"):
        process.stop(PID, patience=0.1)
    assert process.stop(PID, kill=True) == f"Stopped process {pid} ({PID})."
    assert not Path(PID).exists()
    assert not Path("drained").exists()


def test_stop_all_tells_all_before_it_waits(start: Start) -> None:
    told(start(drains_until="outbox-of-nobody"))
    told(start({"pid": "run/y.pid"}))
    with pytest.raises(ProcessError, match="still finishes what it has begun"):
        list(process.stop_all([PID, "run/y.pid"], patience=0.1))
    wait_for(lambda: process.PidFile("run/y.pid").holder() is None)


def test_one_that_cannot_be_stopped_keeps_no_other_running(start: Start) -> None:
    Path("run/a.pid").write_text("no number\n")
    pid = pid_in(told(start()))
    stopped = process.stop_all(["run/a.pid", PID])
    assert next(stopped) == f"Stopped process {pid} ({PID})."
    with pytest.raises(ProcessError, match=r"run/a\.pid is no pid file"):
        next(stopped)
    Path("run/a.pid").unlink()


def test_in_the_foreground_it_returns_when_it_has_ended(start: Start, run_folder: Path) -> None:
    arguments = [json.dumps({"pid": PID, "foreground": True}), "{}"]
    with subprocess.Popen([sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "printed by the boot\n"
        ready = server.stdout.readline()
        assert pid_in(ready) == server.pid == ask(address_in(ready))
        server.terminate()
        assert server.wait(DEADLINE) == 0
    assert not Path(PID).exists()


# -- a start that fails


def test_a_mistake_is_told_and_nothing_is_left(start: Start) -> None:
    done = start(raises=True)
    assert (done.returncode, done.stderr) == (1, "config/settings.py, line 3: wrong. Put it right\n")
    assert not Path(PID).exists()


def test_a_port_that_is_taken_is_told(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start(port=taken.getsockname()[1])
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert not Path(PID).exists()


def test_an_error_that_nobody_expected_leaves_its_traceback_in_the_output(start: Start) -> None:
    done = start(explodes=True)
    assert done.returncode == 1
    assert done.stderr.startswith("An error that nobody foresaw, ValueError: nobody expected this. Its traceback is in the .err file")
    assert "ValueError: nobody expected this" in Path("logs/x.err").read_text()
    assert not Path(PID).exists()


def test_a_boot_that_kills_the_process(start: Start) -> None:
    done = start(dies=True)
    assert (done.returncode, done.stderr) == (1, "The server ended before it took mail; logs/x.err may tell why\n")
    assert "was left behind" in told(start()), "its pid file is known to be stale"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed_are_no_obstacle(start: Start, closed: str) -> None:
    terms = json.dumps({"pid": PID, "output": "logs/x.err"})
    assert subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(PROGRAM), terms, "{}"]).returncode == 0
    assert "Stopped process" in process.stop(PID)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_who_may_not_write_the_pid_file(start: Start) -> None:
    assert "The user 65534 cannot write run/x.pid. The server's user must own that directory" in start({"uid": 65534, "gid": 65534}).stderr


def test_a_directory_that_is_not_there(start: Start) -> None:
    done = start({"chdir": "nowhere"})
    assert done.returncode == 1
    assert "Cannot become a daemon" in done.stderr
    assert "nowhere" in done.stderr


# -- pid files


def test_a_second_start(start: Start) -> None:
    pid = pid_in(told(start()))
    done = start()
    assert (done.returncode, done.stderr) == (1, f"A server runs: process {pid} ({PID}). Stop it first: lamson stop -pid {PID}\n")
    assert process.PidFile(PID).holder() == process.Holder(PID, pid, True, process.program_of(pid)), "the first is unharmed"


def test_a_second_start_with_force_takes_its_place(start: Start) -> None:
    first = pid_in(told(start()))
    second = told(start({"force": True}))
    assert f"Stopped process {first}" in second
    assert int(Path(PID).read_text()) != first
    wait_for(lambda: is_gone(first))


def test_a_mistake_in_the_new_settings_does_not_cost_the_server_that_runs(start: Start) -> None:
    ready = told(start())
    Path("broken").touch()
    assert start({"force": True}).stderr == "it is broken. Mend it\n"
    assert ask(address_in(ready)) == pid_in(ready)


def test_a_file_left_behind_is_said_and_no_obstacle(start: Start) -> None:
    Path(PID).write_text(f"{pid_of_nobody()}\n")
    ready = told(start())
    assert ready.startswith(f"{PID} was left behind by process {pid_of_nobody()}, which is gone; removed it.\nMail is taken")


def test_a_number_that_is_another_program_now(start: Start) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        Path(PID).write_text(f"{other.pid}\n")
        assert f"names process {other.pid}, which is another program by now (sleep); removed it." in told(start())
        process.stop(PID)
        Path(PID).write_text(f"{other.pid}\n")
        assert process.stop(PID) == f"{PID} names process {other.pid}, which is another program by now (sleep); removed it."
        assert other.poll() is None, "it was not touched"
        other.kill()
    assert not Path(PID).exists()


def test_stopping_after_kill_9(start: Start) -> None:
    pid = pid_in(told(start()))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: (holder := process.PidFile(PID).holder()) and not holder.running)
    assert process.stop(PID) == f"{PID} was left behind by process {pid}, which is gone; removed it."


def test_stopping_where_nothing_runs(run_folder: Path) -> None:
    with pytest.raises(ProcessError, match=f"No server runs here: there is no {PID}. Name its pid file: -pid FILE"):
        process.stop(PID)


@pytest.mark.parametrize("text", ["", "abc\n", "-1\n", "12 34\n", "\xff"])
def test_a_file_that_is_no_pid_file_is_left_alone(run_folder: Path, text: str) -> None:
    Path(PID).write_text(text, "latin-1")
    for attempt in (process.stop, process.check_for_pid):
        with pytest.raises(ProcessError, match="is no pid file"):
            attempt(PID)
    assert Path(PID).read_text("latin-1") == text


def test_a_huge_number_is_nobody(run_folder: Path) -> None:
    Path(PID).write_text("9" * 60)
    assert process.check_for_pid(PID) == f"{PID} was left behind by process {'9' * 60}, which is gone; removed it."


def test_a_server_that_is_just_writing_its_number_is_waited_for(run_folder: Path) -> None:
    with open(PID, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ProcessError, match="is no pid file"):
            process.PidFile(PID).holder()


def test_check_for_pid_without_a_file(run_folder: Path) -> None:
    assert process.check_for_pid(PID) is None


def pid_of_nobody() -> int:
    """The largest number that no process has."""
    return int(Path("/proc/sys/kernel/pid_max").read_text()) if Path("/proc/sys").exists() else 99998


# -- workers


def test_workers_answer_on_one_port_and_end_together(start: Start) -> None:
    ready = told(start({"workers": 2}))
    assert "with 2 workers" in ready
    workers = wait_for(lambda: both_workers(ready))
    assert pid_in(ready) not in workers
    process.stop(PID)
    assert all(map(is_gone, workers))
    assert not Path(PID).exists()


def test_a_worker_that_dies_is_replaced(start: Start) -> None:
    ready = told(start({"workers": 2}))
    victim = ask(address_in(ready))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len({ask(address_in(ready)) for _ in range(20)} - {victim}) == 2)
    assert f"Worker {victim} died with status -9" in Path("logs/x.err").read_text()


@several_cores
def test_each_process_keeps_to_a_core_of_its_own(start: Start) -> None:
    assert len(os.sched_getaffinity(pid_in(told(start())))) == 1
    process.stop(PID)
    ready = told(start({"workers": 2}))
    workers = wait_for(lambda: both_workers(ready))
    cores = [os.sched_getaffinity(worker) for worker in workers]
    assert [len(core) for core in cores] == [1, 1]
    assert cores[0] != cores[1]
    assert os.sched_getaffinity(pid_in(ready)) == os.sched_getaffinity(0), "who only watches the workers may run anywhere"


def test_where_a_sandbox_forbids_it_a_process_runs_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden, raising=False)
    process.keep_to_one_core(0)


@several_cores
def test_a_workers_successor_has_its_core(start: Start) -> None:
    ready = told(start({"workers": 2}))
    workers = wait_for(lambda: both_workers(ready))
    cores = {worker: os.sched_getaffinity(worker) for worker in workers}
    victim = min(workers)
    os.kill(victim, signal.SIGKILL)
    now = wait_for(lambda: seen if (seen := both_workers(ready)) and victim not in seen else None)
    (successor,) = now - workers
    assert os.sched_getaffinity(successor) == cores[victim]


@several_cores
def test_threads_may_be_spread_over_all_cores(start: Start) -> None:
    assert os.sched_getaffinity(pid_in(told(start({"spread": True})))) == os.sched_getaffinity(0)


def test_workers_end_with_the_process_that_started_them(start: Start) -> None:
    ready = told(start({"workers": 2}))
    workers = wait_for(lambda: both_workers(ready))
    os.kill(pid_in(ready), signal.SIGKILL)
    wait_for(lambda: all(map(is_gone, workers)))
    assert "the end of the server's first process" in Path("logs/x.err").read_text()


def test_kill_ends_the_workers_too(start: Start) -> None:
    ready = told(start({"workers": 2}, drains_until="go"))
    workers = wait_for(lambda: both_workers(ready))
    process.stop(PID, kill=True)
    wait_for(lambda: all(map(is_gone, workers)))


def test_a_second_start_while_workers_of_a_killed_server_end(start: Start) -> None:
    ready = told(start({"workers": 2}, drains_until="go"))
    os.kill(pid_in(ready), signal.SIGKILL)
    assert "A server runs" in start().stderr
    Path("go").touch()
    process.stop(PID)
    told(start())


def test_a_worker_that_cannot_start_is_told(start: Start) -> None:
    done = start({"workers": 2}, raises=True)
    assert (done.returncode, done.stderr) == (1, "config/settings.py, line 3: wrong. Put it right\n")
    assert not Path(PID).exists()


def test_no_process_for_a_successor_is_no_end_for_the_others(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ending: process.Ending = SimpleQueue()
    crew = process.Crew(1, lambda tell, number: None, ending)
    forks = 0

    def fork() -> int:
        nonlocal forks
        forks += 1
        if forks == 3:
            ending.put("the test")
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(process, "FIRST_PAUSE", 0.01)
    open_before = len(os.listdir("/proc/self/fd"))
    crew._tend()
    assert forks == 3
    assert "cannot be started: Resource temporarily unavailable. The next attempt comes in 0.02 s." in caplog.text
    assert len(os.listdir("/proc/self/fd")) == open_before
    os.close(crew._life)
    os.close(crew._hold)


def test_sockets_that_nobody_wanted_are_closed_for_successors_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as wanted, socket.create_server(("127.0.0.1", 0)) as unwanted:
        sockets = {("127.0.0.1", 1): wanted, ("127.0.0.1", 2): unwanted}
        for _ in range(2):  # in the first process, then in the successor that it forks
            process.close_unused(sockets, ":".join(map(str, wanted.getsockname())))
            assert (wanted.fileno() >= 0, unwanted.fileno()) == (True, -1)


def both_workers(ready: str) -> set[int] | None:
    seen = {ask(address_in(ready)) for _ in range(20)}
    return seen if len(seen) == 2 else None


# -- who it is


def test_only_root_becomes_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in ("setuid", "setgid", "setgroups", "initgroups"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(ProcessError, match="Only root may become another user"):
        process.drop_priv(12345, 12345)


def test_nobody_named_is_nobody_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setuid", lambda _: pytest.fail("it changed the user"))
    process.drop_priv(None, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_server_becomes_another_user(start: Start, run_folder: Path) -> None:
    for folder in (run_folder, run_folder / "run", run_folder / "logs"):
        os.chown(folder, 65534, 65534)
    above = run_folder.parent
    while above.stat().st_mode & 0o001 == 0:  # pytest's own folders are closed to others
        above.chmod(above.stat().st_mode | 0o011)
        above = above.parent
    pid = pid_in(told(start({"uid": 65534, "gid": 65534})))
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.MULTILINE)
    assert re.search(r"^Gid:\s+65534\s+65534\s+65534\s+65534$", status, re.MULTILINE)
    assert re.search(r"^Groups:\s+65534\s*$", status, re.MULTILINE)
    assert Path(PID).stat().st_uid == 65534
