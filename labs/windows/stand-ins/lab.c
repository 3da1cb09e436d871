/* Shows that the lab works: a library with each kind of argument and result that Hyper-V's libraries have. */
#include <stdint.h>
#include <string.h>
#include <windows.h>

__declspec(dllexport) BOOL __stdcall LabAdd(uint64_t one, uint32_t other, uint64_t *sum) {
  if (!sum) {
    SetLastError(ERROR_INVALID_PARAMETER);
    return FALSE;
  }
  *sum = one + other;
  return TRUE;
}

__declspec(dllexport) HRESULT __stdcall LabLength(const wchar_t *text, uint32_t *units) {
  if (!text) return HRESULT_FROM_WIN32(ERROR_INVALID_DATA);
  *units = (uint32_t)wcslen(text);
  return S_OK;
}
