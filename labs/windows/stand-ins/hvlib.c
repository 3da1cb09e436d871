/*
 * Stands in for LiveCloudKd's hvlib.dll, with the exports that the driver uses. It finds guests by their sections' names.
 * With LACKING it is a library that cannot control a VM's state.
 */
#include <string.h>

#include "guest.h"

#define EXPORT __declspec(dllexport)
/* Handles are numbers of its own. */
#define FIRST_HANDLE 0x1000
#define METHOD_INTERNAL 1
#define WRITE_SPEC_REGISTER 2
#define AMD64 2

/* VM_OPERATIONS_CONFIG (HvlibEnumPublic.h). */
struct config {
  int read_method, write_method, suspend_method;
  ULONG64 log_level;
  UINT8 force_freeze_cpu, pause_partition;
  void *exdi_console;
  UINT8 reload_driver, pf_injection, nested_scan, use_debug_api, simple_memory, replace_kdbg, crash_dump_emulation,
      enum_guest_os_build, vsm_scan, log_silence_mode;
};
_Static_assert(sizeof(struct config) == 56, "as the compiler of the library lays it out");

enum { FRIENDLY_NAME = 1, PARTITION_ID = 2, VM_TYPE = 3, VM_GUID = 20, NEEDS_WORKER_SUSPEND = 34, IS_SUSPENDED = 46 };

static struct {
  HANDLE section, worker;
  struct guest *guest;
  BOOL is_selected;
} partitions[MOST_GUESTS];
static ULONG64 handles[MOST_GUESTS];

static void forget(unsigned index) {
  if (!partitions[index].guest) return;
  guest_unmap(partitions[index].guest);
  CloseHandle(partitions[index].section);
  CloseHandle(partitions[index].worker);
  memset(&partitions[index], 0, sizeof *partitions);
}

static BOOL has_ended(unsigned index) { return WaitForSingleObject(partitions[index].worker, 0) == WAIT_OBJECT_0; }

static BOOL look_for(unsigned index) {
  wchar_t name[40];
  if (partitions[index].guest && !has_ended(index)) return TRUE;
  forget(index);
  guest_section_name(name, index);
  HANDLE section = OpenFileMappingW(FILE_MAP_ALL_ACCESS, FALSE, name);
  if (!section) return FALSE;
  struct guest *guest = guest_map(section);
  HANDLE worker = guest ? OpenProcess(SYNCHRONIZE, FALSE, guest->worker) : NULL;
  if (!worker) {
    if (guest) guest_unmap(guest);
    CloseHandle(section);
    return FALSE;
  }
  partitions[index].section = section;
  partitions[index].worker = worker;
  partitions[index].guest = guest;
  return !has_ended(index);
}

static struct guest *guest_of(ULONG64 handle) {
  ULONG64 index = handle - FIRST_HANDLE;
  if (index < MOST_GUESTS && partitions[index].guest && !has_ended((unsigned)index)) return partitions[index].guest;
  SetLastError(ERROR_INVALID_HANDLE);
  return NULL;
}

static struct guest *selected(ULONG64 handle, const char *call) {
  if (asked_to_fail(call)) return NULL;
  struct guest *guest = guest_of(handle);
  if (!guest || partitions[handle - FIRST_HANDLE].is_selected) return guest;
  SetLastError(ERROR_INVALID_STATE);
  return NULL;
}

EXPORT BOOLEAN SdkGetDefaultConfig(struct config *config) {
  if (asked_to_fail("SdkGetDefaultConfig")) return FALSE;
  memset(config, 0, sizeof *config);
  config->read_method = METHOD_INTERNAL;
  config->write_method = METHOD_INTERNAL;
  config->suspend_method = WRITE_SPEC_REGISTER;
  config->log_level = 1;
  /* What the driver must turn off. */
  config->pause_partition = 1;
  return TRUE;
}

EXPORT ULONG64 *SdkEnumPartitions(ULONG64 *count, struct config *config) {
  *count = 0;
  if (asked_to_fail("SdkEnumPartitions")) return NULL;
  if (config->read_method == 0 || config->pause_partition) {
    SetLastError(ERROR_INVALID_PARAMETER);
    return NULL;
  }
  for (unsigned index = 0; index < MOST_GUESTS; index += 1) {
    if (look_for(index)) handles[(*count)++] = FIRST_HANDLE + index;
  }
  return handles;
}

