"""Writes the content of a disk to the standard output; given are all its links, itself first."""

import sys

import pyvmdk


def opened(path):
    link = pyvmdk.handle()
    link.open(path)
    link.open_extent_data_files()
    return link


links = [opened(path) for path in sys.argv[1:]]
for child, parent in zip(links, links[1:]):
    child.set_parent(parent)
disk, at = links[0], 0
while at < disk.get_media_size():
    part = disk.read_buffer_at_offset(min(1 << 20, disk.get_media_size() - at), at)
    if not part:
        sys.exit(f"nothing to read at {at}")
    sys.stdout.buffer.write(part)
    at += len(part)
