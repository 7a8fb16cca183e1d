"""The scorer rspamd: asks a server of that name by HTTP, `POST /checkv2` (https://docs.rspamd.com/developers/protocol).

It judges by rules, lists and its own learning, which is trained with its own tools. Stands where `lamson.bayes` stands, with the interface
of `lamson.scorer`. A server that cannot be reached, or answers what nobody understands, is a `ScorerError` and nothing else.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamson.errors import ScorerError
from lamson.scorer import Label, Scorer, Verdict

if TYPE_CHECKING:
    from lamson.mail import MailRequest

#: What each of its actions means here. It greylists what it cannot tell yet.
ACTIONS: dict[str, Label] = {
    "no action": "ham",
    "greylist": "unsure",
    "soft reject": "unsure",
    "add header": "spam",
    "rewrite subject": "spam",
    "reject": "spam",
}
#: Octets of an answer.
LONGEST_ANSWER = 4 * 1024 * 1024
#: Reasons in a verdict.
REASONS = 12


class RspamdScorer(Scorer):
    """Asks the rspamd at `url`, its "normal" worker. `password`: where it wants one. `seconds`: of silence, then there is no answer."""

    name = "rspamd"

    def __init__(self, url: str = "http://127.0.0.1:11333", password: str | None = None, seconds: float = 10.0) -> None:
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError(f"{url!r} is no URL of rspamd; write http://127.0.0.1:11333")
        if password is not None and not (password.isascii() and password.isprintable()):
            raise ValueError("rspamd's password is sent in a header: it takes printable ASCII.")
        self.url = url
        self.password = password
        self.seconds = seconds
        self._kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = place.hostname, place.port, place.path.rstrip("/")

    def score(self, message: MailRequest) -> Verdict:
        answer = self._ask(message)
        try:
            label = ACTIONS.get(answer["action"], "unsure")
            weights = {name: float(symbol["score"]) for name, symbol in answer.get("symbols", {}).items()}
            reasons = [answer["action"], *_strongest(weights)]
            return Verdict(label, float(answer["score"]), tuple(reasons), self.name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScorerError(f"rspamd at {self.url} gave an answer that is none of /checkv2: {error!r}") from error

    def _ask(self, message: MailRequest) -> Any:
        connection = self._kind(self._host, self._port, timeout=self.seconds)
        try:
            connection.request("POST", f"{self._path}/checkv2", body=bytes(message), headers=self._headers(message))
            response = connection.getresponse()
            text = response.read(LONGEST_ANSWER)
            if response.status != 200:
                raise ScorerError(f"rspamd at {self.url} answers {response.status} {response.reason}")
            return json.loads(text)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise ScorerError(f"rspamd at {self.url} gives no answer: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _headers(self, message: MailRequest) -> dict[str, str]:
        """What it is told of the envelope. A peer of our own network is a server of ours and not who sent it, so it is not named."""
        known = {"From": message.route_from, "Rcpt": message.recipient, "IP": _public(message.Peer), "Password": self.password}
        return {name: value for name, value in known.items() if value and value.isascii() and value.isprintable()}


def _public(peer: Any) -> str | None:
    host = str(peer[0]) if isinstance(peer, tuple) and peer else str(peer or "")
    try:
        return host if ipaddress.ip_address(host).is_global else None
    except ValueError:
        return None


def _strongest(weights: dict[str, float]) -> list[str]:
    """The rules that counted, the weightiest first."""
    counted = sorted((-abs(weight), name, weight) for name, weight in weights.items() if weight)
    return [f"{name} {weight:+.2f}" for _, name, weight in counted[:REASONS]]
