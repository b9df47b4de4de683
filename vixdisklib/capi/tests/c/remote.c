/*
 * Disks of a virtual machine that is off. argv: address, thumbprint, user, password, vmxSpec, path, transport, folder.
 *
 * The disk has 65536 sectors; the first bytes of sector 2048 are 5, all before it is zero.
 */

#include "check.h"

#define SECTORS 65536

static char **arguments;

static VixDiskLibConnectParams *params_of(char *vmx_spec)
{
    VixDiskLibConnectParams *params = VixDiskLib_AllocateConnectParams();
    static char host[256];
    char *colon;

    snprintf(host, sizeof host, "%s", arguments[1]);
    colon = strrchr(host, ':');
    CHECK(colon != NULL);
    *colon = '\0';
    params->serverName = host;
    params->port = (uint32)atoi(colon + 1);
    params->thumbPrint = arguments[2];
    params->credType = VIXDISKLIB_CRED_UID;
    params->creds.uid.userName = arguments[3];
    params->creds.uid.password = arguments[4];
    params->vmxSpec = vmx_spec;
    return params;
}

static void refusals(void)
{
    VixDiskLibConnectParams *params = params_of((char *)"moref=vm-999999");
    VixDiskLibConnection connection;

    GIVES(VIX_E_VM_NOT_FOUND, VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    params->vmxSpec = arguments[5];
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_ConnectEx(params, TRUE, NULL, "hotadd", &connection));
    params->creds.uid.password = (char *)"wrong";
    GIVES(VIX_E_AUTHENTICATION_FAIL, VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    params->creds.uid.password = arguments[4];
    params->thumbPrint = (char *)"00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33";
    GIVES(VIX_E_FAIL, VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    params->thumbPrint = NULL; /* the system does not trust it */
    GIVES(VIX_E_FAIL, VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    VixDiskLib_FreeConnectParams(params);
}

static void around_access(void)
{
    VixDiskLibConnectParams *params = params_of(arguments[5]);
    uint32 cleaned = 9, remaining = 9;

    WORKS(VixDiskLib_PrepareForAccess(params, "c-test"));
    /* As after a crash: the same identity may take its own lock again. */
    WORKS(VixDiskLib_PrepareForAccess(params, "c-test"));
    GIVES(VIX_E_OBJECT_IS_BUSY, VixDiskLib_PrepareForAccess(params, "another"));
    WORKS(VixDiskLib_EndAccess(params, "c-test"));
    GIVES(VIX_E_INVALID_ARG,
          VixDiskLib_PrepareForAccess(params, "an identity of more than the fifty characters that are allowed"));
    params->vmxSpec = NULL;
    WORKS(VixDiskLib_Cleanup(params, &cleaned, &remaining));
    CHECK(cleaned == 0 && remaining == 0);
    /* What a program that crashed has locked is written down in tmpDirectory. */
    params->vmxSpec = arguments[5];
    WORKS(VixDiskLib_PrepareForAccess(params, "c-test"));
    params->vmxSpec = NULL;
    WORKS(VixDiskLib_Cleanup(params, &cleaned, &remaining));
    CHECK(cleaned == 1 && remaining == 0);
    WORKS(VixDiskLib_Cleanup(params, NULL, NULL));
    params->vmxSpec = arguments[5];
    WORKS(VixDiskLib_PrepareForAccess(params, "another"));
    WORKS(VixDiskLib_EndAccess(params, "another"));
    VixDiskLib_FreeConnectParams(params);
}

static void reading(void)
{
    VixDiskLibConnectParams *params = params_of(arguments[5]), *given;
    VixDiskLibConnection connection;
    VixDiskLibHandle disk;
    VixDiskLibInfo *info;
    VixDiskLibBlockList *list;
    struct completion completion;
    uint8 *buffer = malloc(4 << 20);
    char value[128];
    int at;

    CHECK(buffer != NULL);
    WORKS(VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    VixDiskLib_FreeConnectParams(params);
    WORKS(VixDiskLib_GetConnectParams(connection, &given));
    CHECK(strcmp(given->creds.uid.userName, arguments[3]) == 0 && given->creds.uid.password == NULL);
    CHECK(strcmp(given->vmxSpec, arguments[5]) == 0);
    VixDiskLib_FreeConnectParams(given);

    CHECK(VIX_FAILED(VixDiskLib_Open(connection, "[ds1] nothing/nothing.vmdk", 0, &disk)));
    CHECK(disk == NULL);
    WORKS(VixDiskLib_Open(connection, arguments[6],
                          VIXDISKLIB_FLAG_OPEN_READ_ONLY | VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB, &disk));
    /* The disk keeps what it needs of the connection. */
    WORKS(VixDiskLib_Disconnect(connection));
    CHECK(strcmp(VixDiskLib_GetTransportMode(disk), arguments[7]) == 0);
    WORKS(VixDiskLib_GetInfo(disk, &info));
    CHECK(info->capacity == SECTORS && info->logicalSectorSize == 512 && info->numLinks >= 1);
    VixDiskLib_FreeInfo(info);
    WORKS(VixDiskLib_ReadMetadata(disk, "adapterType", value, sizeof value, NULL));
    CHECK(strcmp(value, "lsilogic") == 0);
    GIVES(VIX_E_DISK_KEY_NOTFOUND, VixDiskLib_ReadMetadata(disk, "nonsense", value, sizeof value, NULL));
    GIVES(VIX_E_FILE_READ_ONLY, VixDiskLib_Write(disk, 0, 1, buffer));

    memset(buffer, 1, 4 << 20);
    WORKS(VixDiskLib_Read(disk, 2047, 2, buffer));
    CHECK(buffer[511] == 0 && buffer[512] == 5);
    begin(&completion);
    memset(buffer, 1, 4 << 20);
    for (at = 0; at < 16; at++)
        GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, (VixDiskLibSectorType)at * 512, 512, buffer + at * (256 << 10),
                                              on_completion, &completion));
    WORKS(VixDiskLib_Wait(disk));
    /* The calls were made before Wait returned. */
    CHECK(completion.calls == 16 && completion.result == VIX_OK);
    CHECK(buffer[0] == 0 && buffer[2048 * 512] == 5);
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_ReadAsync(disk, SECTORS, 1, buffer, on_completion, &completion));

    WORKS(VixDiskLib_QueryAllocatedBlocks(disk, 0, SECTORS, 128, &list));
    CHECK(list->numBlocks >= 1 && list->blocks[0].offset <= 2048);
    WORKS(VixDiskLib_FreeBlockList(list));
    /* Closing waits for what is under way. */
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, 0, 8192, buffer, on_completion, &completion));
    WORKS(VixDiskLib_Close(disk));
    CHECK(completion.calls == 17);
    free(buffer);
}

