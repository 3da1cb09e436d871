import { MicrovmiError } from '@microvmi/core/driver'

/** Why the stub says that the VM stands still (GDB manual, "Stop Reply Packets"). */
export interface StopReply {
  /** The vCPU that it is about. */
  readonly vcpu: number
  /** SIGTRAP: a breakpoint, a watchpoint or a step, which QEMU does not tell apart. Else somebody stopped the VM. */
  readonly isTrap: boolean
  /** What a watchpoint saw. */
  readonly watch: { readonly access: 'r' | 'w' | 'rw'; readonly address: bigint } | undefined
}

/** Signal 5 of the GDB manual's numbering. */
const SIGTRAP = 5
const WATCHES = { watch: 'w', rwatch: 'r', awatch: 'rw' } as const

/** Parses a packet that is a stop reply; `undefined` for any other. Throws `VM_GONE` when the VM's process has ended. */
export function parseStopReply(packet: string): StopReply | undefined {
  const kind = packet[0]
  if (kind === 'W' || kind === 'X') throw new MicrovmiError('VM_GONE', 'the gdbstub says that QEMU has ended')
  if (kind !== 'T' && kind !== 'S') return undefined
  const signal = Number.parseInt(packet.slice(1, 3), 16)
  if (!/^[0-9a-f]{2}$/i.test(packet.slice(1, 3))) throw unreadable(packet)
  let vcpu = 0
  let watch: StopReply['watch']
  for (const field of packet.slice(3).split(';')) {
    const [name = '', value = ''] = field.split(':')
    if (name === 'thread') {
      // `p01.02`: process and thread, hexadecimal; without the multiprocess extension the thread alone.
      const thread = Number.parseInt(/^(?:p[0-9a-f]+\.)?([0-9a-f]+)$/i.exec(value)?.[1] ?? '', 16)
      // Thread ids of QEMU's are the vCPU's number plus one (gdbstub.c, gdb_get_cpu_index).
      if (!(thread >= 1 && thread <= 0xffff)) throw unreadable(packet)
      vcpu = thread - 1
    } else if (name in WATCHES) {
      if (!/^[0-9a-f]{1,16}$/i.test(value)) throw unreadable(packet)
      watch = { access: WATCHES[name as keyof typeof WATCHES], address: BigInt(`0x${value}`) }
    }
  }
  return { vcpu, isTrap: signal === SIGTRAP, watch }
}

function unreadable(packet: string): MicrovmiError {
  return new MicrovmiError('PROTOCOL', `the gdbstub's '${packet.slice(0, 60)}' tells no vCPU that has stopped`)
}
