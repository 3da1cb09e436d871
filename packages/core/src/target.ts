import { badArgument } from './errors.ts'

/** A VM named in one string: `scheme:name?option=value&option=value`. */
export interface Target {
  readonly scheme: string
  readonly vm: string
  readonly options: Readonly<Record<string, string>>
}

const SCHEME = /^[a-z][a-z0-9-]*$/

/**
 * Reads a target. The name goes from the first colon to the first `?` and may hold anything else (spaces, slashes,
 * `#`, further colons, any script): nothing is normalised. `%xx` stands for a byte of UTF-8, so that `?` is written
 * `%3f` and `%` itself `%25`; in options also `&` as `%26`.
 *
 * Throws `BAD_ARGUMENT`.
 */
export function parseTarget(text: string): Target {
  const colon = text.indexOf(':')
  const scheme = text.slice(0, Math.max(colon, 0))
  if (!SCHEME.test(scheme)) {
    throw badArgument(`'${text}' is no target: write scheme:name, for example kvm:debian or xen:win10?timeout=2000`)
  }
  const question = text.indexOf('?', colon)
  const name = text.slice(colon + 1, question < 0 ? undefined : question)
  const options: Record<string, string> = Object.create(null)
  if (question >= 0) {
    for (const pair of text.slice(question + 1).split('&')) {
      const equals = pair.indexOf('=')
      const key = decode(pair.slice(0, Math.max(equals, 0)), text)
      if (key === '') throw badArgument(`'${text}' is no target: an option is written name=value, not '${pair}'`)
      if (key in options) throw badArgument(`'${text}' gives the option '${key}' twice`)
      options[key] = decode(pair.slice(equals + 1), text)
    }
  }
  return { scheme, vm: decode(name, text), options }
}

/** Writes a target that `parseTarget` reads back to the same. */
export function formatTarget(target: Pick<Target, 'scheme' | 'vm'> & Partial<Target>): string {
  const pairs = Object.entries(target.options ?? {}).map(
    ([key, value]) => `${encodeOption(key)}=${encodeOption(value)}`,
  )
  return `${target.scheme}:${encodeName(target.vm)}${pairs.length > 0 ? `?${pairs.join('&')}` : ''}`
}

function decode(text: string, target: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    if (!(error instanceof URIError)) throw error
    throw badArgument(`'${target}' is no target: '%' begins an escape such as %3f; write a plain percent sign as %25`)
  }
}

function encodeName(text: string): string {
  return text.replace(/[%?]/g, escapeByte)
}

function encodeOption(text: string): string {
  return text.replace(/[%&=]/g, escapeByte)
}

function escapeByte(character: string): string {
  return `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`
}
