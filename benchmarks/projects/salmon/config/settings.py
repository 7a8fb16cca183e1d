"""Where the benchmark wants it to listen and to send."""

import os

receiver_config = {"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])}
relay_config = {"host": "127.0.0.1", "port": int(os.environ["BENCH_SINK"])}
handlers = ["app.handlers.sample"]
router_defaults = {"host": "test\\.com"}
