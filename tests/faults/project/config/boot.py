"""Makes services of the settings, as a generated project does."""

import logging.config

import jinja2
from app.model import rows

from config import settings
from lamson import view
from lamson.database import configure_database
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import Relay
from lamson.routing import Router
from lamson.server import QueueReceiver, SMTPReceiver

logging.config.fileConfig("config/logging.conf", disable_existing_loggers=False)

settings.database = configure_database(settings.database_config, also_create=True)
settings.database.create_all(rows.Base.metadata)
settings.relay = Relay(**settings.relay_config)
view.LOADER = jinja2.Environment(loader=jinja2.FileSystemLoader(settings.template_config["dir"]))

Router.STATE_STORE = settings.database.states
Router.UNDELIVERABLE_QUEUE = Queue(settings.undeliverable) if settings.undeliverable else None
Router.defaults(**settings.router_defaults)
Router.load(settings.handlers)

settings.receiver = QueueReceiver(settings.queue_in, sleep=0.1) if settings.queue_in else SMTPReceiver(**settings.receiver_config)
settings.outbox = Outbox(settings.database, [settings.relay], Router.UNDELIVERABLE_QUEUE, **settings.outbox_config)