/* Completion functions that wait for other disks: more of them than the library has threads. */
static VixDiskLibHandle waited_for;
static struct completion waited;

static void waiting_completion(void *data, VixError result)
{
    static uint8 sectors[64][512];

    CHECK(result == VIX_OK);
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(waited_for, 2048, 1, sectors[(intptr_t)data], on_completion, &waited));
    WORKS(VixDiskLib_Wait(waited_for));
}

static void completions_that_wait(void)
{
    VixDiskLibConnectParams *params = params_of(arguments[5]);
    VixDiskLibConnection connection;
    VixDiskLibHandle disk;
    uint8 *buffer = malloc(64 * 512);
    int at;

    begin(&waited);
    WORKS(VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    VixDiskLib_FreeConnectParams(params);
    WORKS(VixDiskLib_Open(connection, arguments[6], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk));
    WORKS(VixDiskLib_Open(connection, arguments[6], VIXDISKLIB_FLAG_OPEN_READ_ONLY, &waited_for));
    WORKS(VixDiskLib_Disconnect(connection));
    for (at = 0; at < 64; at++)
        GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, (VixDiskLibSectorType)at, 1, buffer + at * 512, waiting_completion,
                                              (void *)(intptr_t)at));
    WORKS(VixDiskLib_Close(disk));
    WORKS(await_calls(&waited, 64));
    WORKS(VixDiskLib_Close(waited_for));
    free(buffer);
}

