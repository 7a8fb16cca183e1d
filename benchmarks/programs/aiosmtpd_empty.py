"""aiosmtpd with a handler that throws the message away. `python aiosmtpd_empty.py PORT`."""

import signal
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    controller = Controller(Sink(), hostname="127.0.0.1", port=int(sys.argv[1]))
    controller.start()
    signal.sigwait({signal.SIGTERM})
    controller.stop()


main()
