/* Every function on disks of this machine, with right and wrong arguments. argv[1]: an empty folder. */

#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define SECTORS 65536 /* 32 MiB */

static char folder[512];
static VixDiskLibConnection connection;
/* Neither a handle nor memory of the library. */
static char foreign[256];
#define NO_CONNECTION ((VixDiskLibConnection)(void *)foreign)
#define NO_DISK ((VixDiskLibHandle)(void *)foreign)

static const char *in_folder(const char *name)
{
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static VixDiskLibCreateParams params(VixDiskLibDiskType type)
{
    VixDiskLibCreateParams params = {type, VIXDISKLIB_ADAPTER_SCSI_LSILOGIC, VIXDISKLIB_HWVERSION_ESX65, SECTORS, 512, 0};

    return params;
}

static void create(const char *name, VixDiskLibDiskType type)
{
    VixDiskLibCreateParams wanted = params(type);
    int percent = 0;

    WORKS(VixDiskLib_Create(connection, in_folder(name), &wanted, on_progress, &percent));
    CHECK(percent == 100);
}

static VixDiskLibHandle opened(const char *name, uint32 flags)
{
    VixDiskLibHandle disk = NULL;

    WORKS(VixDiskLib_Open(connection, in_folder(name), flags, &disk));
    CHECK(disk != NULL);
    return disk;
}

static void before_init(void)
{
    VixDiskLibHandle disk;
    VixDiskLibInfo *info;
    VixDiskLibBlockList *list;
    VixDiskLibConnectParams *connect;
    uint8 sector[512];
    uint64 space;
    size_t size;
    uint32 count;

    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Connect(NULL, &connection));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_ConnectEx(NULL, TRUE, NULL, NULL, &connection));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Disconnect(NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_GetConnectParams(NULL, &connect));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_PrepareForAccess(NULL, "test"));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_EndAccess(NULL, "test"));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Cleanup(NULL, &count, &count));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Open(NULL, "a", 0, &disk));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Close(NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_GetInfo(NULL, &info));
    CHECK(VixDiskLib_GetTransportMode(NULL) == NULL);
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Read(NULL, 0, 1, sector));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Write(NULL, 0, 1, sector));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_ReadAsync(NULL, 0, 1, sector, on_completion, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_WriteAsync(NULL, 0, 1, sector, on_completion, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Wait(NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Flush(NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_QueryAllocatedBlocks(NULL, 0, 128, 128, &list));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_ReadMetadata(NULL, "uuid", NULL, 0, &size));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_WriteMetadata(NULL, "uuid", "x"));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_GetMetadataKeys(NULL, NULL, 0, &size));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_CreateChild(NULL, "a", VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_IsAttachPossible(NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Attach(NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Shrink(NULL, NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Defragment(NULL, NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_SpaceNeededForClone(NULL, VIXDISKLIB_DISK_MONOLITHIC_FLAT, &space));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Create(NULL, "a", NULL, NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Clone(NULL, "a", NULL, "b", NULL, NULL, NULL, FALSE));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Grow(NULL, "a", 1, FALSE, NULL, NULL));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Unlink(NULL, "a"));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Rename("a", "b"));
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_CheckRepair(NULL, "a", FALSE));
    VixDiskLib_Exit();
}

static void init(void)
{
    const char *config = in_folder("vddk.conf");
    FILE *file = fopen(config, "w");

    CHECK(file != NULL);
    fputs("# as in the manual\nvixDiskLib.transport.san.denyList=all\nvixDiskLib.nfcAio.Session.BufSizeIn64KB=16\n", file);
    fclose(file);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_InitEx(0, 0, on_log, on_warning, on_panic, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_InitEx(99, 0, on_log, on_warning, on_panic, NULL, NULL));
    GIVES(VIX_E_FILE_NOT_FOUND,
          VixDiskLib_InitEx(8, 0, on_log, on_warning, on_panic, NULL, in_folder("no-such-file")));
    WORKS(VixDiskLib_InitEx(VIXDISKLIB_VERSION_MAJOR, VIXDISKLIB_VERSION_MINOR, on_log, on_warning, on_panic,
                            "/no/such/libdir", config));
    CHECK(logged > 0);
    CHECK(warned == 4); /* the three failures, and that there is no san, so that the list has no effect */
    /* Counted: the library is still there after one Exit. */
    WORKS(VixDiskLib_Init(6, 5, NULL, NULL, NULL, NULL));
    VixDiskLib_Exit();
}

