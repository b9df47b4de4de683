/*
 * vixDiskLib.h: the C interface of libvixDiskLib.so.8, for C and C++.
 *
 * Written for this project from public documentation; names and layouts are those of VMware's interface, so that
 * programs can be built against either. Licence: MIT OR Apache-2.0, at your option.
 *
 * All functions but those that say so return 0 (VIX_OK) or an error, whose low 16 bits are its code. Every function may
 * be called from every thread. Offsets and lengths are sectors of 512 bytes. Texts are UTF-8 and stay the caller's.
 */

#ifndef VIXDISKLIB_H
#define VIXDISKLIB_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the interface that this header describes: what InitEx is to be told. */
#define VIXDISKLIB_VERSION_MAJOR 8
#define VIXDISKLIB_VERSION_MINOR 0
/* Of this header: raised when something is added to it. */
#define VIXDISKLIB_HEADER_VERSION 1

/* ---- Scalars ------------------------------------------------------------------------------------------------- */

typedef uint64_t VixError;
typedef uint64_t VixDiskLibSectorType;
typedef uint8_t uint8;
typedef uint16_t uint16;
typedef uint32_t uint32;
typedef uint64_t uint64;
typedef signed char Bool;

#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif

#define VIXDISKLIB_SECTOR_SIZE 512
/* QueryAllocatedBlocks: the smallest chunk, and the most chunks of one call. */
#define VIXDISKLIB_MIN_CHUNK_SIZE 128
#define VIXDISKLIB_MAX_CHUNK_NUMBER (512 * 1024)

/* ---- Errors: the codes that this library returns -------------------------------------------------------------- */

#define VIX_ERROR_CODE(error) ((error) & 0xFFFF)
#define VIX_SUCCEEDED(error) ((error) == VIX_OK)
#define VIX_FAILED(error) ((error) != VIX_OK)

enum {
    VIX_OK = 0,
    VIX_E_FAIL = 1,
    VIX_E_OUT_OF_MEMORY = 2,
    VIX_E_INVALID_ARG = 3,
    VIX_E_FILE_NOT_FOUND = 4,
    VIX_E_OBJECT_IS_BUSY = 5,
    VIX_E_NOT_SUPPORTED = 6,
    VIX_E_FILE_ERROR = 7,
    VIX_E_DISK_FULL = 8,
    VIX_E_CANCELLED = 10,
    VIX_E_FILE_READ_ONLY = 11,
    VIX_E_FILE_ALREADY_EXISTS = 12,
    VIX_E_FILE_ACCESS_ERROR = 13,
    VIX_E_FILE_ALREADY_LOCKED = 15,
    VIX_E_FILE_TOO_BIG = 21,
    VIX_E_FILE_NAME_INVALID = 22,
    VIX_E_BUFFER_TOOSMALL = 24,
    VIX_E_HOST_NOT_CONNECTED = 26,
    VIX_E_INVALID_UTF8_STRING = 27,
    VIX_E_OPERATION_ALREADY_IN_PROGRESS = 31,
    VIX_E_LICENSE = 32,
    VIX_E_VM_HOST_DISCONNECTED = 34,
    VIX_E_AUTHENTICATION_FAIL = 35,
    VIX_E_DUPLICATE_NAME = 41,
    VIX_E_ARGUMENT_TOO_BIG = 44,
    VIX_E_INVALID_HANDLE = 1000,
    VIX_E_HOST_USER_PERMISSIONS = 3014,
    VIX_E_INVALID_AUTHENTICATION_SESSION = 3047,
    VIX_E_VM_NOT_FOUND = 4000,
    VIX_E_INVALID_VALUE = 14003,
    VIX_E_SECTORSIZE = 14004,
    VIX_E_FILE_ERROR_EOF = 14005,
    VIX_E_NETBLKDEV_HANDSHAKE = 14006,
    VIX_E_SERVER_NOT_FOUND = 14008,
    VIX_E_NETWORK_CONN_REFUSED = 14009,
    VIX_E_TCP_SOCKET_ERROR = 14010,
    VIX_E_TCP_CONN_LOST = 14011,
    VIX_E_DISK_NOINIT = 16001,
    VIX_E_DISK_NEEDSREPAIR = 16006,
    VIX_E_DISK_OUTOFRANGE = 16007,
    VIX_E_DISK_CID_MISMATCH = 16008,
    VIX_E_DISK_OPENPARENT = 16012,
    VIX_E_DISK_NOTSUPPORTED = 16013,
    VIX_E_DISK_TOOMANYREDO = 16028,
    VIX_E_DISK_INVALIDCHAIN = 16030,
    VIX_E_DISK_KEY_NOTFOUND = 16052,
    VIX_E_DISK_SUBSYSTEM_INIT_FAIL = 16053,
    VIX_E_DISK_CANTREPAIR = 16062,
    VIX_E_DISK_INVALIDDISK = 16063,
    VIX_E_CANNOT_CONNECT_TO_HOST = 18000,
    /* The success of asynchronous functions. */
    VIX_ASYNC = 25000
};

