"""What the application under test is made of. `local.json`, written by the program that starts it, says what is different this time."""

import json
from pathlib import Path

receiver_config = {"host": "127.0.0.1", "port": 0}
relay_config = {"host": "127.0.0.1", "port": 8825}
database_config = {"url": "sqlite:///run/lamson.db"}
outbox_config = {"poll": 0.2}
handlers = ["app.handlers.desk"]
router_defaults = {"host": "test\\.com", "who": ".+"}
template_config = {"dir": "app/templates"}
undeliverable = "run/undeliverable"
queue_in = ""

if Path("local.json").exists():
    globals().update(json.loads(Path("local.json").read_text("utf-8")))
