import fc from 'fast-check'
import { expect, test } from 'vitest'
import { factsIn, lastTick } from './facts.ts'

const console = [
  '@boot',
  '@control physical=0x29f2000',
  '@ram start=0x1000 end=0x9ffff',
  '@ram start=0x100000 end=0x7ffffff',
  '@symbol name=_text address=0xffffffff81000000',
  '@offset name=task_struct.pid bytes=2416',
  '@known pid=84 virtual=0x7ff55170d000 pages=2',
  '@page index=0 physical=0x30f7000',
  '@page index=1 physical=0x30f8000',
  '@scratch index=0 physical=0x4280000',
  '@marks vcpu=0 pid=85 landmark=0x401f00 physical=0x330af00',
  '@ready vcpus=1',
  '',
].join('\n')

test('what a guest tells', () => {
  expect(factsIn(console)).toEqual({
    vcpus: 1,
    known: { pid: 84, virtual: 0x7ff55170d000n, physical: [0x30f7000, 0x30f8000] },
    scratch: [0x4280000],
    control: 0x29f2000,
    marks: [{ vcpu: 0, pid: 85, landmark: 0x401f00n, physical: 0x330af00 }],
    ram: [
      { start: 0x1000, end: 0xa0000 },
      { start: 0x100000, end: 0x8000000 },
    ],
    symbols: { _text: 0xffffffff81000000n },
    offsets: { 'task_struct.pid': 2416 },
  })
})

test('no part of it is taken for the whole', () => {
  fc.assert(
    fc.property(fc.nat(console.length - 1), (length) => {
      expect(factsIn(console.slice(0, length))).toBeUndefined()
    }),
  )
})

test('a guest that failed, and one that told too little', () => {
  expect(() => factsIn('@boot\n@failed what=pagemap errno=2\n')).toThrow('the guest failed: pagemap (errno 2)')
  expect(() => factsIn(console.replace('@page index=1', '@page index=2'))).toThrow('known pages')
  expect(() => factsIn(console.replace(/^@control.*\n/m, ''))).toThrow('@control')
})

test('its last counts', () => {
  const tick = (second: number) =>
    `@tick second=${second} switches=1 rounds=2 turns=3 breakpoints=4 traps=5 steps=6 msrs=7\n`
  expect(lastTick(console)).toBeUndefined()
  expect(lastTick(console + tick(1) + tick(2) + tick(3).slice(0, -5))).toEqual({
    second: 2,
    switches: 1,
    rounds: 2,
    turns: 3,
    breakpoints: 4,
    traps: 5,
    steps: 6,
    msrs: 7,
  })
})
