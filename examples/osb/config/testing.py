"""The same as boot.py for tests: nothing listens, outgoing mail lands in run/testing, and all else is new for each run.

A test begins with `from config import testing` and then talks to the router: see tests/handlers/post_tests.py.
"""

import atexit
import logging.config
import tempfile

import jinja2

import lamson.testing
from config import settings
from lamson import view
from lamson.confirm import ConfirmationEngine, SQLAlchemyConfirmationStorage
from lamson.database import configure_database
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import QueueRelay
from lamson.routing import Router

logging.config.fileConfig("config/test_logging.conf", disable_existing_loggers=False)

lamson.testing.TEST_QUEUE = "run/testing"
SCRATCH = tempfile.TemporaryDirectory(prefix="lamson-")
atexit.register(SCRATCH.cleanup)
settings.pending_dir, settings.index_dir, settings.spam_dir = (f"{SCRATCH.name}/{name}" for name in ("pending", "index", "spam"))
settings.site_dir = f"{SCRATCH.name}/site"

settings.database = configure_database({"url": f"sqlite:///{SCRATCH.name}/lamson.db"}, also_create=True)
settings.relay = QueueRelay(lamson.testing.TEST_QUEUE)
settings.confirmation = ConfirmationEngine(settings.pending_dir, SQLAlchemyConfirmationStorage(settings.database))
settings.index = Queue(settings.index_dir)
settings.outbox = Outbox(settings.database, [settings.relay])
view.LOADER = jinja2.Environment(loader=jinja2.FileSystemLoader(settings.template_config["dir"]))

Router.STATE_STORE = settings.database.states
Router.UNDELIVERABLE_QUEUE = Queue(f"{SCRATCH.name}/undeliverable")
Router.defaults(**settings.router_defaults)
Router.load(settings.handlers)

from app.model import Base

settings.database.create_all(Base.metadata)
