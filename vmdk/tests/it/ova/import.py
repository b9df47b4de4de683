"""Asks a vCenter of others, govmomi's simulator, what it would import for an OVF descriptor; prints that line by line.

Usage: import.py VCSIM DESCRIPTOR
"""
import ssl
import subprocess
import sys

from pyVim.connect import SmartConnect
from pyVmomi import vim

server = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
said = dict(line.rstrip("\n").split(" ", 1) for line in iter(server.stdout.readline, "ready\n"))
try:
    host, port = said["url"].removeprefix("https://").removesuffix("/sdk").rsplit(":", 1)
    trust = ssl._create_unverified_context()
    service = SmartConnect(host=host, port=int(port), user=said["user"], pwd=said["password"], sslContext=trust)
    content = service.RetrieveContent()

    def first(kind):
        return content.viewManager.CreateContainerView(content.rootFolder, [kind], True).view[0]

    params = vim.OvfManager.CreateImportSpecParams(entityName="web", diskProvisioning="thin")
    with open(sys.argv[2], encoding="utf-8") as descriptor:
        found = content.ovfManager.CreateImportSpec(
            descriptor.read(), first(vim.ResourcePool), first(vim.Datastore), params
        )
    assert not found.error, found.error
    machine = found.importSpec.configSpec
    print(machine.version, machine.guestId, machine.numCPUs, machine.memoryMB)
    devices = {change.device.key: change.device for change in machine.deviceChange}
    for device in devices.values():
        if isinstance(device, vim.vm.device.VirtualDisk):
            controller = type(devices[device.controllerKey]).__name__.rsplit(".", 1)[-1]
            print(controller, device.capacityInKB)
        elif isinstance(device, vim.vm.device.VirtualEthernetCard):
            print(type(device).__name__.rsplit(".", 1)[-1])
    for file in found.fileItem:
        print(file.path, file.size, file.cimType)
finally:
    server.stdin.close()
    server.wait(10)
