"""A chat with a backend in Python 3.9 or newer, with the standard library alone.

    python3 docs/examples/chat-python/chat.py 8000

It logs users in, gives their browsers tokens, and publishes what they say. Parley delivers. CHAT_WS_URL is where browsers reach
Parley (ws://127.0.0.1:9090/), CHAT_ROOM the room (chat:1), and PARLEY_JS the file of parley-client. docs/backend/python/backend.py has
the variables of the API.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "docs/backend/python"))
from backend import Parley, Problem, token  # noqa: E402

ROOM = os.environ.get("CHAT_ROOM") or "chat:1"
FILES = {
    "/": ("text/html; charset=utf-8", ROOT / "docs/examples/chat-node/page.html"),
    "/parley.js": ("text/javascript; charset=utf-8", Path(os.environ.get("PARLEY_JS") or ROOT / "engine/admin/page/parley.js")),
}


class Refusal(Exception):
    """An answer that is no success. detail is for the person in front of the page."""

    def __init__(self, status, detail):
        super().__init__(detail)
        self.status = status


# Your login stands here. This one believes every name, and remembers it in a cookie that it signs: so it needs no store of
# sessions. The key is new at each start, and so a restart logs everybody out.
LOGIN_KEY = secrets.token_bytes(32)


def signature(name):
    """Proves that this program has written a name into a cookie."""
    return hmac.new(LOGIN_KEY, name.encode(), hashlib.sha256).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection, on a thread of its own."""

    timeout = 10  # seconds: a client that sends nothing must not keep a thread

    def do_GET(self):
        if self.path not in FILES:
            return self.answer(404, {"detail": "there is nothing here"})
        kind, path = FILES[self.path]
        self.reply(200, path.read_bytes(), {"Content-Type": kind, "X-Content-Type-Options": "nosniff"})

    def do_POST(self):
        action = {"/login": self.login, "/token": self.token, "/say": self.say}.get(self.path)
        try:
            if action is None:
                raise Refusal(404, "there is nothing here")
            action()
        except Refusal as e:
            self.answer(e.status, {"detail": str(e)})
        except (Problem, OSError, KeyError) as e:  # Parley refuses or is away, the secret cannot be read, a variable is missing
            self.log_error("%r", e)  # for you; the browser learns no more than it needs
            self.answer(502, {"detail": "the chat is not available"})

    def login(self):
        name = self.form("name")
        if not re.fullmatch(r"[\w-]{1,32}", name):
            raise Refusal(400, "a name has 1 to 32 letters and digits")
        user = quote(name)
        # Strict keeps the forms of other sites from speaking in this user's name. Behind TLS add "Secure".
        self.answer(200, {}, f"chat={user}.{signature(user)}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400")

    def token(self):
        user = self.user()
        with open(os.environ["PARLEY_JWT_SECRET_FILE"], "rb") as f:
            secret = f.read().rstrip(b"\r\n")  # the end of the line is not part of the secret
        # The browser may listen in the room. It may not publish there: its words come to this program first.
        granted = token(user, {"join": [ROOM], "publish": []}, secret)
        url = os.environ.get("CHAT_WS_URL") or "ws://127.0.0.1:9090/"
        self.answer(200, {"url": url, "room": ROOM, "user": user, "token": granted})

    def say(self):
        user, text = self.user(), self.form("text").strip()
        if not 1 <= len(text) <= 500:
            raise Refusal(400, "a message has 1 to 500 characters")
        parley = Parley(os.environ.get("PARLEY_URL") or "http://127.0.0.1:9092", os.environ.get("PARLEY_API_KEY", "").strip())
        try:
            parley.publish(ROOM, {"from": user, "text": text})
        finally:
            parley.conn.close()
        self.answer(200, {})

    def user(self):
        """The user of the request, by its cookie."""
        found = re.search(r"(?:^|; *)chat=([^.;]+)\.([0-9a-f]{64})(?:;|$)", self.headers.get("Cookie", ""))
        if not found or not hmac.compare_digest(found[2], signature(found[1])):
            raise Refusal(401, "log in first")
        return unquote(found[1])

    def form(self, field):
        """A field of the request's form, which has at most 8 KiB."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > 8192:
            self.close_connection = True  # the form is left unread
            raise Refusal(413, "a form has at most 8 KiB, and says its length")
        try:
            return parse_qs(self.rfile.read(int(size)).decode()).get(field, [""])[0]
        except UnicodeDecodeError as e:
            raise Refusal(400, "a form is UTF-8") from e

    def answer(self, status, fields, cookie=None):
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}  # a token is a secret
        if cookie:
            headers["Set-Cookie"] = cookie
        self.reply(status, json.dumps(fields).encode(), headers)

    def reply(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
