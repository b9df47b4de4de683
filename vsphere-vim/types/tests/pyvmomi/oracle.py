"""pyVmomi as an oracle of the data model: what it reads and what it writes, as canonical JSON, one line each.

in:  {"types": [...], "enums": [...], "seed": n}, then {"i": n, "xml": "..."} until the end
out: {"schema": ...}, {"type": ..., "xml": ..., "dump": ...} for objects of its own, {"done": n}, then {"i": n, "dump": ...}
     (or "error") for each text
"""
import base64
import json
import random
import struct
import sys
from datetime import datetime, timedelta

from pyVmomi import SoapAdapter, vmodl  # noqa: F401 (vmodl loads the faults)
from pyVmomi import VmomiSupport as V
from pyVmomi.Iso8601 import TZManager

NS = "urn:vim25"
VERSION = V.newestVersions.GetName("vim")
# A fault by itself, in Python.
WRAPPER = "LocalizedMethodFault"
# Of every object in Python, of none on the wire; `msg` is the localizedMessage around a fault.
NOT_FIELDS = {"dynamicType", "dynamicProperty", "msg"}


def lookup(name):
    try:
        return V.GetWsdlType(NS, name)
    except KeyError:
        return None


def wsdl(type_):
    return "anyType" if type_ is object else V.GetWsdlName(type_)


def fields(type_):
    return [p for p in type_()._GetPropertyList() if p.name not in NOT_FIELDS]


def kind(type_):
    if type_ is object:
        return "any"
    if issubclass(type_, Exception):
        return "fault"
    for name, parent in (("data", V.DataObject), ("moref", V.ManagedObject), ("enum", V.Enum)):
        if issubclass(type_, parent):
            return name
    if type_ is type:
        return "typename"
    return "method" if issubclass(type_, V.ManagedMethod) else "scalar"


def declared(type_):
    """The name on the wire: types, methods and paths are strings there."""
    wire = kind(type_) in ("typename", "method") or type_ is V.PropertyPath
    return "string" if wire else wsdl(type_)


def schema(types, enum_types):
    data, managed = {}, {}
    enums = {wsdl(e): list(e.values) for e in enum_types}
    for name, type_ in types.items():
        rows = []
        for p in fields(type_):
            array = issubclass(p.type, list)
            item = p.type.Item if array else p.type
            k = kind(item)
            rows.append([p.name, declared(item), k, array, bool(p.flags & V.F_OPTIONAL)])
            if k == "enum":
                enums[wsdl(item)] = list(item.values)
            if k == "moref":
                managed[wsdl(item)] = sorted({wsdl(m) for m in MANAGED if issubclass(m, item)} | {wsdl(item)})
        bases = [wsdl(b) for b in type_.__mro__ if getattr(b, "_wsdlName", None) and issubclass(b, V.DataObject) and wsdl(b) in types]
        data[name] = {"bases": bases, "fields": rows, "fault": issubclass(type_, Exception)}
    return {"data": data, "enums": enums, "managed": managed}


MANAGED = [V.GetWsdlType(NS, name) for name in ("VirtualMachine", "HostSystem", "Folder", "Datastore", "Task", "Network", "ClusterComputeResource", "ResourcePool", "VirtualMachineSnapshot", "Datacenter")]


# --- canonical form -------------------------------------------------------------------------------------------------

