"""The router: from a recipient's address and the sender's state to the functions that handle the message.

A state is a function, its name the state, its module the machine; every sender starts in `START`. The decorators collect routes;
`match` and `plan` only answer; `deliver` is the one place that runs handlers, behind one barrier that decides what becomes of a
message whose handler failed (the table of docs/guarantees.md). Steps 4 to 10 of a message's way. It knows nothing of SMTP or of SQL.

    @route("(list_name)-(action)@(host)", list_name="[a-z]+", action="[a-z]+")
    def START(message, list_name=None, action=None, host=None):
        return PENDING
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar

from lamson import delivery, pattern, trace
from lamson.delivery import Conversation, Delivery, Locks
from lamson.errors import Conflict, Fault, RoutingError, SMTPError
from lamson.state import ROUTE_FIRST_STATE, MemoryStorage, ShelveStorage, StateStorage
from lamson.status import Reply, reply

__all__ = [
    "ROUTE_FIRST_STATE",
    "Match",
    "MemoryStorage",
    "Outcome",
    "Plan",
    "Route",
    "Router",
    "RoutingBase",
    "ShelveStorage",
    "StateStorage",
    "nolocking",
    "route",
    "route_like",
    "state_key_generator",
    "stateless",
]

log = trace.logger("lamson.routing")

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)

ERROR_STATE = "ERROR"
#: How often a delivery is run anew when another process moved its conversation first.
TRIES = 5
#: How long the answer to a message is remembered, in seconds; the second where it has no Message-ID to tell it from its like.
RECEIPT_SECONDS = 7 * 86400.0
RECEIPT_SECONDS_UNNAMED = 3600.0
#: RFC 5321 §4.5.3.1: 64 octets of local part, the at sign, 255 of domain. Nothing longer is matched.
ADDRESS_OCTETS = 320
#: How many addresses a table remembers the matches of.
REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the route table."""

    format: str
    pattern: str
    regex: Any
    function: Handler
    passes: tuple[tuple[str, int], ...]  # what it captures for its function, and the number of each group
    module: str = field(init=False, repr=False)
    name: str = field(init=False, repr=False)
    full_name: str = field(init=False, repr=False)
    stateless: bool = field(init=False, repr=False)
    locking: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        module, name = self.function.__module__, self.function.__name__
        stateless = getattr(self.function, "_lamson_stateless", False)
        locking = not stateless and not getattr(self.function, "_lamson_nolocking", False)
        known = {"module": module, "name": name, "full_name": f"{module}.{name}", "stateless": stateless, "locking": locking}
        for attribute, value in known.items():  # asked several times for each message, so not made anew each time
            object.__setattr__(self, attribute, value)


@dataclass(frozen=True, slots=True)
class Match:
    """A route that fits an address, and what it captured."""

    route: Route
    captures: Mapping[str, str]
    _arguments: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_arguments", dict(self.captures))  # `**` of a mapping that is no dict takes three times as long

    def __str__(self) -> str:
        return f"{self.route.full_name}({', '.join([f'{name}={value!r}' for name, value in self.captures.items()])})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a message to this recipient would run now."""

    recipient: str
    runs: tuple[Match, ...]
    states: Mapping[str, str]


@dataclass(slots=True, unsafe_hash=True)  # not frozen: that would make it five times as dear
class Outcome:
    """What became of one delivery. Nobody changes it. `reply` is what a client hears of it.

    `ran`: the full names of the functions that ran, in order. `kept`: its key in the undeliverable queue, if it went there.
    `repeated`: a receipt answered, nothing ran. `error`: what stopped the handler. `receipt`: of a refusal, key and seconds, for
    whoever keeps the refused copy.
    """

    recipient: str
    reply: Reply
    delivery: str = ""
    ran: tuple[str, ...] = ()
    kept: str | None = None
    repeated: bool = False
    error: BaseException | None = None
    receipt: tuple[str, float] | None = None


@dataclass(slots=True)
class _Registered:
    """A function and its formats, in the order in which they are tried."""

    function: Handler
    formats: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Fitting:
    """What fits an address, and what every message to it asks of that."""

    matches: tuple[Match, ...] = ()
    machines: tuple[str, ...] = ()  # the modules of those that have states
    locked: tuple[str, ...] = ()  # and of those that run under the lock of the conversation


