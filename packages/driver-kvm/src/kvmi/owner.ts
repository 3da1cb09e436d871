import { readFileSync } from 'node:fs'
import { badArgument, MicrovmiError } from '@microvmi/core/driver'

/** Who a socket belongs to, as numbers; -1 leaves it as it is. */
export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** Reads `user`, `user:group` or `:group`, each a name or a number. Throws `BAD_ARGUMENT`. */
export function parseOwner(text: string): Owner {
  const [user = '', group = '', ...rest] = text.split(':')
  if (text === '' || rest.length > 0) throw badArgument(`owner is user, user:group or :group, not '${text}'`)
  return { uid: idOf(user, '/etc/passwd', 'user'), gid: idOf(group, '/etc/group', 'group') }
}

/** The third field of a line of passwd(5) or group(5). */
function idOf(name: string, file: string, what: string): number {
  if (name === '') return -1
  if (/^\d{1,9}$/.test(name)) return Number(name)
  const line = readFileSync(file, 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${name}:`))
  const id = Number(line?.split(':')[2])
  if (line !== undefined && Number.isInteger(id)) return id
  throw badArgument(`owner: ${file} knows no ${what} '${name}'`)
}

/** Reads an octal file mode such as `0660`. Throws `BAD_ARGUMENT`. */
export function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw badArgument(`mode is octal, for example 0660, not '${text}'`)
  return Number.parseInt(text, 8)
}

/** The refusal of the file system. */
export function refused(error: unknown, what: string): MicrovmiError {
  const code = (error as NodeJS.ErrnoException).code
  const isRight = code === 'EPERM' || code === 'EACCES'
  return new MicrovmiError(isRight ? 'DENIED' : 'HYPERVISOR', `${what}: ${String(code)}`, { cause: error })
}
