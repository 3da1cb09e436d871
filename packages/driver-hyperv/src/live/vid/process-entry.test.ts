import fc from 'fast-check'
import { expect, test } from 'vitest'
import { newProcessEntry, processIn } from './process-entry.ts'

test('an entry states its own size, and gives pid and name back', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 32 - 1), fc.string({ unit: 'grapheme', maxLength: 100 }), (pid, text) => {
      const name = text.replaceAll('\0', '')
      const entry = newProcessEntry()
      expect(entry.length).toBe(568)
      const view = new DataView(entry.buffer)
      expect(view.getUint32(0, true)).toBe(568)
      view.setUint32(8, pid, true)
      const units = Math.min(name.length, 260)
      for (let index = 0; index < units; index += 1) view.setUint16(44 + index * 2, name.charCodeAt(index), true)
      expect(processIn(entry)).toEqual({ pid, name: name.slice(0, 260) })
    }),
  )
})
