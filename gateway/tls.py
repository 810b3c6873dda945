"""TLS contexts, in both directions. Verification of upstreams cannot be switched off.

Built from `ssl.SSLContext` itself: `ssl.create_default_context` would write session secrets to wherever the variable
SSLKEYLOGFILE says.
"""

import ssl
from pathlib import Path

_ALPN = ["http/1.1"]  # what both lanes and the upstream's connection speak


def client_context(ca_file: Path | None, key: str) -> ssl.SSLContext:
    """Make the context for dialling upstreams. Reads files: call it off the loop.

    Args:
        ca_file: PEM file of the authorities to believe, and no others; None believes the system's.
        key: Name of the setting, for the error.

    Raises:
        OSError: The file cannot be read, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(_ALPN)
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # SSLError is one
        raise OSError(f"{key} cannot be used: {_why(error)}") from None
    return context


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Make the context of the listener. Reads files: call it off the loop.

    Args:
        certificate: PEM file with the server's certificate and what leads to its authority.
        key: PEM file with its private key, not encrypted.

    Raises:
        OSError: A file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    renew(context, certificate, key)
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show another certificate from the next handshake on; open connections keep theirs.

    Call it on the loop, though it reads two small files: OpenSSL must begin no connection meanwhile. And call it with
    what `server_context` has just taken: a pair that does not fit would leave the listener without a certificate.

    Args:
        context: Of the listener.
        certificate: As for `server_context`.
        key: Likewise.

    Raises:
        OSError: As `server_context`.
    """
    try:
        # A password is given so that OpenSSL never asks a terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise OSError(f"tls.certificate and tls.key cannot be used: {_why(error)}") from None


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        # OpenSSL has no words for a file that holds something else than PEM of the kind asked for.
        return error.reason.replace("_", " ").lower() if error.reason else "not a PEM file of this kind"
    return (error.strerror or type(error).__name__).lower()
