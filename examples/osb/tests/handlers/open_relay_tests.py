"""That this is no open relay: mail for anyone but us is refused as soon as the recipient is named.

A server that takes mail for strangers and sends it on is found within hours and used for spam. Keep these tests.
"""

from config import testing  # first, so that everything goes to the tests' own queue and database
from lamson.routing import Router
from lamson.server import SMTPReceiver
from lamson.smtp.client import Client

STRANGERS = [
    "somebody@elsewhere.example",
    "somebody@oneshotblog.com.elsewhere.example",
    "somebody@elsewhere-oneshotblog.com",
    "somebody%elsewhere.example@elsewhere.example",
    "somebody@[127.0.0.1]",
]


def test_no_route_takes_mail_for_strangers():
    for address in STRANGERS:
        assert not Router.match(address), f"{address} would be taken by {Router.match(address)}"


def test_the_server_refuses_mail_for_strangers():
    receiver = SMTPReceiver("127.0.0.1", 0)  # one of its own, on a free port: the real one need not run
    receiver.start()
    try:
        with Client(*receiver.address) as client:
            refused = client.send("spammer@elsewhere.example", STRANGERS, b"Subject: Spam\r\n\r\nBuy this.\r\n")
    finally:
        receiver.stop()
    assert sorted(refused) == sorted(STRANGERS)
    for address, error in refused.items():
        assert error.reply.code == 550, f"{address}: {error}"
