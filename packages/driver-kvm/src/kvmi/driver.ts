import { type Driver, defineDriver, MicrovmiError, register } from '@microvmi/core/driver'
import { checkPlatform } from '../native.ts'
import { POSSIBLE, PROMISES } from './capabilities.ts'
import { ENVIRONMENT, type KvmiOptions } from './options.ts'

/**
 * KVM with the introspection patches (KVMi). `vm` is the VM's name or UUID. QEMU dials in: this side listens while a
 * VM is awaited or open.
 *
 * @example
 * ```ts
 * import { open } from '@microvmi/core'
 * import { kvmi } from '@microvmi/driver-kvm'
 *
 * const vm = await open(kvmi, { vm: 'debian', socket: '/run/introspector.sock', require: ['events.cr'] })
 * for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
 *   console.log(event.vcpu, event.new.toString(16))
 * }
 * ```
 */
export const kvmi: Driver<KvmiOptions, (typeof PROMISES)[number], (typeof POSSIBLE)[number]> = register(
  defineDriver<KvmiOptions>()({
    scheme: 'kvmi',
    package: '@microvmi/driver-kvm 0.1.0',
    contract: { major: 0, minor: 1 },
    promises: PROMISES,
    possible: POSSIBLE,
    options: {
      socket: 'string',
      vsock: 'number',
      owner: 'string',
      mode: 'string',
      secret: 'string',
      secretFile: 'string',
      wait: 'number',
    },

    async probe() {
      try {
        checkPlatform()
        return { usable: true, details: { [ENVIRONMENT]: process.env[ENVIRONMENT] ?? 'not set' } }
      } catch (error) {
        if (!(error instanceof MicrovmiError)) throw error
        return { usable: false, reason: error.message }
      }
    },

    // What follows is most of the package, and not every app that imports it has such VMs.
    async list({ timeout }) {
      checkPlatform()
      const end = performance.now() + timeout
      return (await import('./dial-in.ts')).listVms(end)
    },

    async open(request) {
      checkPlatform()
      return (await import('./dial-in.ts')).openVm(request)
    },
  }),
)
