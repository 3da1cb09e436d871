import { defineConfig } from 'vitest/config'

const places = '{packages,examples,labs,bench}'

/** The labs with tests of their own, by directory in labs/. */
const labs = ['qemu', 'virtualbox']

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
        },
      },
      ...labs.map((lab, index) => ({
        test: {
          name: `lab:${lab}`,
          include: testsOf(lab),
          exclude: outside,
          // A lab has the machine to itself: one file at a time, after the unit tests and the labs before it.
          sequence: { groupOrder: index + 1 },
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 300_000,
        },
      })),
    ],
  },
})
