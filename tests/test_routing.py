"""Decorators, matching, plans, and what becomes of a message whose handler fails."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lamson.delivery import Locks, current
from lamson.errors import Conflict, Fault, RoutingError, SMTPError
from lamson.mail import MailRequest
from lamson.relay import Relay
from lamson.routing import MemoryStorage, RoutingBase, ShelveStorage, StateStorage

RAW = b"From: ann@ex.org\r\nTo: list@test.com\r\nSubject: hi\r\nMessage-ID: <1@ex.org>\r\n\r\nhello\r\n"


def mail(to: str | list[str] = "list@test.com", sender: str | None = "ann@ex.org") -> MailRequest:
    return MailRequest("127.0.0.1", sender, to, RAW)


class Kept:
    """An undeliverable queue that remembers."""

    def __init__(self) -> None:
        self.pushed: list[tuple[bytes, str, str | None]] = []

    def push(self, message: Any, *, reason: str, mail_from: str | None, rcpt_tos: list[str], peer: str) -> str:
        self.pushed.append((message.raw, reason, mail_from))
        return f"key{len(self.pushed)}"


@pytest.fixture
def machine(router: RoutingBase) -> dict[str, Any]:
    """START -> PENDING -> START, counting what ran."""
    ran: list[str] = []

    @router.route("(name)@(host)", name="[a-z]+", host=r"test\.com")
    def START(message: Any, name: str = "", host: str = "") -> Any:
        ran.append(f"START {name} {host}")
        return PENDING

    @router.route_like(START)
    def PENDING(message: Any, name: str = "", host: str = "") -> Any:
        ran.append("PENDING")
        return START

    return {"START": START, "PENDING": PENDING, "ran": ran}


def test_a_conversation_moves_from_state_to_state(router: RoutingBase, machine: dict[str, Any]) -> None:
    first, second = router.deliver(mail())[0], router.deliver(mail())[0]
    assert machine["ran"] == ["START list test.com", "PENDING"]
    assert (first.ran, second.ran) == ((f"{__name__}.START",), (f"{__name__}.PENDING",))
    assert first.reply.code == 250
    assert router.in_state(machine["START"], mail())
    router.deliver(mail(sender="bob@ex.org"))
    assert router.get_state(__name__, mail(sender="bob@ex.org")) == "PENDING"


def test_the_whole_address_is_matched_ignoring_case(router: RoutingBase, machine: dict[str, Any]) -> None:
    assert [m.captures for m in router.match("LIST@Test.Com")] == [{"name": "LIST", "host": "Test.Com"}] * 2
    assert router.match("list@test.com.evil") == []
    assert router.match("x list@test.com") == []
    assert router.match("list@test.com\n") == []


def test_what_is_remembered_of_an_address_is_nobodys_to_change(router: RoutingBase, machine: dict[str, Any]) -> None:
    router.match("list@test.com").clear()
    first = router.match("list@test.com")[0]
    with pytest.raises(TypeError):
        first.captures["name"] = "other"  # type: ignore[index]
    assert [(each.route.name, dict(each.captures)) for each in router.match("list@test.com")] == [
        ("START", {"name": "list", "host": "test.com"}),
        ("PENDING", {"name": "list", "host": "test.com"}),
    ]


def test_an_address_that_fitted_nothing_fits_a_route_that_is_added(router: RoutingBase, machine: dict[str, Any]) -> None:
    assert router.match("info@other.com") == []

    @router.route("info@other\\.com")
    @router.stateless
    def INFO(message: Any) -> None:
        pass

    assert [each.route.name for each in router.match("info@other.com")] == ["INFO"]


def test_outcomes_may_stand_in_a_set(router: RoutingBase, machine: dict[str, Any]) -> None:
    message = mail()
    assert len({*router.deliver(message), *router.deliver(message)}) == 2


def test_an_address_longer_than_any_can_be_matches_nothing(router: RoutingBase) -> None:
    @router.route(".+")
    def START(message: Any) -> None: ...

    assert router.match("a" * 313 + "@ex.org")
    assert not router.match("a" * 314 + "@ex.org")


def test_defaults_may_come_after_the_route(router: RoutingBase) -> None:
    @router.route("(list_name)@(host)")
    def START(message: Any, list_name: str = "", host: str = "") -> None: ...

    router.defaults(list_name="[a-z]+", host="x")
    assert router.match("abc@x")
    router.defaults(host="y")
    assert router.match("abc@y")
    assert not router.match("abc@x")


def test_a_capture_of_a_default_that_the_function_does_not_want_is_not_passed(router: RoutingBase) -> None:
    router.defaults(host="x")

    @router.route("(name)@(host)", name="[a-z]+")
    def START(message: Any, name: str = "") -> None: ...

    assert router.match("abc@x")[0].captures == {"name": "abc"}
    assert router.deliver(mail("abc@x"))[0].reply.code == 250


def test_a_function_with_kwargs_gets_every_capture(router: RoutingBase) -> None:
    seen: dict[str, str] = {}

    @router.route("(name)@(host)", name="[a-z]+", host="x")
    def START(message: Any, **captures: str) -> None:
        seen.update(captures)

    router.deliver(mail("abc@x"))
    assert seen == {"name": "abc", "host": "x"}


def test_stacked_routes_match_from_top_to_bottom(router: RoutingBase) -> None:
    @router.route("(name)@x", name="[a-z]+")
    @router.route("(name)-(action)@x", name="[a-z-]+", action="[a-z]+")
    @router.route("(name)-(action)-z@x", name="[a-z-]+", action="[a-z]+")
    def START(message: Any, name: str = "", action: str = "") -> None: ...

    assert router.match("a@x")[0].captures == {"name": "a"}
    assert router.match("a-b-z@x")[0].captures == {"name": "a-b", "action": "z"}
    assert len(router.routes) == 3


@pytest.mark.parametrize(
    ("format", "captures", "why"),
    [
        ("(name)@x", {}, r"\(name\) has no regex"),
        ("(name)@x", {"name": "("}, "is wrong"),
        ("(name)-(name)@x", {"name": "a"}, "twice"),
        ("(other)@x", {"other": "a"}, "no parameter"),
        ("x@x", {"name": "a"}, "the format has no"),
    ],
)
def test_a_route_that_cannot_work_names_itself_and_its_function(
    router: RoutingBase, format: str, captures: dict[str, str], why: str
) -> None:
    @router.route(format, **captures)
    def START(message: Any, name: str = "") -> None: ...

    with pytest.raises(RoutingError, match=why) as raised:
        router.seal()
    assert format in str(raised.value)
    assert f"{__name__}.START" in str(raised.value)
    assert "test_routing.py:" in str(raised.value)


def test_a_parameter_that_no_capture_fills_is_told_before_mail_comes(router: RoutingBase) -> None:
    @router.route("(name)@x", name="a")
    def START(message: Any, name: str, host: str) -> None: ...

    with pytest.raises(RoutingError, match=r"captures no \(host\)"):
        router.seal()


def test_every_word_without_regex_is_an_error_for_kwargs_only(router: RoutingBase) -> None:
    @router.route("(jpg)@x")
    def START(message: Any) -> None: ...

    assert router.match("jpg@x")[0].captures == {}

    @router.route("(gif)@x")
    def OTHER(message: Any, **kw: str) -> None: ...

    with pytest.raises(RoutingError, match="gif"):
        router.seal()


def test_decorators_refuse_what_is_no_function_of_a_module(router: RoutingBase) -> None:
    with pytest.raises(TypeError, match="functions of a module only"):
        router.route("x")(int)

    with pytest.raises(TypeError, match="functions of a module only"):

        class Handlers:
            @router.route("x")
            def START(self, message: Any) -> None: ...


def test_route_without_its_address_is_refused(router: RoutingBase) -> None:
    with pytest.raises(RoutingError, match=r'@route on .*START says no address: write @route\("list@\(host\)"\)'):

        @router.route  # type: ignore[arg-type]
        def START(message: Any) -> None: ...


def test_wrong_use_is_both_a_type_error_and_an_assertion_error(router: RoutingBase) -> None:
    def unrouted(message: Any) -> None: ...

    with pytest.raises(TypeError, match="no route"):
        router.route_like(unrouted)
    with pytest.raises(AssertionError):
        router.route_like(unrouted)

    @router.route("x")
    def START(message: Any) -> None: ...

    with pytest.raises(AssertionError, match="above @route"):
        router.stateless(START)


def test_a_stateless_function_runs_beside_the_one_in_state(router: RoutingBase) -> None:
    ran = []

    @router.route(".+@x")
    def START(message: Any) -> None:
        ran.append("START")

    @router.route(".+@x")
    @router.stateless
    def INDEXER(message: Any) -> Any:
        ran.append("INDEXER")
        return "whatever"

    @router.route(".+@x")
    def SECOND(message: Any) -> None:
        ran.append("SECOND")

    router.deliver(mail("a@x"))
    assert ran == ["START", "INDEXER"]


def test_calling_the_next_state_and_returning_its_result_runs_it_at_once(router: RoutingBase) -> None:
    ran = []

    @router.route(".+")
    def START(message: Any) -> Any:
        ran.append("START")
        return NEXT(message)

    @router.route(".+")
    def NEXT(message: Any) -> Any:
        ran.append("NEXT")
        return NEXT

    router.deliver(mail())
    assert ran == ["START", "NEXT"]
    assert router.in_state(NEXT, mail())


def test_each_recipient_and_each_run_sees_a_fresh_message(router: RoutingBase) -> None:
    seen = []

    @router.route(".+")
    @router.stateless
    def START(message: Any) -> None:
        seen.append((message.recipient, message["Subject"]))
        message["Subject"] = "changed"

    given = mail(["a@x", "b@x"])
    router.deliver(given)
    assert seen == [("a@x", "hi"), ("b@x", "hi")]
    assert given["Subject"] == "hi"


def test_the_null_sender_is_considered_in_start_and_keeps_no_state(router: RoutingBase, machine: dict[str, Any]) -> None:
    for _ in range(2):
        router.deliver(mail(sender=""))
    assert machine["ran"] == ["START list test.com"] * 2
    assert vars(router.STATE_STORE)["_states"] == {}


def test_a_state_key_generator_parts_the_conversations(router: RoutingBase, machine: dict[str, Any]) -> None:
    router.state_key_generator(functools.wraps(machine["START"])(lambda module, message: f"{module}:{message.recipient}"))  # type: ignore[type-var]
    router.deliver(mail("one@test.com"))
    router.deliver(mail("two@test.com"))
    assert [ran.split()[0] for ran in machine["ran"]] == ["START", "START"]


@pytest.mark.parametrize("code", [100, 354, 999])
def test_a_code_that_answers_no_message_is_the_handlers_mistake(router: RoutingBase, code: int) -> None:
    def START(message: MailRequest) -> None:
        raise SMTPError(code)

    router.UNDELIVERABLE_QUEUE = Kept()
    router.route("a@test.com")(START)
    (outcome,) = router.outcomes(MailRequest("", "s@x.org", "a@test.com", b"Subject: x\r\n\r\n"))
    assert (outcome.reply.code, type(outcome.error)) == (250, ValueError)
    assert outcome.kept


def test_a_handler_that_changes_the_message_moves_the_conversation_that_it_was_in(router: RoutingBase) -> None:
    def START(message: MailRequest) -> Any:
        message["Subject"] = "[list] " + str(message["Subject"])
        return NEXT

    def NEXT(message: MailRequest) -> None: ...

    def key(module: str, message: MailRequest) -> str:
        return f"{module}:{message['Subject']}"

    router.state_key_generator(key)
    router.route("a@test.com")(START)
    router.route_like(START)(NEXT)
    message = MailRequest("", "s@x.org", "a@test.com", b"Subject: x\r\n\r\n")
    (outcome,) = router.deliver(message)
    assert outcome.reply.code == 250, outcome
    assert router.get_state(START.__module__, message) == "NEXT"


def test_plan_answers_and_does_nothing(router: RoutingBase, machine: dict[str, Any]) -> None:
    (plan,) = router.plan(mail())
    assert [str(run) for run in plan.runs] == [f"{__name__}.START(name='list', host='test.com')"]
    assert plan.states == {__name__: "START"}
    assert machine["ran"] == []


# -- failures


def test_without_a_queue_nobody_is_550(router: RoutingBase) -> None:
    (outcome,) = router.deliver(mail())
    assert (outcome.reply.code, outcome.reply.status) == (550, "5.7.1")


def test_with_a_queue_nobody_is_kept_with_the_reason(router: RoutingBase) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()
    (outcome,) = router.deliver(mail())
    assert (outcome.reply.code, outcome.kept) == (250, "key1")
    assert kept.pushed == [(RAW, "no route fits the address", "ann@ex.org")]


def test_a_state_that_names_no_function_any_more_is_told(router: RoutingBase, machine: dict[str, Any]) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()
    router.STATE_STORE.set(__name__, "ann@ex.org", "RENAMED")
    router.deliver(mail())
    assert "RENAMED names no function" in kept.pushed[0][1]
    assert machine["ran"] == []


def test_a_lost_sender_is_not_swallowed_by_a_stateless_function(router: RoutingBase, machine: dict[str, Any]) -> None:
    """Found by a newcomer: an indexer that sees all mail made that of a renamed state vanish with 250."""
    indexed = []

    @router.route(".+")
    @router.stateless
    def INDEX(message: Any) -> None:
        indexed.append(message)

    router.UNDELIVERABLE_QUEUE = kept = Kept()
    router.STATE_STORE.set(__name__, "ann@ex.org", "RENAMED")
    (plan,) = router.plan(mail())
    (outcome,) = router.deliver(mail())
    assert plan.runs == ()
    assert outcome.kept == "key1"
    assert "RENAMED names no function" in kept.pushed[0][1]
    assert indexed == machine["ran"] == []


def test_the_log_tells_when_only_stateless_functions_run(router: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    @router.route(".+")
    @router.stateless
    def INDEX(message: Any) -> None: ...

    @router.route("list@test.com")
    def CLOSED(message: Any) -> None: ...

    with caplog.at_level(logging.INFO):
        (outcome,) = router.deliver(mail())
    assert outcome.ran == (f"{__name__}.INDEX",)
    assert f"only stateless functions run for list@test.com: the sender is in the state START of {__name__}, which has" in caplog.text


def test_load_says_that_it_wants_a_list(router: RoutingBase) -> None:
    with pytest.raises(RoutingError, match=r"handlers = \['app.handlers.post'\]"):
        router.load("app.handlers.post")


def test_a_handler_that_raises_leaves_no_trace_but_the_kept_message_and_error(router: RoutingBase) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()
    called = []

    @router.route(".+")
    def START(message: Any) -> Any:
        router.set_state(__name__, message, "ELSEWHERE")
        delivery = current()
        assert delivery
        delivery.after_commit(lambda: called.append(1))
        message["Subject"] = "changed"
        raise ValueError("secret")

    @router.route("never")
    def ERROR(message: Any) -> None: ...

    (outcome,) = router.deliver(mail())
    assert outcome.reply.code == 250
    assert "secret" not in str(outcome.reply)
    assert kept.pushed == [(RAW, f"{__name__}.START raised ValueError: secret", "ann@ex.org")]
    assert router.in_error(START, mail())
    assert called == []


def test_a_handler_that_raises_without_queue_is_451_and_moves_nothing(router: RoutingBase) -> None:
    @router.route(".+")
    def START(message: Any) -> Any:
        raise ValueError("secret")

    @router.route("never")
    def ERROR(message: Any) -> None: ...

    (outcome,) = router.deliver(mail())
    assert outcome.reply.code == 451
    assert "secret" not in str(outcome.reply)
    assert router.in_state(START, mail())


def test_a_stateless_handler_that_raises_does_not_move_the_sender_to_error(router: RoutingBase) -> None:
    router.UNDELIVERABLE_QUEUE = Kept()

    @router.route(".+")
    @router.stateless
    def START(message: Any) -> Any:
        raise ValueError

    @router.route("never")
    def ERROR(message: Any) -> None: ...

    router.deliver(mail())
    assert not router.in_error(START, mail())


def test_a_queue_that_fails_means_try_again(router: RoutingBase) -> None:
    class Full:
        def push(self, *args: Any, **kw: Any) -> str:
            raise OSError("disk full")

    router.UNDELIVERABLE_QUEUE = Full()
    assert router.deliver(mail())[0].reply.code == 451


def test_log_exceptions_false_raises_what_the_handler_raised(router: RoutingBase) -> None:
    router.LOG_EXCEPTIONS = False

    @router.route(".+")
    def START(message: Any) -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        router.deliver(mail())


def test_an_smtp_error_is_the_clients_answer_and_moves_nothing(router: RoutingBase) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()

    @router.route("(name)@.+", name="(no|yes)")
    def START(message: Any, name: str) -> Any:
        if name == "no":
            raise SMTPError(554, "not today")
        return START

    with pytest.raises(SMTPError, match="not today"):
        router.deliver(mail("no@x"))
    outcomes = router.deliver(mail(["no@x", "yes@x"]))
    assert [each.reply.code for each in outcomes] == [554, 250]
    assert kept.pushed == []


def test_a_message_in_a_loop_is_refused_and_not_tried_for_days(router: RoutingBase) -> None:
    @router.route(".+")
    def START(message: Any) -> Any:
        Relay().deliver(message)

    looping = MailRequest("127.0.0.1", "ann@ex.org", "list@test.com", b"Received: from a by b; now\r\n" * 51 + RAW)
    with pytest.raises(SMTPError, match=r"554 5\.4\.6"):
        router.deliver(looping)


def test_a_fault_is_451_and_never_the_undeliverable_queue(router: RoutingBase) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()

    @router.route(".+")
    def START(message: Any) -> Any:
        raise Fault("the disk is on fire")

    (outcome,) = router.deliver(mail())
    assert (outcome.reply.code, kept.pushed) == (451, [])
    assert "fire" not in str(outcome.reply)


def test_a_conflict_runs_anew_with_a_fresh_message_five_times_at_most(router: RoutingBase) -> None:
    subjects = []

    @router.route(".+")
    def START(message: Any) -> Any:
        subjects.append(message["Subject"])
        message["Subject"] = "changed"
        raise Conflict("moved elsewhere")

    (outcome,) = router.deliver(mail())
    assert outcome.reply.code == 451
    assert subjects == ["hi"] * 5


@pytest.mark.parametrize("returned", ["NEXT", 7, len])
def test_returning_what_is_no_state_is_the_handlers_failure(router: RoutingBase, returned: Any) -> None:
    router.UNDELIVERABLE_QUEUE = kept = Kept()

    @router.route(".+")
    def START(message: Any) -> Any:
        return returned

    router.deliver(mail())
    assert "is no state of" in kept.pushed[0][1]


def test_deliver_inside_a_delivery_is_refused(router: RoutingBase) -> None:
    router.LOG_EXCEPTIONS = False

    @router.route(".+")
    def START(message: Any) -> Any:
        router.deliver(message)

    with pytest.raises(TypeError, match="inside a delivery"):
        router.deliver(mail())


def test_what_fails_after_the_commit_is_logged_and_undoes_nothing(router: RoutingBase, caplog: pytest.LogCaptureFixture) -> None:
    called = []

    @router.route(".+")
    def START(message: Any) -> Any:
        delivery = current()
        assert delivery
        delivery.after_commit(lambda: 1 / 0)
        delivery.after_commit(lambda: called.append(current()))
        return START

    with caplog.at_level(logging.ERROR):
        assert router.deliver(mail())[0].reply.code == 250
    assert "ZeroDivisionError" in caplog.text
    assert called == [None]


# -- locks


def test_messages_of_one_conversation_run_one_after_the_other_and_others_beside(router: RoutingBase) -> None:
    inside, most = [0], [0]
    others = threading.Event()

    @router.route(".+")
    def START(message: Any) -> Any:
        if message.route_from == "other@ex.org":
            others.set()
            return
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        assert others.wait(5)
        inside[0] -= 1

    threads = [threading.Thread(target=router.deliver, args=(mail(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    router.deliver(mail(sender="other@ex.org"))
    for thread in threads:
        thread.join()
    assert most == [1]


def test_nolocking_runs_beside_itself(router: RoutingBase) -> None:
    meet = threading.Barrier(2, timeout=5)

    @router.route(".+")
    @router.nolocking
    def START(message: Any) -> Any:
        meet.wait()

    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.extend(router.deliver(mail()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.reply.code for each in outcomes] == [250, 250]


def test_a_fifth_waiter_and_a_long_wait_hear_451() -> None:
    locks = Locks(waiting=1, patience=0.05)

    def wait_in_vain() -> None:
        with pytest.raises(SMTPError, match="waited"), locks.holding([("a", "x")]):
            pass

    with locks.holding([("a", "x"), ("b", "x")]):
        waiter = threading.Thread(target=wait_in_vain)
        waiter.start()
        until = time.monotonic() + 5
        while locks._turns["a", "x"][1] < 2 and time.monotonic() < until:
            pass
        with pytest.raises(SMTPError, match="451") as refused, locks.holding([("a", "x")]):
            pass
        assert refused.value.reply.status == "4.3.2"
        waiter.join()
    assert locks._turns == {}


# -- loading


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("first_handler", "second_handler", "broken_handler"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def write(folder: Path, name: str, address: str) -> None:
    text = f"from lamson.routing import route\n@route({address!r})\ndef START(message): pass\n"
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()


def test_load_reload_and_seal(default_router: RoutingBase, handlers: Path, caplog: pytest.LogCaptureFixture) -> None:
    router = default_router
    write(handlers, "first_handler", "a@x")
    write(handlers, "second_handler", "b@x")
    router.load(["first_handler", "second_handler"])
    router.seal()
    assert [each.format for each in router.routes] == ["a@x", "b@x"]
    assert list(router.HANDLERS) == ["first_handler", "second_handler"]
    with pytest.raises(RoutingError, match="server has started"):
        router.route("c@x")(lambda message: None)

    write(handlers, "first_handler", "changed@x")
    router.reload()
    assert [each.format for each in router.routes] == ["changed@x", "b@x"]

    (handlers / "second_handler.py").write_text("import no_such_thing\n")
    with caplog.at_level(logging.ERROR):
        router.reload()
    assert [each.format for each in router.routes] == ["changed@x", "b@x"]
    assert "stay in force" in caplog.text

    router.clear_routes()
    assert router.routes == ()


def test_while_the_handlers_are_reloaded_conversations_keep_their_keys(default_router: RoutingBase, handlers: Path) -> None:
    """A message that comes just then must not move another conversation."""
    text = (
        "from lamson.routing import route, state_key_generator\n"
        "import threading\n"
        "if 'REACHED' in globals(): REACHED.set(), GO.wait(5)\n"
        "REACHED, GO = threading.Event(), threading.Event()\n"
        "@state_key_generator\ndef key(module, message): return f'{module}:{message.recipient}'\n"
        "@route('a@x')\ndef START(message): pass\n"
    )
    (handlers / "first_handler.py").write_text(text)
    default_router.load(["first_handler"])
    default_router.seal()
    module = default_router.HANDLERS["first_handler"]
    reached, go = module.REACHED, module.GO
    message = MailRequest("", "s@x", "a@x", "")
    thread = threading.Thread(target=default_router.reload)
    thread.start()
    try:
        assert reached.wait(5)
        assert default_router.state_key("first_handler", message) == "first_handler:a@x"
    finally:
        go.set()
        thread.join()
    assert default_router.state_key("first_handler", message) == "first_handler:a@x"


def test_a_handler_that_does_not_import_stops_the_boot_unless_developing(default_router: RoutingBase, handlers: Path) -> None:
    (handlers / "broken_handler.py").write_text("import no_such_thing\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        default_router.load(["broken_handler"])
    default_router.RELOAD = True
    default_router.load(["broken_handler"])
    assert default_router.routes == ()


def test_a_decorator_above_route_is_not_passed_by(default_router: RoutingBase, handlers: Path) -> None:
    (handlers / "first_handler.py").write_text(
        "import functools\nfrom lamson.routing import route\n"
        "def above(f):\n"
        "    @functools.wraps(f)\n"
        "    def wrapper(message, **kw):\n"
        "        message['X-Above'] = 'yes'\n"
        "        return f(message, **kw)\n"
        "    return wrapper\n"
        "SEEN = []\n"
        "@above\n@route('a@x')\ndef START(message): SEEN.append(message['X-Above'])\n"
    )
    default_router.load(["first_handler"])
    default_router.deliver(mail("a@x"))
    assert sys.modules["first_handler"].SEEN == ["yes"]


def test_reload_before_each_message_while_developing(default_router: RoutingBase, handlers: Path) -> None:
    write(handlers, "first_handler", "a@x")
    default_router.load(["first_handler"])
    default_router.RELOAD = True
    write(handlers, "first_handler", "bb@x")
    assert default_router.deliver(mail("bb@x"))[0].reply.code == 250


def test_the_names_of_1x(router: RoutingBase, machine: dict[str, Any]) -> None:
    pattern = r"(?P<name>[a-z]+)@(?P<host>test\.com)"
    assert [pattern] == router.ORDER
    assert {pattern: [machine["START"], machine["PENDING"]]} == router.REGISTERED
    router.deliver(mail())
    router.clear_states()
    assert router.get_state(__name__, mail()) == "START"


# -- storages


@pytest.fixture(params=["memory", "shelve"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> StateStorage:
    return MemoryStorage() if request.param == "memory" else ShelveStorage(str(tmp_path / "states"))


def test_storages_keep_states(storage: StateStorage) -> None:
    assert storage.get("m", "a") == "START"
    storage.set("m", "a", "NEXT")
    assert (storage.get("m", "a"), storage.get("m", "b")) == ("NEXT", "START")
    storage.clear()
    assert storage.get("m", "a") == "START"


def test_a_storage_of_ones_own_needs_three_methods_only(router: RoutingBase, machine: dict[str, Any]) -> None:
    class Own:
        states: dict[Any, str] = {}

        def get(self, key: str, sender: str) -> str:
            return self.states.get((key, sender), "START")

        def set(self, key: str, sender: str, state: str) -> None:
            self.states[key, sender] = state

        def clear(self) -> None:
            self.states.clear()

    router.STATE_STORE = Own()
    router.deliver(mail())
    assert Own.states == {(__name__, "ann@ex.org"): "PENDING"}


def test_the_interface_says_what_is_missing() -> None:
    for call in (lambda s: s.get("k", "s"), lambda s: s.set("k", "s", "x"), lambda s: s.clear()):
        with pytest.raises(NotImplementedError, match="must have"):
            call(StateStorage())


def test_without_a_database_there_are_no_receipts_to_look_for(router: RoutingBase) -> None:
    """What would remember nothing is not worth the hash of every message."""

    @router.route("list@test.com")
    def START(message: Any) -> None:
        raise SMTPError(552)

    (outcome,) = router.outcomes(mail(), receipts=True)
    assert (outcome.reply.code, outcome.receipt) == (552, None)
