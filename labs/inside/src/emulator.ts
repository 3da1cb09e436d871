import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { once } from '@microvmi/lab-debian'

/**
 * `mov r9, rcx; xor edx, edx; mov esi, SVM_EXIT_SWINT; call`: where QEMU 7.2 to 11.1 check whether an INT3 of an inner
 * guest is intercepted, with the exit code of software interrupts (target/i386/svm.h: 0x75).
 */
const CHECK = Buffer.from('4c89c931d2be75000000e8', 'hex')
const EXIT_CODE_AT = 6
/** SVM_EXIT_EXCP_BASE + 3, the exit code of #BP (target/i386/svm.h). */
const BREAKPOINT_EXCEPTION = 0x43

/** How an emulator is started. */
export interface Emulator {
  readonly command: string
  /** What comes before its own arguments. */
  readonly leading: readonly string[]
  readonly environment: Readonly<Record<string, string>>
}

/**
 * The QEMU of an unpacked set of packages (`qemu-system-x86` and `seabios`, with all that they depend on), whose emulation
 * of AMD's SVM serves breakpoints of inner guests.
 */
export async function emulator(root: string): Promise<Emulator> {
  const directory = await once(`emulator/qemu-${basename(root)}`, (made) => {
    const file = join(made, 'qemu-system-x86_64')
    writeFileSync(file, interceptingInt3(readFileSync(join(root, 'usr/bin/qemu-system-x86_64'))))
    chmodSync(file, 0o755)
  })
  const libraries = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'].map((path) => join(root, path)).join(':')
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].flatMap((path) => ['-L', join(root, path)])
  return {
    // Its own loader and libraries: then it does not matter which ones this machine has.
    command: join(root, 'lib64/ld-linux-x86-64.so.2'),
    leading: ['--library-path', libraries, join(directory, 'qemu-system-x86_64'), ...firmware],
    // Where 7.2 has its software emulation, in a file of its own.
    environment: { QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu') },
  }
}

/**
 * The emulator with one byte changed: an INT3 of an inner guest is checked against the intercept of #BP, as AMD's manual
 * has it (volume 2, 15.12.3), and not against that of INTn. Without that, a hypervisor in it never sees a software breakpoint.
 */
export function interceptingInt3(binary: Buffer): Buffer {
  const at = binary.indexOf(CHECK)
  if (at < 0 || binary.indexOf(CHECK, at + 1) >= 0) {
    throw new Error('this QEMU checks the intercept of INT3 in a way that the lab does not know')
  }
  const changed = Buffer.from(binary)
  changed[at + EXIT_CODE_AT] = BREAKPOINT_EXCEPTION
  return changed
}