/* ---- Connections ---------------------------------------------------------------------------------------------- */

/* Handles. They are never to be looked into; one that is not valid is answered with VIX_E_INVALID_HANDLE. */
typedef struct VixDiskLibConnectionObject *VixDiskLibConnection;
typedef struct VixDiskLibDiskObject *VixDiskLibHandle;

typedef enum {
    VIXDISKLIB_CRED_UID = 1,
    VIXDISKLIB_CRED_SESSIONID = 2,
    VIXDISKLIB_CRED_TICKETID = 3,
    VIXDISKLIB_CRED_SSPI = 4,
    VIXDISKLIB_CRED_UNKNOWN = 256
} VixDiskLibCredType;

typedef enum {
    VIXDISKLIB_SPEC_VMX = 0,
    VIXDISKLIB_SPEC_VSTORAGE_OBJECT = 1,
    VIXDISKLIB_SPEC_DATASTORE = 2
} VixDiskLibSpecType;

typedef struct {
    char *userName;
    char *password;
} VixDiskLibUidPasswdCreds;

typedef struct {
    char *cookie; /* the value of vmware_soap_session */
    char *userName;
    char *key;
} VixDiskLibSessionIdCreds;

typedef union {
    VixDiskLibUidPasswdCreds uid;       /* VIXDISKLIB_CRED_UID */
    VixDiskLibSessionIdCreds sessionId; /* VIXDISKLIB_CRED_SESSIONID */
    void *ticketId;
} VixDiskLibCreds;

typedef struct {
    char *id;
    char *datastoreMoRef;
    char *ssId;
} VixDiskLibVStorageObjectSpec;

typedef struct {
    char *datastoreMoRef;
    char *diskFolder;
} VixDiskLibDatastoreSpec;

/*
 * Where to connect to. Take it from AllocateConnectParams; from one that a program made itself, only what stands before
 * `reserved` is read.
 */
typedef struct {
    char *vmxSpec;    /* "moref=vm-16", or "dir/x.vmx?dcPath=..&dsName=.."; NULL: disks of this machine */
    char *serverName; /* host name or address */
    char *thumbPrint; /* of the server's certificate, SHA-1 or SHA-256; NULL: it has to be trusted by the system */
    long privateUse;
    VixDiskLibCredType credType;
    VixDiskLibCreds creds;
    uint32 port;        /* 0: 443 */
    uint32 nfcHostPort; /* 0: what the server says */
    char *vimApiVer;    /* NULL */
    char reserved[8];
    void *state;
    union {
        VixDiskLibVStorageObjectSpec vStorageObjSpec;
        VixDiskLibDatastoreSpec dsSpec;
    } spec;
    VixDiskLibSpecType specType;
} VixDiskLibConnectParams;

/* ---- Disks ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32 cylinders;
    uint32 heads;
    uint32 sectors;
} VixDiskLibGeometry;

typedef enum {
    VIXDISKLIB_DISK_MONOLITHIC_SPARSE = 1,
    VIXDISKLIB_DISK_MONOLITHIC_FLAT = 2,
    VIXDISKLIB_DISK_SPLIT_SPARSE = 3,
    VIXDISKLIB_DISK_SPLIT_FLAT = 4,
    VIXDISKLIB_DISK_VMFS_FLAT = 5,
    VIXDISKLIB_DISK_STREAM_OPTIMIZED = 6,
    VIXDISKLIB_DISK_VMFS_THIN = 7,
    VIXDISKLIB_DISK_VMFS_SPARSE = 8,
    VIXDISKLIB_DISK_UNKNOWN = 256
} VixDiskLibDiskType;

typedef enum {
    VIXDISKLIB_ADAPTER_IDE = 1,
    VIXDISKLIB_ADAPTER_SCSI_BUSLOGIC = 2,
    VIXDISKLIB_ADAPTER_SCSI_LSILOGIC = 3,
    VIXDISKLIB_ADAPTER_UNKNOWN = 256
} VixDiskLibAdapterType;

#define VIXDISKLIB_HWVERSION_WORKSTATION_4 3
#define VIXDISKLIB_HWVERSION_WORKSTATION_5 4
#define VIXDISKLIB_HWVERSION_WORKSTATION_6 6
#define VIXDISKLIB_HWVERSION_ESX30 4
#define VIXDISKLIB_HWVERSION_ESX4X 7
#define VIXDISKLIB_HWVERSION_ESX50 8
#define VIXDISKLIB_HWVERSION_ESX51 9
#define VIXDISKLIB_HWVERSION_ESX55 10
#define VIXDISKLIB_HWVERSION_ESX60 11
#define VIXDISKLIB_HWVERSION_ESX65 13

/* Flags of Open. */
#define VIXDISKLIB_FLAG_OPEN_UNBUFFERED (1 << 0)
#define VIXDISKLIB_FLAG_OPEN_SINGLE_LINK (1 << 1)
#define VIXDISKLIB_FLAG_OPEN_READ_ONLY (1 << 2)
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_ZLIB (1 << 4)
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_FASTLZ (1 << 5)
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_SKIPZ (1 << 6)
#define VIXDISKLIB_FLAG_OPEN_COMPRESSION_MASK 0x3F0

