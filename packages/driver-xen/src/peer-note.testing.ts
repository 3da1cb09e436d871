import type { Patch } from './session-note.ts'

/** Notes of sessions, in memory: stands for `SessionNote`, which writes to /run. */
export class PeerNote {
  /** What a killed session is said to have left. */
  static left: readonly Patch[] | undefined
  /** What stands in the note now. */
  static written: readonly Patch[] | undefined

  leftBehind(): readonly Patch[] | undefined {
    return PeerNote.left
  }

  begin(): void {
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
