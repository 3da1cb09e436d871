/*
 * Stands in for vid.dll: a partition handle is a guest's section, memory block 1 is video memory, block 2 is RAM. With
 * WITHOUT_NAMES it is as from Windows 10 1709 on, where partitions have no friendly name.
 */
#include <string.h>

#include "guest.h"

#define EXPORT __declspec(dllexport)
#define VIDEO_BLOCK 1
#define VIDEO_PAGES 2048
#define RAM_BLOCK 2
/* The processor state codes that one call takes. */
#define MOST_CODES 128

static BOOL refuse(DWORD error) {
  SetLastError(error);
  return FALSE;
}

static struct guest *partition(HANDLE handle, const char *call) {
  if (asked_to_fail(call)) return NULL;
  return guest_map(handle);
}

static BOOL done(struct guest *guest, BOOL ok, DWORD error) {
  guest_unmap(guest);
  return ok ? TRUE : refuse(error);
}

EXPORT BOOL WINAPI VidGetHvPartitionId(HANDLE handle, UINT64 *id) {
  struct guest *guest = partition(handle, "VidGetHvPartitionId");
  if (!guest) return FALSE;
  *id = guest->partition_id;
  return done(guest, TRUE, 0);
}

#ifndef WITHOUT_NAMES
EXPORT BOOL WINAPI VidGetPartitionFriendlyName(HANDLE handle, WCHAR *name, UINT32 characters) {
  struct guest *guest = partition(handle, "VidGetPartitionFriendlyName");
  if (!guest) return FALSE;
  BOOL fits = wcslen(guest->name) < characters;
  if (fits) wcscpy(name, guest->name);
  return done(guest, fits, ERROR_INSUFFICIENT_BUFFER);
}
#endif

EXPORT BOOL WINAPI VidQueryMemoryBlockMbpCount(HANDLE handle, UINT64 block, UINT64 *total, UINT64 *valid) {
  struct guest *guest = partition(handle, "VidQueryMemoryBlockMbpCount");
  if (!guest) return FALSE;
  *total = block == RAM_BLOCK ? guest->pages : VIDEO_PAGES;
  *valid = block == RAM_BLOCK ? guest->pages - guest->hole_pages : VIDEO_PAGES;
  return done(guest, block == VIDEO_BLOCK || block == RAM_BLOCK, ERROR_INVALID_PARAMETER);
}

/* Whether a request is for whole pages that RAM has, in a buffer that holds them. */
static BOOL fits(const struct guest *guest, UINT64 block, UINT64 first, UINT64 pages, UINT64 length) {
  return block == RAM_BLOCK && first < guest->pages && pages <= guest->pages && length == pages * PAGE &&
         guest_has(guest, first * PAGE, length);
}

EXPORT BOOL WINAPI VidReadMemoryBlockPageRange(HANDLE handle, UINT64 block, UINT64 first, UINT64 pages, void *into,
                                               UINT64 length) {
  struct guest *guest = partition(handle, "VidReadMemoryBlockPageRange");
  if (!guest) return FALSE;
  BOOL ok = fits(guest, block, first, pages, length);
  if (ok) memcpy(into, guest_memory(guest) + first * PAGE, length);
  return done(guest, ok, ERROR_INVALID_PARAMETER);
}

EXPORT BOOL WINAPI VidWriteMemoryBlockPageRange(HANDLE handle, UINT64 block, UINT64 first, UINT64 pages,
                                                const void *from, UINT64 length) {
  struct guest *guest = partition(handle, "VidWriteMemoryBlockPageRange");
  if (!guest) return FALSE;
  BOOL ok = fits(guest, block, first, pages, length);
  if (ok) memcpy(guest_memory(guest) + first * PAGE, from, length);
  return done(guest, ok, ERROR_INVALID_PARAMETER);
}

EXPORT BOOL WINAPI VidGetVirtualProcessorState(HANDLE handle, UINT32 vcpu, const UINT32 *codes, UINT8 count,
                                               uint8_t *values) {
  struct guest *guest = partition(handle, "VidGetVirtualProcessorState");
  if (!guest) return FALSE;
  BOOL ok = count <= MOST_CODES;
  for (UINT8 index = 0; ok && index < count; index += 1) {
    ok = guest_get(guest, vcpu, codes[index], values + 16 * index);
  }
  return done(guest, ok, ERROR_INVALID_PARAMETER);
}

EXPORT BOOL WINAPI VidSetVirtualProcessorState(HANDLE handle, UINT32 vcpu, const UINT32 *codes, UINT8 count,
                                               const uint8_t *values) {
  struct guest *guest = partition(handle, "VidSetVirtualProcessorState");
  if (!guest) return FALSE;
  BOOL ok = count <= MOST_CODES;
  for (UINT8 index = 0; ok && index < count; index += 1) {
    ok = guest_set(guest, vcpu, codes[index], values + 16 * index);
  }
  return done(guest, ok, ERROR_INVALID_PARAMETER);
}
