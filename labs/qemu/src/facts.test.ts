import fc from 'fast-check'
import { expect, test } from 'vitest'
import { factsIn, lastTick } from './facts.ts'

const PAGES = 3

/** A guest's console, as guest/init.c writes it: `base` makes one boot's addresses differ from another's. */
const boot = (base: number) =>
  [
    '@boot',
    '@symbol name=_text address=0xffffffff81000000',
    `@symbol name=init_task address=0xffffffff8${base}000000`,
    '@offset name=task_struct.pid bytes=1224',
    `@known pid=70 virtual=0x7f000000${base}000 pages=${PAGES}`,
    ...Array.from({ length: PAGES }, (_, index) => `@page index=${index} physical=0x${base}${index}000`),
    '@marks pid=71 landmark=0x401d40 code=0x501d40 shared=0x7fffffff1000 counters=0x1f00000',
    '@ready',
    '',
  ].join('\n')
const tick = (second: number) => `@tick second=${second} switches=10 rounds=20 landmarks=30 breakpoints=40 traps=50\n`

test('what a guest tells', () => {
  expect(factsIn(boot(1))).toEqual({
    known: { pid: 70, virtual: 0x7f0000001000n, physical: [0x10000, 0x11000, 0x12000] },
    marks: { pid: 71, landmark: 0x401d40n, code: 0x501d40, shared: 0x7fffffff1000n, counters: 0x1f00000 },
    symbols: { _text: 0xffffffff81000000n, init_task: 0xffffffff81000000n },
    offsets: { 'task_struct.pid': 1224 },
  })
  expect(factsIn(boot(1).replaceAll('\n', '\r\n'))).toEqual(factsIn(boot(1)))
})

test('no part of it is taken for the whole, and noise of the kernel does not matter', () => {
  const noise = fc.stringMatching(/^[^\n@]{0,20}\n$/)
  fc.assert(
    fc.property(fc.array(noise, { maxLength: 3 }), fc.nat(boot(1).length - 1), (lines, length) => {
      expect(factsIn(boot(1).slice(0, length))).toBeUndefined()
      expect(factsIn(lines.join('') + boot(1) + lines.join(''))).toEqual(factsIn(boot(1)))
    }),
  )
})

test('after a reset only the last boot counts', () => {
  const [again = ''] = boot(2).split('@ready')
  expect(factsIn(boot(1) + tick(1) + again)).toBeUndefined()
  expect(lastTick(boot(1) + tick(1) + again)).toBeUndefined()
  expect(factsIn(boot(1) + tick(1) + boot(2))).toEqual(factsIn(boot(2)))
})

test('what is told twice counts as it was told last', () => {
  const twice = boot(1).replace(
    '@ready',
    '@page index=1 physical=0x99000\n@marks pid=5 landmark=1 code=4 shared=2 counters=3\n@ready',
  )
  expect(factsIn(twice)?.known.physical).toEqual([0x10000, 0x99000, 0x12000])
  expect(factsIn(twice)?.marks).toEqual({ pid: 5, landmark: 1n, code: 4, shared: 2n, counters: 3 })
})

test.each([
  [
    'a page is missing',
    (text: string) => text.replace(/@page index=1 .*\n/, ''),
    'has 3 known pages, but told where these are: 0, 2',
  ],
  [
    'a page is too much',
    (text: string) => text.replace('@ready', '@page index=3 physical=1\n@ready'),
    'told where these are: 0, 1, 2, 3',
  ],
  ['a page is another', (text: string) => text.replace('index=2', 'index=7'), 'told where these are: 0, 1, 7'],
  ['a line is missing', (text: string) => text.replace(/@marks.*\n/, ''), 'no whole line @marks'],
  [
    'a line was broken into',
    (text: string) => text.replace('@known pid', '@known [  1.2] oops pid'),
    'no whole line @known',
  ],
  ['a field is missing', (text: string) => text.replace(' shared=0x7fffffff1000', ''), '@marks has no shared'],
  ['a number is none', (text: string) => text.replace('pid=70', 'pid=7x'), '@known has pid=7x'],
  ['a number is too great', (text: string) => text.replace('0x10000', '0x20000000000000'), '@page has physical=0x2'],
  [
    'the guest gave up',
    (text: string) => text.replace(/@known(.|\n)*/, '@failed what=known-pages errno=12\n'),
    'the guest failed: known-pages (errno 12)',
  ],
])('an error where %s', (_, change, message) => {
  expect(() => factsIn(change(boot(1)))).toThrow(message)
})

test('the last whole tick', () => {
  expect(lastTick('')).toBeUndefined()
  expect(lastTick(tick(1) + tick(2) + tick(3).slice(0, -1))).toEqual({
    second: 2,
    switches: 10,
    rounds: 20,
    landmarks: 30,
    breakpoints: 40,
    traps: 50,
  })
})
