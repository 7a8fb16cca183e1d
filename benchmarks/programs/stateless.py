"""Lamson's receiver and router with a stateless handler that does nothing, no database and no log. `python stateless.py PORT`."""

import signal
import sys

from lamson.routing import Router, route, stateless
from lamson.server import SMTPReceiver


@route("(address)@(host)", address="nothing", host="test\\.com")
@stateless
def NOTHING(message, address=None, host=None):
    pass


def main() -> None:
    receiver = SMTPReceiver("127.0.0.1", int(sys.argv[1]), router=Router, connections=2000, per_peer=2000)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    receiver.start()
    signal.sigwait({signal.SIGTERM})
    receiver.stop(1.0)


main()
