import { type Scale, scaleOf, ticks, written } from './scale.ts'
import type { Measured, Series } from './series.ts'
import { boxOf } from './statistics.ts'

// Lengths are in pixels.
const WIDTH = 860
const LEFT = 230
const RIGHT = 40
const TOP = 96
const ROW = 30
const BOX = 14
const TITLE = 34
const AXIS = 52
const COLORS = ['#1f6fb2', '#c1571a', '#3f8f4f', '#7a4fa3']

/**
 * Box plots of what was measured, a panel for each task, as an SVG. The values of a panel share its axis, which begins
 * at 0: lengths may be compared.
 */
export function boxPlot(title: string, subtitle: string, all: readonly Measured[]): string {
  const panels: string[] = []
  let y = TOP
  for (const measured of all) {
    panels.push(`<g transform="translate(0 ${y})">\n${panel(measured)}\n</g>`)
    y += panelHeight(measured)
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}" font-family="sans-serif" font-size="12" fill="#222">
<title>${escaped(title)}</title>
<rect width="${WIDTH}" height="${y}" fill="#fff"/>
<text x="20" y="30" font-size="18" font-weight="bold">${escaped(title)}</text>
<text x="20" y="50" fill="#555">${escaped(subtitle)}</text>
${legend()}
${panels.join('\n')}
</svg>
`
}

function panelHeight({ series }: Measured): number {
  return TITLE + series.length * ROW + AXIS
}

/** How to read a box. */
function legend(): string {
  const say =
    'box: the middle half of the values; line and number: median; diamond: mean; whiskers: within 1.5 boxes; circles: beyond'
  const sample = box(
    { lower: 36, upper: 60, median: 50, mean: 54, low: 22, high: 76, outliers: [86] },
    { x: (value) => value, y: 72, color: '#777' },
  )
  return `<g>${sample}<text x="100" y="76" fill="#555">${say}</text></g>`
}

function panel({ guest, task, unit, series }: Measured): string {
  const largest = Math.max(...series.flatMap(({ values }) => values))
  const scale = scaleOf(unit, largest)
  const marks = ticks(largest / scale.factor)
  const end = marks.at(-1) ?? 1
  const x = (value: number) => LEFT + (value / scale.factor / end) * (WIDTH - LEFT - RIGHT)
  const bottom = TITLE + series.length * ROW
  const better = unit === 'ns' ? 'less is better' : 'more is better'
  const grid = marks.map((mark) => {
    const at = round(x(mark * scale.factor))
    return `<path d="M${at} ${TITLE}V${bottom}" stroke="#ddd"/><text x="${at}" y="${bottom + 15}" text-anchor="middle">${mark}</text>`
  })
  const rows = series.map((one, index) => row(one, { x, scale, y: TITLE + (index + 0.5) * ROW, color: colorOf(index) }))
  const label = `${unit === 'ns' ? scale.unit : `events ${scale.unit}`} (${better})`
  return [
    `<text x="20" y="22" font-size="14" font-weight="bold">${escaped(`${guest}: ${task}`)}</text>`,
    ...grid,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${bottom + 32}" text-anchor="middle" fill="#555">${label}</text>`,
    ...rows,
  ].join('\n')
}

function row(
  { name, values }: Series,
  place: { x: (value: number) => number; scale: Scale; y: number; color: string },
): string {
  const { scale, y } = place
  const shown = boxOf(values)
  const said = `${name}: median ${written(shown.median, scale)} ${scale.unit}, ${values.length} values`
  const label = [
    `<text x="${LEFT - 62}" y="${y + 4}" text-anchor="end">${escaped(name)}</text>`,
    `<text x="${LEFT - 12}" y="${y + 4}" text-anchor="end" fill="#777">${written(shown.median, scale)}</text>`,
  ].join('')
  return `<g><title>${escaped(said)}</title>${label}${box(shown, place)}</g>`
}

function box(
  { lower, upper, median, mean, low, high, outliers }: ReturnType<typeof boxOf>,
  { x, y, color }: { x: (value: number) => number; y: number; color: string },
): string {
  const at = (value: number) => round(x(value))
  const top = y - BOX / 2
  const width = Math.max(1, round(x(upper) - x(lower)))
  return [
    `<g stroke="${color}" fill="none">`,
    `<path d="M${at(low)} ${y}H${at(lower)}M${at(upper)} ${y}H${at(high)}M${at(low)} ${y - 4}v8M${at(high)} ${y - 4}v8"/>`,
    `<rect x="${at(lower)}" y="${top}" width="${width}" height="${BOX}" fill="${color}" fill-opacity="0.25"/>`,
    `<path d="M${at(median)} ${top}v${BOX}" stroke-width="2.5"/>`,
    `<path d="M${at(mean)} ${y - 4}l4 4l-4 4l-4 -4z" fill="#fff"/>`,
    ...outliers.map((value) => `<circle cx="${at(value)}" cy="${y}" r="2.5"/>`),
    '</g>',
  ].join('')
}

function colorOf(index: number): string {
  return COLORS[index % COLORS.length] ?? '#222'
}

function round(pixels: number): number {
  return Math.round(pixels * 10) / 10
}

/** As XML wants it in text. */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
