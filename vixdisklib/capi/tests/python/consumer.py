"""A program that loads the library with ctypes, as Python wrappers of VMware's do.

The declarations are made from the documented layout alone, not from our header: offsets are checked where they matter.
Arguments: the library, a VMDK of 32 MiB whose sector 2048 begins with 5s.
"""

import ctypes as c
import sys
import threading

lib = c.CDLL(sys.argv[1])
path = sys.argv[2].encode()


class Uid(c.Structure):
    _fields_ = [("userName", c.c_char_p), ("password", c.c_char_p)]


class SessionId(c.Structure):
    _fields_ = [("cookie", c.c_char_p), ("userName", c.c_char_p), ("key", c.c_char_p)]


class Creds(c.Union):
    _fields_ = [("uid", Uid), ("sessionId", SessionId)]


class ConnectParams(c.Structure):
    """Of the size that programs had before 6.5: 80 bytes."""

    _fields_ = [
        ("vmxSpec", c.c_char_p),
        ("serverName", c.c_char_p),
        ("thumbPrint", c.c_char_p),
        ("privateUse", c.c_long),
        ("credType", c.c_int),
        ("creds", Creds),
        ("port", c.c_uint32),
        ("nfcHostPort", c.c_uint32),
        ("vimApiVer", c.c_char_p),
    ]


assert c.sizeof(ConnectParams) == 80 and ConnectParams.port.offset == 64


class Geometry(c.Structure):
    _fields_ = [("cylinders", c.c_uint32), ("heads", c.c_uint32), ("sectors", c.c_uint32)]


class Info(c.Structure):
    _fields_ = [
        ("biosGeo", Geometry),
        ("physGeo", Geometry),
        ("capacity", c.c_uint64),
        ("adapterType", c.c_int),
        ("numLinks", c.c_int),
        ("parentFileNameHint", c.c_char_p),
        ("uuid", c.c_char_p),
        ("logicalSectorSize", c.c_uint32),
        ("physicalSectorSize", c.c_uint32),
    ]


assert c.sizeof(Info) == 64


class Block(c.Structure):
    _fields_ = [("offset", c.c_uint64), ("length", c.c_uint64)]


class BlockList(c.Structure):
    _fields_ = [("numBlocks", c.c_uint32), ("blocks", Block * 0)]


LogFunc = c.CFUNCTYPE(None, c.c_char_p, c.c_void_p)
Completion = c.CFUNCTYPE(None, c.c_void_p, c.c_uint64)

for name in ("InitEx", "ConnectEx", "Open", "Read", "ReadAsync", "Wait", "GetInfo", "QueryAllocatedBlocks",
             "FreeBlockList", "ReadMetadata", "Close", "Disconnect"):
    getattr(lib, "VixDiskLib_" + name).restype = c.c_uint64
lib.VixDiskLib_GetErrorText.restype = c.c_void_p
lib.VixDiskLib_GetErrorText.argtypes = [c.c_uint64, c.c_char_p]
lib.VixDiskLib_FreeErrorText.argtypes = [c.c_void_p]
lib.VixDiskLib_FreeErrorText.restype = None
lib.VixDiskLib_GetTransportMode.restype = c.c_char_p
lib.VixDiskLib_GetTransportMode.argtypes = [c.c_void_p]


def works(error):
    if error:
        text = lib.VixDiskLib_GetErrorText(error, None)
        words = c.string_at(text).decode()
        lib.VixDiskLib_FreeErrorText(text)
        sys.exit(f"{words}")


formats = []
libc = c.CDLL(None)


@LogFunc
def log(fmt, arguments):
    # The arguments are a va_list, which only C can walk through.
    line = c.create_string_buffer(4096)
    libc.vsnprintf(line, c.c_size_t(len(line)), fmt, c.c_void_p(arguments))
    formats.append((fmt, line.value.decode()))


works(lib.VixDiskLib_InitEx(6, 7, log, log, log, None, None))
assert formats and formats[0][0] == b"%s" and "vixDiskLib" in formats[0][1], formats

# On a page of its own, with nothing readable behind the 80 bytes.
page = 4096
memory = libc.mmap
memory.restype = c.c_void_p
memory.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
pages = memory(None, 2 * page, 3, 0x22, -1, 0)
libc.mprotect(c.c_void_p(pages + page), c.c_size_t(page), 0)
params = ConnectParams.from_address(pages + page - 80)

connection = c.c_void_p()
works(lib.VixDiskLib_ConnectEx(c.byref(params), c.c_byte(1), None, b"file:nbdssl:nbd", c.byref(connection)))
disk = c.c_void_p()
works(lib.VixDiskLib_Open(connection, path, 4, c.byref(disk)))
assert lib.VixDiskLib_GetTransportMode(disk) == b"file"

info = c.POINTER(Info)()
works(lib.VixDiskLib_GetInfo(disk, c.byref(info)))
assert info.contents.capacity == 65536 and info.contents.numLinks == 1
assert info.contents.logicalSectorSize == 512
lib.VixDiskLib_FreeInfo(info)

buffer = c.create_string_buffer(1024)
works(lib.VixDiskLib_Read(disk, c.c_uint64(2047), c.c_uint64(2), buffer))
assert buffer.raw[:512] == bytes(512) and buffer.raw[512] == 5

told = threading.Event()


@Completion
def done(data, result):
    assert data == 4711 and result == 0
    told.set()


again = c.create_string_buffer(512)
error = lib.VixDiskLib_ReadAsync(disk, c.c_uint64(2048), c.c_uint64(1), again, done, c.c_void_p(4711))
assert error == 25000, error
works(lib.VixDiskLib_Wait(disk))
assert told.is_set() and again.raw == buffer.raw[512:]

blocks = c.POINTER(BlockList)()
works(lib.VixDiskLib_QueryAllocatedBlocks(disk, c.c_uint64(0), c.c_uint64(65536), c.c_uint64(128), c.byref(blocks)))
first = Block.from_address(c.addressof(blocks.contents) + 8)
assert blocks.contents.numBlocks == 1 and first.offset == 2048, (blocks.contents.numBlocks, first.offset)
works(lib.VixDiskLib_FreeBlockList(blocks))

required = c.c_size_t()
assert lib.VixDiskLib_ReadMetadata(disk, b"adapterType", None, c.c_size_t(0), c.byref(required)) == 24
value = c.create_string_buffer(required.value)
works(lib.VixDiskLib_ReadMetadata(disk, b"adapterType", value, required, None))
assert value.value == b"lsilogic"

works(lib.VixDiskLib_Close(disk))
works(lib.VixDiskLib_Disconnect(connection))
lib.VixDiskLib_Exit()
print("ok")
