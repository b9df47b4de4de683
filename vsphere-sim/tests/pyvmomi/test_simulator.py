#!/usr/bin/env python3
"""Drives a standalone vsphere-sim with pyVmomi, VMware's own Python client.

usage: test_simulator.py PATH-TO-VSPHERE-SIM

The simulator is started with a small area limit per answer and a disk whose content is known, so that the
pages of QueryChangedDiskAreas can be compared with what was written. Prints an "ok" line per fact and exits
with a non-zero status at the first one that does not hold.
"""
import hashlib
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

BLOCK = 64 * 1024
CAPACITY = 64 * 1024 * 1024
# Blocks with data in the base image, every one apart from its neighbours: one area each.
WRITTEN = [0, 3, 5, 8, 100, 102, 512, 1000, 1023]
MAX_AREAS = 2


def check(fact, holds, detail=""):
    if not holds:
        print(f"FAILED {fact} {detail}")
        sys.exit(1)
    print(f"ok {fact}", flush=True)


def start(binary, directory):
    image = os.path.join(directory, "disk.img")
    with open(image, "wb") as file:
        file.truncate(CAPACITY)
        for block in WRITTEN:
            file.seek(block * BLOCK)
            file.write(bytes([block % 255 + 1]) * BLOCK)
    facts = os.path.join(directory, "facts")
    process = subprocess.Popen(
        [binary, "--listen", "127.0.0.1:0", "--control", "--max-areas", str(MAX_AREAS), "--task-delay", "50",
         "--thumbprint-file", facts, "--vm", "web", "--cbt", "--disk", image, "--empty-disk", "16M"],
        stdout=subprocess.DEVNULL)
    for _ in range(200):
        if os.path.exists(facts):
            with open(facts) as file:
                return process, image, dict(line.strip().split("=", 1) for line in file)
        if process.poll() is not None:
            sys.exit(f"FAILED the simulator ended with status {process.returncode}")
        time.sleep(0.05)
    process.kill()
    sys.exit("FAILED the simulator did not start within 10 s")


def changed_areas(vm, snapshot, key, capacity, change_id):
    """All areas, looped to the end, and the number of answers that it took."""
    start, areas, pages = 0, [], 0
    while start < capacity:
        page = vm.QueryChangedDiskAreas(snapshot, key, start, change_id)
        pages += 1
        if page.startOffset != start or page.length <= 0:
            sys.exit(f"FAILED a page from {page.startOffset} of {page.length} bytes was asked from {start}")
        areas += [(area.start, area.length) for area in page.changedArea]
        start = page.startOffset + page.length
    return areas, pages


def disks_of(config):
    return [device for device in config.hardware.device if isinstance(device, vim.vm.device.VirtualDisk)]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as directory:
        process, image, facts = start(sys.argv[1], directory)
        try:
            run(image, facts)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=20)
        check("the simulator ends cleanly on SIGTERM", status == 0, status)
        with open(image, "rb") as file:
            data = file.read()
        unchanged = all(data[b * BLOCK:(b + 1) * BLOCK] == bytes([b % 255 + 1]) * BLOCK for b in WRITTEN)
        check("the user's image is as it was", unchanged)