static void connections(void)
{
    VixDiskLibConnectParams *given, own;
    VixDiskLibConnection other;

    CHECK(strstr(VixDiskLib_ListTransportModes(), "nbdssl") != NULL);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Connect(NULL, NULL));
    WORKS(VixDiskLib_Connect(NULL, &connection));
    CHECK(connection != NULL);

    /* Without a virtual machine, parameters mean this machine. */
    memset(&own, 0, sizeof own);
    WORKS(VixDiskLib_ConnectEx(&own, TRUE, NULL, "nbdssl:file", &other));
    WORKS(VixDiskLib_Disconnect(other));
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_ConnectEx(&own, TRUE, NULL, "nbdssl:nbd", &other));
    CHECK(other == NULL);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_ConnectEx(&own, TRUE, NULL, "carrier-pigeon", &other));

    given = VixDiskLib_AllocateConnectParams();
    CHECK(given != NULL && given->vmxSpec == NULL && given->specType == VIXDISKLIB_SPEC_VMX);
    given->specType = VIXDISKLIB_SPEC_VSTORAGE_OBJECT;
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_Connect(given, &other));
    given->specType = VIXDISKLIB_SPEC_VMX;
    given->vmxSpec = (char *)"moref=vm-1";
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Connect(given, &other)); /* no server */
    given->serverName = (char *)"127.0.0.1";
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_Connect(given, &other)); /* no credentials */
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_PrepareForAccess(given, "test"));
    given->credType = VIXDISKLIB_CRED_UID;
    given->creds.uid.userName = (char *)"user";
    given->creds.uid.password = (char *)"password";
    given->port = 1;
    given->thumbPrint = (char *)"no thumbprint";
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Connect(given, &other));
    given->thumbPrint = (char *)"00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33";
    GIVES(VIX_E_NETWORK_CONN_REFUSED, VixDiskLib_Connect(given, &other));
    GIVES(VIX_E_NETWORK_CONN_REFUSED, VixDiskLib_Cleanup(given, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_PrepareForAccess(given, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_EndAccess(NULL, "test"));
    VixDiskLib_FreeConnectParams(given);
    /* Not the library's, twice, and nothing: left alone. */
    VixDiskLib_FreeConnectParams(&own);
    VixDiskLib_FreeConnectParams(given);
    VixDiskLib_FreeConnectParams(NULL);

    WORKS(VixDiskLib_GetConnectParams(connection, &given));
    CHECK(given->serverName == NULL);
    VixDiskLib_FreeConnectParams(given);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_GetConnectParams(connection, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_GetConnectParams(NO_CONNECTION, &given));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Disconnect(NO_CONNECTION));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Disconnect(NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Disconnect(other));
}

static void errors_in_words(void)
{
    char *text = VixDiskLib_GetErrorText(VIX_E_DISK_KEY_NOTFOUND, "de");

    CHECK(strstr(text, "VIX_E_DISK_KEY_NOTFOUND") != NULL);
    VixDiskLib_FreeErrorText(text);
    VixDiskLib_FreeErrorText(text); /* noticed, harmless */
    VixDiskLib_FreeErrorText(NULL);
    text = VixDiskLib_GetErrorText(0, NULL);
    CHECK(strstr(text, "VIX_OK") != NULL);
    VixDiskLib_FreeErrorText(text);
    text = VixDiskLib_GetErrorText(UINT64_MAX, NULL);
    CHECK(text != NULL);
    VixDiskLib_FreeErrorText(text);
}

