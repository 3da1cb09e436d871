/*
 * Stands in for a VM's worker process: vmwp.exe GUID PARENT INDEX VCPUS MIB HOLE
 * NAME, with so many pages of HOLE missing in the middle of its memory. It holds the
 * guest's section, which is what the stand-in of vid.dll takes for a partition handle, and ends with its parent.
 */
#include <stdlib.h>
#include <wchar.h>

#include "guest.h"

int main(void) {
  int count;
  wchar_t **arguments = CommandLineToArgvW(GetCommandLineW(), &count);
  wchar_t section_name[40];
  if (!arguments || count != 8) return 2;
  unsigned index = wcstoul(arguments[3], NULL, 10);
  unsigned vcpus = wcstoul(arguments[4], NULL, 10);
  uint64_t pages = wcstoul(arguments[5], NULL, 10) * 256ULL;
  if (index >= MOST_GUESTS || vcpus < 1 || vcpus > MOST_VCPUS || pages < 64 || wcslen(arguments[1]) > 36 ||
      wcslen(arguments[7]) > 100)
    return 2;
  HANDLE parent = OpenProcess(SYNCHRONIZE, FALSE, wcstoul(arguments[2], NULL, 10));
  if (!parent) return 3;

  guest_section_name(section_name, index);
  HANDLE section = CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, (DWORD)(MEMORY_AT + pages * PAGE),
                                      section_name);
  if (!section || GetLastError() == ERROR_ALREADY_EXISTS) return 4;
  struct guest *guest = MapViewOfFile(section, FILE_MAP_ALL_ACCESS, 0, 0, 0);
  if (!guest) return 5;
  guest->partition_id = index + 2;
  guest->worker = GetCurrentProcessId();
  guest->vcpus = vcpus;
  guest->pages = pages;
  guest->hole_first = pages / 2;
  guest->hole_pages = wcstoul(arguments[6], NULL, 10);
  wcscpy(guest->guid, arguments[1]);
  wcscpy(guest->name, arguments[7]);
  guest_fill(guest);
  guest_run(guest);
  WaitForSingleObject(parent, INFINITE);
  return 0;
}
