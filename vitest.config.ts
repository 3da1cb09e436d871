import { defineConfig } from 'vitest/config'

const places = '{packages,examples,labs,bench}'

/**
 * The labs with tests of their own, by directory in labs/. `fdp` and `kvmi` have peers in their drivers' packages, and
 * no directory; `xen-intel` and `xen-4.20` are labs/xen's other machines.
 */
const labs = ['debian', 'qemu', 'kvm', 'kvmi', 'fdp', 'xen', 'xen-intel', 'xen-4.20', 'virtualbox', 'windows']

/** Labs whose tests run in another machine or on another operating system, and their runners. */
const elsewhere = new Map([
  ['kvm', './labs/kvm/src/host-runner.ts'],
  ['xen', './labs/xen/src/host-runner.ts'],
  ['xen-intel', './labs/xen/src/intel-runner.ts'],
  ['xen-4.20', './labs/xen/src/xen-4.20-runner.ts'],
  ['windows', './labs/windows/src/host-runner.ts'],
])

/** Labs whose files mostly wait, or run in machines of one processor. */
const twoFiles = new Set(['kvm', 'kvmi', 'xen', 'xen-intel', 'xen-4.20', 'virtualbox'])

function runnerOf(lab: string): { runner?: string } {
  const runner = elsewhere.get(lab)
  return runner === undefined ? {} : { runner }
}

/** A lab's tests lie in its directory, or anywhere as `<subject>.<lab>.lab.test.ts`. */
const testsOf = (lab: string): string[] => [`labs/${lab}/**/*.lab.test.ts`, `${places}/**/*.${lab}.lab.test.ts`]

const outside = ['**/node_modules/**', '**/dist/**']

export default defineConfig({
  test: {
    reporters: ['default', './scripts/summary-reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          include: [`${places}/**/*.test.ts`],
          exclude: [...outside, ...labs.flatMap(testsOf)],
          sequence: { groupOrder: 0 },
          // Conformance waits (for what must not happen) more than it computes.
          maxWorkers: 4,
        },
      },
      ...labs.map((lab, index) => ({
        test: {
          name: `lab:${lab}`,
          ...runnerOf(lab),
          include: testsOf(lab),
          // labs/xen has test files for several machines.
          exclude: [...outside, ...(lab === 'xen' ? ['xen-intel', 'xen-4.20'].flatMap(testsOf) : [])],
          // A lab has the machine to itself: one file at a time, after the unit tests and the labs before it.
          sequence: { groupOrder: index + 1 },
          maxWorkers: twoFiles.has(lab) ? 2 : 1,
          testTimeout: 120_000,
          hookTimeout: 300_000,
        },
      })),
    ],
  },
})
