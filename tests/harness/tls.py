"""TLS in tests: certificates made on the spot, and what ends TLS in front of a server that speaks none."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")


class Authority:
    """Somebody who signs certificates; its own one is the file `ca`."""

    def __init__(self, folder: Path) -> None:
        import trustme

        self._authority = trustme.CA()
        self._folder = folder
        self.ca = folder / "ca.pem"
        folder.mkdir(parents=True)
        self._authority.cert_pem.write_to_path(str(self.ca))

    def server(
        self, *names: str, until: datetime | None = None, trusts: Authority | None = None
    ) -> ssl.SSLContext:
        """What a server of these names needs; with `trusts` it lets in only clients with a certificate of that authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*(names or NAMES), not_after=until).configure_cert(context)
        if trusts is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(trusts.ca)
        return context

    def client(self) -> str:
        """A client's certificate and key, as URLs name them."""
        issued = self._authority.issue_cert("worker@example.org")
        cert, key = self._folder / "cert.pem", self._folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
        return f"cert={cert}&key={key}"


class TLSFront:
    """Passes what comes over TLS on to `upstream`, in plain text. Use it as a context manager."""

    def __init__(self, upstream: int, context: ssl.SSLContext) -> None:
        self.upstream = upstream
        self.connections = 0  # since the start
        self._context = context
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._listener)
        for each in list(self._open):
            _end(each)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work, name="tls", daemon=True))
        self._threads[-1].start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted = self._listener.accept()[0]
                self.connections += 1
                self._start(partial(self._serve, accepted))

    def _serve(self, accepted: socket.socket) -> None:
        self._open.add(accepted)
        # A handshake that fails is the client's to tell; a cut comes from either side, or from us.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(accepted.close)
            stack.callback(self._open.discard, accepted)
            client = stack.enter_context(self._context.wrap_socket(accepted, server_side=True))
            self._open.add(client)
            stack.callback(self._open.discard, client)
            _pass_on(client, stack.enter_context(socket.create_connection((HOST, self.upstream))))


def _pass_on(client: ssl.SSLSocket, server: socket.socket) -> None:
    """In one thread, since a TLS connection is not for two at once."""
    while True:
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        for source, sink in ((client, server), (server, client)):
            if source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                sink.sendall(data)


def _end(each: socket.socket) -> None:
    """Have whoever waits for it return."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(each, socket.SHUT_RDWR)
