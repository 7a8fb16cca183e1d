"""Lamson's listener and session alone: a callback answers 250. `python session.py PORT`."""

import signal
import sys

from lamson.smtp.listener import Listener
from lamson.smtp.session import Rules, Session
from lamson.status import reply

TAKEN = [reply(250, "OK", "2.0.0")]


def main() -> None:
    rules = Rules("bench.example", accept_waits=False)  # as a receiver has it, which asks a table
    address = ("127.0.0.1", int(sys.argv[1]))
    listener = Listener(address, lambda peer, tls: Session(rules, peer, tls), lambda envelope: TAKEN, connections=2000, per_peer=2000)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    listener.start()
    signal.sigwait({signal.SIGTERM})
    listener.stop(1.0)


main()
