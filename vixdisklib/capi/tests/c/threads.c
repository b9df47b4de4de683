/* Eight threads, each with a handle of its own, and one handle that all share. argv[1]: an empty folder. */

#include "check.h"

#define THREADS 8
#define SECTORS 16384
#define ROUNDS 40

static const char *folder;
static VixDiskLibConnection connection;
static VixDiskLibHandle shared;

static void path_of(char *path, size_t size, int thread)
{
    snprintf(path, size, "%s/%d.vmdk", folder, thread);
}

static void *work(void *argument)
{
    int thread = (int)(intptr_t)argument, round;
    char path[1024];
    uint8 *written = malloc(65536), *read = malloc(65536);

    CHECK(written != NULL && read != NULL);
    path_of(path, sizeof path, thread);
    for (round = 0; round < ROUNDS; round++) {
        VixDiskLibHandle disk;
        VixDiskLibInfo *info;
        struct completion completion;
        VixDiskLibSectorType at = (VixDiskLibSectorType)(round * 97 % 120) * 128;

        begin(&completion);
        memset(written, thread * ROUNDS + round, 65536);
        WORKS(VixDiskLib_Open(connection, path, 0, &disk));
        WORKS(VixDiskLib_Write(disk, at, 128, written));
        GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(disk, at, 128, read, on_completion, &completion));
        WORKS(VixDiskLib_Wait(disk));
        WORKS(await_calls(&completion, 1));
        CHECK(memcmp(written, read, 65536) == 0);
        WORKS(VixDiskLib_GetInfo(disk, &info));
        CHECK(info->capacity == SECTORS);
        VixDiskLib_FreeInfo(info);
        WORKS(VixDiskLib_Close(disk));
        GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Read(disk, 0, 1, read));

        /* The shared handle: each thread has a place of its own. */
        WORKS(VixDiskLib_Write(shared, (VixDiskLibSectorType)thread * 128, 128, written));
        WORKS(VixDiskLib_Read(shared, (VixDiskLibSectorType)thread * 128, 128, read));
        CHECK(memcmp(written, read, 65536) == 0);
    }
    free(written);
    free(read);
    return NULL;
}

int main(int argc, char **argv)
{
    VixDiskLibCreateParams params = {VIXDISKLIB_DISK_MONOLITHIC_SPARSE,
                                     VIXDISKLIB_ADAPTER_SCSI_LSILOGIC,
                                     VIXDISKLIB_HWVERSION_ESX65,
                                     SECTORS,
                                     512,
                                     512};
    pthread_t threads[THREADS];
    char path[1024];
    int thread;

    CHECK(argc == 2);
    folder = argv[1];
    WORKS(VixDiskLib_InitEx(8, 0, on_log, on_warning, on_panic, NULL, NULL));
    WORKS(VixDiskLib_Connect(NULL, &connection));
    for (thread = 0; thread <= THREADS; thread++) {
        path_of(path, sizeof path, thread);
        WORKS(VixDiskLib_Create(connection, path, &params, NULL, NULL));
    }
    WORKS(VixDiskLib_Open(connection, path, 0, &shared));
    for (thread = 0; thread < THREADS; thread++)
        CHECK(pthread_create(&threads[thread], NULL, work, (void *)(intptr_t)thread) == 0);
    for (thread = 0; thread < THREADS; thread++)
        CHECK(pthread_join(threads[thread], NULL) == 0);
    WORKS(VixDiskLib_Close(shared));
    WORKS(VixDiskLib_Disconnect(connection));
    CHECK(panicked == 0);
    VixDiskLib_Exit();
    puts("ok");
    return 0;
}
