"""What this application is made of, in plain variables. config/boot.py makes services of them.

Whatever else your code must know about the place where it runs belongs here too.
"""

# Where mail arrives. Port 25 needs root: see README.
receiver_config = {"host": "localhost", "port": 8823}

# The mail server that outgoing mail is handed to. For now it is the one that `lamson log` starts.
relay_config = {"host": "localhost", "port": 8825}

# Where the state of every conversation is kept, with the mail that waits to be sent. PostgreSQL and MariaDB work, too.
database_config = {"url": "sqlite:///run/lamson.db"}

# The modules that handle mail, in the order in which their routes are tried.
handlers = ["app.handlers.sample"]

# What (host) means in every route: a regular expression. Mail for other hosts is refused.
router_defaults = {"host": "test\\.com"}

# Where the templates of outgoing mail lie.
template_config = {"dir": "app/templates"}
