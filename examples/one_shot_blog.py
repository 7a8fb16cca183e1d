"""The One Shot Blog, told as it happens: its servers, two people and a seller of pills who write to it, and the pages that come of it.

Run by `examples/osb/demo`. It works on a copy of the project, and does to it what a person would: commands, mail over SMTP, and a look at
what came of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from thirty_seconds import DEMOS, LAMSON, PATIENCE, ROOT, USUAL_PORTS, Failed, free_port, headline, is_free, lamson, replace, stop, stop_all

from lamson.mail import MailRequest, MailResponse
from lamson.queue import Queue

ANN, BOB, SELLER = "ann@example.com", "bob@example.com", "seller@pills.example"
HELLO, SECOND, DELETE_SECOND = "hello@oneshotblog.com", "second@oneshotblog.com", "second-delete@oneshotblog.com"
COMMENT_ON_HELLO = "ann-at-example.com-hello-comment@oneshotblog.com"
HELLO_PAGE, SECOND_PAGE = "by/ann@example.com/hello/index.html", "by/ann@example.com/second/index.html"

POST = """\
This page was a **mail** a moment ago.

I wrote it, was asked once whether it was me, and answered. That is all:

- the subject became the title,
- the text is Markdown,
- the next mail will be published at once.

```python
@route("(post_name)@(host)")
def START(message, post_name=None, host=None):
    ...
    return CONFIRMING
```
"""
COMMENT = "And this was one, too. I *like* how little there is to it."
SPAM = "Buy cheap pills online now! Best price, free shipping, no prescription: http://pills.example/buy"


def main(words: list[str]) -> int:
    try:
        if words not in ([], ["stop"]):
            raise Failed(f"unknown: {' '.join(words)}. It is ./demo or ./demo stop")
        stop_all()
        if not words:
            show()
    except Failed as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def show() -> None:
    blog = new_blog()
    try:
        start(blog)
        publish(blog)
        comment(blog)
        send_spam(blog)
        delete(blog)
        tell_what_there_is(blog)
        serve(blog)
    finally:
        headline("The end")
        stop(blog.folder)


# -- the blog and its servers


@dataclass(frozen=True)
class Blog:
    """A copy of the project, and the ports of its servers: server, log, web."""

    folder: Path
    ports: dict[str, int]

    def queue(self, name: str) -> Queue:
        return Queue(self.folder / "run" / name)

    def page(self, path: str) -> str:
        """The text of a page; "" when there is none."""
        place = self.folder / "run" / "site" / path
        return place.read_text("utf-8") if place.exists() else ""


def new_blog() -> Blog:
    """One that no earlier run had: what was written to those stays."""
    DEMOS.mkdir(exist_ok=True)
    names = ["oneshotblog", *(f"oneshotblog{number}" for number in range(2, 10_000))]
    folder = next(DEMOS / name for name in names if not (DEMOS / name).exists())
    shutil.copytree(ROOT / "examples" / "osb", folder, ignore=left_over)
    print(f"This is {folder}, a copy of examples/osb.")
    return Blog(folder, choose_ports(folder))


def left_over(folder: str, names: list[str]) -> list[str]:
    """What running the original, or its tests, has left there."""
    return [name for name in names if name == "__pycache__" or (Path(folder).name in ("run", "logs") and name != ".keep")]


def choose_ports(folder: Path) -> dict[str, int]:
    """The usual ports, and free ones in place of those that are taken, written into the project's settings."""
    usual = {**USUAL_PORTS, "web": 8888}
    ports = {who: port if is_free(port) else free_port() for who, port in usual.items()}
    for who, port in usual.items():
        if ports[who] != port:
            print(f"Port {port} is taken: config/settings.py says {ports[who]} instead.")
            for name in ("config/settings.py", "muttrc"):
                replace(folder / name, str(port), str(ports[who]))
    return ports


def start(blog: Blog) -> None:
    headline("The blog; the INDEXER, which makes its pages; what forwards the rest; and a server that stands for everybody's mailbox")
    lamson(blog.folder, "start")
    lamson(blog.folder, "start", "-boot", "config.queue", "-pid", "run/queue.pid")
    lamson(blog.folder, "start", "-boot", "config.forward", "-pid", "run/forward.pid")
    lamson(blog.folder, "log", "-port", blog.ports["log"])


# -- the conversation


def publish(blog: Blog) -> None:
    headline("Ann writes her first post, and is asked whether it was her")
    question = say(blog, ANN, HELLO, "Hello from a mail", POST)
    show_mail(question)
    headline("She answers, and it is published")
    show_mail(say(blog, ANN, question["From"], "Re: Confirmation required", "Yes, it was me."))
    wait_until(lambda: "a moment ago" in blog.page(HELLO_PAGE), f"the post on {HELLO_PAGE}")


