import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'
import { expect, test } from 'vitest'
import { workerSource } from './tcp-worker.ts'

/** The names that a compiler's own helpers have, or imports that were rewritten. */
const FOREIGN = /\b__\w+/

test('the program of the worker stands alone', () => {
  expect(() => new Script(workerSource())).not.toThrow()
  expect(workerSource()).not.toMatch(FOREIGN)
})

test('also as tsx compiles it, which keeps the names of functions', () => {
  const file = fileURLToPath(new URL('./tcp-worker.ts', import.meta.url))
  const program = `import { workerSource } from ${JSON.stringify(file)}; process.stdout.write(workerSource())`
  const source = execFileSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    encoding: 'utf8',
  })
  expect(() => new Script(source)).not.toThrow()
  expect(source).not.toMatch(FOREIGN)
})