typedef struct {
    VixDiskLibGeometry biosGeo;
    VixDiskLibGeometry physGeo;
    VixDiskLibSectorType capacity;
    VixDiskLibAdapterType adapterType;
    int numLinks;
    char *parentFileNameHint; /* or NULL */
    char *uuid;               /* or NULL */
    uint32 logicalSectorSize;
    uint32 physicalSectorSize;
} VixDiskLibInfo;

/* The sector sizes are read only when InitEx was told 7.0 or later; 0 is 512. */
typedef struct {
    VixDiskLibDiskType diskType;
    VixDiskLibAdapterType adapterType;
    uint16 hwVersion;
    VixDiskLibSectorType capacity;
    uint32 logicalSectorSize;
    uint32 physicalSectorSize;
} VixDiskLibCreateParams;

typedef struct {
    VixDiskLibSectorType offset;
    VixDiskLibSectorType length;
} VixDiskLibBlock;

typedef struct {
    uint32 numBlocks;
    VixDiskLibBlock blocks[1]; /* numBlocks of them */
} VixDiskLibBlockList;

/* ---- Callbacks ------------------------------------------------------------------------------------------------ */

/* One line, which ends in a line feed; in the manner of vprintf. Called from any thread. */
typedef void(VixDiskLibGenericLogFunc)(const char *format, va_list arguments);

/* On the thread of the call that it reports on. The answer is ignored. */
typedef Bool (*VixDiskLibProgressFunc)(void *data, int percent);

/* Once, on any thread, possibly before the function that began the operation has returned. */
typedef void (*VixDiskLibCompletionCB)(void *data, VixError result);

/* ---- The library ---------------------------------------------------------------------------------------------- */

/* 5.0 to 9 are known. NULL for a log function: warnings go to the standard error. libDir is ignored. */
VixError VixDiskLib_Init(uint32 majorVersion, uint32 minorVersion, VixDiskLibGenericLogFunc *log,
                         VixDiskLibGenericLogFunc *warn, VixDiskLibGenericLogFunc *panic, const char *libDir);
VixError VixDiskLib_InitEx(uint32 majorVersion, uint32 minorVersion, VixDiskLibGenericLogFunc *log,
                           VixDiskLibGenericLogFunc *warn, VixDiskLibGenericLogFunc *panic, const char *libDir,
                           const char *configFile);
void VixDiskLib_Exit(void);

const char *VixDiskLib_ListTransportModes(void);

char *VixDiskLib_GetErrorText(VixError error, const char *locale);
void VixDiskLib_FreeErrorText(char *text);

/* ---- Connections ---------------------------------------------------------------------------------------------- */

VixDiskLibConnectParams *VixDiskLib_AllocateConnectParams(void);
/* Frees what the library made, and only that: texts that the program put there stay its own. */
void VixDiskLib_FreeConnectParams(VixDiskLibConnectParams *connectParams);

VixError VixDiskLib_Connect(const VixDiskLibConnectParams *connectParams, VixDiskLibConnection *connection);
VixError VixDiskLib_ConnectEx(const VixDiskLibConnectParams *connectParams, Bool readOnly, const char *snapshotRef,
                              const char *transportModes, VixDiskLibConnection *connection);
VixError VixDiskLib_Disconnect(VixDiskLibConnection connection);
/* Without passwords and cookies. */
VixError VixDiskLib_GetConnectParams(const VixDiskLibConnection connection, VixDiskLibConnectParams **connectParams);

VixError VixDiskLib_PrepareForAccess(const VixDiskLibConnectParams *connectParams, const char *identity);
VixError VixDiskLib_EndAccess(const VixDiskLibConnectParams *connectParams, const char *identity);
VixError VixDiskLib_Cleanup(const VixDiskLibConnectParams *connectParams, uint32 *numCleaned, uint32 *numRemaining);

/* ---- Open disks ----------------------------------------------------------------------------------------------- */

