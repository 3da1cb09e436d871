import type { Patch } from './session-note.ts'

/** Notes of sessions, in memory: stands for `SessionNote`, which writes to /run. */
export class PeerNote {
  /** What a killed session is said to have left. */
  static left: readonly Patch[] | undefined
  /** What stands in the note now. */
  static written: readonly Patch[] | undefined

  /** It cannot be written. */
  static isFull = false

  leftBehind(): readonly Patch[] | undefined {
    return PeerNote.left
  }

  begin(): void {
    if (PeerNote.isFull) throw new Error('ENOSPC')
    PeerNote.written ??= []
  }

  replaced(patches: readonly Patch[]): void {
    if (PeerNote.written) PeerNote.written = patches
  }

  end(): void {
    this.remove()
  }

  remove(): void {
    PeerNote.left = undefined
    PeerNote.written = undefined
  }
}