def comment(blog: Blog) -> None:
    headline("Bob comments. He is asked once, too")
    question = say(blog, BOB, COMMENT_ON_HELLO, "Re: Hello from a mail", COMMENT)
    show_mail(say(blog, BOB, question["From"], "Re: Confirmation required", "Yes, it was me."))
    wait_until(lambda: "how little there is" in blog.page(HELLO_PAGE), f"the comment on {HELLO_PAGE}")


def send_spam(blog: Blog) -> None:
    headline("The spam filter is shown ten messages of one kind, and ten of the other. Then somebody sells pills")
    for number in range(10):
        blog.queue("taught_spam").push(letter(f"s{number}@pills.example", f"Cheap pills, best price {number}", SPAM))
        blog.queue("taught_ham").push(letter(f"reader{number}@example.com", f"Re: Post {number}", COMMENT))
    lamson(blog.folder, "spam", "-spam", "run/taught_spam")
    lamson(blog.folder, "spam", "-ham", "run/taught_ham")
    send(blog, SELLER, COMMENT_ON_HELLO, "Cheap pills, best price", SPAM)
    wait_until(lambda: blog.queue("spam").count() == 1, "the message in run/spam")
    lamson(blog.folder, "queue", "-name", "run/spam", "-list")
    lamson(blog.folder, "states", "-for", SELLER)


def delete(blog: Blog) -> None:
    headline("Ann writes another post, which is published at once; then she deletes it")
    say(blog, ANN, SECOND, "A second thought", "Rather not.")
    wait_until(lambda: "Rather not" in blog.page(SECOND_PAGE), f"the post on {SECOND_PAGE}")
    question = say(blog, ANN, DELETE_SECOND, "Away with it", "Please.")
    show_mail(say(blog, ANN, question["From"], "Re: Confirmation required", "Yes."))
    wait_until(lambda: not blog.page(SECOND_PAGE), f"{SECOND_PAGE} is gone")


def say(blog: Blog, sender: str, to: str | None, subject: str, body: str) -> MailRequest:
    """Sends a message, and returns the answer that comes back."""
    mailbox = blog.queue("queue")
    before = mailbox.count()
    send(blog, sender, str(to), subject, body)
    wait_until(lambda: mailbox.count() > before, f"an answer to {sender}")
    answer = mailbox.get(mailbox.keys()[before])
    assert answer is not None, "nobody takes messages out of run/queue"
    return answer


def send(blog: Blog, sender: str, to: str, subject: str, body: str) -> None:
    words = ["-sender", sender, "-to", to, "-subject", subject, "-body", body]
    lamson(blog.folder, "send", *words, "-port", blog.ports["server"], quiet=True)


def letter(sender: str, subject: str, body: str) -> MailResponse:
    return MailResponse(To=HELLO, From=sender, Subject=subject, Body=body)


def show_mail(message: MailRequest) -> None:
    """The message as a mail reader shows it."""
    headers = [f"{name}: {message[name]}" for name in ("From", "To", "Subject")]
    print("\n".join(["", *headers, "", message.text.strip()]))


def wait_until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > deadline:
            raise Failed(f"not seen within {PATIENCE} seconds: {what}. logs/lamson.log in the project tells more.")
        time.sleep(0.05)


# -- what came of it


def tell_what_there_is(blog: Blog) -> None:
    headline("Who is in which state, and what there is to read")
    lamson(blog.folder, "states")
    found = sorted(path.relative_to(blog.folder) for path in (blog.folder / "run" / "site").rglob("*") if path.is_file())
    print("", *found, sep="\n")


def serve(blog: Blog) -> None:
    """Until Ctrl-C, where somebody looks on; else it is only tried."""
    address = f"http://localhost:{blog.ports['web']}/"
    headline(f"The pages: {address}")
    words = ["web", "-basedir", "run/site", "-port", str(blog.ports["web"])]
    print(f"\n$ lamson {' '.join(words)}", flush=True)
    with subprocess.Popen([LAMSON, *words], cwd=blog.folder, stdin=subprocess.DEVNULL) as server:
        try:
            if sys.stdout.isatty():
                tell_how_to_go_on(blog)
                server.wait()
            else:
                wait_until(lambda: answers(address), f"{address} shows the post")
        finally:
            server.terminate()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            return b"Hello from a mail" in page.read()
    except OSError:
        return False


def tell_how_to_go_on(blog: Blog) -> None:
    print(f"""
Everything runs until you press Ctrl-C. In another shell:

    cd {blog.folder}
    PATH="{LAMSON.parent}:$PATH"

    lamson send -port {blog.ports["server"]} -sender you@example.com -to mine@oneshotblog.com -subject "Mine" -body "From me."
    mutt -F muttrc        everybody's mailbox: answer what you are asked
    mutt -F pendingrc     what waits for an answer
    less README           how it is made
""")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
