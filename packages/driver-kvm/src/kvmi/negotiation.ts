import { MicrovmiError } from '@microvmi/core/driver'
import type { Frame } from './frames.ts'
import type { Generation } from './generation.ts'
import { CONTROL_CMD_RESPONSE, GENERATION_A, GENERATION_A_5_0 } from './generation-a.ts'
import { GENERATION_C, GENERATION_C_5_10 } from './generation-c.ts'
import { ERROR_LENGTH, KVM_ERROR } from './layout.ts'
import type { Message } from './message.ts'
import { commandId, Requests } from './requests.ts'

/** GET_VERSION has this id in every generation, and every one answers version 1. */
const GET_VERSION = 2

/** Whether a command exists that tells two candidates apart. */
interface Question {
  readonly ifThere: Generation
  /** `undefined`: what we do not speak. */
  readonly otherwise: Generation | undefined
}

/**
 * Tells the generations apart by the shape of their answers to GET_VERSION: the second word is the largest message's
 * size in C, and zero in A. Twice one more question is needed, which both candidates understand: whether a command
 * exists that only one of them has.
 */
export class Negotiation {
  /** The number of the last message sent. */
  seq = 0
  #id = GET_VERSION
  #question: Question | undefined
  #write: (message: Message) => void = (message) => message.begin(GET_VERSION, 0)

  /** Writes what is to be asked next. */
  write(message: Message): void {
    this.#write(message)
    this.seq += 1
    message.seq = this.seq
    this.#id = message.id
  }

  /** Reads the answer. The generation, or `undefined` when there is another question. Throws what is amiss. */
  take({ id, seq, start, length }: Frame, view: DataView): Generation | undefined {
    if (id !== this.#id || seq !== this.seq || length < ERROR_LENGTH) {
      throw new MicrovmiError('PROTOCOL', 'what answers to GET_VERSION does not speak KVMi')
    }
    const error = view.getInt32(start, true)
    if (this.#question) return this.#takeCheck(error, this.#question)
    if (error !== 0) throw new MicrovmiError('PROTOCOL', `KVMi does not tell its version (error ${error})`)
    const body = start + ERROR_LENGTH
    const size = length - ERROR_LENGTH
    if (size < 8) throw new MicrovmiError('PROTOCOL', `a KVMi version of ${size} bytes: it has 8 at least`)
    const version = view.getUint32(body, true)
    if (version !== 1) throw new MicrovmiError('UNSUPPORTED', `KVMi of version ${version}: 1 is known`)
    return view.getUint32(body + 4, true) === 0 ? this.#classic(size) : this.#later()
  }

  /** kvmi_get_version_reply has 16 bytes with kernel 5.4, and 8 with 5.0 and in generation B. */
  #classic(size: number): Generation | undefined {
    if (size >= 16) return GENERATION_A
    return this.#check(GENERATION_A_5_0, CONTROL_CMD_RESPONSE, undefined)
  }

  /** v10 and v11 have one more message of the VM than v12. */
  #later(): undefined {
    return this.#check(GENERATION_C_5_10, commandId(GENERATION_C_5_10, 'setPageAccess'), GENERATION_C)
  }

  #check(ifThere: Generation, command: number, otherwise: Generation | undefined): undefined {
    this.#question = { ifThere, otherwise }
    this.#write = (message) => new Requests(ifThere).checkCommand(message, command)
    return undefined
  }

  #takeCheck(error: number, { ifThere, otherwise }: Question): Generation {
    if (error === 0 || error === -KVM_ERROR.EPERM) return ifThere
    if (otherwise) return otherwise
    throw new MicrovmiError(
      'UNSUPPORTED',
      'this kernel speaks the generation of the series v8 and v9, which was never released: use v12 (kernel 5.15) or ' +
        'the kvmi-v7 tree (kernel 5.4)',
    )
  }
}
