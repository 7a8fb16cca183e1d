"""Authors, their posts with the images in them, and comments: made of messages, kept in the database.

All of it happens in the delivery of the message that is handled: it is committed together with the sender's next state, the mail that
goes out, and the note to the INDEXER; or none of it is. What is kept is what was written. It becomes HTML when the pages are made.
"""

import re
from datetime import UTC, datetime
from urllib.parse import quote

from sqlalchemy import ForeignKey, LargeBinary, String, Text, UniqueConstraint, select
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.model import Base
from config import settings
from lamson import address
from lamson.mail import MailResponse

#: A local part has no more octets (RFC 5321 §4.5.3.1.1), so some posts need a shorter address for comments.
LONGEST_LOCAL_PART = address.LOCAL_OCTETS

#: The most images that one post shows.
MOST_IMAGES = 20

#: How the images begin that browsers show and that can hold no script. What the mail calls them does not count.
SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}

LONG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")  # where Text alone would end at 64 kB


def now():
    return datetime.now(UTC).replace(microsecond=0, tzinfo=None)  # in UTC; not every database keeps a time zone


class Author(Base):
    """Somebody who has published.

    `folder`: the address as the name of a folder. It also tells two authors apart: unlike the address, it is the same for every
    database, whatever that thinks of capitals and accents. `spelled_out`: the address as it stands in an address for comments.
    """

    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    folder: Mapped[str] = mapped_column(String(200), unique=True)
    address: Mapped[str] = mapped_column(String(254))
    spelled_out: Mapped[str] = mapped_column(String(260), index=True)
    name: Mapped[str] = mapped_column(String(100))
    posts: Mapped[list["Post"]] = relationship(back_populates="author", order_by="Post.published.desc(), Post.id.desc()")


class Post(Base):
    """What one author wrote under one name. A message to the same name takes the place of what was there."""

    __tablename__ = "post"
    __table_args__ = (UniqueConstraint("author_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    name: Mapped[str] = mapped_column(String(20))
    title: Mapped[str] = mapped_column(String(300))
    text: Mapped[str] = mapped_column(LONG_TEXT, deferred=True)  # read when it is asked for, and not for every list of posts
    is_html: Mapped[bool]
    published: Mapped[datetime]
    updated: Mapped[datetime]
    author: Mapped[Author] = relationship(back_populates="posts")
    images: Mapped[list["Image"]] = relationship(order_by="Image.number", cascade="all, delete-orphan")
    comments: Mapped[list["Comment"]] = relationship(back_populates="post", order_by="Comment.id", cascade="all, delete-orphan")

    @property
    def folder(self):
        """Where its page lies, below the site."""
        return f"by/{self.author.folder}/{self.name}"

    @property
    def url(self):
        return f"{settings.site_url}{quote(self.folder)}/"

    @property
    def comment_address(self):
        """Where comments go: USER-AT-DOMAIN-POSTNAME-comment, or POSTNUMBER-comment for authors whose address leaves no room for that."""
        local = f"{self.author.spelled_out}-{self.name}-comment"
        is_plain = re.fullmatch(r"[a-z0-9._+=-]+", local) and ".." not in local and not local.startswith(".")
        if not is_plain or len(local) > LONGEST_LOCAL_PART:
            local = f"{self.id}-comment"
        return f"{local}@{settings.host}"


class Image(Base):
    """An image that came with a post. Its file is named by us; `description` is what the sender called it."""

    __tablename__ = "image"

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(4))
    description: Mapped[str] = mapped_column(String(300))
    content_id: Mapped[str] = mapped_column(String(300))
    data: Mapped[bytes] = mapped_column(LargeBinary(2**24), deferred=True)

    @property
    def file(self):
        return f"{self.number}.{self.kind}"


class Comment(Base):
    """What a reader wrote about a post."""

    __tablename__ = "comment"

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))
    address: Mapped[str] = mapped_column(String(254))
    name: Mapped[str] = mapped_column(String(100))
    text: Mapped[str] = mapped_column(LONG_TEXT, deferred=True)
    written: Mapped[datetime]
    post: Mapped[Post] = relationship(back_populates="comments")


# -- asking


