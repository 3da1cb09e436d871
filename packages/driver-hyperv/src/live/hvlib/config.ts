/**
 * VM_OPERATIONS_CONFIG (HvlibEnumPublic.h): 56 bytes. What a longer one of a later library holds beyond is left as the
 * library fills it, and there is room for it.
 */
const ROOM = 1024

/** Offsets, measured with the header and a Windows compiler. */
const AT = { readMethod: 0, writeMethod: 4, suspendMethod: 8, forceFreezeCpu: 24, pausePartition: 25 } as const

/** The greatest method of each kind that the header names. */
const GREATEST = { readMethod: 3, writeMethod: 3, suspendMethod: 2 } as const

/** How hvlib.dll is to work, as it proposes it for this version of Windows. */
export class HvlibConfig {
  readonly bytes = new Uint8Array(ROOM)
  readonly #view = new DataView(this.bytes.buffer)

  /** Once the library has filled it: opening a partition neither pauses it nor freezes its vCPUs. */
  leaveGuestRunning(): void {
    this.#view.setUint8(AT.forceFreezeCpu, 0)
    this.#view.setUint8(AT.pausePartition, 0)
  }

  /** `undefined`: it proposes none, or one that no header names. */
  method(which: keyof typeof GREATEST): number | undefined {
    const method = this.#view.getInt32(AT[which], true)
    return method >= 1 && method <= GREATEST[which] ? method : undefined
  }
}
