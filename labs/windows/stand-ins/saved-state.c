/*
 * Stands in for VmSavedStateDumpProvider.dll (VmSavedStateDump.h, VmSavedStateDumpDefs.h of the Windows SDK): the same
 * exports, layouts and calling convention. With OLD_SDK, the first SDK's (10.0.17763): its registers, and what came
 * later missing. With LACKING, without GetPagingMode.
 *
 * A saved state is a file of text: the first line says what it is, and further ones, `key=value`, what is in it and
 * what goes wrong. Numbers are C's.
 *   vcpus, architecture, paging, cr0    of every vCPU
 *   page, chunks=FIRST+COUNT,...        GetGuestPhysicalMemoryChunks; count, what it says their number is
 *   short=ADDRESS                       where reads end
 *   silent=1                            GetRegisterValue succeeds and gives nothing
 *   fail=CALL:HRESULT                   what a call answers
 * A VM's files lie in the directory that SAVED_STATES names: NAME.vmrs, or NAME.bin and NAME.vsv; NAME.off, a VM
 * without a saved state; NAME@SNAPSHOT.vmrs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

#define EXPORT __declspec(dllexport)
#define TEXT_SIZE 4096
#define PATH_SIZE 1024
#define MOST_CHUNKS 16
#define FIRST_LINE "microvmi saved state"

struct chunk {
  uint64_t first, count;
};

struct state {
  uint64_t magic;
  char text[TEXT_SIZE];
};

#define MAGIC 0x7661737661737661ULL

static LONG open_states;
static uint64_t cache_blocks;

/* For the tests: how many states are open, and the last limit of the cache. */
EXPORT uint32_t StandInOpenStates(void) { return (uint32_t)open_states; }
EXPORT uint64_t StandInCacheBlocks(void) { return cache_blocks; }

static const char *value_of(const struct state *state, const char *key) {
  size_t length = strlen(key);
  for (const char *line = strchr(state->text, '\n'); line; line = strchr(line, '\n')) {
    line += 1;
    if (!strncmp(line, key, length) && line[length] == '=') return line + length + 1;
  }
  return NULL;
}

static uint64_t number_of(const struct state *state, const char *key, uint64_t otherwise) {
  const char *value = value_of(state, key);
  return value ? strtoull(value, NULL, 0) : otherwise;
}

/* S_OK, or what the file says that this call answers. */
static HRESULT asked_for(const struct state *state, const char *call) {
  const char *value = value_of(state, "fail");
  size_t length = strlen(call);
  if (!value || strncmp(value, call, length) || value[length] != ':') return S_OK;
  return (HRESULT)strtoul(value + length + 1, NULL, 0);
}

static HRESULT check(const struct state *state, uint32_t vcpu, const char *call) {
  if (!state || state->magic != MAGIC) return E_HANDLE;
  HRESULT asked = asked_for(state, call);
  if (FAILED(asked)) return asked;
  return vcpu < number_of(state, "vcpus", 2) ? S_OK : E_INVALIDARG;
}

static HRESULT load(const wchar_t *path, struct state **loaded) {
  HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
  if (file == INVALID_HANDLE_VALUE) return HRESULT_FROM_WIN32(GetLastError());
  struct state *state = calloc(1, sizeof *state);
  DWORD length = 0;
  BOOL is_read = state && ReadFile(file, state->text, TEXT_SIZE - 1, &length, NULL);
  CloseHandle(file);
  HRESULT result = S_OK;
  if (!is_read) result = E_OUTOFMEMORY;
  else if (strncmp(state->text, FIRST_LINE, strlen(FIRST_LINE))) result = HRESULT_FROM_WIN32(ERROR_INVALID_DATA);
  else result = asked_for(state, "LoadSavedStateFile");
  if (FAILED(result)) {
    free(state);
    return result;
  }
  state->magic = MAGIC;
  InterlockedIncrement(&open_states);
  *loaded = state;
  return S_OK;
}

EXPORT HRESULT LoadSavedStateFile(const wchar_t *vmrs, void **state) { return load(vmrs, (struct state **)state); }

EXPORT HRESULT LoadSavedStateFiles(const wchar_t *bin, const wchar_t *vsv, void **state) {
  if (GetFileAttributesW(vsv) == INVALID_FILE_ATTRIBUTES) return HRESULT_FROM_WIN32(GetLastError());
  return load(bin, (struct state **)state);
}

EXPORT HRESULT ReleaseSavedStateFiles(void *handle) {
  struct state *state = handle;
  if (!state || state->magic != MAGIC) return E_HANDLE;
  state->magic = 0;
  free(state);
  InterlockedDecrement(&open_states);
  return S_OK;
}

/* An owned text: the path where there is such a file, else the empty one. */
static wchar_t *path_if_file(const wchar_t *stem, const wchar_t *extension) {
  wchar_t *path = LocalAlloc(LPTR, PATH_SIZE * sizeof *path);
  if (!path) exit(3);
  if (swprintf(path, PATH_SIZE, L"%ls%ls", stem, extension) < 0 ||
      GetFileAttributesW(path) == INVALID_FILE_ATTRIBUTES)
    path[0] = 0;
  return path;
}