def dump(value):
    if isinstance(value, vmodl.MethodFault):
        out = {"_t": "LocalizedMethodFault", "fault": dump_object(value)}
        if value.msg is not None:
            out["localizedMessage"] = ["string", value.msg]
        return out
    if isinstance(value, V.DataObject):
        return dump_object(value)
    if isinstance(value, V.ManagedObject):
        return ["moref", wsdl(V.Type(value)), value._moId, value._serverGuid or ""]
    if isinstance(value, list):
        return {"_a": item_name(value.Item), "_l": [dump(one) for one in value]}
    if isinstance(value, V.ManagedMethod):
        return ["string", getattr(value, "name", None) or value.info.wsdlName]
    if isinstance(value, type):
        return ["string", wsdl(value)]
    if isinstance(value, V.Enum):
        return ["enum", wsdl(V.Type(value)), str(value)]
    if isinstance(value, bool):
        return ["boolean", "true" if value else "false"]
    if isinstance(value, datetime):
        offset = value.utcoffset() or timedelta(0)
        delta = value.replace(tzinfo=None) - offset - datetime(1970, 1, 1)
        micros = (delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds
        return ["dateTime", "%d %d" % (micros, offset // timedelta(minutes=1))]
    if isinstance(value, V.binary):
        return ["base64Binary", base64.b64encode(value).decode()]
    if isinstance(value, float):
        name = wsdl(V.Type(value))
        return [name, struct.pack(">f" if name == "float" else ">d", value).hex()]
    if isinstance(value, V.PropertyPath):
        return ["string", str(value)]
    return [wsdl(V.Type(value)), str(value)]


def item_name(type_):
    name = wsdl(type_)
    return "ManagedObjectReference" if type_ is not object and issubclass(type_, V.ManagedObject) else name


def dump_object(value):
    out = {"_t": wsdl(V.Type(value))}
    for p in fields(V.Type(value)):
        own = getattr(value, p.name)
        if own is None or (isinstance(own, list) and not own and p.type is not object):
            continue
        if isinstance(own, list) and p.type is not object:
            out[p.name] = {"_l": [dump(one) for one in own]}
        else:
            out[p.name] = dump(own)
    return out


# --- objects of its own ---------------------------------------------------------------------------------------------

STRINGS = ["", " ", "a", "[ds1] web & co/<web>.vmdk", "\u00e9\u4e2d\U0001f600", "two\nlines\ttab", "  edges  ", "]]>", "\"quoted\" 'twice'", "&amp;lt;", "x" * 300]
INTS = {"byte": 8, "short": 16, "int": 32, "long": 64}


SCALARS = ["string", "boolean", "byte", "short", "int", "long", "float", "double", "vmodl.DateTime", "vmodl.Binary", "vmodl.URI"]


class Maker:
    def __init__(self, types, seed):
        self.random = random.Random(seed)
        self.subtypes = {}
        for name, type_ in types.items():
            if name == WRAPPER:
                continue
            for base in type_.__mro__:
                self.subtypes.setdefault(base, []).append(type_)

    def scalar(self, type_):
        name, r = wsdl(type_), self.random
        if name == "boolean":
            return r.random() < 0.5
        if name in INTS:
            top = 1 << (INTS[name] - 1)
            return type_(r.choice([0, 1, -1, top - 1, -top, r.randrange(-top, top)]))
        if name in ("float", "double"):
            return type_(r.choice([0.0, -0.0, 1.5, -2.25, 1e-30, 3e30, float("inf"), float("-inf"), float(r.randrange(-1000, 1000)) / 8]))
        if name == "dateTime":
            zone = TZManager.GetTZInfo("z", timedelta(minutes=r.choice([0, 0, 330, -480, 840, -210])))
            return datetime(r.randrange(1971, 2100), r.randrange(1, 13), r.randrange(1, 29), r.randrange(24), r.randrange(60), r.randrange(60), r.choice([0, 500000, 123456, 1]), zone)
        if name == "base64Binary":
            return V.binary(bytes(r.randrange(256) for _ in range(r.randrange(40))))
        return type_(r.choice(STRINGS))

    def value(self, type_, depth):
        r, k = self.random, kind(type_)
        if k == "any":
            return self.any(depth)
        if k == "typename":
            return V.GetWsdlType(NS, r.choice(["VirtualMachine", "HostSystem"]))
        if k == "method":
            return V.GetWsdlMethod(NS, "PowerOnVM_Task")
        if k == "enum":
            return r.choice([getattr(type_, v) for v in type_.values])
        if k == "moref":
            known = [m for m in MANAGED if issubclass(m, type_)] or [type_]
            return r.choice(known)("id-%d" % r.randrange(1000), None, r.choice([None, None, "b5-guid"]))
        if k in ("data", "fault"):
            return self.object(r.choice(self.subtypes.get(type_) or [type_]), depth)
        return self.scalar(type_)

    def any(self, depth, arrays=True):
        r = self.random
        at = r.randrange(10 if arrays else 7)
        if at < 5:
            return self.scalar(V.GetVmodlType(r.choice(SCALARS)))
        if at == 5:
            return self.value(V.GetVmodlType("vim.VirtualMachine.PowerState"), depth)
        if at == 6:
            return self.value(MANAGED[0], depth)
        if at == 7 and depth > 0:
            return self.value(V.GetVmodlType("vim.vm.device.VirtualDevice"), depth - 1)
        item = r.choice([*SCALARS, "anyType", "vim.vm.device.VirtualDevice", "vim.VirtualMachine"])
        items = [self.value(V.GetVmodlType(item), 0) for _ in range(r.choice([0, 1, 3]))]
        return V.GetVmodlType(item + "[]")(items)

    def object(self, type_, depth, all_=False):
        out = type_()
        for p in fields(type_):
            array = issubclass(p.type, list)
            optional = p.flags & V.F_OPTIONAL
            if p.flags & V.F_LINK or (optional and not all_ and (depth <= 0 or self.random.random() < 0.5)):
                continue
            if array:
                lower = 0 if optional else 1
                count = self.random.choice([lower, 1, 3]) if depth > 0 else lower
                # pyVmomi itself reads an array inside a list as further items of the list.
                one = (lambda: self.any(depth - 1, False)) if p.type.Item is object else (lambda: self.value(p.type.Item, depth - 1))
                values = [one() for _ in range(count)]
                setattr(out, p.name, p.type(values))
            else:
                setattr(out, p.name, self.value(p.type, depth - 1))
        if isinstance(out, vmodl.MethodFault):
            out.msg = self.random.choice(STRINGS)
        return out


def main():
    lines = iter(sys.stdin.buffer.readline, b"")
    asked = json.loads(next(lines))
    types = {name: lookup(name) for name in asked["types"]}
    types = {name: t for name, t in types.items() if t and issubclass(t, V.DataObject)}
    enum_types = [t for t in map(lookup, asked["enums"]) if t and issubclass(t, V.Enum)]
    tell({"schema": schema(types, enum_types)})
    maker = Maker(types, asked["seed"])
    info = V.Object(name="val", type=object, version=VERSION, flags=0)
    count = 0
    for type_ in enum_types:
        for word in type_.values:
            value = getattr(type_, word)
            tell({"type": wsdl(type_), "xml": SoapAdapter.SerializeToStr(value, info, VERSION, {NS: ""}), "dump": dump(value)})
            count += 1
    for name, type_ in types.items():
        if name == WRAPPER:
            continue
        for depth, all_ in ((0, False), (2, True), (3, False)):
            value = maker.object(type_, depth, all_)
            xml = SoapAdapter.SerializeToStr(value, info, VERSION, {NS: ""})
            tell({"type": name, "xml": xml, "dump": dump(value)})
            count += 1
    tell({"done": count})
    for line in lines:
        text = json.loads(line)
        try:
            tell({"i": text["i"], "dump": dump(SoapAdapter.Deserialize(text["xml"].encode(), object))})
        except Exception as error:  # Whatever it is, it is the answer.
            tell({"i": text["i"], "error": "%s: %s" % (type(error).__name__, error)})


def tell(line):
    sys.stdout.write(json.dumps(line) + "\n")


main()
