"""Spam: a decorator that asks a scorer before a handler runs, and keeps in a queue what is spam.

This room is empty until its own issue. What will be here: `spam_filter` and `Filter` with its training. It stands beside the handlers;
the router and the receivers know nothing of it.
"""
