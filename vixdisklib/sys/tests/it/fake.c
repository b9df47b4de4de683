/*
 * A small library with the interface of VixDiskLib, for tests of the loader: its disks are memory.
 *
 * It tells every call in its log, with the number of the thread, so that tests can check order and threads. What a disk
 * does wrong is asked for by the sector that is read (see begin). With -DOLD it is of the generation before
 * 6.7: no asynchronous functions, no block lists, parameters of 80 bytes, an Info of 56 bytes that ends where memory ends;
 * with -DALLOCATE besides, it makes such parameters itself, which end there too.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t VixError;
typedef signed char Bool;
typedef void Log(const char *format, va_list arguments);
typedef void Done(void *data, VixError result);
typedef Bool Progress(void *data, int percent);

enum { CAPACITY = 16384, SECTOR = 512 };

typedef struct { char server[64], vm[64], mode[16]; unsigned port; int disks; } Connection;
typedef struct { Connection *connection; int flying; char path[256]; uint8_t *bytes; char key[64], value[64]; } Disk;
typedef struct {
    char *vm, *server, *thumbprint; long private_use; int cred_type; char *creds[3]; uint32_t port, nfc_port; char *version;
#ifndef OLD
    char reserved[8]; void *state; char *spec[3]; int spec_type;
#endif
} Params;
typedef struct {
    uint32_t bios[3], physical[3]; uint64_t capacity; int adapter, links; char *parent, *uuid;
#ifndef OLD
    uint32_t logical, physical_sector;
#endif
} Info;

static Log *info_log, *warning_log, *panic_log;
static int connections, disks, most_flying;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void say_to(Log *log, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log(format, arguments);
    va_end(arguments);
}
#define SAY(format, ...) say_to(info_log, "%d " format "\n", (int)gettid(), ##__VA_ARGS__)

#ifndef WITHOUT_INIT
VixError VixDiskLib_InitEx(uint32_t major, uint32_t minor, Log *i, Log *w, Log *p, const char *dir, const char *config) {
    if (!i || !w || !p) return 3;
    info_log = i, warning_log = w, panic_log = p;
    SAY("init %u.%u dir=%s", major, minor, dir ? dir : "none");
    if (config) {
        char line[256];
        FILE *file = fopen(config, "r");
        if (!file) return 4;
        SAY("config %s", config);
        while (fgets(line, sizeof line, file)) SAY("setting %s", line);
        fclose(file);
    }
    say_to(w, "%s %d %lu %.2f %c %5s| %llx %d %d %d", "warned", -7, 8UL, 2.5, 'x', "ab", 0xabcdefULL, 1, 2, 3);
    say_to(p, "%0*d", 9000, 1);
    return major > 8 ? 16053 : 0;
}
#endif
void VixDiskLib_Exit(void) { SAY("exit with %d connections, %d disks, at most %d under way", connections, disks, most_flying); }

char *VixDiskLib_GetErrorText(VixError error, const char *locale) {
    char *text = malloc(64);
    snprintf(text, 64, "words for %llu", (unsigned long long)error);
    return locale ? NULL : text;
}
void VixDiskLib_FreeErrorText(char *text) { free(text); }

VixError VixDiskLib_ConnectEx(const Params *params, Bool read_only, const char *snapshot, const char *modes, Connection **out) {
    Connection *made = calloc(1, sizeof *made);
    if (params->server) {
        SAY("connect %s %s thumb=%s cred=%d %s/%s port=%u ro=%d snapshot=%s modes=%s", params->server, params->vm ? params->vm : "-",
            params->thumbprint ? params->thumbprint : "-", params->cred_type, params->creds[0], params->creds[1] ? params->creds[1] : "-",
            params->port, read_only, snapshot ? snapshot : "-", modes ? modes : "-");
        if (!strcmp(params->server, "away")) return free(made), (0x12ULL << 32) | 14009;
        snprintf(made->server, sizeof made->server, "%s", params->server);
        snprintf(made->vm, sizeof made->vm, "%s", params->vm ? params->vm : "");
        snprintf(made->mode, sizeof made->mode, "%.*s", modes ? (int)strcspn(modes, ":") : 6, modes ? modes : "nbdssl");
        made->port = params->port;
#ifndef OLD
        if (params->spec_type) SAY("spec %d %s %s", params->spec_type, params->spec[0], params->spec[1]);
#endif
    } else {
        SAY("connect locally");
    }
    connections++;
    *out = made;
    return 0;
}
VixError VixDiskLib_Disconnect(Connection *connection) {
    SAY("disconnect with %d disks", connection->disks);
    connections--;
    free(connection);
    return 0;
}
void VixDiskLib_FreeConnectParams(Params *params) {
    if (params->vm || params->server || params->creds[1]) panic_log = NULL; /* Texts of others': a crash follows. */
#ifdef ALLOCATE
    munmap((void *)((uintptr_t)params & ~4095UL), 8192);
#else
    free(params);
#endif
}

