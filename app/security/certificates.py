"""When a database's certificate expires, asked before anybody signs in."""

import socket
import ssl
import struct
from datetime import datetime
from typing import Final

from cryptography import x509

_SSL_REQUEST: Final = struct.pack(">II", 8, 80877103)  # PostgreSQL's protocol: length, code


def certificate_expires_at(host: str, port: int, *, seconds: float) -> datetime | None:
    """
    The last moment of the certificate that a PostgreSQL server shows; `None`: it offers no TLS. Blocks.

    Whether it is to be trusted is not asked here: that is what `sslmode=verify-full` does with each connection.

    Raises:
        OSError: it does not answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), seconds) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            return None
        with context.wrap_socket(plain, server_hostname=host) as encrypted:
            shown = encrypted.getpeercert(binary_form=True)
    return None if shown is None else x509.load_der_x509_certificate(shown).not_valid_after_utc
