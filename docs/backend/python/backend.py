"""Calls Parley from Python 3.9 or newer, with the standard library alone.

    python3 backend.py publish chat:1 'hello from Python'
    python3 backend.py members chat:1
    python3 backend.py token 42

PARLEY_API_KEY is the key, as `parley key create` prints it; PARLEY_URL is where the API listens, if that is not
http://127.0.0.1:9092; PARLEY_JWT_SECRET_FILE is the file that Parley's setting jwt_secret_file names.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import sys
import time
from urllib.parse import urlencode, urlsplit


class Problem(Exception):
    """Parley refused a request, or did not answer. Programs look at code ("room_full"); people read the text."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


class Parley:
    """One connection to the API. What it publishes arrives at every member in the order of the calls.

    A Parley belongs to one thread: give each thread its own.
    """

    def __init__(self, url, key):
        self.url, self.key = url, key
        at = urlsplit(url)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        self.conn = kind(at.hostname, at.port, timeout=5)

    def call(self, method, path, fields):
        """Sends fields as the body of a POST or the query of a GET, and returns the answer, decoded."""
        headers, body = {"Authorization": f"Bearer {self.key}"}, None
        if method == "GET":
            path += "?" + urlencode(fields)
        else:
            headers["Content-Type"] = "application/json"
            body = json.dumps(fields).encode()
        try:
            self.conn.request(method, path, body, headers)
            response = self.conn.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as e:
            self.conn.close()  # the next call dials again
            raise Problem("unreachable", f"no answer of Parley's from {self.url}: {e}") from e
        if response.status >= 400:  # a problem document (RFC 9457)
            raise Problem(answer.get("code", "unknown"), answer.get("detail") or answer.get("title", ""))
        return answer

    def publish(self, room, data):
        """Sends data, any JSON, to all members of a room."""
        self.call("POST", "/v1/publish", {"room": room, "data": data})

    def members(self, room):
        """Yields the members of a room. The server gives them in pages; next is where the following page begins."""
        query = {"room": room}
        while True:
            page = self.call("GET", "/v1/members", query)
            yield from page["members"]
            if "next" not in page:
                return
            query["after"] = page["next"]


def token(user, rights, secret, seconds=900):
    """Makes a token (HS256) by which a browser shows Parley which user it is, and what it may do.

    rights has patterns of rooms, where * stands for any characters but ":". Do not build a pattern from what a user
    typed: a user called * would match all.
    """

    def encode(part):
        return base64.urlsafe_b64encode(part).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + seconds, "parley": rights}
    signed = b".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (signed + b"." + encode(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


def main(words):
    """Carries out a command line."""
    parley = Parley(os.environ.get("PARLEY_URL") or "http://127.0.0.1:9092", os.environ.get("PARLEY_API_KEY", "").strip())
    if len(words) == 3 and words[0] == "publish":
        parley.publish(words[1], {"text": words[2]})
        print("published")
    elif len(words) == 2 and words[0] == "members":
        for member in parley.members(words[1]):
            print(member["id"], member.get("user") or "-")  # a connection without a token has no user
    elif len(words) == 2 and words[0] == "token":
        with open(os.environ["PARLEY_JWT_SECRET_FILE"], "rb") as f:
            secret = f.read().rstrip(b"\r\n")  # the end of the line is not part of the secret
        print(token(words[1], {"join": ["chat:*"], "publish": ["chat:*"]}, secret))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Problem as e:
        sys.exit(str(e))  # to standard error, and the exit code is 1
    except (OSError, KeyError) as e:
        sys.exit(f"PARLEY_JWT_SECRET_FILE: {e}")
