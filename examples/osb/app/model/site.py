"""The pages: HTML for people and Atom for programs, made of what `blog` keeps. The INDEXER calls this, and nobody else.

Every page can be made again from the database at any time, so nothing here is precious: `update` makes what one post touches, `rebuild`
makes everything. A page is written beside its place and then renamed, so that no reader ever sees half of one.
"""

import os
import shutil
from pathlib import Path

from markupsafe import Markup

from app.model import blog
from config import settings
from lamson import view
from lamson.html import markdown, sanitise

#: How many posts the first page and the feed show.
ON_THE_FIRST_PAGE = 50
IN_THE_FEED = 20


def rebuild():
    """Makes all pages anew, and removes those of authors who are gone."""
    write("style.css", Path("app/data/style.css").read_bytes())
    authors = [author for author in blog.authors() if author.posts]
    for author in authors:
        for post in author.posts:
            write_post(post)
        write_author(author)
    write_first_page()
    remove_others("by", [author.folder for author in authors])


def update(author_address, post_name):
    """Makes what a change of this post touches: its page, its author's, the first page and the feed."""
    post = blog.find(author_address, post_name)
    if post is not None:
        write_post(post)
    author = blog.find_author(author_address)
    if author is not None:
        write_author(author)
    write_first_page()


def write_post(post):
    """A post's page, and beside it the images that it shows."""
    for image in post.images:
        write(f"{post.folder}/{image.file}", blog.bytes_of(image))
    write_page(f"{post.folder}/index.html", "page/post.html", post=post)
    remove_others(post.folder, ["index.html", *(image.file for image in post.images)])


def write_author(author):
    """An author's page with all posts, the newest first. An author without any has none."""
    folder = f"by/{author.folder}"
    if author.posts:
        write_page(f"{folder}/index.html", "page/author.html", author=author)
        remove_others(folder, ["index.html", *(post.name for post in author.posts)])
    else:
        shutil.rmtree(place_of(folder), ignore_errors=True)


def write_first_page():
    """The first page and the feed."""
    posts = blog.latest(ON_THE_FIRST_PAGE)
    write_page("index.html", "page/index.html", posts=posts)
    write_page("feed.xml", "page/feed.xml", posts=posts[:IN_THE_FEED])


# -- from text to HTML


def html_of(post, base=""):
    """What the post says as HTML that can do no harm, and the images that came with it and are not in there.

    `base`: what stands before the images' file names, for pages that lie elsewhere.
    """
    files = {image.content_id: base + image.file for image in post.images if image.content_id}
    source = post.text if post.is_html else markdown(post.text, links=True)
    shown = set()

    def show(content_id):
        shown.add(content_id)
        return files.get(content_id)

    safe = sanitise(source, image=show)
    return Markup(blog.clean_text(safe)), [image for image in post.images if image.content_id not in shown]


def html_of_comment(comment):
    """What a comment says, as HTML that can do no harm."""
    return Markup(blog.clean_text(sanitise(markdown(comment.text, links=True))))


# -- files


def write_page(path, template, **variables):
    """Renders a template of page/, in which every value is escaped that is not `Markup`."""
    variables |= {"root": "../" * path.count("/"), "settings": settings, "html_of": html_of, "html_of_comment": html_of_comment}
    write(path, view.render(variables, template).encode())


def write(path, data):
    """Puts a file in its place at once. It is not synced: after a power cut the next start makes all of them anew.

    What is the same as before is left alone, so that browsers need not load it again.
    """
    place = place_of(path)
    if place.exists() and place.read_bytes() == data:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(place)


def remove_others(folder, names):
    """Removes from a folder what has none of these names."""
    for entry in place_of(folder).glob("*"):
        if entry.name not in names:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def place_of(path):
    return Path(settings.site_dir) / path