static void opening(void)
{
    VixDiskLibCreateParams wanted = params(VIXDISKLIB_DISK_MONOLITHIC_SPARSE);
    VixDiskLibHandle disk = NO_DISK;
    uint8 sector[512];

    create("flat.vmdk", VIXDISKLIB_DISK_MONOLITHIC_FLAT);
    create("disk.vmdk", VIXDISKLIB_DISK_MONOLITHIC_SPARSE);
    GIVES(VIX_E_FILE_ALREADY_EXISTS, VixDiskLib_Create(connection, in_folder("disk.vmdk"), &wanted, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Create(connection, NULL, &wanted, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Create(connection, in_folder("a"), NULL, NULL, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Create(NO_CONNECTION, in_folder("a"), &wanted, NULL, NULL));
    wanted.diskType = (VixDiskLibDiskType)77;
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Create(connection, in_folder("a"), &wanted, NULL, NULL));
    wanted.diskType = VIXDISKLIB_DISK_MONOLITHIC_SPARSE;
    wanted.logicalSectorSize = 4096;
    GIVES(VIX_E_NOT_SUPPORTED, VixDiskLib_Create(connection, in_folder("a"), &wanted, NULL, NULL));
    wanted.logicalSectorSize = 0;
    wanted.capacity = UINT64_MAX / 2;
    GIVES(VIX_E_ARGUMENT_TOO_BIG, VixDiskLib_Create(connection, in_folder("a"), &wanted, NULL, NULL));

    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Open(connection, in_folder("disk.vmdk"), 0, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Open(connection, NULL, 0, &disk));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Open(connection, in_folder("disk.vmdk"), 1U << 31, &disk));
    CHECK(disk == NULL);
    GIVES(VIX_E_INVALID_UTF8_STRING, VixDiskLib_Open(connection, "\xff\xfe", 0, &disk));
    GIVES(VIX_E_FILE_NOT_FOUND, VixDiskLib_Open(connection, in_folder("none.vmdk"), 0, &disk));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Open(NO_CONNECTION, in_folder("disk.vmdk"), 0, &disk));

    disk = opened("disk.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    memset(sector, 1, sizeof sector);
    GIVES(VIX_E_FILE_READ_ONLY, VixDiskLib_Write(disk, 0, 1, sector));
    WORKS(VixDiskLib_Close(disk));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Close(disk));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Read(disk, 0, 1, sector));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Close(NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Close((VixDiskLibHandle)(void *)connection));
}

