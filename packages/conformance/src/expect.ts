import { type ErrorCode, MicrovmiError } from '@microvmi/core'
import { ConformanceError } from './failure.ts'

/** Throws `ConformanceError` with `message` unless the condition holds. */
export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ConformanceError(message)
}

/** An address as people read it. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`
}

/** Throws unless `actual` is `expected` (`Object.is`). */
export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  expect(Object.is(actual, expected), `${what} is ${show(actual)}, not ${show(expected)}`)
}

/** Throws, with the first place where they differ, unless the bytes are equal. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array, address: number, what: string): void {
  expectEqual(actual.length, expected.length, `the length of ${what}`)
  const at = actual.findIndex((byte, index) => byte !== expected[index])
  if (at < 0) return
  expect(false, `${what}: the byte at ${hex(address + at)} is ${hex(actual[at] ?? 0)}, not ${hex(expected[at] ?? 0)}`)
}

/** Throws unless `action` throws a `MicrovmiError` of this code. Returns the error. */
export function expectThrows(code: ErrorCode, what: string, action: () => unknown): MicrovmiError {
  let result: unknown
  try {
    result = action()
  } catch (thrown) {
    return coded(thrown, code, what)
  }
  // A promise that is refused later would be nobody's.
  if (result instanceof Promise) result.catch(() => undefined)
  throw new ConformanceError(`${what} does not throw ${code}`)
}

/** Throws unless `promise` rejects with a `MicrovmiError` of this code. Returns the error. */
export async function expectRejects(code: ErrorCode, what: string, promise: Promise<unknown>): Promise<MicrovmiError> {
  try {
    await promise
  } catch (thrown) {
    return coded(thrown, code, what)
  }
  throw new ConformanceError(`${what} does not reject with ${code}`)
}

/** Throws unless `action` throws `BAD_ADDRESS` with `address` as the first byte that is not memory. */
export function expectBadAddress(address: number, what: string, action: () => unknown): void {
  const error = expectThrows('BAD_ADDRESS', what, action)
  const named = error.address === undefined ? 'no address' : hex(error.address)
  expect(error.address === address, `${what} fails with ${named} as the first that is not memory, not ${hex(address)}`)
}

function coded(thrown: unknown, code: ErrorCode, what: string): MicrovmiError {
  // A failed expectation inside is no answer of the driver's.
  if (thrown instanceof ConformanceError) throw thrown
  if (thrown instanceof MicrovmiError && thrown.code === code) return thrown
  const got = thrown instanceof MicrovmiError ? `${thrown.code}: ${thrown.message}` : show(thrown)
  throw new ConformanceError(`${what} fails with ${got}, not with ${code}`, { cause: thrown })
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return hex(value)
  if (typeof value === 'string') return `'${value}'`
  return String(value)
}
