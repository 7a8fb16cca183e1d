"""The pages: what is shown, and that nothing that a stranger writes is more than text."""

import os
import re
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from config import settings, testing  # first, so that everything goes to the tests' own queue and database
from app.model import site
from lamson.mail import MailResponse
from lamson.testing import RouterConversation
from tests.blogging import COMMENT_ON_HELLO, HELLO, ann, begin, bob, comment, hello, index, page, publish, send, sent

ATOM = "{http://www.w3.org/2005/Atom}"

#: The smallest files that begin like images.
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

#: What somebody writes who wants to run a script in other people's browsers, and what must not come of it.
ATTACKS = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg/onload=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "[a link](javascript:alert(1))",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    '<a href="JaVaScRiPt:alert(1)">x</a>',
    "</title></head><body onload=alert(1)>",
    "{{ settings.database_config }}{% for x in () %}",
    "<iframe src=//evil.example></iframe>",
]


class Harm(HTMLParser):
    """What in a page could run, or is read from where it should not be."""

    def __init__(self, page):
        super().__init__()
        self.found = ["sqlite"] if "sqlite:" in page else []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "svg", "iframe", "object", "embed", "form", "style", "math"):
            self.found.append(tag)
        for name, value in attributes:
            leads_out = name in ("href", "src") and re.match(r"\s*(javascript|data|vbscript):|//", value or "", re.IGNORECASE)
            if name.startswith("on") or leads_out:
                self.found.append(f"{tag} {name}={value}")


def harm(page):
    return Harm(page).found


def files():
    return sorted(str(path.relative_to(settings.site_dir)) for path in Path(settings.site_dir).rglob("*") if path.is_file())


def files_of_hello():
    return [name.rpartition("/")[2] for name in files() if "/hello/" in name]


def feed():
    return ElementTree.fromstring(page("feed.xml"))


# -- what is shown


def test_a_blog_without_posts_says_how_to_begin():
    begin()
    with settings.database.transaction():
        site.rebuild()
    assert files() == ["feed.xml", "index.html", "style.css"]
    assert "hello@oneshotblog.com" in page("index.html")
    assert feed().findall(f"{ATOM}entry") == []


def test_a_post_is_on_four_pages():
    begin()
    publish()
    for path in ("index.html", "by/ann@example.com/index.html", "by/ann@example.com/hello/index.html", "feed.xml"):
        assert "My first post" in page(path), path
    assert 'href="by/ann%40example.com/hello/index.html"' in page("index.html")
    assert 'mailto:ann-at-example.com-hello-comment%40oneshotblog.com?subject=Re%3A%20My%20first%20post"' in hello()


def test_the_newest_post_is_the_first():
    begin()
    publish()
    ann.say("second@oneshotblog.com", "And again.", expect="Published", Subject="The second")
    for path in ("index.html", "by/ann@example.com/index.html", "feed.xml"):
        assert page(path).index("The second") < page(path).index("My first post"), path


def test_a_post_without_a_subject_is_called_by_its_name():
    begin()
    publish(RouterConversation("ann@example.com", " "))
    assert "<h1 dir=\"auto\">hello</h1>" in hello()


def test_the_author_is_called_what_the_mail_says():
    begin()
    publish()
    message = MailResponse(To=HELLO, From="Ann Ünger <ann@example.com>", Subject="Named", Body="Text.")
    send(message)
    assert ">Ann Ünger</a>" in hello()
    send(MailResponse(To=HELLO, From="Somebody Else <else@example.com>", Subject="Named", Body="Text."))
    assert ">ann</a>" in hello()


def test_mail_that_is_only_html_is_shown_as_html():
    begin()
    publish()
    send(MailResponse(To=HELLO, From="ann@example.com", Subject="HTML", Html="<p>This is <b>bold</b> and *this* is not.</p>"))
    assert "<p>This is <b>bold</b> and *this* is not.</p>" in hello()


def test_an_address_in_the_text_is_a_link():
    begin()
    publish(body="See https://example.com/river.")
    assert re.search(r'<a href="https://example.com/river"[^>]* rel="[^"]*nofollow">https://example.com/river</a>\.', hello())


# -- images


