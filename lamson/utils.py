"""The names that Lamson 1.x had here, from where they live now. New code imports them from there."""

from lamson.config import import_settings
from lamson.database import configure_database
from lamson.process import check_for_pid, daemonize, drop_priv, start_server
from lamson.server import make_fake_settings

__all__ = [
    "check_for_pid",
    "configure_database",
    "daemonize",
    "drop_priv",
    "import_settings",
    "make_fake_settings",
    "start_server",
]
