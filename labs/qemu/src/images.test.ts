import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { keyOf } from './images.ts'

test('an image has another name when anything that it is built from is another', () => {
  const directory = mkdtempSync(join(tmpdir(), 'microvmi-test-'))
  const file = (name: string, content: string) => {
    writeFileSync(join(directory, name), content)
    return join(directory, name)
  }
  try {
    const [a, b] = [file('a', 'xy'), file('b', '')]
    const key = keyOf(['-O2'], [a, b])
    expect(key).toMatch(/^[0-9a-f]{16}$/)
    expect(keyOf(['-O2'], [a, b])).toBe(key)
    const others = [
      keyOf(['-O3'], [a, b]),
      keyOf(['-O2'], [a]),
      keyOf(['-O2'], [a, file('c', '')]),
      keyOf(['-O2'], [file('a', 'x'), file('b', 'y')]),
    ]
    expect(new Set([key, ...others]).size).toBe(5)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
