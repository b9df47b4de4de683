"""Checks an OVA with Python's own modules: order, headers, digests, and the sizes in its descriptor."""
import hashlib
import sys
import tarfile
from xml.etree import ElementTree

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"

with tarfile.open(sys.argv[1], "r:") as archive:
    members = archive.getmembers()
    names = [member.name for member in members]
    for member in members:
        assert member.isreg() and (member.mtime, member.uid, member.gid) == (0, 0, 0), member
    contents = {member.name: archive.extractfile(member).read() for member in members}

root = ElementTree.fromstring(contents[names[0]])
files = {file.get(OVF + "id"): file for file in root.findall(f"{OVF}References/{OVF}File")}
hrefs = [file.get(OVF + "href") for file in files.values()]
manifest = names[0].removesuffix(".ovf") + ".mf"
assert names in ([names[0], manifest] + hrefs, names[:1] + hrefs + [manifest]), names
for file in files.values():
    assert len(contents[file.get(OVF + "href")]) == int(file.get(OVF + "size"))
for disk in root.findall(f"{OVF}DiskSection/{OVF}Disk"):
    assert disk.get(OVF + "fileRef") in files and int(disk.get(OVF + "capacity")) > 0

lines = contents[manifest].decode().splitlines()
assert len(lines) == len(hrefs) + 1
for line in lines:
    algorithm, rest = line.split("(", 1)
    name, digest = rest.rsplit(")= ", 1)
    assert hashlib.new(algorithm.lower(), contents[name]).hexdigest() == digest, name

# CIM's schema wants the fields of an item in the order of the alphabet.
items = root.findall(f"{OVF}VirtualSystem/{OVF}VirtualHardwareSection/{OVF}Item")
for item in items:
    fields = [field.tag for field in item]
    assert fields == sorted(fields) and all(field.startswith(RASD) for field in fields), fields
print(len(names), "members,", len(items), "items")
