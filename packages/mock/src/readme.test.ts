import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')

test('the test in the README is the one that is run here', () => {
  const example = read('./example.test.ts').replace("'./index.ts'", "'@microvmi/mock'")
  const [, block] = /```ts title=app\.test\.ts\n([\s\S]*?)```/.exec(read('../README.md')) ?? []
  expect(block).toBe(example)
})
