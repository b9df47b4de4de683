"""How long pyVmomi takes to make objects of answers: `pyvmomi.py ROUNDS FILE...` prints how many, and the best seconds."""
import sys
import time

from pyVmomi import SoapAdapter, vim  # noqa: F401 (vim loads the types)
from pyVmomi import VmomiSupport


class Stub:
    version = VmomiSupport.newestVersions.GetName("vim")


RESULT = VmomiSupport.GetVmodlType("vmodl.query.PropertyCollector.RetrieveResult")


def read(texts):
    count = 0
    for text in texts:
        for content in SoapAdapter.SoapResponseDeserializer(Stub()).Deserialize(text, RESULT).objects:
            devices = next(one.val for one in content.propSet if one.name == "config.hardware.device")
            assert isinstance(devices[0], vim.vm.device.VirtualDevice)
            count += 1
    return count


texts = [open(path, "rb").read() for path in sys.argv[2:]]
# Types are loaded when they are met first.
count, best = read(texts), float("inf")
for _ in range(int(sys.argv[1])):
    begun = time.perf_counter()
    read(texts)
    best = min(best, time.perf_counter() - begun)
print(count, best)
