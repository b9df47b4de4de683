/*
 * A small library with the interface of VixMntapi, for tests: its volumes are three folders.
 *
 * It tells every call in its log, and what must not be with the word BAD in front: calls that overlap or come from another
 * thread, handles and structures that are used after they were freed, sets closed with volumes mounted. What goes wrong
 * is asked for by the path of the disk, which is looked at for these words:
 *   fail=K,CODE  the K-th call that has to do with the set, counted from opening, fails with that code
 *   busy         volumes are dismounted by force only
 *   mounted      volumes are mounted already
 *   empty        there are no volumes
 *   null=NAME    the function succeeds and gives nothing
 * With -DWINDOWS it has OpenDiskSet, with -DWITHOUT_FREE it lacks FreeVolumeHandles.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint64_t VixError;
typedef char Bool;
typedef void Log(const char *format, va_list arguments);

enum { VOLUMES = 3, ALIVE = 0x600d, DEAD = 0xdead };

typedef struct Set Set;
typedef struct { int magic, number, mounted; Set *set; } Volume;
struct Set { int magic, calls, fail_at, arrays; VixError code; char path[512]; uint32_t flags; Volume volumes[VOLUMES]; };
typedef struct { int32_t family; uint32_t major, minor; Bool is64; char *vendor, *edition, *folder; } OsInfo;
typedef struct { int32_t type; Bool mounted; char *link; size_t count; char *points[]; } VolumeInfo;
typedef struct { uint32_t flags; char *path; } SetInfo;

static Log *info_log, *warning_log;
static int begun, inside, thread, sets, arrays, infos, mounts;
static char folder[400] = "/nowhere";

static void say_to(Log *log, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (log) log(format, arguments);
    va_end(arguments);
}
#define SAY(format, ...) say_to(info_log, "%d mnt " format "\n", (int)gettid(), ##__VA_ARGS__)
#define BAD(format, ...) say_to(warning_log, "BAD " format "\n", ##__VA_ARGS__)

static void enter(const char *name) {
    if (!begun) BAD("%s before Init", name);
    if (__sync_add_and_fetch(&inside, 1) != 1) BAD("%s overlaps", name);
    if (thread != (int)gettid()) BAD("%s on another thread", name);
    usleep(20); /* Time for others to overlap, if they could. */
}
static VixError leave(VixError error) { __sync_sub_and_fetch(&inside, 1); return error; }

/* The error that the set was told to fail with, if this is the call. */
static VixError fails(Set *set, const char *name) {
    if (set->magic != ALIVE) { BAD("%s of a closed set", name); return 1000; }
    return ++set->calls == set->fail_at ? set->code : 0;
}
static int gives_nothing(Set *set, const char *name) {
    char *word = strstr(set->path, "null=");
    return word && !strcmp(word + 5, name);
}

VixError VixMntapi_Init(uint32_t major, uint32_t minor, Log *i, Log *w, Log *p, const char *dir, const char *config) {
    if (begun++) BAD("Init twice");
    info_log = i, warning_log = w, thread = gettid();
    SAY("init %u.%u dir=%s", major, minor, dir ? dir : "none");
    FILE *file = config ? fopen(config, "r") : NULL;
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        SAY("setting %s", line);
        sscanf(line, "tmpDirectory=%399[^\n]", folder);
    }
    if (file) fclose(file);
    if (dir && strstr(dir, "refuse")) return begun = 0, 24018;
    return p ? 0 : 3;
}
void VixMntapi_Exit(void) {
    enter("Exit");
    SAY("exit with %d sets, %d arrays, %d infos, %d mounts", sets, arrays, infos, mounts);
    begun = 0;
    leave(0);
}

static VixError make(const char *what, const char *path, uint32_t flags, Set **out) {
    Set *set = calloc(1, sizeof *set);
    set->magic = ALIVE;
    set->flags = flags;
    snprintf(set->path, sizeof set->path, "%s", path);
    char *fail = strstr(path, "fail=");
    unsigned code = 0;
    if (fail) sscanf(fail, "fail=%d,%u", &set->fail_at, &code);
    set->code = code | 0x70000ULL; /* More than the code: all bits are to be kept. */
    for (int n = 0; n < VOLUMES; n++) {
        set->volumes[n] = (Volume){ALIVE, n, 0, set};
        if (strstr(path, "mounted")) set->volumes[n].mounted = 1, mounts++;
    }
    SAY("%s %s flags %u", what, path, flags);
    VixError error = fails(set, what);
    if (error || gives_nothing(set, "open")) {
        for (int n = 0; n < VOLUMES; n++) mounts -= set->volumes[n].mounted;
        return free(set), error;
    }
    sets++;
    *out = set;
    return 0;
}
VixError VixMntapi_OpenDisks(void *connection, const char *names[], size_t count, uint32_t flags, Set **out) {
    enter("OpenDisks");
    char path[512] = "";
    for (size_t n = 0; n < count; n++) {
        if (n) strcat(path, "+");
        strncat(path, names[n], 200);
    }
    if (!connection) BAD("no connection");
    return leave(make("open", path, flags, out));
}
#ifdef WINDOWS
VixError VixMntapi_OpenDiskSet(void *disks[], size_t count, uint32_t flags, Set **out) {
    enter("OpenDiskSet");
    char path[64];
    snprintf(path, sizeof path, "%zu disks", count);
    /* Disks of the small VixDiskLib: a connection, then how many reads are under way. */
    for (size_t n = 0; n < count; n++) if (((struct { void *connection; int flying; } *)disks[n])->flying) BAD("a disk is not idle");
    return leave(make("open set of", path, flags, out));
}
#endif
VixError VixMntapi_CloseDiskSet(Set *set) {
    enter("CloseDiskSet");
    VixError error = fails(set, "CloseDiskSet");
    SAY("close %s", set->path);
    if (set->arrays) BAD("close before the handles were freed");
    for (int n = 0; n < VOLUMES; n++) if (set->volumes[n].mounted && !strstr(set->path, "mounted")) BAD("close while volume %d is mounted", n);
    for (int n = 0; n < VOLUMES; n++) mounts -= set->volumes[n].mounted, set->volumes[n].magic = DEAD;
    set->magic = DEAD; /* Never freed, so that later uses are seen. */
    sets--;
    return leave(error);
}