/* At the end of its memory: what is touched beyond it is a crash. */
static void *at_the_end(size_t size) {
    uint8_t *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_NONE);
    return pages + 4096 - size;
}
#ifdef ALLOCATE
Params *VixDiskLib_AllocateConnectParams(void) { return at_the_end(sizeof(Params)); }
#endif

VixError VixDiskLib_Open(Connection *connection, const char *path, uint32_t flags, Disk **out) {
    SAY("open %s flags %u", path, flags);
    if (strstr(path, "missing")) return 4;
    Disk *disk = calloc(1, sizeof *disk);
    disk->connection = connection;
    connection->disks++, disks++;
    snprintf(disk->path, sizeof disk->path, "%s", path);
    strcpy(disk->key, "adapterType"), strcpy(disk->value, "lsilogic");
    disk->bytes = malloc(CAPACITY * SECTOR);
    for (int sector = 0; sector < CAPACITY; sector++) memset(disk->bytes + sector * SECTOR, sector % 251, SECTOR);
    *out = disk;
    return 0;
}
VixError VixDiskLib_Close(Disk *disk) {
    SAY("close %s with %d under way", disk->path, disk->flying);
    disk->connection->disks--, disks--;
    VixError error = strstr(disk->path, "sour") ? 7 : 0;
    free(disk->bytes);
    free(disk);
    return error;
}
const char *VixDiskLib_GetTransportMode(Disk *disk) { return disk->connection->server[0] ? disk->connection->mode : "file"; }

VixError VixDiskLib_GetInfo(Disk *disk, Info **out) {
    Info *info = at_the_end(sizeof *info);
    *info = (Info){ {1024, 16, 63}, {2048, 255, 63}, strstr(disk->path, "odd") ? CAPACITY - 5 : CAPACITY, 3, 2, "/parent.vmdk", "60 00 C2 9a" };
#ifndef OLD
    info->logical = 512, info->physical_sector = 4096;
#endif
    if (strstr(disk->path, "blank")) return munmap((void *)((uintptr_t)info & ~4095UL), 8192), 16063;
    *out = info;
    return 0;
}
void VixDiskLib_FreeInfo(Info *info) { munmap((void *)((uintptr_t)info & ~4095UL), 8192); }

static VixError move(Disk *disk, uint64_t start, uint64_t count, uint8_t *into, const uint8_t *from) {
    if (start + count > CAPACITY) return 16007;
    if (into) memcpy(into, disk->bytes + start * SECTOR, count * SECTOR);
    else memcpy(disk->bytes + start * SECTOR, from, count * SECTOR);
    return 0;
}
VixError VixDiskLib_Read(Disk *disk, uint64_t start, uint64_t count, uint8_t *into) { return move(disk, start, count, into, NULL); }
VixError VixDiskLib_Write(Disk *disk, uint64_t start, uint64_t count, const uint8_t *from) { return move(disk, start, count, NULL, from); }

VixError VixDiskLib_Create(Connection *connection, const char *path, const uint32_t *params, Progress *progress, void *data) {
    SAY("create %s type %u adapter %u sectors %llu", path, params[0], params[1], (unsigned long long)*(const uint64_t *)(params + 4));
    for (int percent = -1; percent <= 101 && progress; percent += 51) progress(data, percent);
    return 0;
}

#ifndef OLD
typedef struct { Disk *disk; uint64_t start, count; uint8_t *into; const uint8_t *from; Done *done; void *data; } Work;

static void *work_off(void *argument) {
    Work work = *(Work *)argument;
    free(argument);
    usleep(work.start % 7 * 300);
    VixError error = move(work.disk, work.start, work.count, work.into, work.from);
    pthread_mutex_lock(&lock);
    work.disk->flying--;
    pthread_mutex_unlock(&lock);
    work.done(work.data, error);
    if (work.start == 3003) work.done(work.data, 1); /* A second word. */
    return NULL;
}
static VixError begin(Disk *disk, uint64_t start, uint64_t count, uint8_t *into, const uint8_t *from, Done *done, void *data) {
    pthread_t thread;
    switch (start) {
    case 1001: return 14011;                                             /* Refused at once. */
    case 1002: return 0;                                                 /* Success that is none. */
    case 1003: done(data, move(disk, start, count, into, from)); return 25000; /* Done on the spot. */
    }
    Work *work = malloc(sizeof *work);
    *work = (Work){ disk, start, count, into, from, done, data };
    pthread_mutex_lock(&lock);
    if (++disk->flying > most_flying) most_flying = disk->flying;
    pthread_mutex_unlock(&lock);
    pthread_create(&thread, NULL, work_off, work);
    pthread_detach(thread);
    return 25000;
}
VixError VixDiskLib_ReadAsync(Disk *disk, uint64_t start, uint64_t count, uint8_t *into, Done *done, void *data) {
    return begin(disk, start, count, into, NULL, done, data);
}
VixError VixDiskLib_WriteAsync(Disk *disk, uint64_t start, uint64_t count, const uint8_t *from, Done *done, void *data) {
    return begin(disk, start, count, NULL, from, done, data);
}
VixError VixDiskLib_Wait(Disk *disk) {
    for (int left = 1; left;) {
        pthread_mutex_lock(&lock);
        left = disk->flying;
        pthread_mutex_unlock(&lock);
        usleep(100);
    }
    return 0;
}
VixError VixDiskLib_Flush(Disk *disk) { SAY("flush %s with %d under way", disk->path, disk->flying); return 0; }

