"""The second process: `lamson start -boot config.queue -pid run/queue.pid`. It takes the notes in run/index and makes the pages.

There is no undeliverable queue here: a note whose pages cannot be made stays in run/index, and is tried again.
"""

import logging.config

import jinja2

from config import settings
from lamson import view
from lamson.database import configure_database
from lamson.routing import Router
from lamson.server import QueueReceiver

logging.config.fileConfig("config/logging.conf", disable_existing_loggers=False)

settings.database = configure_database(settings.database_config, also_create=True)
view.LOADER = jinja2.Environment(loader=jinja2.FileSystemLoader(settings.template_config["dir"]))

Router.STATE_STORE = settings.database.states
Router.defaults(**settings.router_defaults)
Router.load(["app.handlers.index"])

from app.model import Base, site

settings.database.create_all(Base.metadata)

# Whatever is missing or old, because a template was changed or the power failed, is made anew.
with settings.database.transaction():
    site.rebuild()

# One at a time: two that make the same page would race, and the older might win.
settings.receiver = QueueReceiver(settings.index_dir, sleep=1, workers=1)
