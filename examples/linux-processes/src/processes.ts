import type { Vm } from '@microvmi/core'
import { AddressSpace } from '@microvmi/paging'

/** What has to be known of a guest's kernel: one symbol, and where a few members of its structures are. */
export interface LinuxProfile {
  /** Virtual address of `init_task`: the first task, and the list's head. */
  readonly initTask: bigint
  /** Bytes from the start of a `task_struct` to its members, and of an `mm_struct` to `pgd`. */
  readonly offsets: {
    readonly tasks: number
    readonly pid: number
    readonly comm: number
    readonly mm: number
    readonly pgd: number
  }
}

/** A process of the guest. */
export interface LinuxProcess {
  readonly pid: number
  readonly name: string
  /** Virtual address of its `task_struct`. */
  readonly task: bigint
  /** Virtual address of its page tables' root; undefined for threads of the kernel, which have no memory of their own. */
  readonly pageTables: bigint | undefined
}

/** TASK_COMM_LEN (Linux, include/linux/sched.h). */
const NAME_LENGTH = 16
/** A guest that makes its list a circle of its own is not followed for ever. */
const TASK_LIMIT = 65_536

/**
 * The processes of a Linux guest: a walk along the kernel's list of tasks. Pause the VM for a list of one moment. The
 * kernel's half is the same in every address space, so that of whichever process runs will do.
 */
export function* processes(vm: Vm<'memory.read' | 'registers.read'>, profile: LinuxProfile): Generator<LinuxProcess> {
  const memory = AddressSpace.of(vm, 0)
  const { tasks, pid, comm, mm, pgd } = profile.offsets
  let task = profile.initTask
  for (let count = 0; count < TASK_LIMIT; count++) {
    const memoryMap = memory.readUint64(task + BigInt(mm))
    yield {
      pid: memory.readUint32(task + BigInt(pid)),
      name: memory.readString(task + BigInt(comm), NAME_LENGTH),
      task,
      pageTables: memoryMap === 0n ? undefined : memory.readUint64(memoryMap + BigInt(pgd)),
    }
    // A list entry points at the next one's entry, not at its task.
    task = BigInt.asUintN(64, memory.readUint64(task + BigInt(tasks)) - BigInt(tasks))
    if (task === profile.initTask) return
  }
  throw new Error(`the guest's list of tasks has over ${TASK_LIMIT}: it is damaged, or made to look so`)
}
