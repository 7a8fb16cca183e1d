"""What the application knows, apart from mail: plain Python, and classes of SQLAlchemy's.

Rows that a handler adds to `settings.database.session` are committed with the message that caused them, or not at all.
"""