EXPORT HRESULT LocateSavedStateFiles(const wchar_t *vm, const wchar_t *snapshot, wchar_t **bin, wchar_t **vsv,
                                     wchar_t **vmrs) {
  wchar_t directory[PATH_SIZE], stem[PATH_SIZE], answer[32];
  if (GetEnvironmentVariableW(L"LOCATE_ANSWER", answer, 32)) return (HRESULT)wcstoul(answer, NULL, 0);
  if (!GetEnvironmentVariableW(L"SAVED_STATES", directory, PATH_SIZE)) return HRESULT_FROM_WIN32(ERROR_NOT_FOUND);
  if (swprintf(stem, PATH_SIZE, L"%ls\\%ls%ls%ls", directory, vm, snapshot ? L"@" : L"", snapshot ? snapshot : L"") < 0)
    return HRESULT_FROM_WIN32(ERROR_NOT_FOUND);
  wchar_t *off = path_if_file(stem, L".off");
  BOOL is_off = off[0] != 0;
  LocalFree(off);
  *bin = path_if_file(stem, L".bin");
  *vsv = path_if_file(stem, L".vsv");
  *vmrs = path_if_file(stem, L".vmrs");
  if (is_off || (*bin)[0] || (*vsv)[0] || (*vmrs)[0]) return S_OK;
  LocalFree(*bin);
  LocalFree(*vsv);
  LocalFree(*vmrs);
  *bin = *vsv = *vmrs = NULL;
  return HRESULT_FROM_WIN32(ERROR_NOT_FOUND);
}

EXPORT HRESULT GetVpCount(void *state, uint32_t *count) {
  HRESULT result = check(state, 0, "GetVpCount");
  /* No vCPU at all is a bad number of them. */
  if (result == E_INVALIDARG) result = S_OK;
  if (SUCCEEDED(result)) *count = (uint32_t)number_of(state, "vcpus", 2);
  return result;
}

EXPORT HRESULT GetArchitecture(void *state, uint32_t vcpu, int *architecture) {
  HRESULT result = check(state, vcpu, "GetArchitecture");
  if (SUCCEEDED(result)) *architecture = (int)number_of(state, "architecture", 2);
  return result;
}

#ifndef LACKING
EXPORT HRESULT GetPagingMode(void *state, uint32_t vcpu, int *mode) {
  HRESULT result = check(state, vcpu, "GetPagingMode");
  if (SUCCEEDED(result)) *mode = (int)number_of(state, "paging", 4);
  return result;
}
#endif

/*
 * An integer register of the current SDK's list holds its number, below that of the vCPU; but for RFLAGS, CR0 and
 * EFER, which have fixed bits, and CR3, which points into memory.
 */
static uint64_t integer(const struct state *state, uint32_t vcpu, uint32_t id) {
  if (id == 17) return 0x246 + vcpu;
  if (id == 44) return number_of(state, "cr0", 0x80050033);
  if (id == 46) return 0x100000 + vcpu * 0x1000;
  if (id == 49) return 0xd01;
  return (uint64_t)(vcpu + 1) << 32 | id;
}

static uint64_t base(uint32_t vcpu, uint32_t id) { return 0xffff800000000000ULL | (uint64_t)(vcpu + 1) << 32 | id; }
static uint16_t selector(uint32_t id) { return (uint16_t)(id * 8); }
static uint16_t table_limit(uint32_t id) { return (uint16_t)(0x0f00 + id); }

#ifdef OLD_SDK

struct old_register {
  int32_t architecture;
  uint64_t value;
  uint32_t id;
};
_Static_assert(sizeof(struct old_register) == 24, "VIRTUAL_PROCESSOR_REGISTER of SDK 10.0.17763");

/* REGISTER_ID_X64 of that SDK from 66 on, in today's numbers: bases of GS and FS, selectors, tables. */
static BOOL old_value(uint32_t vcpu, uint32_t id, uint64_t *value) {
  static const uint8_t selectors[] = {57, 59, 56, 60, 61, 58, 63, 62};
  if (id == 66 || id == 67) *value = base(vcpu, id == 66 ? 61 : 60);
  else if (id >= 68 && id <= 75) *value = selector(selectors[id - 68]);
  else if (id == 76 || id == 78) *value = base(vcpu, id == 76 ? 64 : 65);
  else if (id == 77 || id == 79) *value = table_limit(id == 77 ? 64 : 65);
  else return FALSE;
  return TRUE;
}

EXPORT HRESULT GetRegisterValue(void *state, uint32_t vcpu, struct old_register *wanted) {
  HRESULT result = check(state, vcpu, "GetRegisterValue");
  if (FAILED(result) || number_of(state, "silent", 0)) return result;
  if (wanted->architecture != (int)number_of(state, "architecture", 2)) return E_INVALIDARG;
  if (wanted->id <= 17) wanted->value = integer(state, vcpu, wanted->id);
  else if (wanted->id >= 54 && wanted->id <= 65) wanted->value = integer(state, vcpu, wanted->id - 10);
  else if (!old_value(vcpu, wanted->id, &wanted->value)) return E_INVALIDARG;
  return S_OK;
}

