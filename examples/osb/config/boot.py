"""Makes services of the settings. `lamson start` imports this before it takes mail.

The services become settings themselves: a handler says `from config.settings import relay`.
"""

import logging.config

import jinja2

from config import settings
from lamson import view
from lamson.confirm import ConfirmationEngine, SQLAlchemyConfirmationStorage
from lamson.database import configure_database
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import Relay
from lamson.routing import Router
from lamson.server import SMTPReceiver

logging.config.fileConfig("config/logging.conf", disable_existing_loggers=False)

# What the application is built on.
settings.database = configure_database(settings.database_config, also_create=True)
settings.relay = Relay(**settings.relay_config)
settings.confirmation = ConfirmationEngine(settings.pending_dir, SQLAlchemyConfirmationStorage(settings.database))
settings.index = Queue(settings.index_dir)
view.LOADER = jinja2.Environment(loader=jinja2.FileSystemLoader(settings.template_config["dir"]))

# What is done with mail. A message that nobody takes, or that a handler fails on, is kept in run/undeliverable.
Router.STATE_STORE = settings.database.states
Router.UNDELIVERABLE_QUEUE = Queue("run/undeliverable")
Router.defaults(**settings.router_defaults)
Router.load(settings.handlers)

# The tables of the application's own classes. Imported here, when `config.settings` has a database and the handlers are there.
from app.model import Base

settings.database.create_all(Base.metadata)

# Questions that nobody answered for a week are given up.
settings.confirmation.purge()

# What brings mail in, and what sends it out once it is certain.
settings.receiver = SMTPReceiver(**settings.receiver_config, relay=settings.relay)
settings.outbox = Outbox(settings.database, [settings.relay], Router.UNDELIVERABLE_QUEUE)
