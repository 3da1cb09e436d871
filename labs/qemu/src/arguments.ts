import { join } from 'node:path'
import type { Images } from './images.ts'
import type { QemuOptions } from './qemu.ts'

export const DEFAULT_NAME = 'microvmi-lab'
export const DEFAULT_MEMORY_MIB = 512

/** QEMU's command line, without its own name. */
export function argumentsOf(options: QemuOptions, images: Images, directory: string): string[] {
  const { root, kernel, initrd, accelerator } = images
  const path = (name: string) => join(directory, name)
  const size = `${options.memoryMiB ?? DEFAULT_MEMORY_MIB}M`
  const { ram = 'file', machine = 'q35', name = DEFAULT_NAME } = options
  const backend = {
    file: [`memory-backend-file,id=ram,size=${size},mem-path=${path('ram')},share=on`],
    memfd: [`memory-backend-memfd,id=ram,size=${size},share=on`],
    private: [],
  }[ram]
  const socket = (file: string) => `unix:${path(file)},server=on,wait=off`
  return [
    // A comma in an option's value is doubled.
    ...['-name', `guest=${name.replaceAll(',', ',,')}`],
    ...['-L', join(root, 'usr/share/qemu'), '-L', join(root, 'usr/share/seabios')],
    ...['-accel', accelerator, '-cpu', options.cpu ?? 'qemu64', '-smp', String(options.vcpus ?? 1), '-m', size],
    ...['-machine', ram === 'private' ? machine : `${machine},memory-backend=ram`],
    ...backend.flatMap((object) => ['-object', object]),
    ...['-display', 'none', '-nodefaults', '-nic', 'none', '-no-user-config'],
    ...['-kernel', kernel, '-initrd', initrd],
    ...['-append', options.commandLine ?? 'console=ttyS0 quiet nokaslr mitigations=off tsc=reliable panic=-1'],
    ...['-serial', `file:${path('console')}`],
    ...(options.monitor === false ? [] : ['-qmp', socket('qmp'), '-qmp', socket('own')]),
    ...(options.gdb ? ['-gdb', socket('gdb')] : []),
    ...(options.paused ? ['-S'] : []),
  ]
}