_NOTHING_FITS = _Fitting()


@dataclass(frozen=True, slots=True)
class _Table:
    """The routes, and an index over their patterns. Replaced as a whole, never changed, so that matching needs no lock."""

    routes: tuple[Route, ...]
    index: pattern.Index
    states: frozenset[tuple[str, str]]
    keys: Mapping[str, Callable[[str, Any], str]]  # module -> its state key generator
    #: `_fitting`, remembered: each recipient is asked for at RCPT and again by its delivery, and many come again.
    _remembered: Callable[[str], _Fitting] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remembered", lru_cache(REMEMBERED)(self._fitting))

    def fitting(self, address: str) -> _Fitting:
        """What fits the address, in route order."""
        return self._remembered(address) if len(address) <= ADDRESS_OCTETS else _NOTHING_FITS

    def _fitting(self, address: str) -> _Fitting:
        matches = self._match(address)
        machines = {each.route.module: None for each in matches if not each.route.stateless}
        return _Fitting(matches, tuple(machines), tuple({each.route.module: None for each in matches if each.route.locking}))

    def _match(self, address: str) -> tuple[Match, ...]:
        if len(address.encode("utf-8", "replace")) > ADDRESS_OCTETS:
            return ()
        found: dict[Handler, Match] = {}
        for number in self.index.candidates(address.lower()):
            candidate = self.routes[number]
            fits = candidate.regex.fullmatch(address)
            if fits and candidate.function not in found:
                captures = {name: fits[group] for name, group in candidate.passes}
                found[candidate.function] = Match(candidate, MappingProxyType(captures))
        return tuple(found.values())


class _Unhandled(Exception):
    """Nobody took the message; the text says why."""


@dataclass(slots=True)
class _Run:
    """One attempt at one delivery, for the barrier to look at when it fails."""

    message: Any
    recipient: str
    sender: str | None
    receipt: str
    id: str
    fitting: _Fitting = _NOTHING_FITS
    ran: tuple[str, ...] = ()
    running: Match | None = None
    keys: dict[str, str] = field(default_factory=dict)  # module -> state key: asked before a handler can change the message

    @property
    def seconds(self) -> float:
        return RECEIPT_SECONDS if "message-id" in self.message else RECEIPT_SECONDS_UNNAMED


