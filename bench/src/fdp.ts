/** The rows of FDP alone: they need no guest under QEMU. */
import { buildBaselines } from './baselines.ts'
import { withFdpRows } from './rows-over-fdp.ts'
import { markdown, measure, type Result } from './table.ts'

const ROUNDS = 9

const results: Result[] = []
await withFdpRows(await buildBaselines(), async (row) => {
  results.push(await measure(row, ROUNDS))
})
console.log(markdown(results))
