import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { quoted } from './machine.ts'

test('a quoted word is one word to a shell, whatever is in it', () => {
  const word = fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0'))
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 4 }), (words) => {
      const script = `for word in ${words.map(quoted).join(' ')}; do printf '%s\\0' "$word"; done`
      expect(execFileSync('sh', ['-c', script], { encoding: 'utf8' })).toBe(words.map((text) => `${text}\0`).join(''))
    }),
    { numRuns: 50 },
  )
})
