/**
 * What apps and drivers may and may not write, checked by the compiler: each `@ts-expect-error` fails the build when
 * the line below it compiles. Nothing here runs. It imports core as an outsider does.
 */
import { type Capability, demand, type EventSource, open, supports, type Vm } from '@microvmi/core'
import { defineDriver } from '@microvmi/core/driver'

// A third party adds a capability with a member and an event kind without touching core.
declare module '@microvmi/core' {
  interface EventKinds {
    balloon: { request: { readonly from: number }; event: { readonly pages: number }; parts: never }
  }
  interface Capabilities {
    'events.balloon': EventSource
    'acme.screenshot': { screenshot(): Uint8Array }
  }
}

const base = {
  scheme: 'acme',
  package: '@acme/microvmi-driver 1.0.0',
  contract: { major: 0, minor: 1 },
  options: { socket: 'string' },
  probe: async () => ({ usable: true }) as const,
  list: async () => [],
} as const

const backend = {
  name: 'a',
  id: '1',
  hypervisor: 'Acme 1.0',
  vcpuCount: 1,
  capabilities: [],
  release() {},
  async close() {},
}

const acme = defineDriver<{ socket?: string }>()({
  ...base,
  promises: ['memory.read', 'acme.screenshot', 'events.balloon', 'events.cr', 'reply.deny', 'pause'],
  possible: ['memory.write', 'events.msr'],
  open: async () => ({
    ...backend,
    memory: { read: (_address, into) => into.fill(0).length },
    running: { pause() {}, resume() {}, state: () => 'running', setState() {} },
    events: { listen() {}, arm() {}, disarm() {}, reply() {} },
  }),
})

defineDriver<{ socket?: string }>()({
  ...base,
  promises: ['memory.write'],
  possible: [],
  // @ts-expect-error the backend lacks what the driver promises
  open: async () => ({ ...backend, memory: { read: () => 0 } }),
})

export async function membersFollowCapabilities(): Promise<void> {
  const vm = await open(acme, { vm: 'a', socket: '/run/a', require: ['memory.write'] })
  const buffer = new Uint8Array(8)
  vm.memory.read(0, buffer)
  vm.memory.write(0, buffer)
  vm.screenshot()
  // @ts-expect-error neither promised nor required
  vm.memory.map(0, 1, () => 0)
  // @ts-expect-error registers are not promised
  vm.readRegisters(0)
  // @ts-expect-error a driver that can never have views
  await open(acme, { vm: 'a', require: ['views'] })
  // @ts-expect-error an option that the driver does not have
  await open(acme, { vm: 'a', sockt: '/run/a' })
  // @ts-expect-error which VM?
  await open(acme, {})
}

export async function eventsFollowCapabilities(vm: Vm<'events.cr' | 'events.balloon' | 'reply.deny'>): Promise<void> {
  for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) {
    const change: bigint = event.new - event.old
    change.toString(16)
    event.reply({ deny: true })
    // @ts-expect-error this VM cannot replace values
    event.reply({ value: 1n })
    // @ts-expect-error a write to CR3 is not a balloon
    event.pages
  }
  for await (const event of vm.intercept({ kind: 'balloon', from: 1 }, { kind: 'cr', register: 'cr0' })) {
    if (event.kind === 'balloon') event.pages.toFixed()
    else event.register.toUpperCase()
  }
  vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => (event.new === 0n ? { deny: true } : undefined))
  vm.intercept({ kind: 'cr', register: 'cr3' }, (event) => ({ deny: event.new === 0n }))
  vm.intercept({ kind: 'cr', register: 'cr3' }, () => ({ deny: true }))
  vm.intercept(
    [
      { kind: 'cr', register: 'cr3' },
      { kind: 'balloon', from: 1 },
    ],
    (event) => {
      if (event.kind === 'balloon') event.pages.toFixed()
    },
  )
  // @ts-expect-error msr events are not promised
  vm.intercept({ kind: 'msr', msr: 1 })
  // @ts-expect-error a handler answers synchronously
  vm.intercept({ kind: 'cr', register: 'cr3' }, async () => ({ deny: true }))
  // @ts-expect-error a request without its register
  vm.intercept({ kind: 'cr' })
  // @ts-expect-error this VM cannot replace values
  vm.intercept({ kind: 'cr', register: 'cr3' }, () => ({ value: 1n }))
}

export async function narrowing(names: Capability[], one: 'pause' | 'inject'): Promise<void> {
  const vm = await open('acme:a')
  // @ts-expect-error nothing is known of a VM opened by name
  vm.memory
  if (supports(vm, 'memory.read', 'events.msr')) {
    vm.memory.readUint8(1)
    for await (const event of vm.intercept({ kind: 'msr', msr: 1 })) event.msr.toFixed()
  }
  demand(vm, 'pause')
  vm.pause().end()
  const required = await open('acme:a', { require: ['registers.read'] })
  required.readRegisters(0).cr3.toString(16)
  // @ts-expect-error absent in some backends
  required.readRegisters(0).lstar.toString(16)
  const unknown = await open('acme:a', { require: names })
  // @ts-expect-error names that are not literals promise nothing
  unknown.memory
  // @ts-expect-error names that are not literals would promise too much
  supports(vm, ...names)
  // @ts-expect-error either of two names promises neither
  supports(vm, one)
}

/** A library takes a Vm by what it needs; any Vm with more fits. */
export async function library(vm: Vm<'events.cr' | 'memory.read'>): Promise<void> {
  for await (const event of vm.intercept({ kind: 'cr', register: 'cr3' })) vm.memory.readUint8(Number(event.new))
}
export async function callsLibrary(vm: Vm<'events.cr' | 'memory.read' | 'pause'>): Promise<void> {
  await library(vm)
}