class RoutingBase:
    """A router with routes, states and queue of its own. `Router` is the first one; the module's decorators are its methods."""

    def __init__(self) -> None:
        self.STATE_STORE: Any = MemoryStorage()
        self.UNDELIVERABLE_QUEUE: Any = None
        self.RELOAD = False
        self.LOG_EXCEPTIONS = True
        self.DEFAULT_CAPTURES: dict[str, str] = {}
        self.application = "lamson"  # told apart by it, two applications may share one database
        self.locks = Locks()
        self._registry: dict[tuple[str, str], _Registered] = {}
        self._keys: dict[str, Callable[[str, Any], str]] = {}
        self._modules: dict[str, ModuleType] = {}
        self._table: _Table | None = None
        self._sealed = False
        self._loading = 0
        self._mutex = threading.RLock()

    # -- decorators

    def route(self, format: str, **captures: str) -> Callable[[F], F]:
        """Handles addresses of this format: `(name)` is a capture, the rest is a regex. Stacked routes match from top to bottom."""
        if not isinstance(format, str):
            raise RoutingError(f'@route on {_name(format)} says no address: write @route("list@(host)") with the one that it handles.')

        def apply(function: F) -> F:
            self._register(function, [(format, captures)])
            return function

        return apply

    def route_like(self, function: Handler) -> Callable[[F], F]:
        """Handles the addresses that `function` handles."""
        like = self._registered(function)
        if like is None:
            raise RoutingError(f"route_like({_name(function)}): that function has no route; put @route on it first.")

        def apply(other: F) -> F:
            self._register(other, list(like.formats))
            return other

        return apply

    def stateless(self, function: F) -> F:
        """Runs on every match whatever the sender's state, and moves none. Stands below `@route`."""
        self._need_function(function, "stateless")
        if self._registered(function):
            raise RoutingError(f"@stateless stands above @route on {_name(function)}; put it below, next to the function.")
        function._lamson_stateless = True  # type: ignore[attr-defined]
        return function

    def nolocking(self, function: F) -> F:
        """Runs without the lock of the sender's conversation, beside other messages of the same sender."""
        self._need_function(function, "nolocking")
        function._lamson_nolocking = True  # type: ignore[attr-defined]
        return function

    def state_key_generator(self, function: F) -> F:
        """`function(module_name, message)` gives the state key of its module's conversations, which else is the module's name."""
        self._need_function(function, "state_key_generator")
        with self._mutex:
            self._keys[function.__module__] = function
            if not self._loading:
                self._table = None
        return function

    # -- setting up

    def defaults(self, **captures: str) -> None:
        """Regexes for captures that a route does not define itself. May be given before or after the handlers are imported."""
        with self._mutex:
            self.DEFAULT_CAPTURES.update(captures)
            self._table = None

    def load(self, handlers: Iterable[str]) -> None:
        """Imports the modules and takes their routes. One that fails stops it with its own error, except while `RELOAD` and
        `LOG_EXCEPTIONS` are both on (development): then it is logged."""
        if isinstance(handlers, str):
            raise RoutingError(f"Router.load takes a list of modules, and not one name: handlers = [{handlers!r}]")
        with self._changing():
            for name in handlers:
                self._load(name)

    def reload(self) -> None:
        """Imports the loaded modules anew. The old routes serve until all of them have come in; where one fails they go on serving."""
        with self._mutex:
            old = self._registry, self._keys
            try:
                with self._changing():
                    self._registry, self._keys = {}, {}
                    self._modules = {name: importlib.reload(module) for name, module in self._modules.items()}
            except Exception:
                self._registry, self._keys = old
                if not self.LOG_EXCEPTIONS:
                    raise
                log.exception("Reloading the handlers failed; the routes from before stay in force.")

    def seal(self) -> None:
        """The server has started: checks all routes, and makes registering another an error outside `load` and `reload`."""
        self.table  # noqa: B018  # a wrong route is told here
        self._sealed = True

    def unseal(self) -> None:
        """The server has stopped."""
        self._sealed = False

    def clear_routes(self) -> None:
        """Forgets all routes and handlers, for tests."""
        with self._mutex:
            self._registry, self._keys, self._modules, self._table, self._sealed = {}, {}, {}, None, False

    def clear_states(self) -> None:
        """Sends every sender back to START, for tests."""
        self.STATE_STORE.clear()

    # -- asking

    @property
    def table(self) -> _Table:
        """The compiled routes; compiled here when something changed. Raises RoutingError that names route and function."""
        table = self._table
        if table is None:
            with self._mutex:
                if self._table is None:
                    self._table = _compile(self._registry.values(), self.DEFAULT_CAPTURES, self._keys)
                table = self._table
        return table

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes in the order in which they are tried."""
        return self.table.routes

    def match(self, address: str) -> list[Match]:
        """The functions whose routes fit, in route order, each with its captures. States are not asked."""
        return [*(self._table or self.table).fitting(address).matches]

    def plan(self, message: Any) -> list[Plan]:
        """What each recipient of the message would run now. Nothing is run, locked or changed."""
        return [self._plan(message, recipient) for recipient in message.route_to]

    def state_key(self, module: Any, message: Any) -> str:
        """The key of the machine's conversations: the module's name unless a `@state_key_generator` says otherwise."""
        name = module if isinstance(module, str) else getattr(module, "__name__", str(module))
        generator = self.table.keys.get(name)
        return generator(name, message) if generator else name

    def get_state(self, module: Any, message: Any) -> str:
        """The state of the message's sender in this machine."""
        return self._read(self.state_key(module, message), message.route_from)

    def set_state(self, module: Any, message: Any, state: str | Handler) -> None:
        """Moves the message's sender; inside a delivery when it commits."""
        key, sender = self.state_key(module, message), message.route_from
        if not sender:
            return  # the null sender has no conversation
        name = state if isinstance(state, str) else state.__name__
        held = delivery.current()
        if held and held.storage is self.STATE_STORE:
            held.set_state(key, sender, name)
        else:
            self.STATE_STORE.set(key, sender, name)

    def in_state(self, function: Handler, message: Any) -> bool:
        """Whether the sender is in the state that this function is."""
        return self.get_state(function.__module__, message) == function.__name__

    def in_error(self, function: Handler, message: Any) -> bool:
        """Whether the sender is in the state ERROR of this function's machine."""
        return self.get_state(function.__module__, message) == ERROR_STATE

    @property
    def HANDLERS(self) -> Mapping[str, ModuleType]:
        """The modules that `load` took, by name."""
        return MappingProxyType(self._modules)

    @property
    def ORDER(self) -> list[str]:
        """The patterns in the order in which they are tried."""
        return list(dict.fromkeys(each.pattern for each in self.routes))

    @property
    def REGISTERED(self) -> dict[str, list[Handler]]:
        """The functions of each pattern."""
        found: dict[str, list[Handler]] = {}
        for each in self.routes:
            found.setdefault(each.pattern, []).append(each.function)
        return found

    # -- doing

    def deliver(self, message: Any, receipts: str | bool = False) -> list[Outcome]:
        """Handles the message for each recipient in order, and tells what became of each.

        `receipts`: True, and a message handled before is not handled again (its bytes and envelope tell); a text, and that text
        tells it instead; False, and it is handled however often it comes.
        Raises the first handler's SMTPError if every recipient was refused with one, and with `LOG_EXCEPTIONS` False whatever else
        a handler raised.
        """
        outcomes = self.outcomes(message, receipts)
        refusals = [each.error for each in outcomes if isinstance(each.error, SMTPError)]
        if refusals and len(refusals) == len(outcomes):
            raise refusals[0]
        return outcomes

    def outcomes(self, message: Any, receipts: str | bool = False) -> list[Outcome]:
        """As `deliver`, for receivers: refusals are outcomes too, and raise nothing."""
        if delivery.current():
            raise TypeError("Router.deliver inside a delivery: call the state function itself, or push the message into a queue.")
        if self.RELOAD:
            self.reload()
        if receipts and not delivery.remembers(self.STATE_STORE):
            receipts = False
        return [self._deliver(message, recipient, receipts) for recipient in message.route_to or [""]]

    def _deliver(self, message: Any, recipient: str, receipts: str | bool) -> Outcome:
        for _ in range(TRIES):
            fresh = message.copy()
            fresh.recipient = recipient
            receipt = self._receipt_key(fresh, recipient, receipts) if receipts else ""
            run = _Run(fresh, recipient, fresh.route_from, receipt, trace.new_id())
            before = trace.CURRENT.set(run)
            try:
                outcome = self._attempt(run)
            finally:
                trace.CURRENT.reset(before)
            if not isinstance(outcome.error, Conflict):
                return outcome
        log.warning("the conversation of %s moved elsewhere %d times running; the client is to try again", run.sender, TRIES)
        return outcome

    def _attempt(self, run: _Run) -> Outcome:
        """The barrier: whatever the handlers raise ends here and becomes an outcome."""
        try:
            run.fitting = (self._table or self.table).fitting(run.recipient)
            if not (run.sender and run.fitting.machines):
                return self._run(run)  # there is no conversation
            with self.locks.holding(self._conversations(run)):
                return self._run(run)
        except _Unhandled as nobody:
            return self._nobody(run, str(nobody))
        except SMTPError as refusal:
            log.info("refused %s: %s", run.recipient, refusal)
            return self._outcome(run, refusal.reply, error=refusal)
        except Exception as error:
            return self._failed(run, error)

    def _run(self, run: _Run) -> Outcome:
        with delivery.begin(self.STATE_STORE, run.recipient, run.sender, run.id) as held:
            held.message = run.message
            known = held.receipt(run.receipt) if run.receipt else None
            if known:
                log.info("handled before %s: %s", run.recipient, known)
                return self._outcome(run, known, repeated=True)
            self._handle(run, held)
            answer = Reply(250, f"OK, delivery {run.id}", "2.0.0")
            if run.receipt:
                held.hold_receipt(run.receipt, answer, run.seconds)
        if held.calls:
            held.call_after_commit()
        return Outcome(run.recipient, answer, run.id, run.ran)

    def _handle(self, run: _Run, held: Delivery) -> None:
        def state_of(module: str) -> str:
            return held.get_state(run.keys[module], run.sender) if run.sender else ROUTE_FIRST_STATE

        runs, why = self._choose(run.fitting, state_of)
        if not runs:
            raise _Unhandled(why)
        if why:
            log.info("only stateless functions run for %s: %s", run.recipient, why)
        for each in runs:
            run.running = each
            log.info("matched %s: %s", run.recipient, each)
            route = each.route
            returned = route.function(run.message, **each._arguments)
            run.ran += (route.full_name,)
            if not route.stateless:
                self._move(route, run, held, returned)

    def _move(self, ran: Route, run: _Run, held: Delivery, returned: Any) -> None:
        """Holds the next state; also when the sender stays, so that two processes cannot both think that they moved first."""
        if not run.sender:
            return
        key = run.keys[ran.module]
        before = held.get_state(key, run.sender)
        moved_itself = (key, run.sender) in held.states
        after = before if returned is None else self._state_name(ran, returned)
        held.set_state(key, run.sender, after)
        if after != before or moved_itself:
            log.info("state of %s in %s: %s -> %s", run.sender, key, ran.name, after)

    def _state_name(self, ran: Route, returned: Any) -> str:
        name = getattr(returned, "__name__", None)
        if not callable(returned) or (ran.module, name) not in self.table.states:
            raise RoutingError(
                f"{ran.full_name} returned {name or returned!r}, which is no state of {ran.module}: "
                "return one of its functions that has a @route, or nothing to stay."
            )
        return str(name)

    # -- what becomes of failures

    def _nobody(self, run: _Run, why: str) -> Outcome:
        if self.UNDELIVERABLE_QUEUE is None:
            return self._outcome(run, reply(550, "Nobody here takes this message", "5.7.1"))
        return self._keep(run, why, None)

    def _failed(self, run: _Run, error: Exception) -> Outcome:
        if isinstance(error, Conflict):
            return self._outcome(run, _TRY_AGAIN, error=error)
        if isinstance(error, Fault):
            log.error("nothing moved for %s, the client is to try again: %s", run.recipient, error)
            return self._outcome(run, _TRY_AGAIN, error=error)
        if not self.LOG_EXCEPTIONS:
            raise error
        name = run.running.route.full_name if run.running else "the router"
        log.error("%s failed on the message to %s", name, run.recipient, exc_info=error)
        if self.UNDELIVERABLE_QUEUE is None:
            return self._outcome(run, _TRY_AGAIN, error=error)
        return self._keep(run, f"{name} raised {type(error).__name__}: {error}", error)

    def _keep(self, run: _Run, reason: str, error: Exception | None) -> Outcome:
        """The second step: the message into the undeliverable queue, the state ERROR and the receipt, together."""
        try:
            with delivery.begin(self.STATE_STORE, run.recipient, run.sender, run.id) as held:
                key = self._push_undeliverable(run, reason)
                if error is not None:
                    self._move_to_error(run, held)
                answer = reply(250, f"Kept for the postmaster, delivery {run.id}")
                if run.receipt:
                    held.hold_receipt(run.receipt, answer, run.seconds)
        except Exception as second:
            log.exception("The undeliverable queue did not take the message to %s; the client is to try again.", run.recipient)
            return self._outcome(run, _TRY_AGAIN, error=error or second)
        log.warning("kept as undeliverable %s for %s: %s", key, run.recipient, reason)
        return self._outcome(run, answer, kept=key, error=error)

    def _push_undeliverable(self, run: _Run, reason: str) -> str:
        original = run.message.copy()  # as received: the handler may have changed its own
        envelope = {"mail_from": run.sender, "rcpt_tos": [run.recipient], "peer": str(run.message.Peer or "")}
        return str(self.UNDELIVERABLE_QUEUE.push(original, reason=reason, **envelope))

    def _move_to_error(self, run: _Run, held: Delivery) -> None:
        failed = run.running
        if failed and run.sender and not failed.route.stateless and (failed.route.module, ERROR_STATE) in self.table.states:
            held.set_state(run.keys[failed.route.module], run.sender, ERROR_STATE)

    def _outcome(self, run: _Run, answer: Reply, **more: Any) -> Outcome:
        receipt = (run.receipt, run.seconds) if run.receipt and answer.permanent else None
        return Outcome(run.recipient, answer, run.id, run.ran, receipt=receipt, **more)

    # -- receipts

    def _receipt_key(self, message: Any, recipient: str, receipts: str | bool) -> str:
        """A hash by which the same delivery is known when it comes again."""
        source = receipts.encode() if isinstance(receipts, str) else (message.route_from or "").encode("utf-8", "replace")
        parts = [self.application.encode(), source, recipient.encode("utf-8", "replace")]
        digest = hashlib.sha256(b"\0".join(parts) + b"\0")
        if receipts is True:
            digest.update(message.raw)
        return digest.hexdigest()

    # -- choosing

    def _conversations(self, run: _Run) -> list[Conversation]:
        """Those that must be locked. The state keys are asked for here, once."""
        assert run.sender
        run.keys = {module: self.state_key(module, run.message) for module in run.fitting.machines}
        return [(run.keys[module], run.sender) for module in run.fitting.locked]

    def _choose(self, fitting: _Fitting, state_of: Callable[[str], str]) -> tuple[Sequence[Match], str]:
        """Every stateless function and the first in state, in route order; if none is in state, why. A sender who is lost, in a state that
        names no function any more, has nothing run: the message is worth keeping until somebody helps."""
        if not fitting.machines:
            return fitting.matches, "" if fitting.matches else "no route fits the address"
        runs: list[Match] = []
        taken = False
        passed: list[tuple[str, str]] = []  # module and state of those that were not
        for each in fitting.matches:
            if each.route.stateless:
                runs.append(each)
            elif not taken:
                state = state_of(each.route.module)
                taken = state == each.route.name
                if taken:
                    runs.append(each)
                else:
                    passed.append((each.route.module, state))
        return (runs, "") if taken else self._none_in_state(runs, passed)

    def _none_in_state(self, runs: list[Match], passed: list[tuple[str, str]]) -> tuple[list[Match], str]:
        for each in passed:
            if self._is_lost(*each):
                return [], self._explain(*each)
        return runs, self._explain(*passed[-1])

    def _is_lost(self, module: str, state: str) -> bool:
        return state != ROUTE_FIRST_STATE and (module, state) not in self.table.states

    def _explain(self, module: str, state: str) -> str:
        if self._is_lost(module, state):
            return f"the sender's state {state} names no function of {module}; `lamson states -move {state} NEW` gives it its new name"
        return f"the sender is in the state {state} of {module}, which has no route for this address"

    def _read(self, key: str, sender: str | None) -> str:
        if not sender:
            return ROUTE_FIRST_STATE
        held = delivery.current()
        reads = held.get_state if held and held.storage is self.STATE_STORE else self.STATE_STORE.get
        return str(reads(key, sender))

    def _plan(self, message: Any, recipient: str) -> Plan:
        fresh = message.copy()
        fresh.recipient = recipient
        fitting = self.table.fitting(recipient)
        states = {module: self.get_state(module, fresh) for module in fitting.machines}
        runs, _ = self._choose(fitting, states.__getitem__)
        return Plan(recipient, tuple(runs), states)

    # -- registering

    def _register(self, function: Handler, formats: list[tuple[str, dict[str, str]]]) -> None:
        self._need_function(function, "route")
        if self._sealed and not self._loading:
            raise RoutingError(f"{_name(function)}: the server has started; routes are added by Router.load or Router.reload only.")
        with self._mutex:
            identity = (function.__module__, function.__name__)
            known = self._registry.get(identity)
            if known is None or known.function is not function:
                self._warn_of_second(known, function)
                known = self._registry[identity] = _Registered(function)
            known.formats[:0] = formats  # decorators are applied from the bottom up
            if not self._loading:
                self._table = None

    def _registered(self, function: Handler) -> _Registered | None:
        known = self._registry.get((getattr(function, "__module__", ""), getattr(function, "__name__", "")))
        return known if known and known.function is function else None

    def _warn_of_second(self, known: _Registered | None, function: Handler) -> None:
        if known is not None and _line(known.function) != _line(function):
            log.warning("%s is defined twice (lines %s and %s); the second takes the place of the first, as in Python.",
                        _name(function), _line(known.function), _line(function))  # fmt: skip

    def _need_function(self, function: Any, decorator: str) -> None:
        if not inspect.isfunction(function) or "." in function.__qualname__.rpartition("<locals>.")[2]:
            raise RoutingError(
                f"@{decorator} on {getattr(function, '__qualname__', repr(function))}: "
                "functions of a module only, no classes, methods or attributes of classes."
            )

    def _load(self, name: str) -> None:
        try:
            self._modules[name] = importlib.import_module(name)
        except Exception:
            if not (self.LOG_EXCEPTIONS and self.RELOAD):
                raise
            log.exception("The handler %s failed to import; it is left out until it is mended.", name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Routes may be registered inside, and are published together at the end."""
        with self._mutex:
            self._loading += 1
            try:
                yield
                if self._sealed:
                    self._table = _compile(self._registry.values(), self.DEFAULT_CAPTURES, self._keys)
                else:
                    self._table = None
            finally:
                self._loading -= 1


_TRY_AGAIN = reply(451, "The message could not be handled now, try again later", "4.3.0")


def _compile(registered: Iterable[_Registered], defaults: Mapping[str, str], keys: Mapping[str, Callable[[str, Any], str]]) -> _Table:
    each = [(entry.function, format, captures) for entry in list(registered) for format, captures in list(entry.formats)]
    routes = tuple(_compile_route(function, format, captures, defaults) for function, format, captures in each)
    states = frozenset((one.module, one.name) for one in routes)
    return _Table(routes, pattern.Index.of([one.pattern for one in routes]), states, dict(keys))


def _compile_route(function: Handler, format: str, captures: Mapping[str, str], defaults: Mapping[str, str]) -> Route:
    def wrong(why: str) -> RoutingError:
        return RoutingError(f"the route {format!r} of {_name(function)} ({_place(function)}): {why}")

    parameters, takes_any = _parameters(function)
    _check_captures(format, captures, {**defaults, **captures}, parameters, takes_any, wrong)
    regex = pattern.compiled(pattern.expand(format, {**defaults, **captures}), wrong)
    missing = [name for name, needed in parameters.items() if needed and name not in regex.groupindex]
    if missing:
        raise wrong(f"it captures no {_list(missing)}, which the function needs; name it in the route or give the parameter a default")
    if pattern.backtracks(regex.pattern):
        log.warning("the route %r of %s repeats a repetition; some addresses will take very long to match", format, _name(function))
    passes = tuple((name, group) for name, group in regex.groupindex.items() if takes_any or name in parameters)
    return Route(format, regex.pattern, regex, _outermost(function), passes)


def _check_captures(
    format: str,
    own: Mapping[str, str],
    known: Mapping[str, str],
    parameters: Mapping[str, bool],
    takes_any: bool,
    wrong: Callable[[str], RoutingError],
) -> None:
    names = pattern.names(format)
    bare = [name for name in names if name not in known and (takes_any or name in parameters)]
    if bare:
        raise wrong(f"({bare[0]}) has no regex; give one as @route(..., {bare[0]}=\"[a-z]+\") or by Router.defaults({bare[0]}=...)")
    if len(set(names)) < len(names):
        raise wrong("the same capture stands in it twice; give the second another name")
    unknown = [name for name in own if name in names and name not in parameters and not takes_any]
    if unknown:
        raise wrong(f"it captures {_list(unknown)}, which is no parameter of the function; add it there")
    unused = [name for name in own if name not in names]
    if unused:
        raise wrong(f"a regex is given for {_list(unused)}, but the format has no ({unused[0]})")


def _parameters(function: Handler) -> tuple[dict[str, bool], bool]:
    """The names of the parameters behind the message, each with whether it must be given; and whether there is a `**kwargs`."""
    kinds = inspect.Parameter
    signature = list(inspect.signature(function).parameters.values())[1:]
    named = [each for each in signature if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    return {each.name: each.default is kinds.empty for each in named}, any(each.kind is kinds.VAR_KEYWORD for each in signature)


def _outermost(function: Handler) -> Handler:
    """The function as its module now names it, if decorators above `@route` have wrapped it since; else the function itself."""
    outer = getattr(sys.modules.get(function.__module__), function.__name__, None)
    inner = outer
    while inner is not None and inner is not function:
        inner = getattr(inner, "__wrapped__", None)
    return outer if inner is function and outer is not None else function


def _name(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__name__', function)}"


def _line(function: Handler) -> int:
    return int(getattr(getattr(inspect.unwrap(function), "__code__", None), "co_firstlineno", 0))


def _place(function: Handler) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else "?"


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"({name})" for name in names)


#: The router that an application uses unless it makes one of its own.
Router = RoutingBase()
route = Router.route
route_like = Router.route_like
stateless = Router.stateless
nolocking = Router.nolocking
state_key_generator = Router.state_key_generator
