"""Files behind http(s): read from the start or by a range of bytes, and tried again."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from onetrunk.errors import BadInput, Failed

TRIES = 3
SECONDS = 30.0  # without an answer
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one soon


def open_url(url: str, headers: dict[str, str] | None = None) -> Any:
    """The server's answer, a stream; Failed where there is none."""
    request = urllib.request.Request(url, headers={"User-Agent": "onetrunk", **(headers or {})})
    got = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(0.5 * 2**attempt)
        try:
            return urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            got = f"{error.code} {error.reason}"
            error.close()
            if error.code not in AGAIN:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            got = str(getattr(error, "reason", error)) or type(error).__name__
    raise Failed(f"{url}: cannot be read; got: {got}; try: check the address and the network")


def read_range(url: str, offset: int, size: int) -> bytes:
    """So many bytes from there on."""
    if size == 0:
        return b""
    headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
    for attempt in range(TRIES):
        with open_url(url, headers) as answer:
            got = answer.headers.get("Content-Range", "")
            if answer.status != 206 or not got.startswith(f"bytes {offset}-"):
                raise BadInput(
                    f"{url}: the server does not answer ranges of bytes, so single samples cannot "
                    "be read from it",
                    got=f"status {answer.status}",
                    try_="download the shards and use webdataset:FOLDER/*.tar",
                )
            try:
                data: bytes = answer.read(size + 1)
            except (OSError, http.client.HTTPException):
                data = b""
        if len(data) == size:
            return data
        time.sleep(0.5 * 2**attempt)
    raise Failed(f"{url}: bytes {offset} to {offset + size} came incompletely {TRIES} times")
