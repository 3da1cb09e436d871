/** Whether the guest has told all its facts. Throws where it has failed. */
export function isReady(lines: readonly Line[]): boolean {
  const failed = lines.find(({ name }) => name === 'failed')
  if (failed) throw new Error(`the guest failed: ${failed.text('what')} (errno ${failed.text('errno')})`)
  return lines.some(({ name }) => name === 'ready')
}

/** The last line of this name. */
export function only(name: string, lines: readonly Line[]): Line {
  const line = lines.filter((candidate) => candidate.name === name).at(-1)
  if (!line) throw new Error(`the guest is ready, but there is no whole line @${name} on its console`)
  return line
}

/** A line `@name key=value ...` of the guest's. */
export class Line {
  readonly name: string
  readonly #fields: ReadonlyMap<string, string>

  constructor(name: string, fields: ReadonlyMap<string, string>) {
    this.name = name
    this.#fields = fields
  }

  text(key: string): string {
    const value = this.#fields.get(key)
    if (value === undefined) throw new Error(`the guest's line @${this.name} has no ${key}`)
    return value
  }

  bigint(key: string): bigint {
    const value = this.text(key)
    if (!/^(\d+|0x[0-9a-f]+)$/.test(value)) throw new Error(`the guest's line @${this.name} has ${key}=${value}`)
    return BigInt(value)
  }

  number(key: string): number {
    const value = Number(this.bigint(key))
    if (!Number.isSafeInteger(value)) throw new Error(`the guest's line @${this.name} has ${key}=${this.text(key)}`)
    return value
  }
}

/** The whole lines since the last `@boot`: a guest that was reset tells everything anew. */
export function lastBoot(console: string): Line[] {
  // A line is whole when its newline is there, and when the kernel has written nothing into it.
  const lines = [...console.matchAll(/^@([a-z]+)((?: [a-z]+=[^\s=]+)*)\r?\n/gm)].map(([, name = '', rest = '']) => {
    const pairs = rest.split(' ').slice(1)
    return new Line(name, new Map(pairs.map((pair) => splitAt(pair, pair.indexOf('=')))))
  })
  return lines.slice(lines.map(({ name }) => name).lastIndexOf('boot') + 1)
}

function splitAt(pair: string, at: number): [string, string] {
  return [pair.slice(0, at), pair.slice(at + 1)]
}
