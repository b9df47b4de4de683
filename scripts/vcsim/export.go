package main

import (
	"net/http"
	"os"
	"path"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// exports adds ExportSnapshot, which this version of the simulator lacks, by its own means of extension: sessions,
// references, leases and everything on the wire stay the simulator's. Every snapshot's one disk is the given file.
type exports struct {
	file string
}

const exportPrefix = "/export/"

func (e *exports) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Exports", Value: "exports"}
}

func (e *exports) PutObject(object mo.Reference) {
	if plain, ok := object.(*simulator.VirtualMachineSnapshot); ok && !restoring[plain.Self] {
		simulator.Map.Put(&exportableSnapshot{plain, e})
	}
}

func (e *exports) UpdateObject(mo.Reference, []types.PropertyChange) {}

func (e *exports) RemoveObject(types.ManagedObjectReference) {}

func (e *exports) serve(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, e.file)
}

// restoring holds the snapshots that are being removed, for which the simulator wants its own type back.
var restoring = map[types.ManagedObjectReference]bool{}

type exportableSnapshot struct {
	*simulator.VirtualMachineSnapshot
	exports *exports
}

func (s *exportableSnapshot) ExportSnapshot(ctx *simulator.Context, req *types.ExportSnapshot) soap.HasFault {
	body := new(methods.ExportSnapshotBody)
	info, err := os.Stat(s.exports.file)
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), new(types.FileNotFound))
		return body
	}
	lease := simulator.NewHttpNfcLease(ctx, req.This)
	lease.Info.Lease = lease.Reference()
	lease.Info.TotalDiskCapacityInKB = info.Size() / 1024
	lease.Info.DeviceUrl = []types.HttpNfcLeaseDeviceUrl{{
		Key:      "/" + s.Vm.Value + "/VirtualLsiLogicController0:0",
		Url:      "https://*" + exportPrefix + path.Join(lease.Self.Value, "disk-0.vmdk"),
		Disk:     types.NewBool(true),
		TargetId: "disk-0.vmdk",
		FileSize: info.Size(),
	}}
	body.Res = &types.ExportSnapshotResponse{Returnval: lease.Self}
	return body
}

func (s *exportableSnapshot) RemoveSnapshotTask(ctx *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	restoring[s.Self] = true
	simulator.Map.Put(s.VirtualMachineSnapshot)
	return s.VirtualMachineSnapshot.RemoveSnapshotTask(ctx, req)
}
