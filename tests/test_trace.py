"""The log: each line with its delivery, and a file and a terminal that no thread waits for."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.config
import multiprocessing
import os
import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from lamson import trace
from lamson.trace import DeliveryFormatter, LogFile, Terminal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lamson.log"


@pytest.fixture
def handler(file: Path) -> Iterator[LogFile]:
    handler = LogFile(file)
    handler.setFormatter(DeliveryFormatter("%(delivery)s %(message)s"))
    yield handler
    handler.close()


@pytest.fixture
def log(handler: LogFile) -> logging.Logger:
    log = logging.Logger("a log of the test's own", logging.INFO)
    log.addHandler(handler)
    return log


def test_no_id_comes_again_where_an_application_seeds_its_chance() -> None:
    """Messages of the outbox are named by them: one that came again would not be committed while the first still waits."""
    random.seed(1)
    first = trace.new_id()
    random.seed(1)
    assert trace.new_id() != first


def test_a_child_process_has_ids_of_its_own() -> None:
    receive, send = os.pipe()
    if os.fork() == 0:
        os.write(send, trace.new_id().encode())
        os._exit(0)
    os.wait()
    here, there = trace.new_id(), os.read(receive, 100).decode()
    os.close(receive)
    os.close(send)
    assert len(there) == len(here) == 12
    assert there != here


@pytest.mark.parametrize("digits", [1, 7, 12, 24])
def test_an_id_has_the_digits_that_it_should(digits: int) -> None:
    ids = [trace.new_id(digits) for _ in range(100)]
    assert all(len(id) == digits and set(id) <= set("0123456789abcdef") for id in ids)
    assert {id[0] for id in ids} - {"0"}
    assert {id[-1] for id in ids} - {"0"}


def test_a_line_carries_its_deliverys_id(log: logging.Logger, file: Path) -> None:
    log.info("before")
    before = trace.CURRENT.set(SimpleNamespace(id="3f9c"))
    log.info("within, %s", "ü")
    trace.CURRENT.reset(before)
    log.info("after")
    assert file.read_text("utf-8") == "- before\n3f9c within, ü\n- after\n"


def test_a_line_that_is_no_unicode_is_written_all_the_same(log: logging.Logger, file: Path) -> None:
    log.info("from %s", "\udce9\ud800")
    assert file.read_text("utf-8") == "- from \\udce9\\ud800\n"


@pytest.mark.parametrize("datefmt", [None, "%H:%M"])
def test_the_time_of_each_line_is_as_in_other_logs(datefmt: str | None) -> None:
    ours, others = DeliveryFormatter("%(asctime)s", datefmt), logging.Formatter("%(asctime)s", datefmt)
    for created in (1_000_000_000.25, 1_000_000_000.75, 1_000_000_001.0, 1_000_003_600.5, 1_000_000_000.0):
        record = logging.makeLogRecord({"msg": "", "created": created, "msecs": created % 1 * 1000})
        assert ours.format(record) == others.format(record)


class Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def records_of(log: logging.Logger, say: Callable[[logging.Logger], None]) -> list[logging.LogRecord]:
    handler = Keeping()
    log.handlers, log.level, log.propagate = [handler], logging.INFO, False
    say(log)
    return handler.records


def test_our_loggers_records_are_those_of_logging_but_for_the_place_in_the_source() -> None:
    def say(log: logging.Logger) -> None:
        log.info("%s and %d", "one", 2)
        log.warning("nothing to fill in")
        log.error("%(name)s", {"name": "named"})
        log.info("more", extra={"more": 1})
        log.debug("not this")
        try:
            raise ValueError("why")
        except ValueError:
            log.exception("it failed")

    ours, others = records_of(trace.logger("lamson.a_test"), say), records_of(logging.Logger("lamson.a_test"), say)
    place = {"pathname", "filename", "module", "lineno", "funcName"}
    moment = {"created", "msecs", "relativeCreated", "exc_info"}
    assert len(ours) == len(others) == 5
    for one, other in zip(ours, others, strict=True):
        assert one.__dict__.keys() == other.__dict__.keys()
        assert one.getMessage() == other.getMessage()
        same = one.__dict__.keys() - place - moment - {"args"}
        assert {name: one.__dict__[name] for name in same} == {name: other.__dict__[name] for name in same}
        assert abs(one.created - other.created) < 60
        assert abs(one.relativeCreated - other.relativeCreated - (one.created - other.created) * 1000) < 1
        assert one.msecs == int(one.msecs) == int(one.created % 1 * 1000)
    assert "ValueError: why" in DeliveryFormatter("%(message)s").format(ours[-1])


def test_a_record_names_its_process_as_multiprocessing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "name", "a worker")
    (record,) = records_of(trace.logger("lamson.a_test"), lambda log: log.info("hello"))
    assert record.processName == "a worker"


@pytest.mark.parametrize("flag", ["logThreads", "logProcesses", "logMultiprocessing"])
def test_a_record_leaves_out_what_an_application_leaves_out(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, flag, False)
    ours, theirs = (records_of(log, lambda log: log.info("hello")) for log in (trace.logger("lamson.a_test"), logging.Logger("other")))
    for name in ("thread", "threadName", "process", "processName"):
        assert getattr(ours[0], name) == getattr(theirs[0], name)


def test_where_a_record_comes_from_is_said_alike_in_all() -> None:
    def say(log: logging.Logger) -> None:
        log.info("hello")
        log.info("hello", exc_info=True)

    usual, other = records_of(trace.logger("lamson.a_test"), say)
    for record in (usual, other):
        place = DeliveryFormatter("{pathname} {filename} {module} {lineno} {funcName:>20}", style="{").format(record)
        assert place.startswith("(unknown file) (unknown file) (unknown file) 0   (unknown function)")


def test_a_mapping_gives_its_items_whatever_kind_it_is() -> None:
    (record,) = records_of(trace.logger("lamson.a_test"), lambda log: log.info("%(a)s", MappingProxyType({"a": 1})))
    assert record.getMessage() == "1"


@pytest.mark.parametrize("known", [hasattr(logging, "logAsyncioTasks"), True])
def test_a_record_names_its_task_where_logging_does(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say() -> list[logging.LogRecord]:
        cast(Any, asyncio.current_task()).set_name("a task of the application's")
        return records_of(trace.logger("lamson.a_test"), lambda log: log.info("hello"))

    monkeypatch.setattr(trace, "_KNOWS_TASKS", known)
    (within,), (outside,) = asyncio.run(say()), records_of(trace.logger("lamson.a_test"), lambda log: log.info("hello"))
    assert getattr(within, "taskName", None) == ("a task of the application's" if known else None)
    assert getattr(outside, "taskName", None) is None
    monkeypatch.setattr(logging, "logAsyncioTasks", False, raising=False)
    assert getattr(asyncio.run(say())[0], "taskName", None) is None


def test_a_record_can_be_pickled_and_handled_by_another_process() -> None:
    (record,) = records_of(trace.logger("lamson.a_test"), lambda log: log.info("%s", "hello"))
    assert logging.makeLogRecord(pickle.loads(pickle.dumps(record)).__dict__).getMessage() == "hello"


def test_lines_of_a_logger_that_is_switched_off_are_not_written() -> None:
    log = trace.logger("lamson.a_test")

    def say(log: logging.Logger) -> None:
        log.info("one")
        log.disabled = True
        log.info("two")
        log.disabled = False
        logging.disable(logging.INFO)
        log.info("three")
        logging.disable(logging.NOTSET)
        log.addFilter(no_four)
        log.info("four")
        log.removeFilter(no_four)
        log.info("five")

    def no_four(record: logging.LogRecord) -> bool:
        return record.getMessage() != "four"

    assert [record.getMessage() for record in records_of(log, say)] == ["one", "five"]


@pytest.mark.parametrize(
    "formatter",
    [
        DeliveryFormatter("{message} of {delivery}", style="{"),
        DeliveryFormatter("$message of $delivery", style="$"),
        DeliveryFormatter("%(message)s%(of)s%(delivery)s", defaults={"of": " of "}),
    ],
)
def test_other_formats_are_filled_in_too(formatter: DeliveryFormatter) -> None:
    assert formatter.format(logging.makeLogRecord({"msg": "hello", "delivery": "3f9c"})) == "hello of 3f9c"


def test_a_format_that_is_changed_later_holds_from_then_on() -> None:
    formatter = DeliveryFormatter("%(message)s")
    formatter._style._fmt = "%(levelname)s %(message)s"
    assert formatter.format(logging.makeLogRecord({"msg": "hello", "levelname": "INFO"})) == "INFO hello"


def test_a_format_with_a_field_that_is_missing_is_told_as_logging_does() -> None:
    with pytest.raises(ValueError, match="Formatting field not found in record: 'nowhere'"):
        DeliveryFormatter("%(nowhere)s").format(logging.makeLogRecord({"msg": "hello"}))


def test_an_applications_own_records_are_made_for_our_loggers_too() -> None:
    class Own(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Own)
    try:
        (record,) = records_of(trace.logger("lamson.a_test"), lambda log: log.info("hello"))
    finally:
        logging.setLogRecordFactory(before)
    assert isinstance(record, Own)


def test_other_loggers_stay_as_they_are() -> None:
    assert isinstance(trace.logger("lamson.another_test"), trace.Logger)
    assert not isinstance(logging.getLogger("lamson.a_third_test"), trace.Logger)
    assert trace.logger("lamson.a_third_test") is logging.getLogger("lamson.a_third_test")


def test_lines_of_many_threads_are_whole_and_each_threads_in_order(log: logging.Logger, file: Path) -> None:
    def write(name: int) -> None:
        for number in range(200):
            log.info("%d %d %s", name, number, "x" * 50)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found: dict[str, list[int]] = {}
    for line in file.read_text().splitlines():
        _, name, number, rest = line.split(" ")
        assert rest == "x" * 50
        found.setdefault(name, []).append(int(number))
    assert found == {str(name): list(range(200)) for name in range(8)}


def test_who_finds_it_busy_leaves_its_line_and_goes_on(log: logging.Logger, handler: LogFile, file: Path) -> None:
    with handler._writing:
        log.info("left")
        assert file.read_text() == ""
    log.info("taken along")
    assert file.read_text() == "- left\n- taken along\n"


def test_a_file_that_was_moved_away_is_begun_anew(log: logging.Logger, handler: LogFile, file: Path) -> None:
    log.info("one")
    file.rename(file.with_suffix(".old"))
    handler._look_at = 0.0
    log.info("two")
    assert (file.with_suffix(".old").read_text(), file.read_text()) == ("- one\n", "- two\n")


def test_what_the_disk_does_not_take_is_told_and_the_next_line_is_written(
    log: logging.Logger, handler: LogFile, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", told.append)
    write = handler._write

    def full() -> None:
        handler._lines.clear()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handler, "_write", full)
    log.info("lost")
    monkeypatch.setattr(handler, "_write", write)
    log.info("kept")
    assert [record.getMessage() for record in told] == ["lost"]
    assert file.read_text() == "- kept\n"
    assert not handler._writing.locked()


def test_a_line_that_the_disk_took_half_of_does_not_spoil_the_next(log: logging.Logger, handler: LogFile, file: Path) -> None:
    class Full:
        took = False

        def write(self, octets: bytes) -> int:
            if self.took:
                raise OSError(28, "No space left on device")
            self.took = True
            return disk.write(octets[:6])

    disk, handler.handleError, handler._look_at = handler.stream, lambda record: None, float("inf")  # type: ignore[method-assign]
    handler.stream = Full()  # type: ignore[assignment]
    log.info("cut off")
    log.info("lost")
    handler.stream = disk
    log.info("kept")
    log.info("and this")
    assert file.read_text() == "- cut \n- kept\n- and this\n"


def test_a_file_that_is_to_be_begun_anew(handler: LogFile, file: Path) -> None:
    file.write_text("from before\n")
    anew = LogFile(file, "w")
    anew.emit(logging.makeLogRecord({"msg": "hello"}))
    anew.close()
    assert file.read_text() == "hello\n"


def test_lines_that_find_no_folder_are_lost_and_do_not_fill_the_memory(
    log: logging.Logger, handler: LogFile, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(handler, "handleError", lambda record: told.append(record.getMessage()))
    away = file.parent.rename(file.parent.with_suffix(".away"))
    handler._look_at = 0.0
    log.info("lost")
    log.info("lost, too")
    assert told == ["lost", "lost, too"]
    assert not handler._lines
    away.rename(file.parent)
    log.info("kept")
    assert file.read_text() == "- kept\n"


def test_it_is_closed_when_who_is_writing_has_written(log: logging.Logger, handler: LogFile, file: Path) -> None:
    closing = threading.Thread(target=handler.close)
    with handler._writing:
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        assert handler.stream
    closing.join(10)
    assert handler.stream is None
    log.info("later")
    assert file.read_text() == "- later\n"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_writes_its_own_lines_whoever_was_writing(log: logging.Logger, handler: LogFile, file: Path) -> None:
    with handler._writing:
        log.info("the parent's")
        child = os.fork()
        if child == 0:
            log.info("the child's")
            os._exit(0)
        os.waitpid(child, 0)
    log.info("the parent's last")
    assert file.read_text() == "- the child's\n- the parent's\n- the parent's last\n"


def test_a_filter_keeps_lines_out_or_puts_others_in_their_place(log: logging.Logger, handler: LogFile, file: Path) -> None:
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    log.info("secret")
    log.info("public")
    assert file.read_text() == "- public\n"


def test_the_logging_of_later_pythons_takes_its_lock_otherwise(handler: LogFile) -> None:
    """3.13 has `with self.lock` where 3.11 has `if self.lock`."""
    with handler.lock:  # type: ignore[union-attr]
        handler.flush()


# -- the terminal


@pytest.fixture
def terminal() -> Iterator[tuple[Terminal, io.StringIO]]:
    handler = Terminal(io.StringIO())
    handler.setFormatter(DeliveryFormatter("%(delivery)s %(message)s"))
    yield handler, handler.stream
    handler.close()


def at(handler: logging.Handler) -> logging.Logger:
    log = logging.Logger("a log of the test's own", logging.INFO)
    log.addHandler(handler)
    return log


def test_the_terminal_is_standard_error_as_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    handler = Terminal()
    assert isinstance(handler, logging.StreamHandler)
    at(handler).info("hello, %s", "ü")
    handler.close()
    assert capsys.readouterr().err == "hello, ü\n"


def test_a_terminal_may_be_named_in_a_configuration() -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"terminal": {"class": "lamson.trace.Terminal", "stream": "ext://sys.stdout"}},
            "loggers": {"a log of the test's own": {"handlers": ["terminal"]}},
        }
    )
    (handler,) = logging.getLogger("a log of the test's own").handlers
    assert isinstance(handler, Terminal)
    assert handler.stream is sys.stdout
    logging.getLogger("a log of the test's own").removeHandler(handler)


def test_who_finds_the_terminal_busy_leaves_the_line_and_goes_on(terminal: tuple[Terminal, io.StringIO]) -> None:
    handler, stream = terminal
    with handler._writing:
        at(handler).info("left")
        assert stream.getvalue() == ""
    at(handler).info("taken along")
    assert stream.getvalue() == "- left\n- taken along\n"


def test_lines_of_many_threads_at_a_pipe_are_whole() -> None:
    receive, send = os.pipe()
    handler = Terminal(os.fdopen(send, "w"))
    log = at(handler)
    threads = [threading.Thread(target=lambda: [log.info("x" * 3000) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    with os.fdopen(receive) as pipe:
        assert [pipe.readline() for _ in range(200)] == ["x" * 3000 + "\n"] * 200
    for thread in threads:
        thread.join()
    handler.stream.close()


def test_where_very_many_lines_are_left_a_thread_waits(terminal: tuple[Terminal, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    handler, stream = terminal
    monkeypatch.setattr(trace, "MANY", 1)
    monkeypatch.setattr(trace, "PATIENCE", 60.0)
    log = at(handler)
    with handler._writing:
        log.info("left")
        waiting = threading.Thread(target=log.info, args=("waits",))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert stream.getvalue() == "- left\n- waits\n"


def test_where_nobody_writes_for_long_a_thread_goes_on(terminal: tuple[Terminal, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    handler, stream = terminal
    monkeypatch.setattr(trace, "MANY", 1)
    monkeypatch.setattr(trace, "PATIENCE", 0.01)
    with handler._writing:
        at(handler).info("left")
        at(handler).info("left, too")
    at(handler).info("taken along")
    assert stream.getvalue() == "- left\n- left, too\n- taken along\n"


def test_a_terminal_that_is_gone_is_told_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    handler = Terminal(io.StringIO())
    monkeypatch.setattr(handler, "handleError", lambda record: told.append(record.getMessage()))
    handler.stream.close()
    at(handler).info("lost")
    at(handler).info("lost, too")
    assert told == ["lost", "lost, too"]
    assert not handler._lines


def test_without_standard_error_lines_are_lost_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    handler = Terminal()
    at(handler).info("lost")
    assert not handler._lines