static void info(void)
{
    VixDiskLibHandle disk = opened("disk.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    VixDiskLibInfo *info = NULL, foreign_info;

    WORKS(VixDiskLib_GetInfo(disk, &info));
    CHECK(info->capacity == SECTORS && info->adapterType == VIXDISKLIB_ADAPTER_SCSI_LSILOGIC);
    CHECK(info->numLinks == 1 && info->parentFileNameHint == NULL);
    CHECK(info->logicalSectorSize == 512 && info->physicalSectorSize == 512);
    CHECK(info->physGeo.cylinders > 0 && info->physGeo.heads > 0 && info->physGeo.sectors > 0);
    VixDiskLib_FreeInfo(info);
    VixDiskLib_FreeInfo(info); /* noticed, harmless */
    VixDiskLib_FreeInfo(&foreign_info);
    VixDiskLib_FreeInfo(NULL);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_GetInfo(disk, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_GetInfo(NO_DISK, &info));
    CHECK(info == NULL);
    CHECK(strcmp(VixDiskLib_GetTransportMode(disk), "file") == 0);
    CHECK(VixDiskLib_GetTransportMode(NO_DISK) == NULL);
    WORKS(VixDiskLib_Close(disk));
}

static void data(void)
{
    VixDiskLibHandle disk = opened("disk.vmdk", 0);
    uint8 *buffer = malloc(1 << 20);
    struct completion completion;

    CHECK(buffer != NULL);
    memset(buffer, 7, 1 << 20);
    WORKS(VixDiskLib_Write(disk, 2048, 2048, buffer));
    memset(buffer, 1, 1 << 20);
    WORKS(VixDiskLib_Read(disk, 2047, 3, buffer));
    CHECK(buffer[511] == 0 && buffer[512] == 7 && buffer[1535] == 7 && buffer[1536] == 1);
    WORKS(VixDiskLib_Read(disk, 0, 0, buffer));

    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Read(disk, 0, 1, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Write(disk, 0, 1, NULL));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Read(disk, SECTORS, 1, buffer));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Write(disk, SECTORS - 1, 2, buffer));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Read(disk, UINT64_MAX, UINT64_MAX, buffer));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Read(disk, 0, UINT64_MAX / 512, buffer));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Read(NO_DISK, 0, 1, buffer));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Write(NO_DISK, 0, 1, buffer));

    begin(&completion);
    memset(buffer, 9, 512);
    GIVES(VIX_ASYNC, VixDiskLib_WriteAsync(disk, 1, 1, buffer, on_completion, &completion));
    WORKS(await_calls(&completion, 1));
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, 1, 1, buffer + 512, on_completion, &completion));
    WORKS(VixDiskLib_Wait(disk));
    WORKS(await_calls(&completion, 2));
    CHECK(memcmp(buffer, buffer + 512, 512) == 0);
    /* What is wrong from the start is said at once, and never to the completion function. */
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_ReadAsync(disk, SECTORS, 1, buffer, on_completion, &completion));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_WriteAsync(disk, SECTORS, 1, buffer, on_completion, &completion));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_ReadAsync(disk, 0, 1, buffer, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_WriteAsync(disk, 0, 1, buffer, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_ReadAsync(disk, 0, 1, NULL, on_completion, &completion));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_WriteAsync(disk, 0, 1, NULL, on_completion, &completion));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_ReadAsync(NO_DISK, 0, 1, buffer, on_completion, &completion));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_WriteAsync(NO_DISK, 0, 1, buffer, on_completion, &completion));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Wait(NO_DISK));
    WORKS(VixDiskLib_Wait(disk));
    CHECK(completion.calls == 2);

    WORKS(VixDiskLib_Flush(disk));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Flush(NO_DISK));
    free(buffer);
    WORKS(VixDiskLib_Close(disk));
}

static void allocation(void)
{
    VixDiskLibHandle disk = opened("disk.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    VixDiskLibBlockList *list = NULL;

    /* As the last step left it: sector 1 and 1 MiB at 1 MiB were written. */
    WORKS(VixDiskLib_QueryAllocatedBlocks(disk, 0, SECTORS, 128, &list));
    CHECK(list->numBlocks == 2);
    CHECK(list->blocks[0].offset == 0 && list->blocks[0].length == 128);
    CHECK(list->blocks[1].offset == 2048 && list->blocks[1].length == 2048);
    WORKS(VixDiskLib_FreeBlockList(list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_FreeBlockList(list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_FreeBlockList((VixDiskLibBlockList *)(void *)foreign));
    WORKS(VixDiskLib_FreeBlockList(NULL));
    /* A chunk that is no power of two. */
    WORKS(VixDiskLib_QueryAllocatedBlocks(disk, 1500, 3000, 1500, &list));
    CHECK(list->numBlocks == 1 && list->blocks[0].offset == 1500 && list->blocks[0].length == 3000);
    WORKS(VixDiskLib_FreeBlockList(list));

    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 64, &list));
    CHECK(list == NULL);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 0, &list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 1, 128, 128, &list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 0, 129, 128, &list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 0, 128 * 524289ULL, 128, &list));
    GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_QueryAllocatedBlocks(disk, SECTORS, 128, 128, &list));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_QueryAllocatedBlocks(disk, 0, 128, 128, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_QueryAllocatedBlocks(NO_DISK, 0, 128, 128, &list));
    WORKS(VixDiskLib_Close(disk));
}

