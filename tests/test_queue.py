"""The queue: what is on disk and in which order, who gets which message, and what a failing disk leaves."""

from __future__ import annotations

import errno
import json
import mailbox
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamson import queue as queue_module
from lamson.delivery import Delivery
from lamson.errors import QueueError
from lamson.mail import MailRequest, MailResponse
from lamson.queue import HeldPush, Queue, SafeMaildir
from lamson.state import MemoryStorage

MAIL = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: Hello\r\n\r\nBody\r\n"

#: Processes that share nothing with this one but the disk.
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def waiting(tmp_path: Path) -> Queue:
    return Queue(str(tmp_path / "run" / "queue"))


def request(data: bytes = MAIL, to: Any = "b@example.com") -> MailRequest:
    return MailRequest("127.0.0.1", "Bounce+1@example.com", to, data)


def files(queue: Queue, *directories: str) -> list[str]:
    return sorted(f"{name}/{each}" for name in directories for each in os.listdir(f"{queue.queue_dir}/{name}"))


ALL = ("tmp", "new", "cur", "envelopes")


# -- in and out


def test_a_message_comes_out_as_it_went_in(waiting: Queue) -> None:
    key = waiting.push(MAIL)
    found, message = waiting.pop()
    assert found == key
    assert message is not None
    assert bytes(message) == MAIL
    assert message.raw == MAIL
    assert waiting.pop() == (None, None)


@pytest.mark.parametrize("data", [b"", b"no headers", b"\0\xff\r\r\n\n", b"Subject: x\n\nLF only\n", b"\xff" * 10_000])
def test_the_file_is_exactly_the_bytes(waiting: Queue, data: bytes) -> None:
    key = waiting.push(data)
    assert Path(waiting.queue_dir, "new", key).read_bytes() == data
    _, message = waiting.pop()
    assert message is not None
    assert message.raw == data


def test_what_may_be_pushed(waiting: Queue) -> None:
    answer = MailResponse(To="b@example.com", From="a@example.com", Subject="Hi", Body="x")
    for each in (MAIL, bytearray(MAIL), MAIL.decode(), request(), answer):
        assert waiting.get(waiting.push(each)) is not None
    for wrong in (None, 5, ["x"]):
        with pytest.raises(TypeError, match="takes a MailRequest"):
            waiting.push(wrong)
    assert len(waiting) == 5


def test_text_is_utf_8_and_bytes_in_it_survive(waiting: Queue) -> None:
    assert Path(waiting.queue_dir, "new", waiting.push("Ünï\udcff")).read_bytes() == "Ünï".encode() + b"\xff"


def test_first_in_first_out(waiting: Queue) -> None:
    keys = [waiting.push(b"%d" % number) for number in range(50)]
    assert keys == sorted(keys) == waiting.keys()
    assert [waiting.pop()[0] for _ in range(50)] == keys


