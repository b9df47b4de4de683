"""A client of NFC's classic layer that shares nothing with the project's own: PORT THUMBPRINT SERVICE.

It says what VMware's Apache-licensed Java client says: SESSION and PROXY without waiting, every byte in a TLS record of
its own; then files, a disk with one run header for every sector, synchronous writes. Prints "ok ..." for every step.
"""

import hashlib
import socket
import ssl
import struct
import sys

MESSAGE = 264
PUT, GET, DATA, ERROR, OPEN, GEOMETRY, IO, CLOSE = 1, 2, 7, 20, 21, 22, 23, 24
DONE, DELETE, CREATEDIR, STATUS, COMPLETE = 27, 31, 34, 36, 4
RAW, DISK = 0, 2


class Tls:
    """One TLS session on a socket that lives longer; it takes no byte more than its records."""

    def __init__(self, sock, thumbprint):
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.step(self.tls.do_handshake)
        seen = hashlib.sha1(self.tls.getpeercert(True)).hexdigest().upper()
        assert seen == thumbprint.replace(":", ""), "another certificate"

    def step(self, action):
        while True:
            try:
                result = action()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                header = exactly(self.sock, 5)
                self.incoming.write(header + exactly(self.sock, struct.unpack(">H", header[3:])[0]))

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)

    def sendall(self, data):
        self.step(lambda: self.tls.write(data))

    def recv(self, size):
        return self.step(lambda: self.tls.read(size))


def exactly(stream, size):
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        assert more, "the server hung up"
        data += more
    return data


def line(stream):
    text = b""
    while not text.endswith(b"\r\n"):
        text += exactly(stream, 1)
    return text.decode().strip()


class Refused(Exception):
    pass


class Nfc:
    def __init__(self, port, thumbprint, service):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.settimeout(20)
        banner = line(sock)
        assert banner.startswith("220 ") and "SSL" in banner, banner
        daemon = Tls(sock, thumbprint)
        for byte in f"SESSION good\r\nPROXY {service}\r\n".encode():
            daemon.sendall(bytes([byte]))
        answer = line(daemon)
        assert answer.startswith("200 "), answer
        self.stream = Tls(sock, thumbprint) if service.endswith("ssl") else sock

    def message(self, kind, fields=b""):
        self.stream.sendall((struct.pack("<I", kind) + fields).ljust(MESSAGE, b"\0"))

    def with_path(self, kind, path, fields):
        name = path.encode() + b"\0"
        self.message(kind, fields(len(name)))
        self.stream.sendall(name)

    def reply(self, expected):
        message = exactly(self.stream, MESSAGE)
        kind = struct.unpack_from("<I", message)[0]
        if kind == ERROR:
            code, size = struct.unpack_from("<II", message, 8)
            raise Refused(code, exactly(self.stream, size)[:-1].decode())
        assert kind == expected, f"{kind} instead of {expected}"
        return message

    def frame(self, data):
        self.message(DATA)
        self.stream.sendall(struct.pack("<II", 0xABCDEFAB, len(data)) + data)

    def next_frame(self):
        self.reply(DATA)
        magic, size = struct.unpack("<II", exactly(self.stream, 8))
        assert magic == 0xABCDEFAB
        return exactly(self.stream, size)

    def operate(self, kind, path):
        self.with_path(kind, path, lambda size: struct.pack("<IIH", size, 2, 1))
        assert struct.unpack_from("<I", self.reply(STATUS), 4)[0] == 0

    def put(self, kind, path, flags, size, frames):
        self.with_path(PUT, path, lambda length: struct.pack("<IIIQQ", kind, flags, length, size, size))
        for data in frames:
            self.frame(data)
        self.frame(b"")
        self.reply(DONE)

    def get(self, kind, path):
        """Size and frames; those of a disk end with its last sector, those of a file with an empty one."""
        self.with_path(GET, path, lambda length: struct.pack("<III", kind, length, 0))
        found, _, length, size, _ = struct.unpack_from("<IIIQQ", self.reply(PUT), 4)
        assert found == kind
        assert exactly(self.stream, length) == path.encode() + b"\0"
        return size


