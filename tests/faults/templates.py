"""Template tricks in every field that an answer repeats: none evaluated, no header made, no bare CR or LF sent."""

from __future__ import annotations

import base64
import email
import email.policy
import re

from tests.faults.client import Connection
from tests.faults.figures import Figures, promise
from tests.faults.scene import scene
from tests.faults.sink import Sink

TRICKS = (
    *("{{1234*5678}}", "{{ message }}", "{% for x in [1] %}{{1234*5678}}{% endfor %}", "{# gone #}"),
    *("{{ self.__init__.__globals__ }}", "{{config}}"),
    *("%(subject)s", "%(message)s", "%s%d%n", "{0.__class__}", "{message.__class__}", "{}", "${subject}", "$(id)", "<%= 1234*5678 %>"),
    *("a\r\nX-Injected: yes", "a\nX-Injected: yes", "a\rX-Injected: yes", "a\r\n\r\nX-Injected: a body", "a\u2028X-Injected: yes"),
    *("a\u2029X-Injected: yes", "a\x85X-Injected: yes", "a\0X-Injected: yes", "a\x0bX-Injected: yes", "a\x0cX-Injected: yes"),
    *("a\r\n.\r\nMAIL FROM:<x@y>", "\u202etxet", "<script>alert(7)</script>"),
)
#: The headers that the template of echo, and Lamson, make.
HEADERS = {"from", "to", "subject", "x-name", "x-answers", "date", "message-id", "mime-version", "auto-submitted",
           "content-type", "content-transfer-encoding"}  # fmt: skip


def run() -> Figures:
    with Sink(keep_data=True) as sink, scene(relay_config={"port": sink.port}, handlers=["app.handlers.echo"]) as server:
        server.start()
        marks = set()
        for number, trick in enumerate(TRICKS):
            for place in ("subject", "name", "body", "mark"):
                mark = f"{place}-{number}"
                marks.add(mark)
                with Connection(server.port) as connection:
                    code = connection.send("ann@client.test", ["echo@test.com"], message(mark, trick, place))
                promise(code == 250, f"{trick!r} as {place} was answered with {code}")
        server.wait(lambda: len(sink.answers) >= len(marks), "an answer to each")
        for answer in sink.answers:
            judge(answer.data)
        server.stop()
        return {"tricks": len(TRICKS), "answers": len(sink.answers), "evaluated": 0, "headers made": 0, "bare CR or LF": 0}


def message(mark: str, trick: str, place: str) -> bytes:
    """The trick in an encoded word of that header, or in the body."""
    word = f"=?utf-8?b?{base64.b64encode(trick.encode()).decode()}?="
    subject, name, label = (word if place == each else "plain" for each in ("subject", "name", "mark"))
    body = base64.b64encode((trick if place == "body" else "plain").encode()).decode()
    head = f"From: {name} <ann@client.test>\r\nTo: echo@test.com\r\nSubject: {subject}\r\nMessage-ID: <{mark}@client.test>\r\n"
    kind = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
    return f"{head}X-Mark: {label if place == 'mark' else mark}\r\n{kind}\r\n{body}\r\n".encode()


def judge(data: bytes) -> None:
    ends = data.count(b"\r\n")
    promise(data.count(b"\r") == data.count(b"\n") == ends, f"a bare CR or LF was sent: {data!r}")
    head, _, _ = data.partition(b"\r\n\r\n")
    names = {name.decode().lower() for name in re.findall(rb"(?m)^([!-9;-~]+):", head)}
    promise(names <= HEADERS, f"headers were made: {names - HEADERS} in {data!r}")
    read = email.message_from_bytes(data, policy=email.policy.default)
    everything = repr([*read.values(), read.get_content()])
    promise("7006652" not in everything, f"evaluated: {everything}")
    promise("MailRequest" not in everything and "<module" not in everything and "'os'" not in everything, f"evaluated: {everything}")