def test_keys_are_in_order_though_the_clock_is_set_back(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    first = waiting.push(MAIL)
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    assert first < waiting.push(MAIL) < waiting.push(MAIL)


def test_keys_of_threads_differ(waiting: Queue) -> None:
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.extend(waiting.push(MAIL) for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 400 == waiting.count()


def test_a_key_is_what_maildir_readers_expect(waiting: Queue) -> None:
    assert re.fullmatch(r"\d{10}\.N\d{9}R[0-9a-f]{12}\.[^/:]+", waiting.push(MAIL))


def test_safe_keys_do_not_tell_the_host(tmp_path: Path) -> None:
    host = os.uname().nodename
    assert host in Queue(str(tmp_path / "open")).push(MAIL)
    assert host not in Queue(str(tmp_path / "safe"), safe=True).push(MAIL)
    assert host not in SafeMaildir(str(tmp_path / "old")).push(MAIL)


def test_what_arrives_between_pops_is_found(waiting: Queue) -> None:
    waiting.push(b"1")
    waiting.push(b"2")
    assert waiting.pop()[1] is not None
    waiting.push(b"3")
    assert [message.raw for _, message in (waiting.pop(), waiting.pop()) if message] == [b"2", b"3"]


def test_get_keys_count_remove_clear(waiting: Queue) -> None:
    first, second, third = (waiting.push(each) for each in (b"1", b"2", b"3"))
    assert waiting.keys() == [first, second, third]
    assert waiting.count() == len(waiting) == 3
    message = waiting.get(second)
    assert message is not None
    assert message.raw == b"2"
    waiting.remove(second)
    assert waiting.get(second) is None
    assert waiting.keys() == [first, third]
    waiting.clear()
    assert waiting.count() == 0
    assert files(waiting, *ALL) == []


def test_an_empty_queue_is_true(waiting: Queue) -> None:
    assert len(waiting) == 0
    assert waiting


@pytest.mark.parametrize(
    "key", ["nothing", "", ".", "..", "../new/x", "/etc/passwd", "a/b", "a\0b", "a:2,S", "x" * 300, "\ud800", "😀" * 200, "%2e%2e"]
)
def test_a_key_that_is_none(waiting: Queue, key: str) -> None:
    waiting.push(MAIL)
    assert waiting.get(key) is None
    assert waiting.envelope(key) is None
    with pytest.raises(QueueError, match="There is no message"):
        waiting.remove(key)
    with pytest.raises(QueueError, match="There is no message"):
        waiting.oversize(key)
    assert waiting.count() == 1


def test_a_key_never_leaves_the_queue(waiting: Queue, tmp_path: Path) -> None:
    outside = tmp_path / "run" / "outside"
    outside.write_text("x")
    assert waiting.get("../../outside") is None
    with pytest.raises(QueueError):
        waiting.remove("../../outside")
    assert outside.exists()


def test_the_directories_are_made_and_private(tmp_path: Path) -> None:
    made = Queue(tmp_path / "a" / "b" / "queue")
    for name in ALL:
        assert os.stat(f"{made.queue_dir}/{name}").st_mode & 0o077 == 0
    assert os.stat(f"{made.queue_dir}/new/{made.push(MAIL)}").st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match=r"The queue .*file/queue cannot be made: Not a directory; move the file") as raised:
        Queue(str(tmp_path / "file" / "queue"))
    assert isinstance(raised.value.__cause__, OSError)


# -- the envelope


def test_the_envelope_comes_back(waiting: Queue) -> None:
    key = waiting.push(request(to=["B@example.com", "c@example.com"]), reason="nobody took it")
    expected = {
        "mail_from": "Bounce+1@example.com",
        "rcpt_tos": ["B@example.com", "c@example.com"],
        "peer": "127.0.0.1",
        "reason": "nobody took it",
        "delivery": None,
    }
    assert waiting.envelope(key) == expected
    assert json.loads(Path(waiting.queue_dir, "envelopes", f"{key}.json").read_text()) == expected
    _, message = waiting.pop()
    assert message is not None
    assert (message.Peer, message.From, message.To) == ("127.0.0.1", "Bounce+1@example.com", ["B@example.com", "c@example.com"])
    assert files(waiting, *ALL) == []


def test_the_envelope_holds_this_deliverys_recipient_alone(waiting: Queue) -> None:
    message = request(to=["b@example.com", "c@example.com"])
    message.recipient = "c@example.com"
    with Delivery(MemoryStorage(), recipient="c@example.com"):
        key = waiting.push(message)
        other = waiting.push(request(to=["x@example.com", "y@example.com"]))
    assert [(waiting.envelope(each) or {})["rcpt_tos"] for each in (key, other)] == [["c@example.com"], ["x@example.com", "y@example.com"]]


def test_what_is_given_wins_over_the_requests_own(waiting: Queue) -> None:
    key = waiting.push(request(), mail_from="", rcpt_tos=["x@example.com"], peer="10.0.0.1")
    found = waiting.get(key)
    assert found is not None
    assert (found.Peer, found.From, found.To) == ("10.0.0.1", "", ["x@example.com"])


def test_without_an_envelope_the_headers_serve(waiting: Queue) -> None:
    key = waiting.push(MAIL)
    assert files(waiting, "envelopes") == []
    assert waiting.envelope(key) is None
    message = waiting.get(key)
    assert message is not None
    assert message.route_to == ["b@example.com"]
    assert message.route_from == "a@example.com"


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_damaged_envelope_loses_no_message(waiting: Queue, damage: bytes) -> None:
    key = waiting.push(request())
    Path(waiting.queue_dir, "envelopes", f"{key}.json").write_bytes(damage)
    _, message = waiting.pop()
    assert message is not None
    assert message.route_to == ["b@example.com"]


def test_addresses_of_any_bytes(waiting: Queue) -> None:
    strange = "\udcff\0\n😀@example.com"
    key = waiting.push(request(), mail_from=strange, rcpt_tos=[strange], reason=strange)
    assert waiting.envelope(key) == {"mail_from": strange, "rcpt_tos": [strange], "peer": "127.0.0.1", "reason": strange, "delivery": None}


# -- a Maildir among others


def test_the_standard_library_reads_it(waiting: Queue) -> None:
    key = waiting.push(request())
    with_flags = mailbox.Maildir(waiting.queue_dir, create=False)
    assert with_flags.keys() == [key]
    assert with_flags[key]["subject"] == "Hello"


def test_a_mail_readers_flags_leave_the_key_valid(waiting: Queue) -> None:
    key = waiting.push(request())
    os.rename(f"{waiting.queue_dir}/new/{key}", f"{waiting.queue_dir}/cur/{key}:2,S")
    assert waiting.keys() == [key]
    message = waiting.get(key)
    assert message is not None
    assert message.From == "Bounce+1@example.com"
    assert waiting.pop()[0] == key
    assert files(waiting, *ALL) == []


def test_a_message_that_is_moved_while_claimed_is_removed_all_the_same(waiting: Queue) -> None:
    key = waiting.push(request())
    claim = waiting.claim()
    assert claim is not None
    os.rename(f"{waiting.queue_dir}/new/{key}", f"{waiting.queue_dir}/cur/{key}:2,S")
    with claim:
        claim.remove()
    assert files(waiting, *ALL) == []


def test_files_of_others_are_read(waiting: Queue) -> None:
    Path(waiting.queue_dir, "new", "1000000000.procmail.host").write_bytes(b"To: b@example.com\nSubject: LF\n\nbody\n")
    Path(waiting.queue_dir, "new", "1000000001.other:2,").write_bytes(MAIL)
    Path(waiting.queue_dir, "new", ".hidden").write_bytes(b"not mail")
    Path(waiting.queue_dir, "new", "directory").mkdir()
    os.symlink("/etc/hostname", f"{waiting.queue_dir}/new/link")
    assert waiting.keys() == ["1000000000.procmail.host", "1000000001.other"]
    first, message = waiting.pop()
    assert message is not None
    assert (first, message["subject"]) == ("1000000000.procmail.host", "LF")
    assert waiting.pop()[0] == "1000000001.other"
    assert waiting.pop() == (None, None)


@pytest.mark.program("mutt")
def test_mutt_reads_it(waiting: Queue, tmp_path: Path) -> None:
    key = waiting.push(request())
    commands = "<tag-pattern>~s Hello<enter><tag-prefix><pipe-message>cat > seen<enter><sync-mailbox><quit>"
    muttrc = f"set mbox_type=Maildir\nset quit=yes\nset wait_key=no\nset mark_old=yes\npush '{commands}'\n"
    (tmp_path / "muttrc").write_text(muttrc)
    run_in_terminal(["mutt", "-F", str(tmp_path / "muttrc"), "-f", waiting.queue_dir], tmp_path)
    seen = (tmp_path / "seen").read_bytes()
    assert b"Subject: Hello" in seen
    assert waiting.keys() == [key]
    assert waiting.get(key) is not None


def run_in_terminal(command: list[str], cwd: Path) -> None:
    """Runs a program that wants a terminal, to its end."""
    environment = {**os.environ, "TERM": "xterm", "HOME": str(cwd)}
    program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    subprocess.run([sys.executable, "-c", program, *command], cwd=cwd, env=environment, timeout=30, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)  # fmt: skip


# -- who gets it


def test_a_claimed_message_goes_to_nobody_else(waiting: Queue) -> None:
    key = waiting.push(MAIL)
    claim = waiting.claim()
    assert claim is not None
    assert waiting.claim() is None
    assert Queue(waiting.queue_dir).pop() == (None, None)
    assert waiting.keys() == [key]
    claim.release()
    with waiting.claim() or pytest.fail("given back, it can be claimed") as again:
        assert again.key == key
        again.remove()
    assert waiting.keys() == []


def test_a_claim_that_ends_by_an_error_is_given_back(waiting: Queue) -> None:
    waiting.push(MAIL)
    claim = waiting.claim()
    assert claim is not None
    with pytest.raises(ZeroDivisionError), claim:
        1 / 0  # noqa: B018
    assert waiting.pop()[1] is not None


def test_one_is_claimed_while_the_next_is_taken(waiting: Queue) -> None:
    first, second = waiting.push(b"1"), waiting.push(b"2")
    claim = waiting.claim()
    assert claim is not None
    with claim:
        assert claim.key == first
        assert waiting.pop()[0] == second
        assert waiting.pop() == (None, None)


def test_a_hard_link_made_by_a_backup_brings_nothing_back(waiting: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = waiting.push(MAIL)
    path = f"{waiting.queue_dir}/new/{key}"
    os.link(path, tmp_path / "backup")
    real = queue_module.fcntl.flock
    late = Queue(waiting.queue_dir)

    def taken_out_meanwhile(file: Any, how: int) -> None:
        monkeypatch.setattr(queue_module.fcntl, "flock", real)
        assert waiting.pop()[0] == key  # after `late` has opened it
        real(file, how)

    monkeypatch.setattr(queue_module.fcntl, "flock", taken_out_meanwhile)
    assert late.pop() == (None, None)


def pop_all(queue_dir: str, start: Any, results: Any) -> None:
    queue = Queue(queue_dir)
    start.wait()
    popped = []
    while (taken := queue.pop())[0] is not None:
        popped.append(taken[0])
    results.put(popped)


def test_two_processes_pop_each_message_once(waiting: Queue) -> None:
    keys = [waiting.push(b"%d" % number) for number in range(2000)]
    start, results = SPAWN.Event(), SPAWN.Queue()
    workers = [SPAWN.Process(target=pop_all, args=(waiting.queue_dir, start, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    popped = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    results.close()
    results.join_thread()
    assert sorted(popped[0] + popped[1]) == keys
    assert waiting.count() == 0


def test_eight_threads_pop_each_message_once(waiting: Queue) -> None:
    keys = [waiting.push(b"%d" % number) for number in range(500)]
    popped: list[str] = []

    def work() -> None:
        while (key := waiting.pop()[0]) is not None:
            popped.append(key)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped) == keys


HOLD = """
import sys
from lamson.queue import Queue
claim = Queue(sys.argv[1]).claim()
print(claim.key, flush=True)
sys.stdin.read()
"""


def test_a_message_whose_taker_is_killed_is_found_again(waiting: Queue) -> None:
    key = waiting.push(request())
    with subprocess.Popen([sys.executable, "-c", HOLD, waiting.queue_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline().decode().strip() == key
        assert waiting.pop() == (None, None)
        taker.send_signal(signal.SIGKILL)
        taker.wait()
    found, message = waiting.pop()
    assert found == key
    assert message is not None
    assert message.From == "Bounce+1@example.com"


def test_popping_is_linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted and not timed: the directory is listed once for many messages."""
    listings = count_calls(monkeypatch, "scandir")
    queue = Queue(str(tmp_path / "queue"))
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    for number in range(1000):
        queue.push(b"%d" % number)
    assert listings() == 0
    while queue.pop()[0] is not None:
        pass
    assert listings() == 4  # new/ and cur/, at the beginning and at the end


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[], int]:
    real, calls = getattr(os, name), []

    def counted(*args: Any, **keywords: Any) -> Any:
        calls.append(args)
        return real(*args, **keywords)

    monkeypatch.setattr(os, name, counted)
    return lambda: len(calls)


# -- too large


def test_what_is_too_large_is_moved_away(tmp_path: Path, waiting: Queue) -> None:
    large = Queue(waiting.queue_dir, pop_limit=100, oversize_dir=str(tmp_path / "large"))
    big, small = waiting.push(request(MAIL * 10)), waiting.push(b"small")
    assert large.pop()[0] == small
    assert large.pop() == (None, None)
    moved = Queue(str(tmp_path / "large"))
    assert moved.keys() == [big]
    message = moved.get(big)
    assert message is not None
    assert (message.raw, message.From) == (MAIL * 10, "Bounce+1@example.com")
    assert files(waiting, *ALL) == []


def test_what_is_too_large_stays_when_there_is_nowhere_to_move_it(waiting: Queue, caplog: pytest.LogCaptureFixture) -> None:
    small_only = Queue(waiting.queue_dir, pop_limit=100)
    big = waiting.push(MAIL * 10)
    assert small_only.pop() == (None, None)
    assert "over 100 bytes and stays there" in caplog.text
    assert waiting.keys() == [big]
    with pytest.raises(QueueError, match="has no oversize_dir"):
        small_only.oversize(big)


def test_oversize_moves_on_demand(tmp_path: Path, waiting: Queue) -> None:
    queue = Queue(waiting.queue_dir, oversize_dir=str(tmp_path / "large"))
    key = queue.push(MAIL)
    os.rename(f"{queue.queue_dir}/new/{key}", f"{queue.queue_dir}/cur/{key}:2,S")
    queue.oversize(key)
    assert Queue(str(tmp_path / "large")).keys() == [key]


# -- in a delivery


class Broken(Exception):
    pass


def test_in_a_delivery_a_push_is_seen_after_the_commit(waiting: Queue) -> None:
    with Delivery(MemoryStorage()) as delivery:
        key = waiting.push(request())
        assert waiting.keys() == []
        assert Queue(waiting.queue_dir).pop() == (None, None)
        mine = waiting.get(key)
        assert mine is not None
        assert mine.From == "Bounce+1@example.com"
        assert Queue(f"{waiting.queue_dir}/other").get(key) is None
    assert waiting.keys() == [key]
    found = waiting.envelope(key)
    assert found is not None
    assert found["delivery"] == delivery.id


def in_a_delivery_that_fails(do: Callable[[], object]) -> None:
    with Delivery(MemoryStorage()):
        do()
        raise Broken


def test_a_delivery_that_fails_leaves_nothing(waiting: Queue) -> None:
    with pytest.raises(Broken):
        in_a_delivery_that_fails(lambda: [waiting.push(request()), waiting.push(request())])
    assert files(waiting, *ALL) == []


def test_removing_ones_own_push(waiting: Queue) -> None:
    with Delivery(MemoryStorage()):
        key = waiting.push(request())
        waiting.remove(key)
        assert waiting.get(key) is None
    assert files(waiting, *ALL) == []


def test_in_a_delivery_a_removal_waits_for_the_commit(waiting: Queue) -> None:
    key = waiting.push(MAIL)
    with pytest.raises(Broken):
        in_a_delivery_that_fails(lambda: waiting.remove(key))
    assert waiting.keys() == [key]
    with Delivery(MemoryStorage()) as delivery:
        waiting.remove(key)
        assert waiting.keys() == [key]
    delivery.call_after_commit()
    assert waiting.keys() == []


def test_finishing_and_undoing_do_no_harm_twice(waiting: Queue) -> None:
    with Delivery(MemoryStorage()) as delivery:
        key = waiting.push(request())
        (held,) = delivery.pushes
        delivery.pushes.clear()
    assert files(waiting, *ALL) == [f"envelopes/{key}.json", f"tmp/{key}"]  # as after a crash
    HeldPush(held.queue_dir, held.key).finish()
    HeldPush(held.queue_dir, held.key).finish()
    assert waiting.pop()[0] == key
    HeldPush(held.queue_dir, held.key).finish()
    HeldPush(held.queue_dir, held.key).undo()
    HeldPush(held.queue_dir, held.key).undo()
    assert files(waiting, *ALL) == []


def test_finishing_where_the_queue_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match=r"could not be moved from tmp/ to new/ .*; create the directory again"):
        HeldPush(str(tmp_path / "gone"), "key").finish()


# -- a disk that fails


class FailingDisk:
    """Counts calls of one function of `os` and has the n-th fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: int) -> None:
        self.calls = 0
        real = getattr(os, name)

        def maybe(*args: Any, **keywords: Any) -> Any:
            self.calls += 1
            if self.calls == nth:
                raise OSError(error, os.strerror(error))
            return real(*args, **keywords)

        monkeypatch.setattr(os, name, maybe)


CALLS = {"open": 4, "write": 2, "fsync": 4, "rename": 1, "close": 4}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize(("name", "nth"), [(name, nth) for name, times in CALLS.items() if name != "close" for nth in range(1, times + 1)])
def test_a_push_that_the_disk_refuses_leaves_nothing(
    waiting: Queue, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: int
) -> None:
    message = request()
    with monkeypatch.context() as patched:
        disk = FailingDisk(patched, name, nth, error)
        with pytest.raises(QueueError, match=f"could not be pushed into .*queue: {os.strerror(error)}; ") as raised:
            waiting.push(message)
    assert disk.calls == nth
    assert raised.value.data is message
    assert isinstance(raised.value.__cause__, OSError)
    assert files(waiting, *ALL) == []
    assert waiting.push(message)  # and goes on when the disk does


CALLS_IN_A_DELIVERY = [("open", 4), ("write", 2), ("fsync", 4)]  # to tmp/ and its directory, to envelopes/ and its directory


@pytest.mark.parametrize(("name", "nth"), [(name, nth) for name, times in CALLS_IN_A_DELIVERY for nth in range(1, times + 1)])
def test_a_push_in_a_delivery_that_the_disk_refuses_leaves_nothing(
    waiting: Queue, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    with monkeypatch.context() as patched:
        FailingDisk(patched, name, nth, errno.ENOSPC)
        with Delivery(MemoryStorage()) as delivery:
            with pytest.raises(QueueError, match="make room on that disk"):
                waiting.push(request())
            assert delivery.pushes == []
            assert files(waiting, *ALL) == []


def test_the_table_of_calls_is_what_a_push_does(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {name: count_calls(monkeypatch, name) for name in CALLS}
    waiting.push(request())
    assert {name: count() for name, count in counts.items()} == CALLS


def test_a_short_write_is_gone_on_with(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    assert Path(waiting.queue_dir, "new", waiting.push(request())).read_bytes() == MAIL


def test_a_rename_that_fails_in_the_commit_can_be_tried_again(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    with Delivery(MemoryStorage()) as delivery:
        key = waiting.push(request())
        (held,) = delivery.pushes
        delivery.pushes.clear()
    with monkeypatch.context() as patched:
        FailingDisk(patched, "rename", 1, errno.EIO)
        with pytest.raises(QueueError, match="could not be moved from tmp/ to new/"):
            held.finish()
    held.finish()
    assert waiting.keys() == [key]


def test_what_cannot_be_read_stays_and_the_next_is_taken(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = waiting.push(b"1"), waiting.push(b"2")
    real = queue_module.fcntl.flock

    def broken_first(file: Any, how: int) -> None:
        if file.name.endswith(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(file, how)

    with monkeypatch.context() as patched:
        patched.setattr(queue_module.fcntl, "flock", broken_first)
        with pytest.raises(QueueError, match=f"{bad} in .* cannot be read: Input/output error; look at that disk"):
            waiting.pop()
        assert waiting.pop()[0] == good
    assert waiting.keys() == [bad]
    assert waiting.pop()[0] == bad


def test_a_queue_that_is_gone_is_a_sentence(waiting: Queue) -> None:
    for name in ALL:
        os.rmdir(f"{waiting.queue_dir}/{name}")
    for ask in (waiting.keys, waiting.pop, waiting.count, waiting.clear, lambda: waiting.push(MAIL)):
        with pytest.raises(QueueError, match="No such file or directory; create the directory again, or restart"):
            ask()


def test_an_undo_that_the_disk_refuses_is_logged(waiting: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unwilling)
        with pytest.raises(Broken):
            in_a_delivery_that_fails(lambda: waiting.push(MAIL))
    (key,) = os.listdir(f"{waiting.queue_dir}/tmp")
    assert f"{key} of a push that failed stays in" in caplog.text
    assert waiting.keys() == []


def unwilling(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_removal_that_the_disk_refuses(waiting: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    key = waiting.push(MAIL)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unwilling)
        with pytest.raises(QueueError, match=r"could not be removed from .*; mount it for writing"):
            waiting.pop()
    assert waiting.pop()[0] == key


# -- order on disk

PUSH = """
import sys
from lamson.queue import Queue
from lamson.mail import MailRequest
queue = Queue(sys.argv[1])
queue.push(MailRequest("127.0.0.1", "a@example.com", "b@example.com", b"Subject: x\\r\\n\\r\\nthe body\\r\\n"))
"""


@pytest.fixture
def trace_of_push(waiting: Queue, tmp_path: Path, need_program: Callable[[str], str]) -> list[str]:
    out = tmp_path / "trace"
    calls = "trace=openat,write,fsync,rename"
    command = [need_program("strace"), "-f", "-y", "-o", str(out), "-e", calls, sys.executable, "-c", PUSH, waiting.queue_dir]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()[:200]}")
    return [line for line in out.read_text().splitlines() if waiting.queue_dir in line]


def test_order_on_disk(trace_of_push: list[str]) -> None:
    """Write, fsync, rename, fsync of the directory; the envelope is synced before the rename."""
    steps = [step for line in trace_of_push for step in [what_it_does(line)] if step]
    assert steps == [
        "write tmp/KEY",
        "fsync tmp/KEY",
        "write envelopes/KEY.json",
        "fsync envelopes/KEY.json",
        "fsync envelopes",
        "rename tmp/KEY new/KEY",
        "fsync new",
    ]


def what_it_does(line: str) -> str:
    name = re.search(r"\b(write|fsync|rename)\(", line)
    if name is None:
        return ""
    paths = re.findall(r"queue/((?:tmp|new|envelopes)(?:/[^\">]*)?)", line)
    return " ".join([name[1], *(re.sub(r"\d{10}\.N[^\s]*?(?=\.json$|$)", "KEY", path) for path in paths)])
