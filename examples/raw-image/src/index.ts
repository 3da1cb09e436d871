import { defineDriver, MicrovmiError, register } from '@microvmi/core/driver'
import { backendOf } from './backend.ts'
import { quoted } from './failures.ts'
import { openImage } from './image-file.ts'

/** What users may set, besides what every `open` takes. */
export interface RawImageOptions {
  /** Open the file for writing, too. Default false. */
  readonly writable?: boolean
  /** Where the guest has memory, as `start+length,…`: `0+0xa0000,0x100000+0x7f00000`. Default: the whole file. */
  readonly regions?: string
}

/** Raw memory images: `vm` is a file's path, and the byte at offset n is the one at guest-physical address n. */
export const rawImage = register(
  defineDriver<RawImageOptions>()({
    scheme: 'image',
    package: 'microvmi-driver-raw-image 0.0.0',
    contract: { major: 0, minor: 1 },
    promises: ['memory.read', 'memory.regions'],
    possible: ['memory.write'],
    options: { writable: 'boolean', regions: 'string' },

    async probe() {
      return { usable: true }
    },

    // A file anywhere may be an image: there is nothing to ask.
    async list() {
      return []
    },

    async open({ vm, options, signal }) {
      if (signal?.aborted) throw new MicrovmiError('ABORTED', `opening ${quoted(vm)} was aborted`)
      const file = openImage(vm, options.writable ?? false)
      try {
        return backendOf(file, options.regions)
      } catch (error) {
        file.close()
        throw error
      }
    },
  }),
)
