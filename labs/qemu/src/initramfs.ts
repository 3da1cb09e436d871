import { cpio } from './cpio.ts'

/** An initramfs with one program as init, and the console device that it needs. */
export function initramfs(init: Uint8Array): Buffer {
  return cpio([
    { path: 'dev', type: 'directory' },
    { path: 'dev/console', type: 'console' },
    { path: 'init', type: 'executable', data: init },
  ])
}
