"""The third process: `lamson start -boot config.forward -pid run/forward.pid`. What no one handled goes to a person.

It has a relay of its own name, so that its mail is sent by its own outbox: what cannot be forwarded stays in run/unforwarded and does not
come round again.
"""

import logging.config

from config import settings
from lamson.database import configure_database
from lamson.outbox import Outbox
from lamson.queue import Queue
from lamson.relay import Relay
from lamson.routing import Router
from lamson.server import QueueReceiver

logging.config.fileConfig("config/logging.conf", disable_existing_loggers=False)

settings.database = configure_database(settings.database_config, also_create=True)
settings.relay = Relay(**settings.relay_config, name="forward")

Router.STATE_STORE = settings.database.states
Router.UNDELIVERABLE_QUEUE = Queue("run/unforwarded")
Router.load(["app.handlers.forward"])

settings.receiver = QueueReceiver("run/undeliverable", sleep=1, workers=1)
settings.outbox = Outbox(settings.database, [settings.relay], Router.UNDELIVERABLE_QUEUE)
