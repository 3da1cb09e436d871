/**
 * Windows libraries, through koffi: the only file of this package that crosses into native code. The prototypes are in
 * the file of the library that they belong to. x64 Windows has one calling convention; `BOOL` is an int32, `BOOLEAN` a
 * uint8, `HRESULT` an int32, a `HANDLE` and a pointer 64 bits.
 */
import { createRequire } from 'node:module'
import { MicrovmiError } from '@microvmi/core/driver'

type Koffi = typeof import('koffi')

let koffi: Koffi | undefined

/** Throws `DRIVER_UNAVAILABLE`, saying why, where Windows libraries cannot be called. */
export function checkPlatform(): void {
  native()
}

function native(): Koffi {
  if (process.platform !== 'win32' || process.arch !== 'x64') {
    throw new MicrovmiError('DRIVER_UNAVAILABLE', 'needs Windows on x64: the libraries of Hyper-V exist nowhere else')
  }
  try {
    koffi ??= createRequire(import.meta.url)('koffi') as Koffi
    return koffi
  } catch (cause) {
    throw new MicrovmiError(
      'DRIVER_UNAVAILABLE',
      'koffi could not be loaded: install @microvmi/driver-hyperv again, with its optional dependencies',
      { cause },
    )
  }
}

/** What a native function takes: numbers, addresses, buffers it fills, texts. */
export type Argument = number | bigint | string | ArrayBufferView | null
/** A native function. */
export type Call = (...values: Argument[]) => number | bigint

/** A loaded library. It stays loaded: others may have the same one. */
export class Library {
  readonly path: string
  readonly #library: ReturnType<Koffi['load']>

  /** @param help what to do where the library cannot be loaded */
  constructor(path: string, help: string) {
    this.path = path
    try {
      this.#library = native().load(path)
    } catch (cause) {
      if (cause instanceof MicrovmiError) throw cause
      throw new MicrovmiError('DRIVER_UNAVAILABLE', `${path} could not be loaded: ${help}`, { cause })
    }
  }

  /** One export per name: a C prototype whose function has that name. Throws `DRIVER_UNAVAILABLE` for the first lacking. */
  bind<const Prototypes extends Readonly<Record<string, string>>>(
    prototypes: Prototypes,
  ): { readonly [Name in keyof Prototypes]: Call } {
    const entries = Object.entries(prototypes).map(([name, prototype]) => [name, this.#function(name, prototype)])
    return Object.fromEntries(entries)
  }

  /** An export that not every version has. */
  find(prototype: string): Call | undefined {
    try {
      return this.#library.func(prototype)
    } catch (error) {
      // koffi has no other way to say that a symbol is missing.
      if (error instanceof Error && /function|symbol/i.test(error.message)) return undefined
      throw error
    }
  }

  #function(name: string, prototype: string): Call {
    try {
      return this.#library.func(prototype)
    } catch (cause) {
      throw new MicrovmiError(
        'DRIVER_UNAVAILABLE',
        `${this.path} does not export ${name}: it is another version of the library, or another library`,
        { cause },
      )
    }
  }
}

let kernel32: { readonly [Name in keyof typeof KERNEL32]: Call } | undefined

/** winbase.h, errhandlingapi.h. */
const KERNEL32 = {
  GetLastError: 'uint32 GetLastError()',
  SetLastError: 'void SetLastError(uint32 error)',
  LocalFree: 'intptr LocalFree(intptr memory)',
} as const

function kernel() {
  kernel32 ??= new Library('kernel32.dll', 'it is part of Windows').bind(KERNEL32)
  return kernel32
}

/** The calling thread's last Win32 error. */
export function lastError(): number {
  return Number(kernel().GetLastError())
}

/** Before a call that leaves an error only sometimes: what an earlier call left is not its reason. */
export function clearLastError(): void {
  kernel().SetLastError(0)
}

/** The most characters that a text of a library may have: a Windows path's limit (winnt.h, UNICODE_STRING_MAX_CHARS). */
const LONGEST_TEXT = 32_767

/** The UTF-16 text at an address, empty for a null pointer. */
export function wideText(address: bigint): string {
  if (address === 0n) return ''
  const { decode } = native()
  const units: number[] = []
  for (let index = 0; index < LONGEST_TEXT; index += 1) {
    const unit: number = decode(address, index * 2, 'uint16')
    if (unit === 0) break
    units.push(unit)
  }
  return units.map((unit) => String.fromCharCode(unit)).join('')
}

/** The UTF-16 text at an address that the library gave us to free with `LocalFree`. */
export function ownedText(address: bigint): string {
  const text = wideText(address)
  if (address !== 0n) kernel().LocalFree(address)
  return text
}

/** The 64-bit integers at an address: `count` was checked by the caller. */
export function words(address: bigint, count: number): bigint[] {
  const { decode } = native()
  return Array.from({ length: count }, (_, index) => BigInt(decode(address, index * 8, 'uint64')))
}

/** Where a buffer lies, for calls that take addresses as integers. Valid while the buffer is alive. */
export function addressOf(buffer: Uint8Array): bigint {
  return BigInt(native().address(buffer))
}
