"""A host of ESXi 6.7 as far as a client of NFC sees it, with OpenSSL's TLS. One disk, for reading.

Arguments: certificate, key. Prints its port, and then a line for every connection: what came of it.
OPENSSL_CONF says which signatures it can make.
"""

import socket
import ssl
import struct
import sys

CAPACITY = 1 << 20
MAGIC = 0xA100DA7A
BANNER = b"220 VMware Authentication Daemon Version 1.10: SSL Required, ServerDaemonProtocol:SOAP, NFCSSL supported/t\r\n"

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
# Python's own choice of ciphers would forbid SHA-1, whatever the configuration says.
context.set_ciphers("DEFAULT@SECLEVEL=0")
context.load_cert_chain(sys.argv[1], sys.argv[2])


def exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise EOFError("the client hung up")
        data += part
    return data


def daemon(tls):
    """Commands up to PROXY; the ticket's id."""
    session, line = None, b""
    while True:
        line += exactly(tls, 1)
        if not line.endswith(b"\r\n"):
            continue
        verb, _, rest = line.strip().decode().partition(" ")
        line = b""
        if verb == "SESSION":
            session = rest
        elif verb == "PROXY" and session and rest == "vpxa-nfcssl":
            tls.sendall(b"200 Connect ha-nfcssl\r\n")
            return session
        else:
            tls.sendall(b"530 Please login with USER and PASS\r\n")


def classic(tls, number, at=4, value=0):
    tls.sendall(struct.pack("<I", number) + bytes(at - 4) + struct.pack("<I", value) + bytes(256 + 4 - at))


def start(tls):
    """Messages up to the asynchronous layer."""
    while True:
        (number,) = struct.unpack_from("<I", exactly(tls, 264))
        if number == 33:
            classic(tls, 36, at=16, value=1)
        elif number == 51:
            classic(tls, 51, value=2)
        elif number == 52:
            return classic(tls, 52)
        else:
            classic(tls, 4)
            raise ValueError(f"message {number} is not known")


def data(offset, length):
    return b"".join(bytes([sector % 251]) * 512 for sector in range(offset // 512, (offset + length) // 512))


def requests(tls):
    while True:
        magic, kind, size, operation = struct.unpack("<IIII", exactly(tls, 16))
        if magic != MAGIC:
            raise ValueError("out of step")
        payload = exactly(tls, size)
        reply = lambda payload, extra=b"": tls.sendall(
            struct.pack("<IIII", MAGIC, kind, len(payload), operation) + payload + extra
        )
        if kind == 4:
            (path_len,) = struct.unpack_from("<I", payload)
            exactly(tls, path_len)
            reply(struct.pack("<QQIIIQIIII8x", 0, 7, 2, 0x1E, 0, CAPACITY, 512, 2, 16, 63))
        elif kind == 7:
            offset, total = struct.unpack_from("<QI", payload, 16)
            reply(struct.pack("<QIIQIIIII", 0, 1, 0, offset, total, 0, total, total, 0), data(offset, total))
        elif kind == 3:
            return reply(bytes(4))
        elif kind in (2, 5, 9, 22):
            reply(bytes(size))
        else:
            raise ValueError(f"request {kind} is not known")


def serve(tcp):
    tcp.sendall(BANNER)
    try:
        tls = context.wrap_socket(tcp, server_side=True)
    except (ssl.SSLError, OSError) as error:
        return f"no handshake: {error}"
    try:
        session = daemon(tls)
        # Abandoned without close_notify; the next one starts on the same stream.
        tls = context.wrap_socket(socket.socket(fileno=tls.detach()), server_side=True)
        start(tls)
        requests(tls)
        return f"served {session}"
    except (EOFError, OSError, ValueError) as error:
        return f"broke off: {error}"
    finally:
        tls.close()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.settimeout(20)
    print(serve(connection), flush=True)
    connection.close()
