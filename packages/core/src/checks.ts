import type { Capability } from './capability.ts'
import { badArgument, MicrovmiError } from './errors.ts'
import type { Reply } from './events.ts'
import type { Injection, RegisterChanges } from './registers.ts'
import type { Session } from './session.ts'

/** Throws `BAD_ARGUMENT` unless the VM has a vCPU of this number. */
export function checkVcpu(vcpu: number, session: Session): void {
  const count = session.backend.vcpuCount
  if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= count) {
    throw badArgument(`vcpu ${String(vcpu)} is not there: ${session.backend.name} has ${count}, numbered from 0`)
  }
}

/** Throws `BAD_ARGUMENT` unless `value` is an unsigned integer of 64 bits. */
export function checkWord(value: unknown, what: string): void {
  if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) {
    throw badArgument(`${what} is a bigint from 0n to 2n ** 64n - 1n, not ${String(value)}`)
  }
}

/** Throws `BAD_ARGUMENT` unless `value` is an unsigned integer of 32 bits. */
export function checkUint32(value: unknown, what: string): void {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw badArgument(`${what} is a whole number from 0 to 0xffffffff, not ${String(value)}`)
  }
}

/** Throws `UNSUPPORTED` for a register that cannot be written here, `BAD_ARGUMENT` for a value that it cannot hold. */
export function checkChanges(changes: RegisterChanges, session: Session): void {
  const writable: ReadonlySet<string> = session.backend.registers?.writable ?? new Set()
  for (const [name, value] of Object.entries(changes)) {
    if (!writable.has(name)) {
      const known = [...writable].join(', ') || 'none'
      throw new MicrovmiError('UNSUPPORTED', `register ${name} cannot be written here; writable: ${known}`)
    }
    if (typeof value === 'object' && value !== null) checkTable(name, value)
    else checkWord(value, `register ${name}`)
  }
}

function checkTable(name: string, value: object): void {
  if ('selector' in value) checkUint32(value.selector, `the selector of ${name}`)
  if ('limit' in value && value.limit !== undefined) checkUint32(value.limit, `the limit of ${name}`)
  if ('attributes' in value && value.attributes !== undefined)
    checkUint32(value.attributes, `the attributes of ${name}`)
  if ('base' in value && value.base !== undefined) checkWord(value.base, `the base of ${name}`)
}

/** Throws `BAD_ARGUMENT` unless the injection is one that x86 has. */
export function checkInjection(injection: Injection): void {
  if (injection.type === 'nmi') return
  const [first, last] = injection.type === 'exception' ? [0, 31] : [32, 255]
  const { type, vector } = injection
  if (type !== 'exception' && type !== 'interrupt') {
    throw badArgument(`an injection is of type exception, interrupt or nmi, not ${String(type)}`)
  }
  if (!Number.isInteger(vector) || vector < first || vector > last) {
    throw badArgument(`the vector of an ${type} is ${first} to ${last}, not ${String(vector)}`)
  }
  if (injection.type === 'exception') {
    if (injection.errorCode !== undefined) checkUint32(injection.errorCode, 'an error code')
    if (injection.cr2 !== undefined) checkWord(injection.cr2, 'cr2')
  }
}

/** Throws `UNSUPPORTED` for a part that this VM lacks, `BAD_ARGUMENT` for one with a bad value. */
export function checkReply(parts: Reply, session: Session): void {
  if (typeof parts !== 'object' || parts === null) {
    throw badArgument('a reply is an object of parts, for example { deny: true }; a handler answers synchronously')
  }
  if ('then' in parts) {
    throw badArgument('a handler answers synchronously: use `for await` over the intercept to await between events')
  }
  for (const [name, value] of Object.entries(parts)) {
    if (value === false || value === undefined) continue
    const capability = `reply.${name}` as Capability
    if (!session.capabilities.has(capability)) throw session.lack(capability)
  }
  if (parts.registers) checkChanges(parts.registers, session)
  if (parts.value !== undefined) checkWord(parts.value, 'the value of a reply')
  if (parts.view !== undefined) checkUint32(parts.view, 'the view of a reply')
  if (parts.inject) checkInjection(parts.inject)
  if (typeof parts.step === 'object') checkUint32(parts.step.view, 'the view of a step')
  if (typeof parts.emulate === 'object') checkEmulation(parts.emulate)
}

function checkEmulation(given: object): void {
  const bytes = 'data' in given ? given.data : 'instruction' in given ? given.instruction : undefined
  if (!(bytes instanceof Uint8Array)) throw badArgument('emulate takes true, { data } or { instruction }, both bytes')
}
