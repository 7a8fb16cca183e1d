"""The One Shot Blog of examples/osb: its own tests, and all of it by SMTP, with its processes, a web server and a browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamson import commands
from lamson.mail import MailRequest, MailResponse
from lamson.queue import Queue
from lamson.spam import Filter
from tests import browser, databases
from tests.project import PATIENCE, Project, wait_for
from tests.test_project import Terminal

ROOT = Path(__file__).resolve().parent.parent

ANN, BOB, SELLER = "ann@example.com", "bob@example.com", "seller@pills.example"
HELLO, COMMENT_ON_HELLO = "hello@oneshotblog.com", "ann-at-example.com-hello-comment@oneshotblog.com"
HELLO_PAGE = "by/ann@example.com/hello/index.html"
SPAM = "Buy cheap pills online now! Best price, free shipping, no prescription: http://pills.example/buy"

#: An image of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c636460f8cf0000010500c9a5d2e4a40000000049454e44ae426082"
)


class Blog(Project):
    """A copy of the example, with its servers on free ports."""

    def __init__(self, parent: Path) -> None:
        self.folder = parent / "osb"
        shutil.copytree(ROOT / "examples" / "osb", self.folder, ignore=left_over)
        self.port = self.log_port = 0
        self.edit("config/settings.py", '"localhost", "port": 8823', '"127.0.0.1", "port": 0')

    def start_indexer(self) -> None:
        self.lamson("start", "-boot", "config.queue", "-pid", "run/queue.pid")

    def ask(self, sender: str, to: str, body: str, subject: str = "A title") -> MailRequest:
        """Sends a message, and returns what comes back."""
        before = self.mailbox.count()
        self.send(sender, to, body, subject)
        return self.messages("run/queue", before + 1)[before]

    def confirm(self, question: MailRequest) -> MailRequest:
        return self.ask(question.route_to[0], str(question["From"]), "Yes, it was me.")

    @property
    def mailbox(self) -> Queue:
        return Queue(self.folder / "run" / "queue")

    def page(self, path: str) -> str:
        place = self.folder / "run" / "site" / path
        return place.read_text("utf-8") if place.exists() else ""

    def shows(self, path: str, text: str) -> None:
        wait_for(lambda: text in self.page(path), f"{text!r} on {path}")


def left_over(folder: str, names: list[str]) -> list[str]:
    """What running the original, or its tests, has left there."""
    return [name for name in names if name == "__pycache__" or (Path(folder).name in ("run", "logs") and name != ".keep")]


@pytest.fixture
def blog(tmp_path: Path) -> Iterator[Blog]:
    made = Blog(tmp_path)
    yield made
    made.stop()


# -- its own tests


@pytest.mark.timeout(300)  # eight seconds of CPU under each of them, and a machine may be busy
def test_its_own_tests_pass_under_both_runners(tmp_path: Path) -> None:
    """Side by side, each in a copy of its own, which takes half as long."""
    running = []
    for runner in ("nosetests", "pytest"):
        (tmp_path / runner).mkdir()
        blog = Blog(tmp_path / runner)
        program = str(Path(sys.executable).with_name(runner))
        process = subprocess.Popen([program], cwd=blog.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append((blog, process))
    for blog, process in running:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said
        wanted = sum(path.read_text().count("\ndef test_") for path in (blog.folder / "tests").rglob("*_tests.py"))
        assert re.search(rf"Ran {wanted} tests|\b{wanted} passed|\b{wanted - 1} passed, 1 skipped", said), said
        assert wanted > 70


def test_the_commands_of_its_readme_exist() -> None:
    readme = (ROOT / "examples" / "osb" / "README").read_text("utf-8")
    found = re.findall(r"\blamson ([a-z]+)((?: -?[A-Za-z0-9./@]+)*)", readme)
    assert len(found) > 12
    for verb, words in found:
        command = commands.lamson.get_command(commands.lamson.make_context("lamson", ["help"]), verb)
        assert command is not None, verb
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in words.split() if word.startswith("-") and word not in known] == [], verb


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_what_it_keeps_can_be_kept_by_every_database(blog: Blog, kind: str, tmp_path: Path) -> None:
    """A few of its tests: the long texts, a commit of everything, and the spam filter's training."""
    with databases.scratch(kind, tmp_path) as url:
        blog.edit("config/testing.py", 'f"sqlite:///{SCRATCH.name}/lamson.db"', repr(url))
        chosen = ["tests/model/blog_tests.py", "tests/handlers/comment_tests.py", "-k", "commit or cut or spam_is_kept"]
        done = subprocess.run([sys.executable, "-m", "pytest", *chosen], cwd=blog.folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


# -- all of it, over SMTP


def test_the_whole_blog_by_smtp(blog: Blog) -> None:
    blog.start_log()
    blog.start()
    blog.start_indexer()
    blog.lamson("start", "-boot", "config.forward", "-pid", "run/forward.pid")
    assert "Published" in str(blog.confirm(blog.ask(ANN, HELLO, "Hello, *world*."))["Subject"])
    blog.shows(HELLO_PAGE, "<p>Hello, <em>world</em>.</p>")
    assert "Your comment" in str(blog.confirm(blog.ask(BOB, COMMENT_ON_HELLO, "Well said."))["Subject"])
    blog.shows(HELLO_PAGE, "Well said.")
    send_spam(blog)
    be_forwarded(blog)
    assert "Deleted" in str(blog.confirm(blog.ask(ANN, "hello-delete@oneshotblog.com", "Away with it."))["Subject"])
    blog.shows("index.html", "Nothing here yet")
    assert blog.page(HELLO_PAGE) == ""
    assert blog.states() == {
        ("app.handlers.post", ANN): "POSTING",
        ("app.handlers.comment", BOB): "COMMENTING",
        ("app.handlers.comment", SELLER): "SPAMMING",
        ("app.handlers.postmaster", BOB): "START",
        ("app.handlers.delete", ANN): "DELETING",
    }
    assert sorted(path.name for path in (blog.folder / "run").glob("*.pid")) == ["forward.pid", "log.pid", "queue.pid", "smtp.pid"]


def send_spam(blog: Blog) -> None:
    """The second message of the seller is swallowed without a look at it."""
    judge = Filter(blog.folder / "run" / "lamson.db")
    for number in range(10):
        judge.train_spam(letter(f"s{number}@pills.example", f"Cheap pills {number}", SPAM))
        judge.train_ham(letter(f"reader{number}@example.com", f"Re: Post {number}", "I agree with what you say about the world."))
    judge.scorer.database.dispose()  # type: ignore[attr-defined]
    for body in (SPAM, "I am a serious person now."):
        blog.send(SELLER, COMMENT_ON_HELLO, body, "Cheap pills")
    spam = blog.messages("run/spam", 1)
    assert [message.text.strip() for message in spam] == [SPAM]


def letter(sender: str, subject: str, body: str) -> MailRequest:
    return MailRequest("127.0.0.1", sender, HELLO, bytes(MailResponse(To=HELLO, From=sender, Subject=subject, Body=body)))


def be_forwarded(blog: Blog) -> None:
    before = blog.mailbox.count()
    blog.send(BOB, "postmaster@oneshotblog.com", "Somebody writes in my name.")
    forwarded = blog.messages("run/queue", before + 1)[before]
    assert forwarded.text.strip() == "Somebody writes in my name."
    assert forwarded.route_to == ["you@example.com"]
    assert forwarded.From == ""
    wait_for(lambda: Queue(blog.folder / "run" / "undeliverable").count() == 0, "nothing is left in run/undeliverable")


def test_strangers_and_names_that_are_none_are_refused(blog: Blog) -> None:
    blog.start()
    for address in ("somebody@elsewhere.example", "no-such-name@oneshotblog.com", "../../etc@oneshotblog.com"):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            blog.send(ANN, address)


def test_an_indexer_that_was_killed_makes_up_for_it(blog: Blog) -> None:
    blog.start_log()
    blog.start()
    blog.start_indexer()
    blog.confirm(blog.ask(ANN, HELLO, "The first."))
    blog.shows(HELLO_PAGE, "The first.")
    pid = int(blog.read("run/queue.pid"))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the INDEXER is dead")
    blog.ask(ANN, HELLO, "The second.")
    wait_for(lambda: Queue(blog.folder / "run" / "index").count() >= 1, "the note waits")
    (blog.folder / "run" / "site" / "index.html").unlink()
    assert "The first." in blog.page(HELLO_PAGE)
    blog.start_indexer()
    blog.shows(HELLO_PAGE, "The second.")
    assert "A title" in blog.page("index.html")
    wait_for(lambda: Queue(blog.folder / "run" / "index").count() == 0, "the note is gone")


@pytest.mark.program("mutt", "tmux")
def test_mutt_shows_what_waits_and_answers_in_anybodys_name(blog: Blog) -> None:
    blog.start_log()
    blog.start()
    blog.edit("muttrc", "8823", str(blog.port))
    blog.ask(ANN, HELLO, "Hello, *world*.", "My first post")
    waiting = [("My first post", "q")]
    answering = [("Confirmation required", "r"), ("To: hello-confirm-", "Enter"), ("Subject: Re:", "Enter")]
    with Terminal(blog, "mutt -F pendingrc; EDITOR=true mutt -F muttrc") as terminal:
        for shown, typed in (*waiting, *answering, ("Include message", "y"), ("y:Send", "y")):
            terminal.shows(shown)
            terminal.type("pause", typed)
        published = blog.messages("run/queue", 2)[1]
    assert published["To"] == ANN, "the answer was from whom the question was to"
    assert "Published: My first post" in str(published["Subject"])


# -- the pages in a browser


@contextmanager
def web(blog: Blog) -> Iterator[str]:
    """`lamson web` on the blog's pages: its address."""
    words = [sys.executable, "-u", "-m", "lamson", "web", "-basedir", "run/site", "-port", "0"]
    with subprocess.Popen(words, cwd=blog.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            told = server.stdout.readline()
            yield re.search(r"http://\S+/", told)[0]  # type: ignore[index]
        finally:
            server.terminate()


FILL = '''
import sys
from tests.blogging import *
from app.model import site
from lamson.mail import MailResponse

long = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
attack = "<script>document.title='HARMED'</script><img src=x onerror=\\"document.title='HARMED'\\">"
begin()
publish()
comment()
table = f"| a | b |\\n|---|---|\\n| {long} | {long} |"
text = f"# {long}\\n\\n{attack}\\n\\n    {'code ' * 60}\\n\\n{table}\\n\\nhttps://example.com/{'path' * 60}"
post = MailResponse(To=HELLO, From="Ann <ann@example.com>", Subject=f"{attack} {long}", Body=text)
post.attach("pixel.png", "image/png", bytes.fromhex(sys.argv[1]))
send(post)
html = MailResponse(To="html@oneshotblog.com", From=f'"{attack[:60]}" <ann@example.com>', Subject="HTML", Html=f"<p>Text</p>{attack}")
send(html, "html@oneshotblog.com")
send(MailResponse(To=COMMENT_ON_HELLO, From="Bob <bob@example.com>", Subject="x", Body=f"{attack} {text}"), COMMENT_ON_HELLO, bob.From)
settings.site_dir = "run/site"
with settings.database.transaction():
    site.rebuild()
'''

#: What the browser is asked of each page, in a frame of this width: what sticks out, what could not be loaded, what a script did.
LOOK = """
<style>iframe {{ border: 0; height: 900px }}</style>
{frames}
<script>
window.onload = () => answer([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument, root = page.documentElement
  const style = getComputedStyle(page.body)
  return {{
    title: page.title,
    scripts: page.scripts.length,
    tooWide: root.scrollWidth > frame.clientWidth,
    paper: style.backgroundColor,
    images: [...page.images].filter(image => image.src).map(image => (image.loading = "eager", image.naturalWidth || image.complete)),
    column: page.querySelector("main").getBoundingClientRect().width,
  }}
}}))
</script>
"""


@pytest.mark.program("chromium")
def test_the_pages_in_a_browser(blog: Blog) -> None:
    subprocess.run([sys.executable, "-c", FILL, PNG.hex()], cwd=blog.folder, check=True, timeout=60, env={**os.environ, "PYTHONPATH": "."})
    site = blog.folder / "run" / "site"
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    assert len(pages) == 4
    with web(blog) as address:
        for scheme, paper in (([], "rgb(253, 252, 250)"), ([browser.DARK], "rgb(25, 24, 23)")):
            frames = "".join(f'<iframe src="/{page}" width={width}></iframe>' for page in pages for width in (390, 1280))
            for seen in browser.ask(site, LOOK.format(frames=frames), *scheme, at=address):
                assert seen["paper"] == paper, "the style sheet was loaded, in the reader's colours"
                assert not seen["tooWide"], seen
                assert seen["scripts"] == 0, seen
                assert "HARMED" not in seen["title"].replace("'HARMED'", ""), seen
                assert all(seen["images"]), seen
                assert seen["column"] <= 42 * 16, seen
        with urllib.request.urlopen(f"{address}feed.xml", timeout=PATIENCE) as feed:
            assert feed.headers["Content-Type"] in ("application/xml", "text/xml", "application/atom+xml")
