"""Publishes made-up prices into the room "prices", each with its symbol as key, and serves a page that shows them.

    PARLEY_API_KEY=... python3 docs/examples/ticker/ticker.py --http 8000 [--pause 0.1] [--rounds 0]

With the policy conflate a member that reads too slowly gets the newest price of each symbol, and none of the older ones.
docs/backend/python/backend.py has the variables of the API; CHAT_WS_URL is where browsers reach Parley, and
PARLEY_JS the file of parley-client.
"""

import argparse
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "docs/backend/python"))
from backend import Parley, Problem  # noqa: E402

PRICES = {"gold": 4000.0, "silver": 50.0, "copper": 10.0, "tin": 35.0}
WS_URL = os.environ.get("CHAT_WS_URL") or "ws://127.0.0.1:9090/"
FILES = {
    "/": ("text/html; charset=utf-8", ROOT / "docs/examples/ticker/index.html"),
    "/parley.js": ("text/javascript; charset=utf-8", Path(os.environ.get("PARLEY_JS") or ROOT / "engine/admin/page/parley.js")),
}


class Page(BaseHTTPRequestHandler):
    """Serves two files. In production a web server does that."""

    timeout = 10  # seconds: a client that sends nothing must not keep a thread

    def do_GET(self):
        if self.path not in FILES:
            return self.send_error(404)
        kind, path = FILES[self.path]
        body = path.read_bytes().replace(b"ws://127.0.0.1:9090/", WS_URL.encode())
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing."""


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pause", type=float, default=0.1, help="seconds between two rounds")
    options.add_argument("--rounds", type=int, default=0, help="how many rounds; 0: without end")
    options.add_argument("--http", type=int, default=0, help="port of the page; 0: none")
    given = options.parse_args()
    if given.http:
        threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", given.http), Page).serve_forever, daemon=True).start()
    parley = Parley(os.environ.get("PARLEY_URL") or "http://127.0.0.1:9092", os.environ.get("PARLEY_API_KEY", "").strip())
    for n in count(1):
        for symbol, price in PRICES.items():
            PRICES[symbol] = round(price * random.uniform(0.999, 1.001), 2)
            price = {"symbol": symbol, "price": PRICES[symbol], "round": n}
            try:
                parley.call("POST", "/v1/publish", {"room": "prices", "key": symbol, "data": price})
            except Problem as e:
                if e.code not in ("overloaded", "unavailable", "rate_limited", "unreachable"):
                    raise  # it would be the same the next time
                print(e, file=sys.stderr)  # a price is soon out of date: the next round has a newer one
        if n == given.rounds:
            return
        time.sleep(given.pause)


if __name__ == "__main__":
    try:
        main()
    except Problem as e:
        sys.exit(str(e))
    except KeyboardInterrupt:
        pass
