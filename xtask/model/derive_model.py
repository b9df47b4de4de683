#!/usr/bin/env python3
"""Derive the model file of vsphere-vim-types from pyVmomi's type definitions.

usage: derive_model.py [--check]      (needs: pip install pyvmomi==9.1.1.0)

Reads curated.json (the methods and properties that a backup product uses), takes every data type
that can be reached from them, with the subtypes of each polymorphic type except the trees of faults
and events, and writes vim.json beside itself: one line per type, sorted, so that a change is reviewed
as a diff. Faults and events outside the set are kept as a table from name to parent, so that `is_a` works
for all of them; methods outside the set are listed as uncovered. Same input, same bytes.
"""
import json
import sys
from pathlib import Path

from pyVmomi import VmomiSupport as V

HERE = Path(__file__).parent
F_LINK, F_OPTIONAL, F_SECRET = 1, 4, 8

# Faults with a struct of their own: those on whose fields a backup program acts.
TYPED_FAULTS = """
AlreadyExists AuthMinimumAdminPermission CannotAccessFile ConcurrentAccess DisallowedOperationOnFailoverHost
DuplicateName FileAlreadyExists FileFault FileLocked FileNotFound FileNotWritable GenericVmConfigFault
HostCommunication HostConnectFault HostNotConnected InsufficientResourcesFault InvalidArgument
InvalidCollectorVersion InvalidDatastore InvalidDatastorePath InvalidDeviceSpec InvalidLocale InvalidLogin
InvalidName InvalidPowerState InvalidProperty InvalidRequest InvalidSnapshotFormat InvalidState InvalidType
ManagedObjectNotFound MethodAlreadyDisabledFault MethodDisabled MethodFault MethodNotFound MissingController
NoDiskSpace NoPermission NotAuthenticated NotEnoughLicenses NotFound NotSupported OutOfBounds RequestCanceled
RestrictedVersion RuntimeFault SecurityError SessionNotFound SnapshotFault SnapshotNoChange SystemError
TaskInProgress Timedout ToolsUnavailable UnexpectedFault VimFault VmConfigFault ApplicationQuiesceFault
FilesystemQuiesceFault MemorySnapshotOnIndependentDisk SnapshotCopyNotSupported TooManySnapshotLevels
DatacenterMismatch ResourceInUse HostConfigFault VslmFault VslmSyncFault
""".split()

PRIMITIVES = {
    "string", "boolean", "int", "long", "short", "byte", "float", "double", "anyType", "void",
    "vmodl.DateTime", "vmodl.Binary", "vmodl.TypeName", "vmodl.PropertyPath", "vmodl.MethodName",
    "vmodl.URI", "vmodl.ManagedObject",
}

data, managed, enums = V._dataDefMap, V._managedDefMap, V._enumDefMap
MANAGED_ROOT = "vmodl.ManagedObject"


# The services that are modelled. Storage lifecycle management (VSLM) is a service of vCenter beside the main one; its
# versions are numbered like those of the main API.
NAMESPACES = {"urn:vim25": "vim.", "urn:vslm": "vslm."}


def since(version):
    return V.versionIdMap.get(version, "") if version.startswith(tuple(NAMESPACES.values())) else ""


def namespace(version):
    return V.GetInternedWsdlNamespace(version)


def modelled(version):
    return namespace(version) in NAMESPACES


def field(name, type_, version, flags, privilege=None):
    f = {"name": name, "type": type_[:-2] if type_.endswith("[]") else type_}
    if type_.endswith("[]"):
        f["array"] = True
    if flags & F_OPTIONAL:
        f["optional"] = True
    if flags & F_SECRET:
        f["secret"] = True
    if since(version):
        f["since"] = since(version)
    if privilege:
        f["privilege"] = privilege
    return f


children = {}
for name, d in data.items():
    children.setdefault(d[2], []).append(name)


def subtree(root):
    out, todo = set(), [root]
    while todo:
        n = todo.pop()
        if n not in out:
            out.add(n)
            todo += children.get(n, [])
    return out


NOT_EXPANDED = subtree("vmodl.MethodFault") | subtree("vim.event.Event")


def wanted(curated):
    return set(curated["methods"] + curated["vslm"])