VixError VixMntapi_GetDiskSetInfo(Set *set, SetInfo **out) {
    enter("GetDiskSetInfo");
    VixError error = fails(set, "GetDiskSetInfo");
    if (error || gives_nothing(set, "setinfo")) return leave(error);
    *out = malloc(sizeof **out);
    **out = (SetInfo){set->flags, strdup(folder)};
    infos++;
    return leave(0);
}
void VixMntapi_FreeDiskSetInfo(SetInfo *info) {
    enter("FreeDiskSetInfo");
    free(info->path);
    free(info);
    infos--;
    leave(0);
}

VixError VixMntapi_GetVolumeHandles(Set *set, size_t *count, Volume ***out) {
    enter("GetVolumeHandles");
    VixError error = fails(set, "GetVolumeHandles");
    SAY("list");
    if (error) return leave(error);
    *count = strstr(set->path, "empty") ? 0 : VOLUMES;
    if (gives_nothing(set, "handles") || !*count) return leave(0);
    *out = calloc(VOLUMES + 1, sizeof **out);
    for (int n = 0; n < VOLUMES; n++) (*out)[n] = &set->volumes[n];
    (*out)[VOLUMES] = (Volume *)set; /* For freeing; beyond the count. */
    arrays++, set->arrays++;
    return leave(0);
}
#ifndef WITHOUT_FREE
void VixMntapi_FreeVolumeHandles(Volume **handles) {
    enter("FreeVolumeHandles");
    Set *set = (Set *)handles[VOLUMES];
    SAY("free handles");
    for (int n = 0; n < VOLUMES; n++) if (set->volumes[n].mounted && !strstr(set->path, "mounted")) BAD("handles freed while volume %d is mounted", n);
    arrays--, set->arrays--;
    free(handles);
    leave(0);
}
#endif

VixError VixMntapi_GetOsInfo(Set *set, OsInfo **out) {
    enter("GetOsInfo");
    VixError error = fails(set, "GetOsInfo");
    SAY("os");
    if (error || gives_nothing(set, "os")) return leave(error);
    if (!set->volumes[0].mounted) set->volumes[0].mounted = 1, mounts++;
    *out = malloc(sizeof **out);
    **out = (OsInfo){1, 10, 0, 1, NULL, strdup("Server\xffStandard"), strdup("\\Windows")};
    infos++;
    return leave(0);
}
void VixMntapi_FreeOsInfo(OsInfo *info) {
    enter("FreeOsInfo");
    free(info->edition);
    free(info->folder);
    free(info);
    infos--;
    leave(0);
}

VixError VixMntapi_MountVolume(Volume *volume, Bool read_only) {
    enter("MountVolume");
    if (volume->magic != ALIVE) BAD("mount of a dead volume");
    VixError error = fails(volume->set, "MountVolume");
    SAY("mount %d %s", volume->number, read_only ? "ro" : "rw");
    if (error) return leave(error);
    if (volume->mounted) return leave(24305);
    volume->mounted = 1, mounts++;
    return leave(0);
}
VixError VixMntapi_DismountVolume(Volume *volume, Bool force) {
    enter("DismountVolume");
    if (volume->magic != ALIVE) BAD("dismount of a dead volume");
    VixError error = fails(volume->set, "DismountVolume");
    SAY("dismount %d%s", volume->number, force ? " by force" : "");
    if (error) return leave(error);
    if (!volume->mounted) return leave(24304);
    if (!force && strstr(volume->set->path, "busy")) return leave(24015);
    volume->mounted = 0, mounts--;
    return leave(0);
}
VixError VixMntapi_GetVolumeInfo(Volume *volume, VolumeInfo **out) {
    enter("GetVolumeInfo");
    if (volume->magic != ALIVE) BAD("info of a dead volume");
    VixError error = fails(volume->set, "GetVolumeInfo");
    if (error || gives_nothing(volume->set, "info")) return leave(error);
    static const size_t counts[VOLUMES] = {0, 1, 3};
    size_t count = strstr(volume->set->path, "flood") ? 1ULL << 40 : counts[volume->number];
    VolumeInfo *info = malloc(sizeof *info + 3 * sizeof(char *));
    info->type = volume->number ? volume->number + 1 : 1;
    info->mounted = volume->mounted;
    info->link = NULL;
    if (volume->mounted && volume->number == 0) asprintf(&info->link, "%s/volume0", folder);
    if (volume->mounted && volume->number == 2) asprintf(&info->link, "%s/volume\xff", folder);
    info->count = count;
    info->points[0] = "C:\\";
    info->points[1] = NULL;
    info->points[2] = "C:\\Daten\\\xe4";
    infos++;
    *out = info;
    return leave(0);
}
void VixMntapi_FreeVolumeInfo(VolumeInfo *info) {
    enter("FreeVolumeInfo");
    free(info->link);
    free(info);
    infos--;
    leave(0);
}