def find_author(author_address):
    """The author of this address, or None."""
    return _first(select(Author).where(Author.folder == address.file_name(author_address)))


def find(author_address, post_name):
    """The post of this name by this author, or None."""
    folder = address.file_name(author_address)
    return _first(select(Post).join(Author).where(Author.folder == folder, Post.name == post_name))


def find_to_comment(author, post_name, number):
    """The post that an address for comments names, by its author spelled out or by its number; or None."""
    if number is not None:
        return _first(select(Post).where(Post.id == int(number)))
    return _first(select(Post).join(Author).where(Author.spelled_out == author, Post.name == post_name).order_by(Post.id))


def latest(number):
    """So many posts, the newest first."""
    newest_first = select(Post).order_by(Post.published.desc(), Post.id.desc())
    return list(settings.database.session.scalars(newest_first.limit(number)))


def authors():
    """Everybody who has published."""
    return list(settings.database.session.scalars(select(Author).order_by(Author.id)))


def bytes_of(image):
    """What an image is made of. Asked for each time, so that a start does not collect the images of the whole blog in memory."""
    return settings.database.session.scalar(select(Image.data).where(Image.id == image.id))


def _first(wanted):
    return settings.database.session.scalars(wanted).first()


# -- doing


def publish(message, post_name):
    """Makes a post of a message, or puts it in the place of the one of that name by the same author. Returns it."""
    session = settings.database.session
    post = find(message.route_from, post_name)
    if post is None:
        post = Post(author=find_author(message.route_from) or new_author(message.route_from), name=post_name, published=now())
        session.add(post)
    post.author.name = name_of(message)
    post.title = clean(message["Subject"], 300) or post_name
    post.text, post.is_html = written_in(message)
    post.images = list(images_in(message))
    post.updated = now()
    session.flush()  # now it has a number
    changed(post)
    return post


def new_author(author_address):
    """Somebody who publishes for the first time."""
    return Author(folder=address.file_name(author_address), address=author_address, spelled_out=author_address.replace("@", "-at-"))


def comment(message, post):
    """Adds a message to the comments of a post."""
    text = clean_text(message.reply_text or message.text)
    post.comments.append(Comment(address=message.route_from, name=name_of(message), text=text, written=now()))
    changed(post)


def delete(post):
    """Removes a post with its images and comments."""
    changed(post)
    settings.database.session.delete(post)


def changed(post):
    """A note to the INDEXER. The queue shows it once the delivery is committed, and keeps it until the pages are made."""
    note = MailResponse(To=f"{post.name}@{settings.host}", From=post.author.address, Subject=f"Changed: {post.title}")
    settings.index.push(note)


# -- what a message says


def name_of(message):
    """What the sender's mail program calls the sender, else what stands before the @."""
    names = [found.display for found in address.parse(message["From"] or "") if address.normalise(found.bare) == message.route_from]
    return clean(next(iter(names), ""), 100) or message.route_from.partition("@")[0][:100]


def written_in(message):
    """The text, and whether it is HTML. Nearly every mail program sends plain text, at least besides, and that is taken for Markdown."""
    plain = [part.body for part in message.walk() if part.content_type == "text/plain" and part.disposition != "attachment"]
    is_html = message.html is not None and not any(str(text or "").strip() for text in plain)
    return clean_text(message.html if is_html else message.text), is_html


def images_in(message):
    """The images that came with it, numbered."""
    number = 0
    for each in message.attachments:
        kind = next((kind for kind, signature in SIGNATURES.items() if signature.match(each.data)), None)
        if kind and number < MOST_IMAGES:
            number += 1
            described = {"description": clean(each.name, 300), "content_id": clean(each.content_id, 300)}
            yield Image(number=number, kind=kind, data=each.data, **described)


#: What XML has no place for, not even as an entity (XML 1.0 §2.2). No text of a blog needs it, and PostgreSQL takes no NUL.
_NO_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean_text(text):
    """Text without characters that are none."""
    return _NO_CHARACTERS.sub("", text)


def clean(text, length):
    """The same in one line that is not too long; "" for None."""
    return " ".join(clean_text(text or "").split())[:length]