def closure(curated):
    methods, props = [], []
    names = wanted(curated)
    for name, m in sorted(managed.items()):
        if not modelled(m[3]):
            continue
        keep = set(curated["props"].get(name, []))
        props += [(name, p) for p in m[4] or [] if p[0] in keep]
        methods += [(name, x) for x in m[5] or [] if x[1] in names]
        inherited, base = set(), m[2]
        while base in managed:
            inherited |= {p[0] for p in managed[base][4] or []}
            base = managed[base][2]
        missing = keep - inherited - {p[0] for p in m[4] or []}
        if missing:
            sys.exit(f"curated.json names properties that {name} does not have: {sorted(missing)}")
    unknown = names - {x[1] for _, x in methods}
    if unknown:
        sys.exit(f"curated.json names methods that the model does not have: {sorted(unknown)}")

    reached, reached_enums, todo = set(), set(), []

    def reach(t):
        t = t[:-2] if t.endswith("[]") else t
        if t in enums:
            reached_enums.add(t)
        elif t in data and t not in reached:
            todo.append(t)

    for _, p in props:
        reach(p[1])
    for _, x in methods:
        for p in x[3] or []:
            reach(p[1])
        if x[4]:
            reach(x[4][1])
    by_wsdl = {d[1]: n for n, d in data.items() if modelled(d[3])}
    for f in TYPED_FAULTS + ["HostServiceTicket", "LocalizedMethodFault"]:
        reach(by_wsdl[f])
    # Values that arrive only inside anyType, or that a converted configuration is sent back with.
    for t in ["SessionManagerGenericServiceTicket", "EventEx", "OptionValue", "HostDatastoreBrowserSearchResults",
              "ElementDescription", "ExtendedElementDescription", "KeyValue", "Permission", "TaskInfo", "EnvironmentBrowserConfigOptionQuerySpec"]:
        if t in by_wsdl:
            reach(by_wsdl[t])
    while todo:
        t = todo.pop()
        if t in reached or t in ("vmodl.DynamicData", "vmodl.DataObject", "DataObject"):
            continue
        reached.add(t)
        reach(data[t][2])
        for p in data[t][4] or []:
            reach(p[1])
        if t not in NOT_EXPANDED:
            for c in children.get(t, []):
                if modelled(data[c][3]):
                    reach(c)
    return methods, props, reached, reached_enums


def line(d):
    return json.dumps(d, separators=(",", ":"))


def main():
    curated = json.loads((HERE / "curated.json").read_text())
    methods, props, reached, reached_enums = closure(curated)
    faults = subtree("vmodl.MethodFault") - {"vmodl.LocalizedMethodFault"}
    out = ["{"]

    out.append('"types":{')
    rows = []
    for n in sorted(reached):
        _, wsdl, base, version, own = data[n][:5]
        fields = [field(*p[:4]) for p in own or []]
        row = {"wsdl": wsdl, "base": None if base in ("vmodl.DynamicData", "vmodl.DataObject", "DataObject", None) else base}
        # LocalizedMethodFault is modelled as a fault but travels as plain data.
        if n == "vmodl.LocalizedMethodFault":
            row["base"] = None
        if since(version):
            row["since"] = since(version)
        if any(modelled(data[c][3]) for c in children.get(n, [])):
            row["poly"] = True
        row["fields"] = fields
        rows.append(f'"{n}":{line(row)}')
    out.append(",\n".join(rows))
    out.append('},\n"enums":{')
    out.append(",\n".join(f'"{n}":{line({"wsdl": enums[n][1], "since": since(enums[n][2]), "values": list(enums[n][3])})}' for n in sorted(reached_enums)))
    out.append('},\n"managed":{')
    rows = []
    for n, m in sorted(managed.items()):
        if not modelled(m[3]):
            continue
        row = {"wsdl": m[1], "base": None if m[2] in (MANAGED_ROOT, None) else m[2]}
        if since(m[3]):
            row["since"] = since(m[3])
        if namespace(m[3]) != "urn:vim25":
            row["namespace"] = namespace(m[3])
        row["props"] = [field(*p[:5]) for o, p in props if o == n]
        row["methods"] = []
        for o, x in methods:
            if o != n:
                continue
            name, wsdl, version, params, result, privilege, declared = (list(x) + [None] * 7)[:7]
            e = {"wsdl": wsdl, "params": [field(*p[:4]) for p in params or []]}
            if since(version):
                e["since"] = since(version)
            if privilege:
                e["privilege"] = privilege
            if result and result[1] != "void":
                e["result"] = field("returnval", result[1], "", result[0])
                if result[2] != result[1]:
                    e["task_result"] = result[2]
            e["faults"] = [data[f][1] for f in declared or []]
            row["methods"].append(e)
        rows.append(f'"{n}":{line(row)}')
    out.append(",\n".join(rows))
    out.append('},\n"open":{')
    pairs = {}
    for tree in (faults, subtree("vim.event.Event")):
        for n in tree:
            if modelled(data[n][3]):
                base = data[n][2]
                pairs[data[n][1]] = data[base][1] if base in tree else ""
    out.append(",\n".join(f'"{k}":"{v}"' for k, v in sorted(pairs.items())))
    uncovered = [
        f"{m[1]}.{x[1]}" for _, m in managed.items() if modelled(m[3]) for x in m[5] or [] if x[1] not in wanted(curated)
    ]
    out.append('},\n"uncovered":[')
    out.append(",\n".join(f'"{name}"' for name in sorted(uncovered)))
    out.append("]\n}\n")
    text = "\n".join(out)
    json.loads(text)
    target = HERE / "vim.json"
    if "--check" in sys.argv:
        if target.read_text() != text:
            sys.exit("vim.json is not what pyVmomi and curated.json give: run derive_model.py and review the diff")
        print("vim.json is up to date")
    else:
        target.write_text(text)
        print({"types": len(reached), "enums": len(reached_enums), "methods": len(methods), "open": len(pairs), "uncovered": len(uncovered)})


main()
