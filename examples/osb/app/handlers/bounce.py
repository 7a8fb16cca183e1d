"""What bounces do. These are no states of their own: `@bounce_to` runs them in the place of a START, which is where bounces arrive, as they
have no sender.
"""

import logging

from config.settings import confirmation

log = logging.getLogger("osb.bounce")


def SOFT(message):
    """Somebody's server tries on. Nothing to do but to know."""
    log.info("not delivered yet to %s: %s", ", ".join(message.bounce.final_recipients), message.bounce.error_for_humans())


def HARD(message, target=None, secret=None):
    """A question that reached nobody: what waits for its answer is given up.

    Anybody can write a bounce, so it is believed only as far as it knows the question's secret.
    """
    for recipient in message.bounce.final_recipients:
        log.info("not delivered to %s: %s", recipient, message.bounce.error_for_humans())
        if secret is not None:
            confirmation.cancel(target, recipient, secret)
