"""What this application is made of, in plain variables. config/boot.py makes services of them.

Whatever else your code must know about the place where it runs belongs here too.
"""

import re

# Where mail arrives. Port 25 needs root: see README.
receiver_config = {"host": "localhost", "port": 8823, "size": 10_000_000}

# Where the mail goes that the blog writes. For now it is the one that `lamson log` starts.
relay_config = {"host": "localhost", "port": 8825}

# Where authors, posts and comments are kept, the state of every conversation, and the mail that waits to be sent.
database_config = {"url": "sqlite:///run/lamson.db"}

# The modules that handle mail, in the order in which their routes are tried.
handlers = ["app.handlers.postmaster", "app.handlers.comment", "app.handlers.delete", "app.handlers.post", "app.handlers.late"]

# The blog's host. Mail for others is refused.
host = "oneshotblog.com"

# What the names in routes mean: regular expressions.
router_defaults = {
    "host": re.escape(host),
    "post_name": "[a-z0-9_]{1,20}",  # and so USER-AT-DOMAIN-POSTNAME-comment has one meaning, and POSTNAME-delete-confirm-SECRET fits
    "author": ".+-at-.+",
    "number": "[0-9]{1,9}",
    "target": ".+",
    "secret": "[a-z0-9]+",
}

# Where the templates of outgoing mail lie, and those of the pages.
template_config = {"dir": "app/templates"}

# Messages that wait until somebody has confirmed that they are theirs.
pending_dir = "run/pending"

# The spam filter: its settings (docs/spam.md of Lamson), and where it keeps comments that are spam.
spam_config = {"scorer": "bayes"}
spam_dir = "run/spam"

# Notes to the INDEXER.
index_dir = "run/index"

# The pages: where they are put, and where people find them.
site_dir = "run/site"
site_url = "http://localhost:8888/"

# Who gets the mail that no one handled, and the mail for postmaster: an address elsewhere, or it would come round.
keeper = "you@example.com"