EXPORT BOOLEAN SdkSelectPartition(ULONG64 handle) {
  if (asked_to_fail("SdkSelectPartition") || !guest_of(handle)) return FALSE;
  partitions[handle - FIRST_HANDLE].is_selected = TRUE;
  return TRUE;
}

EXPORT ULONG64 SdkGetData2(ULONG64 handle, int what) {
  struct guest *guest = guest_of(handle);
  if (!guest) return 0;
  switch (what) {
  case FRIENDLY_NAME: return (ULONG64)guest->name;
  case PARTITION_ID: return guest->partition_id;
  case VM_TYPE: return (ULONG64)L"Full VM";
  case VM_GUID: return (ULONG64)guest->guid;
  case NEEDS_WORKER_SUSPEND: return 0;
  case IS_SUSPENDED: return guest->suspended != 0;
  default: return 0;
  }
}

EXPORT BOOLEAN SdkGetData(ULONG64 handle, int what, ULONG64 *out) {
  if (asked_to_fail("SdkGetData") || !guest_of(handle)) return FALSE;
  *out = SdkGetData2(handle, what);
  return TRUE;
}

EXPORT ULONG64 SdkSetData(ULONG64 handle, int what, ULONG64 value) {
  (void)handle, (void)what, (void)value;
  SetLastError(ERROR_NOT_SUPPORTED);
  return 0;
}

static BOOLEAN fits(const struct guest *guest, UINT64 address, UINT64 length, int method) {
  if (method == METHOD_INTERNAL && guest_has(guest, address, length)) return TRUE;
  SetLastError(ERROR_INVALID_PARAMETER);
  return FALSE;
}

EXPORT BOOLEAN SdkReadPhysicalMemory(ULONG64 handle, UINT64 address, UINT64 length, void *into, int method) {
  struct guest *guest = selected(handle, "SdkReadPhysicalMemory");
  if (!guest || !fits(guest, address, length, method)) return FALSE;
  memcpy(into, guest_memory(guest) + address, length);
  return TRUE;
}

EXPORT BOOLEAN SdkWritePhysicalMemory(ULONG64 handle, UINT64 address, UINT64 length, const void *from, int method) {
  struct guest *guest = selected(handle, "SdkWritePhysicalMemory");
  if (!guest || !fits(guest, address, length, method)) return FALSE;
  memcpy(guest_memory(guest) + address, from, length);
  return TRUE;
}

EXPORT BOOLEAN SdkReadVpRegister(ULONG64 handle, UINT32 vcpu, int vtl, UINT32 name, void *value) {
  struct guest *guest = selected(handle, "SdkReadVpRegister");
  return guest && vtl == 0 && guest_get(guest, vcpu, name, value);
}

EXPORT BOOLEAN SdkWriteVpRegister(ULONG64 handle, UINT32 vcpu, int vtl, UINT32 name, const void *value) {
  struct guest *guest = selected(handle, "SdkWriteVpRegister");
  return guest && vtl == 0 && guest_set(guest, vcpu, name, value);
}

#ifndef LACKING
EXPORT BOOLEAN SdkControlVmState(ULONG64 handle, int action, int method, BOOLEAN manage_worker) {
  struct guest *guest = selected(handle, "SdkControlVmState");
  if (!guest || method != WRITE_SPEC_REGISTER || manage_worker || action < 0 || action > 1) return FALSE;
  guest_suspend(guest, action == 0);
  return TRUE;
}
#endif

EXPORT int SdkGetMachineType(ULONG64 handle) { return guest_of(handle) ? AMD64 : 0; }

EXPORT void SdkClosePartition(ULONG64 handle) {
  if (handle - FIRST_HANDLE < MOST_GUESTS) forget((unsigned)(handle - FIRST_HANDLE));
}

EXPORT BOOLEAN SdkCloseAllPartitions(void) {
  for (unsigned index = 0; index < MOST_GUESTS; index += 1) forget(index);
  return TRUE;
}
