/* What programs do that they had better not: calls from callbacks, from functions at exit and in children, races. argv[1]: an
 * empty folder. Nothing here may hang, crash or answer wrongly. */

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define SECTORS 65536
#define THREADS 4

static char path[1024], child_path[1024], config[1024];
static VixDiskLibConnection connection;

static VixDiskLibHandle opened(uint32 flags)
{
    VixDiskLibHandle disk = NULL;

    WORKS(VixDiskLib_Open(connection, path, flags, &disk));
    return disk;
}

/* ---- Calls from callbacks ------------------------------------------------------------------------------------- */

static int calls_from_log;

static void warning_that_calls(const char *format, va_list arguments)
{
    VixDiskLibConnection other;

    (void)format, (void)arguments;
    calls_from_log++;
    WORKS(VixDiskLib_Connect(NULL, &other));
    WORKS(VixDiskLib_Disconnect(other));
}

/* The configuration has a line without an effect: the library says so while it begins. */
static void log_functions_call_the_library(void)
{
    FILE *file = fopen(config, "w");

    CHECK(file != NULL);
    fputs("vixDiskLib.transport.san.denyList=all\n", file);
    fclose(file);
    WORKS(VixDiskLib_InitEx(8, 0, NULL, warning_that_calls, NULL, NULL, config));
    CHECK(calls_from_log == 1);
    VixDiskLib_Exit();
}

static VixDiskLibHandle outer;

static void inner_completion(void *calls, VixError result)
{
    WORKS(result);
    GIVES(VIX_E_OPERATION_ALREADY_IN_PROGRESS, VixDiskLib_Close(outer));
    GIVES(VIX_E_OPERATION_ALREADY_IN_PROGRESS, VixDiskLib_Wait(outer));
    VixDiskLib_Exit();
    ++*(int *)calls;
}

static void outer_completion(void *inner, VixError result)
{
    uint8 sector[512];
    int calls = 0;

    WORKS(result);
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(inner, 0, 1, sector, inner_completion, &calls));
    CHECK(calls == 1);
}

static void completion_functions_wait_for_themselves(void)
{
    VixDiskLibHandle inner = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    uint8 sector[512];

    outer = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    GIVES(VIX_ASYNC, VixDiskLib_ReadAsync(outer, 0, 1, sector, outer_completion, inner));
    WORKS(VixDiskLib_Close(outer));
    WORKS(VixDiskLib_Close(inner));
}

static Bool progress_that_closes(void *disk, int percent)
{
    (void)percent;
    GIVES(VIX_E_OPERATION_ALREADY_IN_PROGRESS, VixDiskLib_Close(disk));
    VixDiskLib_Exit();
    return TRUE;
}

static void progress_functions_close_the_disk(void)
{
    VixDiskLibHandle disk = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);

    WORKS(VixDiskLib_CreateChild(disk, child_path, VIXDISKLIB_DISK_MONOLITHIC_SPARSE, progress_that_closes, disk));
    WORKS(VixDiskLib_Close(disk));
}

/* ---- Wrong arguments ------------------------------------------------------------------------------------------ */

