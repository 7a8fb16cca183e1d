"""The names that applications import are there. A name may come; none may go without an entry under "Removed" in CHANGELOG.md."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lamson
from lamson.routing import RoutingBase

#: Module: the names that applications import from it. `Class.name` is an attribute of that class.
NAMES: dict[str, str] = {
    "lamson.routing": """
        Router RoutingBase route route_like stateless nolocking state_key_generator
        ROUTE_FIRST_STATE StateStorage MemoryStorage ShelveStorage
        RoutingBase.deliver RoutingBase.defaults RoutingBase.load RoutingBase.reload RoutingBase.match RoutingBase.plan
        RoutingBase.get_state RoutingBase.set_state RoutingBase.in_state RoutingBase.in_error RoutingBase.state_key
        RoutingBase.clear_states RoutingBase.clear_routes RoutingBase.seal RoutingBase.routes
        RoutingBase.STATE_STORE RoutingBase.UNDELIVERABLE_QUEUE RoutingBase.RELOAD RoutingBase.LOG_EXCEPTIONS
        RoutingBase.HANDLERS RoutingBase.ORDER RoutingBase.REGISTERED RoutingBase.DEFAULT_CAPTURES
        StateStorage.get StateStorage.set StateStorage.clear
    """,
    "lamson.mail": """
        MailRequest MailResponse
        MailRequest.raw MailRequest.original MailRequest.route_to MailRequest.route_from MailRequest.keys MailRequest.items
        MailRequest.get_all MailRequest.body MailRequest.all_parts MailRequest.walk MailRequest.base MailRequest.to_message
        MailRequest.is_bounce MailRequest.bounce MailRequest.is_automatic MailRequest.recipient MailRequest.defects MailRequest.copy
        MailRequest.verdict MailRequest.reply MailRequest.reply_to MailRequest.reply_text MailRequest.unanswerable
        MailResponse.attach MailResponse.attach_part MailResponse.attach_all_parts MailResponse.clear MailResponse.update
        MailResponse.to_message
    """,
    "lamson.encoding": """
        MailBase EncodingError from_message from_string from_file to_message to_string to_file header_from_mime_encoding
        header_to_mime_encoding properly_decode_header guess_encoding_and_decode attempt_decoding parse_parameter_header MIMEPart
        CONTENT_ENCODING_KEYS CONTENT_ENCODING_REMOVED_PARAMS
        MailBase.attach_text MailBase.attach_file MailBase.walk MailBase.append_header MailBase.get_all
    """,
    "lamson.server": """
        SMTPReceiver LMTPReceiver QueueReceiver Relay SMTPError undeliverable_message make_fake_settings
        SMTPReceiver.start SMTPReceiver.stop SMTPReceiver.process_message
        LMTPReceiver.start LMTPReceiver.stop LMTPReceiver.process_message
        QueueReceiver.start QueueReceiver.stop QueueReceiver.process_message
    """,
    "lamson.relay": "Relay QueueRelay Relay.deliver Relay.reply Relay.send",
    "lamson.database": """
        configure_database FSMState SQLAlchemyStorage Database
        Database.engine Database.session Database.transaction Database.states Database.create_all
    """,
    "lamson.queue": """
        Queue QueueError SafeMaildir
        Queue.push Queue.pop Queue.get Queue.remove Queue.keys Queue.count Queue.clear Queue.oversize
    """,
    "lamson.view": "LOADER load render respond attach",
    "lamson.html": "HtmlMail HtmlMail.render HtmlMail.respond markdown sanitise",
    "lamson.confirm": """
        ConfirmationStorage SQLAlchemyConfirmationStorage ConfirmationEngine
        ConfirmationStorage.get ConfirmationStorage.store ConfirmationStorage.delete ConfirmationStorage.clear
        ConfirmationEngine.send ConfirmationEngine.register ConfirmationEngine.verify ConfirmationEngine.cancel ConfirmationEngine.clear
        ConfirmationEngine.push_pending ConfirmationEngine.get_pending ConfirmationEngine.delete_pending ConfirmationEngine.purge
    """,
    "lamson.bounce": """
        verp_address verp_recipient bounce_to detect BounceAnalyzer BOUNCE_MATCHERS
        BounceAnalyzer.probable BounceAnalyzer.is_hard BounceAnalyzer.is_soft BounceAnalyzer.error_for_humans
    """,
    "lamson.testing": """
        RouterConversation TestConversation delivered queue clear_queue relay assert_in_state spelling TEST_QUEUE
        RouterConversation.begin RouterConversation.deliver RouterConversation.say
    """,
    "lamson.spam": """
        spam_filter Filter Scorer Verdict
        Filter.filter Filter.train_ham Filter.train_spam Filter.untrain_ham Filter.untrain_spam
    """,
    "lamson.utils": "import_settings configure_database daemonize drop_priv make_fake_settings check_for_pid start_server",
    "lamson.outbox": "Outbox Outbox.start Outbox.stop Outbox.drain",
    "lamson.delivery": "current Delivery.after_commit",
    "lamson.errors": """
        LamsonError SMTPError RelayError TransientError PermanentError ConfigError RoutingError AddressError EncodingError QueueError
        ViewError DatabaseError
    """,
    "lamson.trace": "DeliveryFilter DeliveryFormatter LogFile",
    "lamson.handlers.log": "START",
    "lamson.handlers.queue": "START",
    "lamson.handlers.forward": "START",
    "lamson.commands": "main",
}

#: An instance of each class whose attributes are made with it.
INSTANCES: dict[str, Callable[[], object]] = {
    "lamson.routing.RoutingBase": lambda: resolve("lamson.routing.RoutingBase")(),
    "lamson.mail.MailRequest": lambda: resolve("lamson.mail.MailRequest")(None, None, None, b""),
    "lamson.database.Database": lambda: resolve("lamson.database.configure_database")({"url": "sqlite://"}),
}

#: Parameters as they were in 1.x: applications give them by keyword.
PARAMETERS: dict[str, str] = {
    "lamson.mail.MailRequest": "Peer From To Data",
    "lamson.mail.MailResponse": "To From Subject Body Html",
    "lamson.mail.MailResponse.attach": "filename content_type data disposition",
    "lamson.mail.MailResponse.attach_all_parts": "request",
    "lamson.server.SMTPReceiver": "host port",
    "lamson.server.LMTPReceiver": "host port socket",
    "lamson.server.QueueReceiver": "queue_dir sleep size_limit oversize_dir workers",
    "lamson.server.SMTPReceiver.process_message": "Peer From To Data",
    "lamson.server.SMTPError": "code message",
    "lamson.relay.Relay": "host port username password ssl starttls debug lmtp",
    "lamson.relay.Relay.deliver": "message To From",
    "lamson.relay.Relay.reply": "original From Subject Body",
    "lamson.relay.Relay.send": "To From Subject Body",
    "lamson.queue.Queue": "queue_dir safe pop_limit oversize_dir",
    "lamson.queue.QueueError": "msg data",
    "lamson.view.load": "name",
    "lamson.view.render": "variables template",
    "lamson.view.attach": "msg variables template filename content_type disposition",
    "lamson.routing.route": "format",
    "lamson.routing.RoutingBase.deliver": "message",
    "lamson.routing.StateStorage.get": "key sender",
    "lamson.routing.StateStorage.set": "key sender state",
    "lamson.testing.RouterConversation": "From Subject",
    "lamson.testing.TestConversation": "relay From Subject",
    "lamson.testing.RouterConversation.deliver": "To From Subject Body",
    "lamson.testing.RouterConversation.say": "To Body expect Subject",
    "lamson.testing.delivered": "pattern to_queue",
    "lamson.utils.import_settings": "boot_also from_dir boot_module",
    "lamson.utils.configure_database": "config also_create",
    "lamson.confirm.ConfirmationStorage": "db",
    "lamson.confirm.ConfirmationStorage.store": "target from_address expected_secret pending_message_id",
    "lamson.confirm.ConfirmationEngine": "pending_queue storage",
    "lamson.confirm.ConfirmationEngine.send": "relay target message template vars",
    "lamson.confirm.ConfirmationEngine.register": "target message",
    "lamson.confirm.ConfirmationEngine.verify": "target from_address expect_secret",
    "lamson.confirm.ConfirmationEngine.cancel": "target from_address expect_secret",
    "lamson.spam.spam_filter": "storage config spam_queue next_state",
    "lamson.spam.Filter": "storage config",
    "lamson.bounce.bounce_to": "soft hard threshold",
    "lamson.html.HtmlMail": "css_template html_template variables wiki",
    "lamson.html.HtmlMail.render": "variables content_template pretty",
    "lamson.html.HtmlMail.respond": "variables content",
}


def resolve(path: str) -> Any:
    """What `module.Class.name` is."""
    (module,) = [name for name in NAMES if path.startswith(f"{name}.")]
    found: Any = importlib.import_module(module)
    for name in path.removeprefix(f"{module}.").split("."):
        found = getattr(found, name)
    return found


def on_an_instance(path: str) -> bool:
    kind, _, name = path.rpartition(".")
    return kind in INSTANCES and hasattr(INSTANCES[kind](), name)


@pytest.fixture(autouse=True)
def _handlers_are_forgotten(default_router: RoutingBase) -> Iterator[None]:
    """A handler's module registers its route when it is imported; here it shall do so for nobody."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("lamson.handlers."):
            del sys.modules[name]


@pytest.mark.parametrize("module", NAMES)
def test_the_names_of_a_module_are_there(module: str) -> None:
    missing = []
    for name in NAMES[module].split():
        try:
            resolve(f"{module}.{name}")
        except (AttributeError, ImportError):
            missing += [] if on_an_instance(f"{module}.{name}") else [name]
    assert missing == []


@pytest.mark.parametrize("path", PARAMETERS)
def test_parameters_keep_their_names_and_order(path: str) -> None:
    known = [name for name in inspect.signature(resolve(path)).parameters if name != "self"]
    wanted = PARAMETERS[path].split()
    assert known[: len(wanted)] == wanted


def test_the_package_is_typed() -> None:
    assert (Path(lamson.__file__).parent / "py.typed").is_file()
