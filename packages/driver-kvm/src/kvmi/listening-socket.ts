import { chmodSync, chownSync, fchmodSync, lstatSync, unlinkSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core/driver'
import { closeDescriptor, connectUnix, ERRNO } from '../native.ts'
import { bindUnix, bindVsock, type Result, startListening } from './native.ts'
import { type Owner, refused } from './owner.ts'

/** asm-generic/errno.h: the address is taken; the kernel has no vsock. */
const EADDRINUSE = 98
const EAFNOSUPPORT = 97

/** Where to listen. */
export type Address =
  | { readonly path: string; readonly mode: number; readonly owner: Owner | undefined }
  | { readonly port: number }

/** A socket that listens, and how it is taken away. */
export interface ListeningSocket {
  readonly fd: number
  close(): void
}

/** The address in one word: what two users of one socket have in common. */
export function addressName(address: Address): string {
  return 'path' in address ? address.path : `vsock port ${address.port}`
}

/** Throws `BUSY` where somebody listens already, `DENIED`, `BAD_ARGUMENT`, `DRIVER_UNAVAILABLE` without vsock. */
export function listenAt(address: Address): ListeningSocket {
  return 'path' in address ? listenAtPath(address.path, address.mode, address.owner) : listenAtPort(address.port)
}

function listenAtPath(path: string, mode: number, owner: Owner | undefined): ListeningSocket {
  // A socket takes its file's mode from its descriptor when it is bound (Linux, net/unix/af_unix.c): so there is no
  // moment in which others could connect, nor does the process's mask matter.
  const bind = () => bindUnix(path, (fd) => fchmodSync(fd, 0o600))
  let bound = bind()
  if ('errno' in bound && bound.errno === EADDRINUSE) {
    removeDead(path)
    bound = bind()
  }
  const fd = descriptorOf(bound, path)
  try {
    if (mode !== 0o600) chmodSync(path, mode)
    if (owner) chownSync(path, owner.uid, owner.gid)
  } catch (error) {
    closeDescriptor(fd)
    unlinkSync(path)
    throw refused(error, `the owner or mode of ${path} cannot be set`)
  }
  const { dev, ino } = lstatSync(path)
  listen(fd, path)
  return {
    fd,
    close() {
      closeDescriptor(fd)
      const now = lstatSync(path, { throwIfNoEntry: false })
      // Somebody else may have put theirs there.
      if (now?.dev === dev && now.ino === ino) unlinkSync(path)
    },
  }
}

function listenAtPort(port: number): ListeningSocket {
  const fd = descriptorOf(bindVsock(port), `vsock port ${port}`)
  listen(fd, `vsock port ${port}`)
  return { fd, close: () => closeDescriptor(fd) }
}

/** Takes a socket away that nobody listens at. Throws for one that is alive, and for what is no socket. */
function removeDead(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found && !found.isSocket()) {
    throw new MicrovmiError('BAD_ARGUMENT', `${path} is there and is no socket: it was not touched`)
  }
  const connected = connectUnix(path)
  if ('fd' in connected) {
    closeDescriptor(connected.fd)
    throw inUse(path)
  }
  if (connected.errno === ERRNO.ENOENT) return
  // A full backlog is a sign of life as well.
  if (connected.errno !== ERRNO.ECONNREFUSED) throw inUse(path)
  try {
    unlinkSync(path)
  } catch (error) {
    throw refused(error, `the dead socket ${path} cannot be removed`)
  }
}

function inUse(where: string): MicrovmiError {
  return new MicrovmiError('BUSY', `somebody else listens at ${where}: end that program, or take another socket`)
}

function descriptorOf(result: Result, where: string): number {
  if ('fd' in result) return result.fd
  const cause = { call: 'bind', errno: result.errno }
  switch (result.errno) {
    case EADDRINUSE:
      throw inUse(where)
    case EAFNOSUPPORT:
      throw new MicrovmiError('DRIVER_UNAVAILABLE', 'this kernel has no vsock: load vhost_vsock or use a unix socket', {
        cause,
      })
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      throw new MicrovmiError('DENIED', `no right to listen at ${where}`, { cause })
    case ERRNO.ENOENT:
      throw new MicrovmiError('BAD_ARGUMENT', `the directory of ${where} does not exist`, { cause })
    default:
      throw new MicrovmiError('HYPERVISOR', `cannot listen at ${where} (errno ${result.errno})`, { cause })
  }
}

function listen(fd: number, where: string): void {
  const failure = startListening(fd)
  if (failure === 0) return
  closeDescriptor(fd)
  throw new MicrovmiError('HYPERVISOR', `cannot listen at ${where}`, { cause: { call: 'listen', errno: failure } })
}
