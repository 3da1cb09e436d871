import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A VM that the program below tells of. */
export interface ToldVm {
  readonly name: string
  readonly uuid: string
  /** VMState; default `running`. */
  readonly state?: string
  /** The `GuestDebug` element of its settings; default none. */
  readonly guestDebug?: string
}

/** Every register that VirtualBox gives of every VM. */
const REGISTERS = [
  ...['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'rip', 'rflags', 'cr0', 'cr2', 'cr3', 'cr4'],
  ...Array.from({ length: 8 }, (_, index) => `r${index + 8}`),
]

/** A program that says what VBoxManage says, of these VMs, for tests on a POSIX system. */
export class ToldVBoxManage implements Disposable {
  readonly path: string
  readonly #directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))

  constructor(vms: readonly ToldVm[]) {
    this.path = join(this.#directory, 'VBoxManage')
    const line = ({ name, uuid }: ToldVm) => `"${name}" {${uuid}}\n`
    const isOn = ({ state = 'running' }: ToldVm) => state === 'running' || state === 'paused'
    const registers = REGISTERS.map((name, index) => `cpu0.${name} = 0x${index.toString(16).padStart(16, '0')}\n`)
    const answers: [string, string][] = [
      ['--version', '7.2.22_Debianr175245\n'],
      ['list vms', vms.map(line).join('')],
      ['list runningvms', vms.filter(isOn).map(line).join('')],
      ...vms.flatMap((vm): [string, string][] => [
        [`showvminfo ${vm.uuid} --machinereadable`, this.#info(vm)],
        [`debugvm ${vm.uuid} getregisters --cpu=0 all`, registers.join('')],
      ]),
    ]
    const cases = answers.map(([args, answer]) => `${quoted(args)}) printf %s ${quoted(answer)};;`)
    writeFileSync(this.path, `#!/bin/sh\ncase "$*" in\n${cases.join('\n')}\n*) echo "error: $*" >&2; exit 1;;\nesac\n`)
    chmodSync(this.path, 0o700)
  }

  #info({ name, uuid, state = 'running', guestDebug = '' }: ToldVm): string {
    const settings = join(this.#directory, `${uuid}.vbox`)
    writeFileSync(settings, `<VirtualBox><Machine>${guestDebug}</Machine></VirtualBox>`)
    const escaped = name.replaceAll(/["\\]/g, '\\$&')
    return `name="${escaped}"\nUUID="${uuid}"\nCfgFile="${settings}"\nmemory=64\ncpus=1\nVMState="${state}"\n`
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true })
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
