"""Writes `encrypted-v1.txt`: a small encrypted repository, made from `FORMAT.md` and nothing else.

BLAKE3 is written out below; AES-GCM, X25519 and Argon2id are those of the package `cryptography`. All that is random
in a real repository is fixed here, so that the output is always the same. Each line: an object's name, its bytes.

    python3 encrypted-v1.py > encrypted-v1.txt
"""

import json
import struct
import zlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

# BLAKE3, after section 2 of its paper.
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64
MASK = 0xFFFFFFFF


def compress(cv, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = cv + IV[:4] + [counter & MASK, counter >> 32, length, flags]

    def mix(a, b, c, d, x, y):
        for add, right, left in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + add) & MASK
            v[d] ^= v[a]
            v[d] = (v[d] >> right | v[d] << 32 - right) & MASK
            v[c] = (v[c] + v[d]) & MASK
            v[b] ^= v[c]
            v[b] = (v[b] >> left | v[b] << 32 - left) & MASK

    for _ in range(7):
        for column in range(4):
            mix(column, column + 4, column + 8, column + 12, m[2 * column], m[2 * column + 1])
        for at in range(4):
            mix(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4, m[8 + 2 * at], m[9 + 2 * at])
        m = [m[at] for at in PERMUTATION]
    return [v[at] ^ v[at + 8] for at in range(8)]


def node(data, first, key, flags, root):
    """Returns the chaining value of the tree over `data`, whose first chunk has number `first`."""
    if len(data) <= 1024:
        blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
        cv = key
        for at, block in enumerate(blocks):
            last = at == len(blocks) - 1
            flag = flags | (CHUNK_START if at == 0 else 0) | (CHUNK_END if last else 0) | (ROOT if last and root else 0)
            cv = compress(cv, block, first, len(block), flag)
        return cv
    chunks = (len(data) + 1023) // 1024
    left = 1 << (chunks - 1).bit_length() - 1
    children = node(data[: left * 1024], first, key, flags, False) + node(data[left * 1024 :], first + left, key, flags, False)
    return compress(key, struct.pack("<16I", *children), 0, 64, flags | PARENT | (ROOT if root else 0))


def blake3(data, key=IV, flags=0):
    return struct.pack("<8I", *node(data, 0, key, flags, True))


def keyed(key, data):
    return blake3(data, list(struct.unpack("<8I", key)), KEYED)


def derive(context, material):
    context = blake3(f"vsphere-backup 2026-11-22 format 1 {context}".encode(), IV, CONTEXT)
    return blake3(material, list(struct.unpack("<8I", context)), MATERIAL)


assert blake3(b"").hex().startswith("af1349b9f5f9a1a6")
assert blake3(bytes(at % 251 for at in range(5120))).hex().startswith("9cadc15fed8b5d85")

# What is random elsewhere.
def fixed(number, length=32):
    return blake3(b"encrypted-v1 %d" % number)[:length]


REPOSITORY, IDENTITY, KEK, DATA_KEY = fixed(1, 16), fixed(2), fixed(3), fixed(4)
GENERATION, CREATED = 1, 1_795_305_600
NONCE = bytes(12)
objects = {}


def envelope(kind, body, generation=0):
    head = b"VSBK" + kind + struct.pack("<HHIQ", 1, 1 if generation else 0, generation, len(body))
    return head + body + blake3(head + body)


def encrypted(name, kind, body, salt):
    head = b"VSBK" + kind + struct.pack("<HHIQ", 1, 1, GENERATION, 32 + len(body) + 16)
    sealed = AESGCM(derive("envelope", DATA_KEY + salt)).encrypt(NONCE, body, REPOSITORY + head + name.encode())
    objects[name] = envelope(kind, salt + sealed, GENERATION)


# config
config = json.dumps({
    "repositoryId": REPOSITORY.hex(), "created": CREATED, "chunkSize": 65536, "pageEntries": 4096,
    "incompatibleFeatures": [], "compatibleFeatures": [], "encryption": {"cipher": "aes-256-gcm"},
}).encode()
objects["config"] = envelope(b"CONF", config)

# key ring
def wrap(key, slot):
    return AESGCM(key).encrypt(NONCE, KEK, REPOSITORY + slot).hex()