def run(image, facts):
    host, port = facts["url"].removeprefix("https://").removesuffix("/sdk").split(":")

    pem = ssl.get_server_certificate((host, int(port)))
    der = ssl.PEM_cert_to_DER_cert(pem)
    check("the thumbprints are those of the certificate",
          hashlib.sha1(der).hexdigest().upper() == facts["sha1"].replace(":", "")
          and hashlib.sha256(der).hexdigest().upper() == facts["sha256"].replace(":", ""))
    # The certificate itself is the only trusted root; the address must be one of its names.
    trust = ssl.create_default_context(cadata=pem)

    def connect(password):
        return SmartConnect(host=host, port=int(port), user=facts["user"], pwd=password, sslContext=trust)

    def control(method, path, body):
        connection = http.client.HTTPSConnection(host, int(port), context=trust)
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            sys.exit(f"FAILED {method} {path}: {answer.status} {content}")
        return content

    try:
        connect("wrong")
        check("a wrong password is refused", False)
    except vim.fault.InvalidLogin:
        check("a wrong password is refused", True)
    instance = connect(facts["password"])
    check("logs in over verified TLS", True)

    content = instance.RetrieveContent()
    check("is a vCenter", content.about.apiType == "VirtualCenter")
    check("the session is active", content.sessionManager.currentSession.userName == facts["user"])

    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    machines = list(view.view)
    view.Destroy()
    check("a container view lists the VM", [machine.name for machine in machines] == ["web"])
    vm = machines[0]
    found = content.searchIndex.FindByInventoryPath("dc1/vm/web")
    check("the inventory path finds it", found is not None and found._moId == vm._moId)
    found = content.searchIndex.FindByUuid(None, vm.config.instanceUuid, True, True)
    check("the instanceUuid finds it", found is not None and found._moId == vm._moId)

    disks = disks_of(vm.config)
    check("it has two disks", [disk.key for disk in disks] == [2000, 2001])
    check("of the right sizes", [disk.capacityInBytes for disk in disks] == [CAPACITY, 16 << 20])
    check("on files of the datastore", disks[0].backing.fileName == "[ds1] web/web.vmdk", disks[0].backing.fileName)
    check("change tracking is on", vm.config.changeTrackingEnabled and vm.capability.changeTrackingSupported)
    check("the VM runs", vm.runtime.powerState == "poweredOn")

    collector = content.propertyCollector
    spec = vmodl.query.PropertyCollector.FilterSpec(
        objectSet=[vmodl.query.PropertyCollector.ObjectSpec(
            obj=content.rootFolder, skip=True, selectSet=[
                vmodl.query.PropertyCollector.TraversalSpec(
                    name="folders", type=vim.Folder, path="childEntity", skip=False, selectSet=[
                        vmodl.query.PropertyCollector.SelectionSpec(name="folders"),
                        vmodl.query.PropertyCollector.SelectionSpec(name="datacenters")]),
                vmodl.query.PropertyCollector.TraversalSpec(
                    name="datacenters", type=vim.Datacenter, path="vmFolder", skip=False, selectSet=[
                        vmodl.query.PropertyCollector.SelectionSpec(name="folders")])])],
        propSet=[vmodl.query.PropertyCollector.PropertySpec(
            type=vim.ManagedEntity, pathSet=["name"])])
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=1)
    result = collector.RetrievePropertiesEx([spec], options)
    names, pages = [], 0
    while result:
        pages += 1
        names += [row.propSet[0].val for row in result.objects]
        result = collector.ContinueRetrievePropertiesEx(result.token) if result.token else None
    check("a recursive traversal pages through folders and VMs", sorted(names) == ["dc1", "vm", "web"] and pages == 3, (names, pages))
    try:
        spec.propSet[0].pathSet = ["nosuch"]
        collector.RetrievePropertiesEx([spec], vmodl.query.PropertyCollector.RetrieveOptions())
        check("an unknown property fails the call", False)
    except vmodl.query.InvalidProperty as fault:
        check("an unknown property fails the call", fault.name == "nosuch")

    task = vm.CreateSnapshot_Task(name="backup", description="by pyVmomi", memory=False, quiesce=False)
    progress = []
    WaitForTask(task, si=instance, onProgressUpdate=lambda _, percent: progress.append(percent))
    snapshot = task.info.result
    check("a snapshot is taken and the task says which", isinstance(snapshot, vim.vm.Snapshot))
    check("the snapshot tree shows it", vm.snapshot.rootSnapshotList[0].name == "backup"
          and vm.snapshot.currentSnapshot._moId == snapshot._moId)
    frozen = disks_of(snapshot.config)[0]
    running = disks_of(vm.config)[0]
    check("the snapshot shows the base file", frozen.backing.fileName == "[ds1] web/web.vmdk")
    check("the VM runs on a child of it", running.backing.fileName == "[ds1] web/web-000001.vmdk"
          and running.backing.parent.fileName == "[ds1] web/web.vmdk")
    first = frozen.backing.changeId
    check("the snapshot's disk has a change id", bool(first) and "/" in first, first)

    areas, pages = changed_areas(vm, snapshot, 2000, CAPACITY, "*")
    touched = {block for start, length in areas for block in range(start // BLOCK, -(-(start + length) // BLOCK))}
    check("allocated areas cover what was written", set(WRITTEN) <= touched, areas)
    sparse = os.stat(image).st_blocks * 512 < CAPACITY
    check("and on a sparse image nothing else", not sparse or touched == set(WRITTEN), areas)
    check("in several pages", not sparse or pages == -(-len(areas) // MAX_AREAS) and pages > 1, pages)
    areas, _ = changed_areas(vm, snapshot, 2000, CAPACITY, first)
    check("nothing changed since the snapshot itself", areas == [], areas)
    try:
        vm.QueryChangedDiskAreas(snapshot, 2000, CAPACITY, first)
        check("a start at the end is refused", False)
    except vmodl.fault.InvalidArgument as fault:
        check("a start at the end is refused", "startOffset" in fault.msg, fault.msg)
    try:
        vm.QueryChangedDiskAreas(snapshot, 2000, 0, "00 00/1")
        check("a foreign change id is a FileFault", False)
    except vim.fault.FileFault:
        check("a foreign change id is a FileFault", True)

    # The guest goes on; a second snapshot tells what it changed since the first.
    changed = [2, 3, 4, 200, 700, 701, 1023]
    for block in changed:
        control("PUT", f"/sim/vm/web/disk/2000/{block * BLOCK + 100}", b"written by the guest")
    task = vm.CreateSnapshot_Task(name="incremental", description="", memory=False, quiesce=False)
    WaitForTask(task, si=instance)
    second = task.info.result
    control("PUT", f"/sim/vm/web/disk/2000/{900 * BLOCK}", b"after the second snapshot")
    areas, pages = changed_areas(vm, second, 2000, CAPACITY, first)
    touched = {block for start, length in areas for block in range(start // BLOCK, (start + length) // BLOCK)}
    check("the changed areas are what the guest wrote", touched == set(changed), areas)
    check("in pages of two areas", len(areas) == 4 and pages == 2, (areas, pages))
    check("nothing had changed when the first snapshot was taken", changed_areas(vm, snapshot, 2000, CAPACITY, first)[0] == [])
    control("POST", "/sim/vm/web/disk/2000/reset-tracking", b"")
    try:
        vm.QueryChangedDiskAreas(second, 2000, 0, first)
        check("after a reset of tracking the old change id is a FileFault", False)
    except vim.fault.FileFault:
        check("after a reset of tracking the old change id is a FileFault", True)
    WaitForTask(second.RemoveSnapshot_Task(removeChildren=False, consolidate=True), si=instance)

    WaitForTask(vm.PowerOff(), si=instance)
    check("the VM can be powered off", vm.runtime.powerState == "poweredOff")
    try:
        WaitForTask(vm.PowerOff(), si=instance)
        check("and not twice", False)
    except vim.fault.InvalidPowerState as fault:
        check("and not twice", fault.existingState == "poweredOff")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True), si=instance)
    check("the snapshot is removed", vm.snapshot is None and not vm.runtime.consolidationNeeded)
    check("and the VM is back on its base file", disks_of(vm.config)[0].backing.fileName == "[ds1] web/web.vmdk")
    try:
        snapshot.config
        check("its reference is stale", False)
    except vmodl.fault.ManagedObjectNotFound:
        check("its reference is stale", True)

    spec = vim.vm.ConfigSpec(changeTrackingEnabled=False, annotation="seen by pyVmomi")
    WaitForTask(vm.ReconfigVM_Task(spec), si=instance)
    check("the configuration can be changed", not vm.config.changeTrackingEnabled and vm.config.annotation == "seen by pyVmomi")

    Disconnect(instance)
    try:
        instance.RetrieveContent().rootFolder.name
        check("after logout nothing is shown", False)
    except vim.fault.NotAuthenticated:
        check("after logout nothing is shown", True)
    left = control("GET", "/sim/leftovers", b"")
    check("nothing is left behind", left == b"", left)


if __name__ == "__main__":
    main()
