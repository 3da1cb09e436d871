import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A kernel module's file. */
export interface KernelModule {
  readonly name: string
  readonly bytes: Uint8Array
}

/** These modules of an unpacked kernel package and those that they need, in an order in which they can be loaded. */
export function modules(root: string, wanted: readonly string[]): KernelModule[] {
  const directory = join(root, 'lib/modules')
  const files = new Map(
    readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ko'))
      .map((file) => [nameOf(file.slice(file.lastIndexOf('/') + 1, -'.ko'.length)), join(directory, file)]),
  )
  const ordered = new Map<string, KernelModule>()
  const add = (name: string): void => {
    if (ordered.has(name)) return
    const file = files.get(name)
    if (file === undefined) throw new Error(`the kernel package in ${root} has no module ${name}`)
    const bytes = readFileSync(file)
    for (const needed of dependenciesOf(bytes)) add(needed)
    ordered.set(name, { name, bytes })
  }
  for (const name of wanted) add(nameOf(name))
  return [...ordered.values()]
}

/** A module's section .modinfo is a list of strings "key=value", each ended by a zero. */
function dependenciesOf(bytes: Buffer): string[] {
  const [, list = ''] = /\0depends=([^\0]*)\0/.exec(bytes.toString('latin1')) ?? []
  return list.split(',').filter(Boolean).map(nameOf)
}

/** A hyphen and an underscore are the same in a module's name. */
function nameOf(name: string): string {
  return name.replaceAll('-', '_')
}
