import fc from 'fast-check'
import { expect, test } from 'vitest'
import { boxPlot } from './box-plot.ts'
import { scaleOf, ticks, written } from './scale.ts'
import type { Measured } from './series.ts'

const measured: Measured = {
  guest: 'Xen',
  task: 'a & b < c',
  unit: 'ns',
  wanted: 1.2,
  series: [
    { name: 'microvmi', values: [2e6, 3e6, 4e6, 5e6, 40e6] },
    { name: 'C', values: [1e6, 1e6, 1e6] },
  ],
}

test('a panel has its task, who did it, and the unit of its axis', () => {
  const svg = boxPlot('Title', 'where', [measured])
  const texts = [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text)
  expect(texts).toEqual(expect.arrayContaining(['Title', 'where', 'Xen: a &amp; b &lt; c', 'microvmi', 'C']))
  expect(texts).toContain('ms (less is better)')
  expect(svg).toContain('<title>microvmi: median 4.00 ms, 5 values</title>')
  expect(boxPlot('', '', [{ ...measured, unit: 'per second' }])).toContain('events a second (more is better)')
})

test('positions are in proportion from 0 on, and what is far off is a circle', () => {
  const svg = boxPlot('Title', '', [measured])
  // The axis is 590 pixels from 230 on, for 40 ms; the legend has the first circle.
  const circles = [...svg.matchAll(/<circle cx="([\d.]+)"/g)].map(([, x]) => Number(x))
  expect(circles.slice(1)).toEqual([820])
  const [, box] = [...svg.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g)]
  expect(box?.slice(1).map(Number)).toEqual(
    [230 + (3 / 40) * 590, (2 / 40) * 590].map((one) => Math.round(one * 10) / 10),
  )
})

test('whatever the values, everything is within the picture and every element is closed', () => {
  const values = fc.array(fc.double({ min: 1e-3, max: 1e13, noNaN: true }), { minLength: 1, maxLength: 30 })
  const series = fc.array(fc.record({ name: fc.string(), values }), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(series, fc.constantFrom('ns' as const, 'per second' as const), (all, unit) => {
      const svg = boxPlot('t', 's', [{ ...measured, unit, series: all }])
      expect(svg).not.toMatch(/NaN|Infinity|undefined/)
      for (const [, x] of svg.matchAll(/ c?x="([^"]*)"/g)) {
        expect(Number(x)).toBeGreaterThanOrEqual(20)
        expect(Number(x)).toBeLessThanOrEqual(820)
      }
      const count = (pattern: RegExp) => [...svg.matchAll(pattern)].length
      expect(count(/<g[ >]/g)).toBe(count(/<\/g>/g))
    }),
    { numRuns: 50 },
  )
})

test('an axis has four to nine round marks, and ends at the largest value or behind it', () => {
  fc.assert(
    fc.property(fc.double({ min: 1e-3, max: 1e13, noNaN: true }), (largest) => {
      const marks = ticks(largest)
      expect(marks.length).toBeGreaterThanOrEqual(4)
      expect(marks.length).toBeLessThanOrEqual(10)
      expect(marks[0]).toBe(0)
      expect(marks.at(-1)).toBeGreaterThanOrEqual(largest * (1 - 1e-9))
    }),
  )
  expect(ticks(40)).toEqual([0, 10, 20, 30, 40])
  expect(ticks(38)).toEqual([0, 5, 10, 15, 20, 25, 30, 35, 40])
})

test.each([
  [1.5, '1.50 ns'],
  [0.25, '0.250 ns'],
  [999, '999 ns'],
  [12_340, '12.3 µs'],
  [5e8, '500 ms'],
  [2e9, '2.00 s'],
])('%s ns is %s', (value, text) => {
  const scale = scaleOf('ns', value)
  expect(`${written(value, scale)} ${scale.unit}`).toBe(text)
})