Params *VixDiskLib_AllocateConnectParams(void) { return calloc(1, sizeof(Params)); }
VixError VixDiskLib_GetConnectParams(Connection *connection, Params **out) {
    *out = calloc(1, sizeof(Params));
    static char server[64];
    strcpy(server, connection->server);
    (*out)->thumbprint = NULL, (*out)->server = server, (*out)->port = connection->port;
    return 0;
}
VixError VixDiskLib_QueryAllocatedBlocks(Disk *disk, uint64_t start, uint64_t count, uint64_t chunk, uint32_t **out) {
    if (start % chunk || count % chunk || chunk < 128 || count / chunk > 524288 || start + count > CAPACITY) return 3;
    uint32_t *list = malloc(8 + 3 * 16);
    list[0] = strstr(disk->path, "empty") ? 0 : 3;
    uint64_t *blocks = (uint64_t *)(list + 2);
    for (int i = 0; i < 3; i++) blocks[2 * i] = start + 2 * i * chunk, blocks[2 * i + 1] = chunk;
    *out = list;
    return 0;
}
VixError VixDiskLib_FreeBlockList(uint32_t *list) { free(list); return 0; }

static VixError give(const char *text, size_t needed, char *buffer, size_t len, size_t *required) {
    *required = needed;
    if (!buffer || len < needed) return 24;
    memcpy(buffer, text, needed);
    return 0;
}
VixError VixDiskLib_ReadMetadata(Disk *disk, const char *key, char *buffer, size_t len, size_t *required) {
    if (strcmp(key, disk->key)) return 16052;
    return give(disk->value, strlen(disk->value) + 1, buffer, len, required);
}
VixError VixDiskLib_WriteMetadata(Disk *disk, const char *key, const char *value) {
    snprintf(disk->key, sizeof disk->key, "%s", key), snprintf(disk->value, sizeof disk->value, "%s", value);
    return 0;
}
VixError VixDiskLib_GetMetadataKeys(Disk *disk, char *buffer, size_t len, size_t *required) {
    static const char keys[] = "adapterType\0uuid\0";
    (void)disk;
    return give(keys, sizeof keys, buffer, len, required);
}
const char *VixDiskLib_ListTransportModes(void) { return "file:san:hotadd:nbdssl:nbd"; }
VixError VixDiskLib_Attach(Disk *parent, Disk *child) { SAY("attach %s to %s", child->path, parent->path); return 0; }
VixError VixDiskLib_IsAttachPossible(Disk *parent, Disk *child) { return strcmp(parent->path, child->path) ? 0 : 16069; }
VixError VixDiskLib_PrepareForAccess(const Params *params, const char *identity) { SAY("prepare %s for %s", params->vm, identity); return 0; }
VixError VixDiskLib_EndAccess(const Params *params, const char *identity) { SAY("end %s for %s", params->vm, identity); return 0; }
VixError VixDiskLib_Cleanup(const Params *params, uint32_t *cleaned, uint32_t *remaining) {
    (void)params;
    *cleaned = 3, *remaining = 1;
    return 0;
}
VixError VixDiskLib_Rename(const char *from, const char *to) { SAY("rename %s %s", from, to); return 0; }
VixError VixDiskLib_Unlink(Connection *connection, const char *path) { (void)connection; SAY("unlink %s", path); return 0; }
VixError VixDiskLib_CheckRepair(Connection *connection, const char *path, Bool repair) { (void)connection; SAY("check %s %d", path, repair); return 0; }
VixError VixDiskLib_Grow(Connection *connection, const char *path, uint64_t capacity, Bool geometry, Progress *progress, void *data) {
    (void)connection, (void)progress, (void)data;
    SAY("grow %s %llu %d", path, (unsigned long long)capacity, geometry);
    return 0;
}
VixError VixDiskLib_Clone(Connection *to, const char *to_path, Connection *from, const char *from_path, const uint32_t *params, Progress *progress,
                          void *data, Bool overwrite) {
    (void)progress, (void)data;
    SAY("clone %s:%s to %s:%s type %u overwrite %d", from->server, from_path, to->server, to_path, params[0], overwrite);
    return 0;
}
VixError VixDiskLib_CreateChild(Disk *disk, const char *path, uint32_t type, Progress *progress, void *data) {
    (void)progress, (void)data;
    SAY("child %s of %s type %u", path, disk->path, type);
    return 0;
}
VixError VixDiskLib_Shrink(Disk *disk, Progress *progress, void *data) { (void)disk; return progress ? progress(data, 50), 0 : 6; }
VixError VixDiskLib_Defragment(Disk *disk, Progress *progress, void *data) { (void)disk; return progress ? progress(data, 50), 0 : 6; }
VixError VixDiskLib_SpaceNeededForClone(Disk *disk, uint32_t type, uint64_t *bytes) { (void)disk; *bytes = type * 1000; return 0; }
#endif
