/** How a guest is to be. */
export interface GuestOptions {
  readonly type: 'pvh' | 'hvm' | 'pv'
  /** Default: `microvmi-` and the type. */
  readonly name?: string
  readonly vcpus?: number
  /** Default 128, and 192 for HVM. */
  readonly memoryMiB?: number
  /** Two of its processes make its kernel switch between them all the time, from the start. Default false. */
  readonly switching?: boolean
  /** Do not start the vCPUs: there will be no facts. */
  readonly paused?: boolean
  /** Lines of xl.cfg(5) besides the lab's own. */
  readonly configuration?: string
}

/** What the guests boot, in dom0 (machine-image.ts). */
const DIRECTORY = '/guest'
const MEMORY_MIB = { pvh: 128, pv: 128, hvm: 192 }

/** It is a file's name, too. */
const NAME = /^\w[\w.-]*$/

export function defaultName(type: GuestOptions['type']): string {
  return `microvmi-${type}`
}

/** A guest's file for xl: xl.cfg(5). */
export function configurationOf({
  type,
  name = defaultName(type),
  vcpus = 1,
  memoryMiB,
  switching,
  configuration = '',
}: GuestOptions): string {
  if (!NAME.test(name)) {
    throw new RangeError(`a guest's name is of letters, digits, '.', '_' and '-': ${JSON.stringify(name)} is none`)
  }
  const lines = [
    `name = "${name}"`,
    `type = "${type}"`,
    // An HVM guest's firmware starts the kernel's own code, which unpacks what Debian packed.
    `kernel = "${DIRECTORY}/${type === 'hvm' ? 'kernel-hvm' : 'kernel'}"`,
    `ramdisk = "${DIRECTORY}/initrd"`,
    `cmdline = "console=hvc0 rdinit=/init mitigations=off nokaslr quiet${switching ? ' MICROVMI_SWITCH=1' : ''}"`,
    `memory = ${memoryMiB ?? MEMORY_MIB[type]}`,
    `vcpus = ${vcpus}`,
    // Otherwise the guest hangs on RDTSCP.
    'tsc_mode = "native"',
    'on_crash = "preserve"',
  ]
  const hvm = ['vga = "none"', 'nographic = 1', 'device_model_override = "/usr/libexec/xen-qemu-system-i386"']
  return [...lines, ...(type === 'hvm' ? hvm : []), configuration, ''].join('\n')
}
