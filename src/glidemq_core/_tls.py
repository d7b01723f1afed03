"""What a URL says of TLS, and why a server can't be reached with it: valkey-glide says only that its time has run out."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from ._target import Target
from .errors import InvalidOption

_PATIENCE: Final = 2.0
_OTHER_HOST: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def context(target: Target) -> ssl.SSLContext:
    """The target's settings in the standard library's form.

    Raises:
        InvalidOption: A file that the URL names can't be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if target.insecure_tls:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    named = f"ca={target.ca}"
    try:
        if target.ca:
            made.load_verify_locations(target.ca)
        else:
            made.load_default_certs()
        if target.cert and target.key:
            named = f"cert={target.cert}&key={target.key}"
            made.load_cert_chain(target.cert, target.key, password=b"")
    except OSError as error:
        reason = f"{named} can't be used: {error}"
        raise InvalidOption("connection", str(target), reason) from None
    return made


async def fault(target: Target) -> str | None:
    """Why TLS with the target fails, and what to change; None if that is not why it can't be reached."""
    settings = context(target)
    for host, port in target.addresses:
        found = await _fault_of(host, port, settings)
        if found is not None:
            return f"{host}:{port} {found}"
    return None


async def _fault_of(host: str, port: int, settings: ssl.SSLContext) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(host, port, ssl=settings)
            try:
                # That its certificate is refused a client hears only when it reads. What it writes may drown the word.
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
        if error.verify_code in _OTHER_HOST:
            return f"has a certificate for another host: {reason}"
        return f"has a certificate that is not trusted: {reason} (`ca=` in the URL names a file of those to trust)"
    except ssl.SSLEOFError:
        return None  # it hung up without a word
    except ssl.SSLError as error:
        reason = str(error.reason or error).replace("_", " ").lower()
        if "alert" in reason:
            return f"refuses this client: {reason} (`cert=` and `key=` in the URL name the client's certificate)"
        return f"does not speak TLS as this client does: {reason}"
    except (OSError, TimeoutError):
        return None
    return None