#else

union register_value {
  uint64_t integer;
  struct {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attributes;
  } segment;
  struct {
    uint16_t limit;
    uint64_t base;
  } table;
};
_Static_assert(sizeof(union register_value) == 16, "VIRTUAL_PROCESSOR_REGISTER");

EXPORT HRESULT GetRegisterValue(void *state, uint32_t vcpu, uint32_t id, union register_value *value) {
  HRESULT result = check(state, vcpu, "GetRegisterValue");
  if (FAILED(result) || number_of(state, "silent", 0)) return result;
  if (id > 65) return E_INVALIDARG;
  memset(value, 0, sizeof *value);
  if (id >= 64) {
    value->table.limit = table_limit(id);
    value->table.base = base(vcpu, id);
  } else if (id >= 56) {
    value->segment.base = base(vcpu, id);
    value->segment.limit = 0xffff0000u + id;
    value->segment.selector = selector(id);
    /* Bits 8 to 11 are reserved. */
    value->segment.attributes = 0xaf9b;
  } else {
    value->integer = integer(state, vcpu, id);
  }
  return S_OK;
}

EXPORT HRESULT SetMemoryBlockCacheLimit(void *state, uint64_t blocks) {
  HRESULT result = check(state, 0, "SetMemoryBlockCacheLimit");
  if (SUCCEEDED(result)) cache_blocks = blocks;
  return result;
}

EXPORT HRESULT GetActiveVirtualTrustLevel(void *state, uint32_t vcpu, uint8_t *level) {
  HRESULT result = check(state, vcpu, "GetActiveVirtualTrustLevel");
  if (SUCCEEDED(result)) *level = 0;
  return result;
}

EXPORT HRESULT GetEnabledVirtualTrustLevels(void *state, uint32_t vcpu, uint32_t *levels) {
  HRESULT result = check(state, vcpu, "GetEnabledVirtualTrustLevels");
  if (SUCCEEDED(result)) *levels = 3;
  return result;
}

EXPORT HRESULT GetGuestOsInfo(void *state, uint8_t level, uint64_t *info) {
  HRESULT result = check(state, 0, "GetGuestOsInfo");
  if (SUCCEEDED(result)) *info = level == 0 ? 0x0001040a00004a65ULL : 0;
  return result;
}

#endif

static uint32_t chunks_of(const struct state *state, struct chunk *chunks) {
  const char *text = value_of(state, "chunks");
  if (!text) text = "0+0xa0,0x100+0xf00,0x100000+0x800";
  uint32_t count = 0;
  while (count < MOST_CHUNKS) {
    char *end;
    chunks[count].first = strtoull(text, &end, 0);
    chunks[count].count = *end == '+' ? strtoull(end + 1, &end, 0) : 0;
    count += 1;
    if (*end != ',') break;
    text = end + 1;
  }
  return count;
}

EXPORT HRESULT GetGuestPhysicalMemoryChunks(void *handle, uint64_t *page_size, struct chunk *chunks, uint64_t *count) {
  struct state *state = handle;
  HRESULT result = check(state, 0, "GetGuestPhysicalMemoryChunks");
  if (FAILED(result)) return result;
  struct chunk list[MOST_CHUNKS];
  uint32_t here = chunks_of(state, list);
  uint64_t said = number_of(state, "count", here);
  uint64_t room = *count;
  *page_size = number_of(state, "page", 4096);
  *count = said;
  if (!chunks || room < here) return E_OUTOFMEMORY;
  memcpy(chunks, list, here * sizeof *list);
  return S_OK;
}

/* Every 4 bytes of memory tell their place. */
static uint8_t byte_at(uint64_t address) {
  uint32_t word = (uint32_t)(address / 4) * 2654435761u;
  return (uint8_t)(word >> address % 4 * 8);
}

static BOOL is_memory(const struct chunk *chunks, uint32_t count, uint64_t address) {
  for (uint32_t index = 0; index < count; index += 1)
    if (address / 4096 >= chunks[index].first && address / 4096 - chunks[index].first < chunks[index].count) return TRUE;
  return FALSE;
}

EXPORT HRESULT ReadGuestPhysicalAddress(void *handle, uint64_t address, uint8_t *into, uint32_t length, uint32_t *read) {
  struct state *state = handle;
  HRESULT result = check(state, 0, "ReadGuestPhysicalAddress");
  if (FAILED(result)) return result;
  struct chunk chunks[MOST_CHUNKS];
  uint32_t count = chunks_of(state, chunks);
  uint64_t end = number_of(state, "short", UINT64_MAX);
  uint32_t done = 0;
  for (; done < length && address + done < end; done += 1) {
    if ((done == 0 || (address + done) % 4096 == 0) && !is_memory(chunks, count, address + done)) break;
    into[done] = byte_at(address + done);
  }
  if (read) *read = done;
  return done == 0 ? E_INVALIDARG : S_OK;
}
