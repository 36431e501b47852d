"""Accounts, sessions and refreshes through the proxy while the replicas go away and come back: nothing may fail."""

import http.client
import json
import secrets
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

port, goal, stop = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
created = json.load(sys.stdin)
password = secrets.token_urlsafe(24)
failures: list[str] = []
counts: list[int] = []


def ask(path: str, **form: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = urllib.parse.urlencode(form)
    connection.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path} answers {answer.status}: {text[:200]}")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def live() -> None:
    done = 0
    try:
        held = ask("/token", username="ada", password=password)
        while not stop.exists() or done * 4 < goal:
            former = held
            held = ask("/refresh", refresh_token=former["refresh_token"])
            if held["session_id"] != former["session_id"] or held["refresh_token"] == former["refresh_token"]:
                failures.append("the successor is not one")
            done += 1
            time.sleep(0.02)
        ask("/logout", refresh_token=held["refresh_token"])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        failures.append(f"after {done} refreshes: {type(error).__name__}: {error}")
    counts.append(done)


connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
body = json.dumps({"token": created["password_token"], "new_password": password})
connection.request("PUT", "/password", body, {"Content-Type": "application/json"})
answer = connection.getresponse()
if answer.status // 100 != 2:  # noqa: PLR2004 - of HTTP
    sys.exit(f"PUT /password answers {answer.status}: {answer.read().decode()[:200]}")
threads = [threading.Thread(target=live) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(counts)} refreshes in {len(threads)} sessions, {len(failures)} failures")
print("\n".join(failures), file=sys.stderr)
sys.exit(1 if failures or sum(counts) < goal else 0)
