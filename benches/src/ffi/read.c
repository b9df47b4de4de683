/*
 * Reads a disk from front to back through libvixDiskLib, as programs written for VMware's library do, and prints how
 * long that took: read PATH KIB ROUNDS [SERVER PORT THUMBPRINT USER PASSWORD VM TRANSPORT]
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vixDiskLib.h"

static void quiet(const char *format, va_list arguments) {
    (void)format;
    (void)arguments;
}

static void check(const char *what, VixError error) {
    if (VIX_FAILED(error)) {
        char *text = VixDiskLib_GetErrorText(error, NULL);
        fprintf(stderr, "%s: %s\n", what, text);
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 11) {
        fprintf(stderr, "arguments: PATH KIB ROUNDS [SERVER PORT THUMBPRINT USER PASSWORD VM TRANSPORT]\n");
        return 2;
    }
    VixDiskLibConnection connection;
    VixDiskLibHandle disk;
    VixDiskLibInfo *info;
    check("InitEx", VixDiskLib_InitEx(8, 0, quiet, quiet, quiet, NULL, NULL));
    if (argc == 4) {
        check("Connect", VixDiskLib_Connect(NULL, &connection));
    } else {
        VixDiskLibConnectParams *params = VixDiskLib_AllocateConnectParams();
        params->serverName = argv[4];
        params->port = (uint32)atoi(argv[5]);
        params->thumbPrint = argv[6];
        params->credType = VIXDISKLIB_CRED_UID;
        params->creds.uid.userName = argv[7];
        params->creds.uid.password = argv[8];
        params->vmxSpec = argv[9];
        check("ConnectEx", VixDiskLib_ConnectEx(params, TRUE, NULL, argv[10], &connection));
        VixDiskLib_FreeConnectParams(params);
    }
    check("Open", VixDiskLib_Open(connection, argv[1], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk));
    check("GetInfo", VixDiskLib_GetInfo(disk, &info));
    uint64 sectors = (uint64)atoi(argv[2]) * 2;
    uint64 capacity = info->capacity / sectors * sectors;
    uint8 *buffer = malloc(sectors * VIXDISKLIB_SECTOR_SIZE);
    double best = 1e9;
    for (int round = 0; round < atoi(argv[3]); round++) {
        double begun = now();
        for (uint64 at = 0; at < capacity; at += sectors) {
            check("Read", VixDiskLib_Read(disk, at, sectors, buffer));
        }
        double took = now() - begun;
        best = took < best ? took : best;
    }
    printf("seconds: %.6f\n", best);
    free(buffer);
    VixDiskLib_FreeInfo(info);
    check("Close", VixDiskLib_Close(disk));
    check("Disconnect", VixDiskLib_Disconnect(connection));
    VixDiskLib_Exit();
    return 0;
}
