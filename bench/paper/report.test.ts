import { expect, test } from 'vitest'
import { parseComparisons } from './plan.ts'
import { command } from './programs.ts'
import { ratios, tableOfRatios, tableOfValues } from './report.ts'
import { type Measured, measure } from './series.ts'

const times: Measured = {
  guest: 'Xen',
  task: 'dump',
  unit: 'ns',
  wanted: 1.2,
  series: [
    { name: 'microvmi', values: [11e6, 13e6, 12e6] },
    { name: 'C', values: [10e6] },
  ],
}
const rates: Measured = {
  ...times,
  task: 'events',
  unit: 'per second',
  wanted: 0.85,
  series: [
    { name: 'microvmi', values: [800] },
    { name: 'C', values: [1000] },
  ],
}

test('of times less is better, of rates more', () => {
  expect(ratios([times, rates, { ...rates, wanted: 0.8 }, { ...times, wanted: undefined }])).toEqual([
    { task: 'Xen: dump', ratio: 1.2, wanted: '≤ 1.2', isKept: true },
    { task: 'Xen: events', ratio: 0.8, wanted: '≥ 0.85', isKept: false },
    { task: 'Xen: events', ratio: 0.8, wanted: '≥ 0.8', isKept: true },
    { task: 'Xen: dump', ratio: 1.2, wanted: '', isKept: undefined },
  ])
})

test('tables have a row for each series, and for each ratio', () => {
  const lines = tableOfValues([times, rates]).split('\n')
  expect(lines).toHaveLength(6)
  expect(lines[2]?.split('|').map((cell) => cell.trim())).toEqual([
    '',
    'Xen: dump',
    'microvmi',
    '12.0',
    '12.0',
    '11.0',
    '13.0',
    '1.00',
    'ms',
    '3',
    '',
  ])
  expect(new Set(lines.map((line) => line.length)).size).toBe(1)
  expect(tableOfRatios([times, rates]).split('\n')).toHaveLength(4)
})

test('loops are by turns, and a contestant that tells something else than values is refused', async () => {
  const order: string[] = []
  const contestant = (name: string, value: number) => ({
    name,
    loop(values: number) {
      order.push(name)
      return Array<number>(values).fill(value)
    },
  })
  const task = { name: 'dump', unit: 'ns', contestants: [contestant('a', 1), contestant('b', 2)] } as const
  const measured = await measure('Xen', task, { loops: 2, valuesPerLoop: 3 })
  expect(order).toEqual(['a', 'b', 'a', 'b'])
  expect(measured.series.map(({ values }) => values)).toEqual([Array(6).fill(1), Array(6).fill(2)])
  const bad = { ...task, contestants: [contestant('c', Number.NaN)] }
  await expect(measure('Xen', bad, { loops: 1, valuesPerLoop: 1 })).rejects.toThrow("c told no 1 values of 'dump'")
})

test('a command is timed, unless it prints a number; a rate must be printed', async () => {
  expect(await command('echo 250', 'ns', {}).loop(2)).toEqual([250, 250])
  const [elapsed] = await command('sleep 0.05; echo "$OUT"', 'ns', { OUT: 'some words' }).loop(1)
  expect(elapsed).toBeGreaterThanOrEqual(50e6)
  await expect(command('echo done', 'per second', {}).loop(1)).rejects.toThrow('must print its rate')
  await expect(command('exit 3', 'ns', {}).loop(1)).rejects.toThrow()
})

test('comparisons: a task, and a command that may have anything in it', () => {
  expect(parseComparisons(['dump=a=b "$OUT"', 'events=c'])).toEqual({ dump: 'a=b "$OUT"', events: 'c' })
  for (const bad of ['dump', 'dump=', 'else=c', '']) expect(() => parseComparisons([bad])).toThrow(RangeError)
})