static void metadata(void)
{
    VixDiskLibHandle disk = opened("disk.vmdk", 0);
    char value[64], *keys, *key;
    size_t required = 0;
    int found = 0;

    GIVES(VIX_E_BUFFER_TOOSMALL, VixDiskLib_ReadMetadata(disk, "adapterType", NULL, 0, &required));
    CHECK(required == strlen("lsilogic") + 1);
    GIVES(VIX_E_BUFFER_TOOSMALL, VixDiskLib_ReadMetadata(disk, "adapterType", value, required - 1, NULL));
    WORKS(VixDiskLib_ReadMetadata(disk, "adapterType", value, required, NULL));
    CHECK(strcmp(value, "lsilogic") == 0);
    GIVES(VIX_E_DISK_KEY_NOTFOUND, VixDiskLib_ReadMetadata(disk, "nonsense", value, sizeof value, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_ReadMetadata(disk, NULL, value, sizeof value, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_ReadMetadata(NO_DISK, "uuid", value, sizeof value, NULL));

    WORKS(VixDiskLib_WriteMetadata(disk, "comment", "written by C"));
    WORKS(VixDiskLib_ReadMetadata(disk, "comment", value, sizeof value, &required));
    CHECK(strcmp(value, "written by C") == 0);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_WriteMetadata(disk, NULL, "x"));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_WriteMetadata(disk, "comment", NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_WriteMetadata(NO_DISK, "comment", "x"));

    GIVES(VIX_E_BUFFER_TOOSMALL, VixDiskLib_GetMetadataKeys(disk, NULL, 0, &required));
    keys = malloc(required);
    CHECK(keys != NULL);
    WORKS(VixDiskLib_GetMetadataKeys(disk, keys, required, NULL));
    for (key = keys; *key; key += strlen(key) + 1)
        found += strcmp(key, "comment") == 0 || strcmp(key, "adapterType") == 0;
    CHECK(found == 2 && key == keys + required - 1);
    free(keys);
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_GetMetadataKeys(NO_DISK, NULL, 0, &required));
    WORKS(VixDiskLib_Close(disk));
}