slots = []
slot, salt = fixed(10, 8), fixed(11)
key = Argon2id(salt=salt, length=32, iterations=2, lanes=2, memory_cost=64).derive(b"correct horse")
slots.append({"id": slot.hex(), "label": "password", "created": CREATED, "kind": "argon2id", "memoryKib": 64, "passes": 2,
              "lanes": 2, "salt": salt.hex(), "wrapped": wrap(key, slot)})
slot, salt = fixed(12, 8), fixed(13)
key = derive("key file slot", salt + bytes(range(64)))
slots.append({"id": slot.hex(), "label": "file", "created": CREATED, "kind": "keyFile", "salt": salt.hex(),
              "wrapped": wrap(key, slot)})
slot, sender = fixed(14, 8), X25519PrivateKey.from_private_bytes(fixed(15))
recipient = X25519PrivateKey.from_private_bytes(bytes(range(1, 33))).public_key().public_bytes_raw()
ephemeral = sender.public_key().public_bytes_raw()
shared = sender.exchange(X25519PublicKey.from_public_bytes(recipient))
key = derive("recipient slot", shared + ephemeral + recipient)
slots.append({"id": slot.hex(), "label": "safe", "created": CREATED, "kind": "x25519", "recipient": recipient.hex(),
              "ephemeral": ephemeral.hex(), "wrapped": wrap(key, slot)})
number, salt = 1, fixed(16)
secret = IDENTITY + struct.pack("<IQ", GENERATION, CREATED) + DATA_KEY
bound = REPOSITORY + struct.pack("<Q", number) + blake3(config)
ring = envelope(b"KEYS", json.dumps({
    "repository": REPOSITORY.hex(), "number": number, "incompatibleFeatures": [], "changes": [fixed(17, 8).hex()],
    "slots": slots, "salt": salt.hex(),
    "sealed": AESGCM(derive("key ring", KEK + salt)).encrypt(NONCE, secret, bound).hex(),
}).encode())
objects["keys/0000000000000001"] = objects["keys/0000000000000001.copy"] = ring

# a pack of one chunk
plain = bytes(at * at >> 4 & 0xFF for at in range(1000))
chunk = keyed(derive("chunk id", IDENTITY), plain)
salt = fixed(20)
head = b"CHNK" + struct.pack("<BxxxII", 0, len(plain) + 16, len(plain)) + chunk + struct.pack("<I", 0)
stored = AESGCM(derive("pack", DATA_KEY + salt)).encrypt(struct.pack("<Iq", 0, 0), plain, REPOSITORY + head)
pack_seal = struct.pack("<I", GENERATION) + salt
pack = b"VSBKPACK" + struct.pack("<HH", 1, 1) + pack_seal + REPOSITORY
entry = chunk + struct.pack("<QII", len(pack), len(plain) + 16, len(plain))
pack += head + struct.pack("<I", zlib.crc32(head + stored)) + stored
trailer = b"VSBKPEND" + struct.pack("<HHIQ", 1, 0, 1, len(pack))
pack += entry + trailer + blake3(entry + trailer)
pack_id = blake3(pack)
objects[f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}"] = pack

# the segment, the page and the small object that need it
segment = struct.pack("<II", 1, 0) + fixed(21, 16) + pack_id + struct.pack("<QI", len(pack), 1) + pack_seal + entry
encrypted(f"index/{blake3(segment).hex()}", b"INDX", segment, fixed(22))
page = bytes(8) + fixed(23, 16) + bytes([1, 2]) + bytes(4094) + chunk
page_id = keyed(derive("page id", IDENTITY), page).hex()
encrypted(f"pages/{page_id[:2]}/{page_id}", b"PAGE", page, fixed(24))
meta = fixed(25, 16) + b"{}"
meta_id = keyed(derive("meta id", IDENTITY), meta).hex()
encrypted(f"meta/{meta_id}", b"META", meta, fixed(26))

# the manifest
point = "vm-1/20261122T000000.000000Z-0123456789abcdef"
manifest = json.dumps({
    "id": point, "repository": REPOSITORY.hex(), "vm": {"instanceUuid": "vm-1"}, "created": CREATED,
    "committed": CREATED, "consistency": "crash", "objects": {"config.json": meta_id},
    "disks": [{"key": 2000, "capacity": 65536 + 1000, "root": {"page": page_id}, "mode": "full"}],
}).encode()
encrypted(f"points/{point}", b"PONT", manifest, fixed(27))

print("# Made by encrypted-v1.py; not to be edited.")
for name in sorted(objects):
    print(name, objects[name].hex())
