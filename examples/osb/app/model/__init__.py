"""What the blog knows, apart from mail: `blog` is what is kept, `site` the pages that are made of it.

Rows that a handler adds to `settings.database.session` are committed with the message that caused them, or not at all.
"""

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """What each class with a table inherits from. A start makes the tables that are missing; it changes none that is there."""