static void chains(void)
{
    VixDiskLibHandle parent = opened("disk.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY), child, single;
    VixDiskLibInfo *info;
    uint8 sector[512];
    int percent = 0;

    WORKS(VixDiskLib_CreateChild(parent, in_folder("child.vmdk"), VIXDISKLIB_DISK_MONOLITHIC_SPARSE, on_progress,
                                 &percent));
    CHECK(percent == 100);
    GIVES(VIX_E_INVALID_ARG,
          VixDiskLib_CreateChild(parent, NULL, VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_CreateChild(parent, in_folder("a"), VIXDISKLIB_DISK_UNKNOWN, NULL, NULL));
    GIVES(VIX_E_INVALID_HANDLE,
          VixDiskLib_CreateChild(NO_DISK, in_folder("a"), VIXDISKLIB_DISK_MONOLITHIC_SPARSE, NULL, NULL));

    child = opened("child.vmdk", 0);
    WORKS(VixDiskLib_GetInfo(child, &info));
    CHECK(info->numLinks == 2 && info->parentFileNameHint != NULL);
    VixDiskLib_FreeInfo(info);
    WORKS(VixDiskLib_Read(child, 2048, 1, sector));
    CHECK(sector[0] == 7); /* the parent's */
    memset(sector, 8, sizeof sector);
    WORKS(VixDiskLib_Write(child, 2048, 1, sector));
    WORKS(VixDiskLib_Read(parent, 2048, 1, sector));
    CHECK(sector[0] == 7);
    WORKS(VixDiskLib_Close(child));

    single = opened("child.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY | VIXDISKLIB_FLAG_OPEN_SINGLE_LINK);
    WORKS(VixDiskLib_Read(single, 3000, 1, sector));
    CHECK(sector[0] == 0); /* the child alone */
    WORKS(VixDiskLib_IsAttachPossible(parent, single));
    CHECK(VIX_FAILED(VixDiskLib_IsAttachPossible(single, parent)));
    WORKS(VixDiskLib_Attach(parent, single));
    WORKS(VixDiskLib_Read(single, 3000, 1, sector));
    CHECK(sector[0] == 7); /* the chain */
    WORKS(VixDiskLib_Read(single, 2048, 1, sector));
    CHECK(sector[0] == 8);
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_IsAttachPossible(NO_DISK, parent));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Attach(parent, NO_DISK));
    WORKS(VixDiskLib_Close(single));
    WORKS(VixDiskLib_Close(parent));
}

static void files(void)
{
    VixDiskLibCreateParams wanted = params(VIXDISKLIB_DISK_MONOLITHIC_SPARSE);
    VixDiskLibHandle disk;
    VixDiskLibInfo *info;
    uint8 sector[512];
    uint64 space = 0;
    int percent = 0;

    WORKS(VixDiskLib_Clone(connection, in_folder("copy.vmdk"), connection, in_folder("child.vmdk"), &wanted,
                           on_progress, &percent, FALSE));
    CHECK(percent == 100);
    GIVES(VIX_E_FILE_ALREADY_EXISTS, VixDiskLib_Clone(connection, in_folder("copy.vmdk"), connection,
                                                      in_folder("child.vmdk"), &wanted, NULL, NULL, FALSE));
    WORKS(VixDiskLib_Clone(connection, in_folder("copy.vmdk"), connection, in_folder("child.vmdk"), NULL, NULL, NULL,
                           TRUE));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Clone(NO_CONNECTION, in_folder("b"), connection, in_folder("copy.vmdk"),
                                                 NULL, NULL, NULL, FALSE));
    GIVES(VIX_E_INVALID_ARG,
          VixDiskLib_Clone(connection, NULL, connection, in_folder("copy.vmdk"), NULL, NULL, NULL, FALSE));
    disk = opened("copy.vmdk", 0);
    WORKS(VixDiskLib_Read(disk, 2048, 1, sector));
    CHECK(sector[0] == 8);
    WORKS(VixDiskLib_Read(disk, 3000, 1, sector));
    CHECK(sector[0] == 7);

    WORKS(VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_MONOLITHIC_FLAT, &space));
    CHECK(space == SECTORS * 512ULL);
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_MONOLITHIC_FLAT, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_SpaceNeededForClone(disk, VIXDISKLIB_DISK_UNKNOWN, &space));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_SpaceNeededForClone(NO_DISK, VIXDISKLIB_DISK_MONOLITHIC_FLAT, &space));
    percent = 0;
    WORKS(VixDiskLib_Shrink(disk, on_progress, &percent));
    percent = 0;
    WORKS(VixDiskLib_Defragment(disk, on_progress, &percent));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Shrink(NO_DISK, NULL, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Defragment(NO_DISK, NULL, NULL));
    WORKS(VixDiskLib_Read(disk, 2048, 1, sector));
    CHECK(sector[0] == 8);
    WORKS(VixDiskLib_Close(disk));

    percent = 0;
    WORKS(VixDiskLib_Grow(connection, in_folder("copy.vmdk"), 2 * SECTORS, TRUE, on_progress, &percent));
    CHECK(VIX_FAILED(VixDiskLib_Grow(connection, in_folder("copy.vmdk"), SECTORS, TRUE, NULL, NULL)));
    GIVES(VIX_E_ARGUMENT_TOO_BIG,
          VixDiskLib_Grow(connection, in_folder("copy.vmdk"), UINT64_MAX, TRUE, NULL, NULL));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Grow(connection, NULL, SECTORS, TRUE, NULL, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Grow(NO_CONNECTION, in_folder("a"), SECTORS, TRUE, NULL, NULL));
    disk = opened("copy.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    WORKS(VixDiskLib_GetInfo(disk, &info));
    CHECK(info->capacity == 2 * SECTORS);
    VixDiskLib_FreeInfo(info);
    WORKS(VixDiskLib_Close(disk));

    WORKS(VixDiskLib_CheckRepair(connection, in_folder("copy.vmdk"), FALSE));
    WORKS(VixDiskLib_CheckRepair(connection, in_folder("copy.vmdk"), TRUE));
    GIVES(VIX_E_FILE_NOT_FOUND, VixDiskLib_CheckRepair(connection, in_folder("none.vmdk"), FALSE));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_CheckRepair(connection, NULL, FALSE));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_CheckRepair(NO_CONNECTION, in_folder("copy.vmdk"), FALSE));

    WORKS(VixDiskLib_Rename(in_folder("copy.vmdk"), in_folder("other.vmdk")));
    GIVES(VIX_E_FILE_NOT_FOUND, VixDiskLib_Rename(in_folder("copy.vmdk"), in_folder("third.vmdk")));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Rename(NULL, in_folder("third.vmdk")));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Rename(in_folder("other.vmdk"), NULL));
    WORKS(VixDiskLib_Unlink(connection, in_folder("other.vmdk")));
    GIVES(VIX_E_FILE_NOT_FOUND, VixDiskLib_Unlink(connection, in_folder("other.vmdk")));
    GIVES(VIX_E_INVALID_ARG, VixDiskLib_Unlink(connection, NULL));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Unlink(NO_CONNECTION, in_folder("other.vmdk")));
}

