"""Callers who never pause, in threads of the test: each request on a new connection, or all of a caller's on one."""

import http.client
import json
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.serving import until

BODY = json.dumps({"model": "m", "max_tokens": 3, "stream": True, "messages": [{"role": "user", "content": "a b c"}]})


class SteadyCallers:
    """Calls the gateway at `url` until the end of the context, every tenth time for a stream.

    `failures` tells each answer that isn't whole. `kept` callers keep their connection as long as the gateway
    does; the rest, `fresh`, open one for each request.
    """

    def __init__(self, url: str, key: str, *, fresh: int = 2, kept: int = 0) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), address.port
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place >= fresh,)) for place in range(fresh + kept)]
        self.answered = 0
        self.failures: list[str] = []

    def _run(self, keep: bool) -> None:
        link = self._link()
        turn = 0
        while not self._over.is_set():
            turn += 1
            streams = turn % 10 == 0
            try:
                if streams:
                    link.request("POST", "/v1/chat/completions", BODY, self._headers)
                else:
                    link.request("GET", "/v1/models", headers=self._headers)
                answer = link.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{'kept' if keep else 'fresh'}: {error!r}")
                link.close()
                continue
            if answer.status != 200 or not text.endswith(b"data: [DONE]\n\n" if streams else b"}"):
                self.failures.append(f"{answer.status} {text[-200:]!r}")
            self.answered += 1
            if not keep:
                link.close()
        link.close()

    def _link(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=20)

    def await_more(self, count: int) -> None:
        """Wait until so many more are answered."""
        enough = self.answered + count
        until(lambda: self.answered >= enough, within_s=45)

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let each end its last request."""
        self._over.set()
        for thread in self._threads:
            with suppress(RuntimeError):
                thread.join(30)
