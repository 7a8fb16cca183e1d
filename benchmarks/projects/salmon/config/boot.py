"""Salmon as its documentation sets it up: states in a shelve, answers through its relay.

BENCH_LOG is the level of its log: what Lamson tells of a message's way at INFO, Salmon tells at DEBUG, as its generator sets it up.
"""

import logging
import os

import jinja2
from salmon import view
from salmon.routing import Router, ShelveStorage
from salmon.server import Relay, SMTPReceiver

from config import settings

logging.basicConfig(filename="logs/salmon.log", level=os.environ["BENCH_LOG"], format="%(asctime)s %(levelname)s %(name)s: %(message)s")

settings.relay = Relay(**settings.relay_config)
settings.receiver = SMTPReceiver(**settings.receiver_config)
view.LOADER = jinja2.Environment(loader=jinja2.FileSystemLoader("app/templates"))
Router.STATE_STORE = ShelveStorage("run/states")
Router.defaults(**settings.router_defaults)
Router.load(settings.handlers)