def test_images_are_shown_and_nothing_else_is():
    begin()
    publish()
    message = MailResponse(To=HELLO, From="ann@example.com", Subject="Images", Body="Look.")
    message.attach("../../../etc/passwd.png", "image/png", PNG)
    message.attach("photo.jpg", "application/octet-stream", JPEG)
    message.attach("drawing.svg", "image/svg+xml", SVG)
    message.attach("page.png", "image/png", b"<html><script>alert(1)</script>")
    send(message)
    index()
    assert files_of_hello() == ["1.png", "2.jpg", "index.html"]
    assert Path(settings.site_dir, "by/ann@example.com/hello/1.png").read_bytes() == PNG
    assert '<img src="1.png" alt="passwd.png"' in hello()
    ann.say(HELLO, "No images any more.", expect="Published")
    index()
    assert files_of_hello() == ["index.html"]


def test_an_image_that_the_html_shows_is_shown_there():
    begin()
    publish()
    message = MailResponse(To=HELLO, From="ann@example.com", Subject="Images", Html='<p>Here: <img src="cid:one"></p>')
    message.attach("one.png", "image/png", PNG, content_id="one")
    send(message)
    assert '<p>Here: <img src="1.png"></p>' in hello()
    assert hello().count("1.png") == 1
    assert 'src="http://localhost:8888/by/ann%40example.com/hello/1.png"' in feed().find(f"{ATOM}entry/{ATOM}content").text


def test_the_name_of_an_image_is_text():
    begin()
    publish()
    for attack in ATTACKS:
        message = MailResponse(To=HELLO, From="ann@example.com", Subject="Images", Body="Look.")
        message.attach(attack.replace("/", "_"), "image/png", PNG)
        send(message)
        assert not harm(hello()), attack


# -- what strangers write is text


def test_no_script_comes_through_subject_text_name_or_comment():
    begin()
    publish()
    comment()
    for attack in ATTACKS:
        name = '"' + attack.replace("\\", "").replace('"', '\\"') + '"'
        send(MailResponse(To=HELLO, From=f"{name} <ann@example.com>", Subject=attack, Body=f"Text: {attack}\n\n    {attack}"))
        send(MailResponse(To=COMMENT_ON_HELLO, From=f"{name} <bob@example.com>", Subject=attack, Body=attack), COMMENT_ON_HELLO, bob.From)
        for path in ("index.html", "by/ann@example.com/index.html", "by/ann@example.com/hello/index.html"):
            assert not harm(page(path)), (attack, path)
        content = feed().find(f"{ATOM}entry/{ATOM}content").text
        assert not harm(content), attack


def test_no_script_comes_through_html():
    begin()
    publish()
    for attack in ATTACKS:
        send(MailResponse(To=HELLO, From="ann@example.com", Subject="HTML", Html=f"<p>Text</p>{attack}"))
        assert not harm(hello()), attack


def test_pages_run_no_script_even_if_there_were_one():
    begin()
    publish()
    for path in ("index.html", "by/ann@example.com/index.html", "by/ann@example.com/hello/index.html"):
        assert "default-src 'none'" in page(path)


# -- the feed


def test_the_feed_has_what_atom_asks_for():
    """RFC 4287 §4.1.1 and §4.1.2."""
    begin()
    publish()
    whole = feed()
    (entry,) = whole.findall(f"{ATOM}entry")
    for element in (whole, entry):
        for name in ("id", "title", "updated"):
            assert element.findtext(f"{ATOM}{name}"), name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.findtext(f"{ATOM}updated"))
    assert entry.findtext(f"{ATOM}author/{ATOM}name") == "ann"
    assert entry.findtext(f"{ATOM}content") == "<p>Hello, <em>world</em>.</p>\n"
    assert entry.find(f"{ATOM}link").get("href") == "http://localhost:8888/by/ann%40example.com/hello/"


def test_the_feed_stays_xml_whatever_is_written():
    begin()
    publish()
    texts = ["a < b && c > d ]]> &amp; &nbsp; &euro;", "<![CDATA[ x", "\x00\x01\x0b\x0c\x1b\x7f", "\ufffe\uffff"]
    texts.append("&#0; &#11; &#xFFFE; &#xD800;")
    for text in texts:
        raw = f"From: ann@example.com\r\nSubject: {text}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
        send(raw.encode())
        assert "Hello" not in feed().findtext(f"{ATOM}entry/{ATOM}content")