static void compressions(void)
{
    const uint32 flags[] = {VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ, VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ};
    VixDiskLibConnectParams *params = params_of(arguments[5]);
    VixDiskLibConnection connection;
    VixDiskLibHandle disk;
    uint8 buffer[4096];
    size_t at;

    WORKS(VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &connection));
    VixDiskLib_FreeConnectParams(params);
    for (at = 0; at < sizeof flags / sizeof flags[0]; at++) {
        WORKS(VixDiskLib_Open(connection, arguments[6], VIXDISKLIB_FLAG_OPEN_READ_ONLY | flags[at], &disk));
        WORKS(VixDiskLib_Read(disk, 2044, 8, buffer));
        CHECK(buffer[2047] == 0 && buffer[2048] == 5 && buffer[4095] == 5);
        WORKS(VixDiskLib_Close(disk));
    }
    WORKS(VixDiskLib_Disconnect(connection));
}

static VixDiskLibHandle inner;

static void reads_in_completion(void *data, VixError result)
{
    uint8 sector[512];

    WORKS(result);
    WORKS(VixDiskLib_Read(inner, 2048, 1, sector));
    CHECK(sector[0] == 5);
    on_completion(data, result);
}

static void writing(void)
{
    VixDiskLibConnectParams *params = params_of(arguments[5]);
    VixDiskLibConnection connection;
    struct completion completion;
    uint8 buffer[4096];

    WORKS(VixDiskLib_Connect(params, &connection));
    WORKS(VixDiskLib_Disconnect(connection));
    WORKS(VixDiskLib_ConnectEx(params, FALSE, NULL, arguments[7], &connection));
    VixDiskLib_FreeConnectParams(params);
    WORKS(VixDiskLib_Open(connection, arguments[6], 0, &inner));
    begin(&completion);
    memset(buffer, 6, sizeof buffer);
    GIVES(VIX_ASYNC, VixDiskLib_WriteAsync(inner, 4096, 8, buffer, on_completion, &completion));
    WORKS(VixDiskLib_Wait(inner));
    WORKS(await_calls(&completion, 1));
    WORKS(VixDiskLib_Write(inner, 4104, 8, buffer));
    WORKS(VixDiskLib_Flush(inner));
    memset(buffer, 0, sizeof buffer);
    /* On a thread of the library, which is not to stand still. */
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(inner, 4100, 8, buffer, reads_in_completion, &completion));
    WORKS(await_calls(&completion, 2));
    CHECK(buffer[0] == 6 && buffer[4095] == 6);
    WORKS(VixDiskLib_Close(inner));
    WORKS(VixDiskLib_Disconnect(connection));
}

static void cloning(void)
{
    VixDiskLibConnectParams *params = params_of(arguments[5]);
    VixDiskLibConnection remote, local;
    VixDiskLibHandle disk;
    char path[1024];
    uint8 sector[512];
    int percent = 0;

    snprintf(path, sizeof path, "%s/from-server.vmdk", arguments[8]);
    WORKS(VixDiskLib_ConnectEx(params, TRUE, NULL, arguments[7], &remote));
    VixDiskLib_FreeConnectParams(params);
    WORKS(VixDiskLib_Connect(NULL, &local));
    WORKS(VixDiskLib_Clone(local, path, remote, arguments[6], NULL, on_progress, &percent, FALSE));
    CHECK(percent == 100);
    WORKS(VixDiskLib_Open(local, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk));
    WORKS(VixDiskLib_Read(disk, 2048, 1, sector));
    CHECK(sector[0] == 5);
    WORKS(VixDiskLib_Close(disk));
    WORKS(VixDiskLib_Disconnect(local));
    WORKS(VixDiskLib_Disconnect(remote));
}

int main(int argc, char **argv)
{
    char config[1024];
    FILE *file;

    CHECK(argc == 9);
    arguments = argv;
    snprintf(config, sizeof config, "%s/vddk.conf", arguments[8]);
    file = fopen(config, "w");
    CHECK(file != NULL);
    fprintf(file, "tmpDirectory=%s/locks\n", arguments[8]);
    fclose(file);
    WORKS(VixDiskLib_InitEx(6, 5, on_log, on_warning, on_panic, NULL, config));
    refusals();
    around_access();
    reading();
    completions_that_wait();
    compressions();
    writing();
    cloning();
    CHECK(panicked == 0);
    VixDiskLib_Exit();
    puts("ok");
    return 0;
}
