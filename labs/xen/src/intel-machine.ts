import { createReadStream, createWriteStream, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { unpacked } from '@microvmi/lab-debian'
import { CHANNELS, type Machine, type Prepared, type Run } from '@microvmi/lab-inside'
import { bochs } from './bochs.ts'
import { bootDisc } from './boot-disc.ts'
import { frames } from './debug-port.ts'
import { type MachineImage, machineImage } from './machine-image.ts'
import { packages, type XenVersion } from './packages.ts'

/** MiB. */
const MEMORY = { machine: 2048, dom0: 1200 }

/** Posted interrupts (`apicv`) make the guest panic when it gets a second view. */
const XEN_ARGUMENTS = [
  'com1=115200,8n1,0x3f8,4 console=com1',
  `dom0_mem=${MEMORY.dom0}M,max:${MEMORY.dom0}M dom0_max_vcpus=1`,
  'ucode=no spec-ctrl=no bootscrub=0 altp2m=1 apicv=0 edd=off edid=no',
].join(' ')
const DOM0_ARGUMENTS =
  'console=hvc0 rdinit=/init mitigations=off nokaslr lpj=400000 tsc=reliable quiet loglevel=4 panic=-1'

/**
 * A machine with Xen and Intel's VMX: page access, single steps and views, which Xen has there only. Bochs emulates it,
 * one processor of it.
 */
export async function intelMachine(version: XenVersion = '4.17'): Promise<Machine> {
  const root = await unpacked({
    suite: 'trixie',
    packages: ['grub-common', 'grub-pc-bin', 'xorriso'],
    alone: ['bochsbios', 'vgabios'],
    sources: ['bochs'],
  })
  const [program, image] = await Promise.all([bochs(root), packages(version).then(machineImage)])
  return { prepare: (run) => prepare(root, program, image, run) }
}

async function prepare(root: string, program: string, image: MachineImage, run: Run): Promise<Prepared> {
  const { path, archive, channels, terminal } = run
  if (terminal) throw new Error('this machine has no terminal: use the other one')
  // The kernel unpacks one archive after the other (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
  const initrd = path('initrd')
  writeFileSync(initrd, archive)
  await pipeline(createReadStream(image.initrd), createWriteStream(initrd, { flags: 'a' }))
  const disc = await bootDisc(
    root,
    {
      xen: { file: image.xen, arguments: XEN_ARGUMENTS },
      kernel: { file: image.kernel, arguments: DOM0_ARGUMENTS },
      initrd,
    },
    path,
  )
  writeFileSync(path('bochsrc'), configurationOf(root, disc, path('console')))
  const output = frames((fifo, bytes) => {
    const channel = CHANNELS[fifo - 1]
    if (channel === undefined) throw new Error(`the machine writes to FIFO ${fifo}, and there are ${CHANNELS.length}`)
    channels[channel](bytes)
  })
  return {
    command: [program, '-q', '-f', path('bochsrc')],
    environment: {},
    output,
    ended: Promise.resolve(),
    [Symbol.dispose]() {},
  }
}

/** bochsrc(5). */
function configurationOf(root: string, disc: string, console: string): string {
  const lines = [
    'config_interface: textconfig',
    'display_library: nogui',
    'cpu: model=corei7_haswell_4770, count=1, ips=100000000, ignore_bad_msrs=1',
    `memory: guest=${MEMORY.machine}, host=${MEMORY.machine}`,
    `romimage: file=${join(root, 'usr/share/bochs/BIOS-bochs-latest')}`,
    `vgaromimage: file=${join(root, 'usr/share/vgabios/vgabios-stdvga.bin')}`,
    'ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14',
    `ata0-master: type=cdrom, path=${disc}, status=inserted`,
    'boot: cdrom',
    `com1: enabled=1, mode=file, dev=${console}`,
    'port_e9_hack: enabled=1',
    'clock: sync=none',
    'info: action=ignore',
    'debug: action=ignore',
    'error: action=report',
    'panic: action=fatal',
  ]
  return `${lines.join('\n')}\n`
}