# -- names and addresses


def test_no_address_leads_out_of_the_site():
    for sender in ("../../evil@example.com", "/etc/cron.d/x@example.com", "..@example.com", '"../a b"@example.com', "a\\b@example.com"):
        begin()
        publish(RouterConversation(sender, "A title"))
        index()
        assert len([name for name in files() if name.startswith("by/")]) == 2, (sender, files())
        assert not os.path.exists(os.path.join(settings.site_dir, "..", "evil@example.com"))
        assert all(re.fullmatch(r"[A-Za-z0-9@._+=~-]+", part) for name in files() for part in name.split("/")), files()


def test_addresses_that_look_alike_are_two_authors():
    begin()
    for sender in ("jose@example.com", "josé@example.com", "jo/se@example.com", "jo_se@example.com"):
        publish(RouterConversation(sender, f"By {sender}"), body=f"By {sender}")
    index()
    assert len([name for name in files() if name.endswith("hello/index.html")]) == 4


def test_no_header_comes_out_of_a_subject():
    begin()
    message = b"From: ann@example.com\r\nSubject: =?utf-8?q?Hello=0D=0ABcc=3A_victim=40example.com?=\r\n\r\nText.\r\n"
    send(message)
    (question,) = sent()
    ann.say(question["From"], "Yes.", expect="Published")
    for each in sent():
        assert each["Bcc"] is None
        assert each.route_to == ["ann@example.com"]
    assert "Hello Bcc: victim@example.com" in hello()


def test_every_post_has_an_address_for_comments():
    begin()
    long = "a-person-with-an-exceptionally-long-name@department.example.com"
    publish(RouterConversation(long, "By somebody with a long address"), to="a_name_of_20_letters@oneshotblog.com")
    author = page("index.html")
    (told,) = [each for each in sent() if "Published" in each["Subject"]]
    found = re.search(r"by writing to\s+(\S+)", told.body()).group(1)
    assert re.fullmatch(r"\d+-comment@oneshotblog\.com", found), author
    comment(to=found)


# -- making them


def test_a_page_that_is_the_same_is_left_alone():
    begin()
    publish()
    index()
    place = Path(settings.site_dir, "by/ann@example.com/hello/index.html")
    before = place.stat().st_ino
    with settings.database.transaction():
        site.rebuild()
    assert place.stat().st_ino == before
    comment()
    index()
    assert place.stat().st_ino != before


def test_a_page_is_never_seen_half_written():
    begin()
    publish()
    before = hello()
    write_bytes, Path.write_bytes = Path.write_bytes, lambda self, data: write_bytes(self, data[:100]) and 1 / 0
    try:
        ann.say(HELLO, "Better now.", expect="Published")
        with suppress(ZeroDivisionError):
            index()
    finally:
        Path.write_bytes = write_bytes
    place = Path(settings.site_dir, "by/ann@example.com/hello/index.html")
    assert place.read_text("utf-8") == before
    assert settings.index.count() == 1, "the note is still there"
    assert "Better now." in hello()
    assert files_of_hello() == ["index.html"]


def test_a_start_heals_what_is_missing_or_too_much():
    begin()
    publish()
    assert hello()
    ann.say(HELLO, "Better now.", expect="Published")
    settings.index.clear()  # as if the note had been lost
    for path in ("index.html", "feed.xml"):
        Path(settings.site_dir, path).unlink()
    site.write("by/nobody@example.com/old/index.html", b"old")
    with settings.database.transaction():
        site.rebuild()
    assert "by/nobody@example.com/old/index.html" not in files()
    assert "Better now." in hello()
    assert {"index.html", "feed.xml", "style.css"} <= set(files())


def test_harm_would_be_found():
    for attack in ('<script>', '<img src=x onerror="alert(1)">', '<a href=" JavaScript:alert(1)">', '<img src="//evil.example/x.png">'):
        assert harm(attack), attack
