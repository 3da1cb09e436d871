import { createHash } from 'node:crypto'
import { MicrovmiError } from '@microvmi/core/driver'

/** Smallest and largest `struct_size` that a receiver takes (libkvmi, src/kvmi.c, MIN_ and MAX_HANDSHAKE_DATA). */
const LEAST = 32
const MOST = 65_536

/** `struct kvmi_qemu2introspector`: u32 struct_size, u8 uuid[16], padding, i64 start_time at 24, char name[64]. */
const UUID = 4
const START_TIME = 24
const NAME = 32
const NAME_LENGTH = 64
const KNOWN = NAME + NAME_LENGTH

/** `struct kvmi_introspector2qemu`: u32 struct_size, u8 cookie_hash[20]. */
const ANSWER_LENGTH = 24
const COOKIE = 4

/** What QEMU says of its VM. */
export interface Hello {
  readonly uuid: string
  readonly name: string
  /** When the VM was started or last reset. The unit differs between QEMUs: seconds or milliseconds. */
  readonly startTime: bigint
}

/** What all VMs have whose QEMU was given no `-uuid`. */
const NO_UUID = '00000000-0000-0000-0000-000000000000'

/** What to call a VM: one that was given no `-name` by its UUID. */
export function nameOf({ name, uuid }: Hello): string {
  return name === '' ? uuid : name
}

/** What tells a VM from others: its UUID, or its name where it has none. */
export function idOf(hello: Hello): string {
  return hello.uuid === NO_UUID ? nameOf(hello) : hello.uuid
}

/**
 * Collects QEMU's half of the handshake: what is known of it is kept, the rest is skipped, so that its size never
 * sizes a buffer of ours.
 */
export class HelloReader {
  readonly #bytes = new Uint8Array(KNOWN)
  readonly #view = new DataView(this.#bytes.buffer)
  #received = 0

  /** How many bytes are still to come, as far as is known. */
  get missing(): number {
    return (this.#received < 4 ? 4 : this.#view.getUint32(0, true)) - this.#received
  }

  /** Takes at most `missing` bytes. Returns what was said once it is whole. Throws `PROTOCOL`. */
  take(bytes: Uint8Array): Hello | undefined {
    this.#bytes.set(bytes.subarray(0, Math.max(0, KNOWN - this.#received)), Math.min(this.#received, KNOWN))
    this.#received += bytes.length
    if (this.#received < 4) return undefined
    const size = this.#view.getUint32(0, true)
    if (size < LEAST || size > MOST) {
      throw new MicrovmiError('PROTOCOL', `a KVMi handshake of ${size} bytes: it has ${LEAST} to ${MOST}`)
    }
    return this.#received < size ? undefined : this.#hello()
  }

  #hello(): Hello {
    const name = this.#bytes.subarray(NAME)
    const end = name.indexOf(0)
    return {
      uuid: formatUuid(this.#bytes.subarray(UUID, UUID + 16)),
      // QEMU ends it with a zero; what does not is cut.
      name: printable(Buffer.from(name.subarray(0, end < 0 ? NAME_LENGTH - 1 : end)).toString('utf8')),
      startTime: this.#view.getBigInt64(START_TIME, true),
    }
  }
}

/** Our half. Without a secret the hash is zero: a QEMU that has no `key` does not look at it. */
export function encodeAnswerTo(secret: Uint8Array | undefined): Uint8Array {
  const bytes = new Uint8Array(ANSWER_LENGTH)
  new DataView(bytes.buffer).setUint32(0, ANSWER_LENGTH, true)
  if (secret !== undefined) bytes.set(createHash('sha1').update(secret).digest(), COOKIE)
  return bytes
}

function formatUuid(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** A name comes from another process: control characters would reach a terminal. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, '\ufffd')
}