/* A completion function may call the library; only waiting for itself is refused. */
static void from_completion(void *disk, VixError result)
{
    uint8 sector[512];

    WORKS(result);
    WORKS(VixDiskLib_Read(disk, 2048, 1, sector));
    CHECK(sector[0] == 7);
    GIVES(VIX_E_OPERATION_ALREADY_IN_PROGRESS, VixDiskLib_Wait(disk));
    GIVES(VIX_E_OPERATION_ALREADY_IN_PROGRESS, VixDiskLib_Close(disk));
}

static void calls_in_callbacks(void)
{
    VixDiskLibHandle disk = opened("disk.vmdk", VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    uint8 sector[512];

    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, 0, 1, sector, from_completion, disk));
    WORKS(VixDiskLib_Close(disk));
}

/* A child has none of the parent's threads: it is told to begin anew, and the parent goes on. */
static void after_a_fork(void)
{
    int status;
    VixDiskLibConnection in_child;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        _exit(VIX_ERROR_CODE(VixDiskLib_Connect(NULL, &in_child)) == VIX_E_DISK_NOINIT ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    WORKS(VixDiskLib_Connect(NULL, &in_child));
    WORKS(VixDiskLib_Disconnect(in_child));
}

int main(int argc, char **argv)
{
    VixDiskLibHandle left_open;

    CHECK(argc == 2);
    snprintf(folder, sizeof folder, "%s", argv[1]);
    before_init();
    init();
    connections();
    errors_in_words();
    opening();
    info();
    data();
    allocation();
    metadata();
    chains();
    files();
    calls_in_callbacks();
    after_a_fork();

    /* A disk outlives its connection, and Exit closes what a program forgot. */
    (void)opened("flat.vmdk", 0);
    WORKS(VixDiskLib_Disconnect(connection));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Open(connection, in_folder("flat.vmdk"), 0, &left_open));
    CHECK(left_open == NULL);
    CHECK(panicked == 0);
    VixDiskLib_Exit();
    GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Connect(NULL, &connection));

    /* And the library begins anew, for an older program. */
    WORKS(VixDiskLib_Init(6, 5, on_log, on_warning, on_panic, NULL));
    WORKS(VixDiskLib_Connect(NULL, &connection));
    WORKS(VixDiskLib_Disconnect(connection));
    VixDiskLib_Exit();
    puts("ok");
    return 0;
}