VixError VixDiskLib_Open(const VixDiskLibConnection connection, const char *path, uint32 flags,
                         VixDiskLibHandle *diskHandle);
VixError VixDiskLib_Close(VixDiskLibHandle diskHandle);

VixError VixDiskLib_GetInfo(VixDiskLibHandle diskHandle, VixDiskLibInfo **info);
void VixDiskLib_FreeInfo(VixDiskLibInfo *info);
/* NULL for what is no disk. */
const char *VixDiskLib_GetTransportMode(VixDiskLibHandle diskHandle);

VixError VixDiskLib_Read(VixDiskLibHandle diskHandle, VixDiskLibSectorType startSector,
                         VixDiskLibSectorType numSectors, uint8 *readBuffer);
VixError VixDiskLib_Write(VixDiskLibHandle diskHandle, VixDiskLibSectorType startSector,
                          VixDiskLibSectorType numSectors, const uint8 *writeBuffer);
/* VIX_ASYNC is success. */
VixError VixDiskLib_ReadAsync(VixDiskLibHandle diskHandle, VixDiskLibSectorType startSector,
                              VixDiskLibSectorType numSectors, uint8 *readBuffer, VixDiskLibCompletionCB callback,
                              void *callbackData);
VixError VixDiskLib_WriteAsync(VixDiskLibHandle diskHandle, VixDiskLibSectorType startSector,
                               VixDiskLibSectorType numSectors, const uint8 *writeBuffer,
                               VixDiskLibCompletionCB callback, void *callbackData);
VixError VixDiskLib_Wait(VixDiskLibHandle diskHandle);
VixError VixDiskLib_Flush(VixDiskLibHandle diskHandle);

/* Start and number are multiples of the chunk. What is not listed is not allocated. */
VixError VixDiskLib_QueryAllocatedBlocks(VixDiskLibHandle diskHandle, VixDiskLibSectorType startSector,
                                         VixDiskLibSectorType numSectors, VixDiskLibSectorType chunkSize,
                                         VixDiskLibBlockList **blockList);
VixError VixDiskLib_FreeBlockList(VixDiskLibBlockList *blockList);

/* A buffer that is NULL or too small: VIX_E_BUFFER_TOOSMALL and the size that is needed. */
VixError VixDiskLib_ReadMetadata(VixDiskLibHandle diskHandle, const char *key, char *buffer, size_t bufferLength,
                                 size_t *requiredLength);
VixError VixDiskLib_WriteMetadata(VixDiskLibHandle diskHandle, const char *key, const char *value);
VixError VixDiskLib_GetMetadataKeys(VixDiskLibHandle diskHandle, char *buffer, size_t bufferLength,
                                    size_t *requiredLength);

VixError VixDiskLib_CreateChild(VixDiskLibHandle parent, const char *childPath, VixDiskLibDiskType diskType,
                                VixDiskLibProgressFunc progress, void *progressData);
VixError VixDiskLib_IsAttachPossible(VixDiskLibHandle parent, VixDiskLibHandle child);
VixError VixDiskLib_Attach(VixDiskLibHandle parent, VixDiskLibHandle child);
VixError VixDiskLib_Shrink(VixDiskLibHandle diskHandle, VixDiskLibProgressFunc progress, void *progressData);
VixError VixDiskLib_Defragment(VixDiskLibHandle diskHandle, VixDiskLibProgressFunc progress, void *progressData);
VixError VixDiskLib_SpaceNeededForClone(VixDiskLibHandle diskHandle, VixDiskLibDiskType diskType,
                                        uint64 *spaceNeeded);

/* ---- Disks that nobody has open ------------------------------------------------------------------------------- */

VixError VixDiskLib_Create(const VixDiskLibConnection connection, const char *path,
                           const VixDiskLibCreateParams *createParams, VixDiskLibProgressFunc progress,
                           void *progressData);
VixError VixDiskLib_Clone(const VixDiskLibConnection toConnection, const char *toPath,
                          const VixDiskLibConnection fromConnection, const char *fromPath,
                          const VixDiskLibCreateParams *createParams, VixDiskLibProgressFunc progress,
                          void *progressData, Bool overwrite);
VixError VixDiskLib_Grow(const VixDiskLibConnection connection, const char *path, VixDiskLibSectorType capacity,
                         Bool updateGeometry, VixDiskLibProgressFunc progress, void *progressData);
VixError VixDiskLib_Unlink(const VixDiskLibConnection connection, const char *path);
VixError VixDiskLib_Rename(const char *fromPath, const char *toPath);
VixError VixDiskLib_CheckRepair(const VixDiskLibConnection connection, const char *path, Bool repair);

#ifdef __cplusplus
}
#endif

#endif /* VIXDISKLIB_H */