static void handles_of_others_and_numbers_without_bounds(void)
{
    static const VixDiskLibSectorType huge[] = {SECTORS, UINT64_MAX / 512, UINT64_MAX / 512 + 2, UINT64_MAX};
    VixDiskLibHandle disk = opened(0), none = NULL;
    VixDiskLibBlockList *list;
    uint8 *memory = malloc(1025);
    size_t n;

    for (n = 0; n < sizeof huge / sizeof *huge; n++) {
        GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Read(disk, 1, huge[n], memory));
        GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Read(disk, huge[n], 1, memory));
        GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_Write(disk, huge[n], huge[n], memory));
        GIVES(VIX_E_DISK_OUTOFRANGE, VixDiskLib_ReadAsync(disk, 1, huge[n], memory, on_completion, NULL));
    }
    /* Of chunks of any size, no chunk at all. */
    for (n = 7; n < 64; n++) {
        WORKS(VixDiskLib_QueryAllocatedBlocks(disk, 0, 0, (VixDiskLibSectorType)1 << n, &list));
        CHECK(list->numBlocks == 0);
        WORKS(VixDiskLib_FreeBlockList(list));
    }
    memset(memory, 9, 1025);
    WORKS(VixDiskLib_Write(disk, 3, 1, memory + 1));
    memset(memory, 0, 1025);
    WORKS(VixDiskLib_Read(disk, 2, 2, memory + 1));
    CHECK(memory[0] == 0 && memory[512] == 0 && memory[513] == 9 && memory[1024] == 9);
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Read((VixDiskLibHandle)(void *)connection, 0, 1, memory));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Open((VixDiskLibConnection)(void *)disk, path, 0, &none));
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Disconnect((VixDiskLibConnection)(void *)disk));
    free(memory);
    WORKS(VixDiskLib_Close(disk));
}

/* Without log functions, lines go to the standard error, and that may be full. */
static void the_standard_error_is_full(void)
{
    int kept = dup(2), full = open("/dev/full", O_WRONLY);

    CHECK(kept >= 0 && full >= 0);
    WORKS(VixDiskLib_InitEx(8, 0, NULL, NULL, NULL, NULL, NULL));
    CHECK(dup2(full, 2) == 2);
    GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Close(NULL));
    CHECK(dup2(kept, 2) == 2);
    close(kept);
    close(full);
    VixDiskLib_Exit();
}

/* Takes no lock, which another thread may have held when the process forked. */
static void quiet(const char *format, va_list arguments)
{
    (void)format, (void)arguments;
}

/* ---- Races ---------------------------------------------------------------------------------------------------- */

static VixDiskLibHandle raced;
static int stop;

static void allowed(VixError error, VixError or)
{
    VixError code = VIX_ERROR_CODE(error);

    if (code != VIX_OK && code != or)
        gives(VIX_OK, error, "a call in a race", __FILE__, __LINE__);
}

static void *reader(void *unused)
{
    uint8 *memory = malloc(65536);

    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        VixError error = VixDiskLib_Read(__atomic_load_n(&raced, __ATOMIC_ACQUIRE), 0, 128, memory);

        allowed(error, VIX_E_INVALID_HANDLE);
        if (error == VIX_OK)
            CHECK(memory[512 * 3] == 9);
    }
    free(memory);
    return unused;
}