def sectors(content):
    """Frames of runs: a header for every sector of data, zeros in runs of at most 32767."""
    frame, zeros = b"", 0

    def zero_runs():
        nonlocal zeros
        runs = b""
        while zeros:
            count = min(zeros, 32767)
            runs += struct.pack("<II", 0x12345678, count)
            zeros -= count
        return runs

    for at in range(0, len(content), 512):
        sector = content[at:at + 512]
        if not any(sector):
            zeros += 1
            continue
        frame += zero_runs() + struct.pack("<II", 0x12345678, 0x8001) + sector
        if len(frame) > 200_000:
            yield struct.pack("<II", 0x87654321, 0) + frame
            frame = b""
    frame += zero_runs()
    if frame:
        yield struct.pack("<II", 0x87654321, 0) + frame


def database(entries):
    frame = struct.pack("<II", 0x87654321, 1)
    for key, value in entries.items():
        key, value = key.encode() + b"\0", value.encode() + b"\0"
        frame += struct.pack("<III", 0xDEADBEEF, len(key), len(value)) + key + value
    return frame + struct.pack("<III", 0xDEADBEEF, 0, 0)


def read_disk(nfc, path):
    size, content, entries = nfc.get(DISK, path), b"", {}
    while len(content) < size:
        frame = nfc.next_frame()
        magic, is_metadata = struct.unpack_from("<II", frame)
        assert magic == 0x87654321
        at = 8
        while at < len(frame):
            if is_metadata:
                magic, key, value = struct.unpack_from("<III", frame, at)
                at += 12 + key + value
                assert magic == 0xDEADBEEF
                if not key:
                    break
                entries[frame[at - key - value:at - value - 1].decode()] = frame[at - value:at - 1].decode()
                continue
            magic, run = struct.unpack_from("<II", frame, at)
            assert magic == 0x12345678 and run & 0x7FFF
            length, at = (run & 0x7FFF) * 512, at + 8
            if run & 0x8000:
                content += frame[at:at + length]
                at += length
            else:
                content += bytes(length)
    assert len(content) == size
    return content, entries


def main(port, thumbprint, service):
    nfc = Nfc(int(port), thumbprint, service)
    nfc.operate(CREATEDIR, "[ds1] peer")
    print("ok mkdir")

    text = bytes(range(256)) * 3000
    nfc.put(RAW, "[ds1] peer/file.bin", 0x10, len(text), [text[at:at + 262144] for at in range(0, len(text), 262144)])
    print("ok put file")
    assert nfc.get(RAW, "[ds1] peer/file.bin") == len(text)
    read = b""
    while frame := nfc.next_frame():
        read += frame
    assert read == text
    print("ok get file")

    path = "[] /vmfs/volumes/ds1/peer/disk.vmdk"
    disk = bytes(20 << 20) + bytes(range(1, 256)) * 512 + bytes(5 << 20) + b"\x11" * 1024
    disk += bytes(-len(disk) % 512)
    nfc.put(DISK, path, 0x198, len(disk), [database({"adapterType": "lsilogic"}), *sectors(disk)])
    print("ok put disk")
    assert read_disk(nfc, path) == (disk, {"adapterType": "lsilogic"})
    print("ok get disk")

    nfc.with_path(OPEN, "[ds1] random.vmdk", lambda size: struct.pack("<IIB", size, 0x0A, 0))
    nfc.reply(GEOMETRY)
    nfc.message(IO, struct.pack("<IQI", 1, 4096, 4096))
    nfc.stream.sendall(b"\x5a" * 4096)
    nfc.reply(IO)
    nfc.message(CLOSE)
    nfc.reply(CLOSE)
    print("ok synchronous write")

    nfc.operate(DELETE, "[ds1] peer/file.bin")
    print("ok delete")
    try:
        nfc.operate(DELETE, "[ds1] peer/file.bin")
        raise AssertionError("deleted twice")
    except Refused as refused:
        assert refused.args == (99, "File not found"), refused
    print("ok error")
    nfc.message(COMPLETE)
    exactly(nfc.stream, MESSAGE)
    print("ok goodbye")


main(*sys.argv[1:])