/* What other threads held at the fork is held for ever in the child. */
static void children_of_a_process_in_the_middle_of_calls(void)
{
#ifdef __SANITIZE_ADDRESS__
    /* So are the sanitizer's own locks, up to GCC 13. */
    (void)quiet;
    puts("forks are left out");
#else
    int n;

    for (n = 0; n < 20; n++) {
        int status;
        pid_t child = fork();

        CHECK(child >= 0);
        if (child == 0) {
            uint8 sector[512];

            alarm(20);
            GIVES(VIX_E_DISK_NOINIT, VixDiskLib_Read(raced, 0, 1, sector));
            WORKS(VixDiskLib_InitEx(8, 0, quiet, quiet, quiet, NULL, NULL));
            GIVES(VIX_E_INVALID_HANDLE, VixDiskLib_Read(raced, 0, 1, sector));
            WORKS(VixDiskLib_Connect(NULL, &connection));
            raced = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);
            WORKS(VixDiskLib_Read(raced, 3, 1, sector));
            CHECK(sector[0] == 9);
            VixDiskLib_Exit();
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
#endif
}

static void closing_races_with_reading(void)
{
    pthread_t threads[THREADS];
    int n;

    raced = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);
    for (n = 0; n < THREADS; n++)
        CHECK(pthread_create(&threads[n], NULL, reader, NULL) == 0);
    for (n = 0; n < 100; n++) {
        VixDiskLibHandle old = raced, next = opened(VIXDISKLIB_FLAG_OPEN_READ_ONLY);

        if (n % 2)
            __atomic_store_n(&raced, next, __ATOMIC_RELEASE);
        WORKS(VixDiskLib_Close(old));
        __atomic_store_n(&raced, next, __ATOMIC_RELEASE);
    }
    children_of_a_process_in_the_middle_of_calls();
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (n = 0; n < THREADS; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
    WORKS(VixDiskLib_Close(raced));
}

/* Every thread begins and ends the library: whatever the others do, its own disks can be opened. */
static void *user(void *unused)
{
    int round;

    for (round = 0; round < 30; round++) {
        VixDiskLibConnection own;
        VixDiskLibHandle disk;
        uint8 sector[512];

        WORKS(VixDiskLib_InitEx(8, 0, on_log, on_warning, on_panic, NULL, NULL));
        WORKS(VixDiskLib_Connect(NULL, &own));
        WORKS(VixDiskLib_Open(own, path, VIXDISKLIB_FLAG_OPEN_READ_ONLY, &disk));
        WORKS(VixDiskLib_Read(disk, 3, 1, sector));
        CHECK(sector[0] == 9);
        WORKS(VixDiskLib_Close(disk));
        WORKS(VixDiskLib_Disconnect(own));
        VixDiskLib_Exit();
    }
    return unused;
}

static void beginnings_race_with_ends(void)
{
    pthread_t threads[THREADS];
    int n;

    for (n = 0; n < THREADS; n++)
        CHECK(pthread_create(&threads[n], NULL, user, NULL) == 0);
    for (n = 0; n < THREADS; n++)
        CHECK(pthread_join(threads[n], NULL) == 0);
}

/* ---- At exit, as destructors of C++ do ------------------------------------------------------------------------- */

static VixDiskLibHandle left_open;

static void at_exit(void)
{
    uint8 sector[512];

    WORKS(VixDiskLib_Read(left_open, 3, 1, sector));
    CHECK(sector[0] == 9);
    WORKS(VixDiskLib_Flush(left_open));
    WORKS(VixDiskLib_Close(left_open));
    WORKS(VixDiskLib_Disconnect(connection));
    VixDiskLib_Exit();
    if (panicked != 0)
        _exit(1);
    puts("ok");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    VixDiskLibCreateParams wanted = {VIXDISKLIB_DISK_MONOLITHIC_SPARSE, VIXDISKLIB_ADAPTER_SCSI_LSILOGIC,
                                     VIXDISKLIB_HWVERSION_ESX65, SECTORS, 512, 0};

    CHECK(argc == 2);
    alarm(60);
    snprintf(path, sizeof path, "%s/disk.vmdk", argv[1]);
    snprintf(child_path, sizeof child_path, "%s/child.vmdk", argv[1]);
    snprintf(config, sizeof config, "%s/vddk.conf", argv[1]);
    log_functions_call_the_library();
    the_standard_error_is_full();

    WORKS(VixDiskLib_InitEx(8, 0, on_log, on_warning, on_panic, NULL, NULL));
    WORKS(VixDiskLib_Connect(NULL, &connection));
    WORKS(VixDiskLib_Create(connection, path, &wanted, NULL, NULL));
    handles_of_others_and_numbers_without_bounds();
    completion_functions_wait_for_themselves();
    progress_functions_close_the_disk();
    closing_races_with_reading();
    WORKS(VixDiskLib_Disconnect(connection));
    VixDiskLib_Exit();

    beginnings_race_with_ends();

    CHECK(atexit(at_exit) == 0);
    WORKS(VixDiskLib_InitEx(8, 0, on_log, on_warning, on_panic, NULL, NULL));
    WORKS(VixDiskLib_Connect(NULL, &connection));
    left_open = opened(0);
    return 0;
}
