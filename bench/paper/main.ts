import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { LabUnavailable } from '@microvmi/lab-debian'
import { boxPlot } from './box-plot.ts'
import { FULL, type Plan, parseComparisons, QUICK } from './plan.ts'
import { measureOnQemu } from './qemu.ts'
import { ratios, tableOfRatios, tableOfValues } from './report.ts'
import type { Measured } from './series.ts'
import { measureOnXen } from './xen.ts'

const USAGE = `usage: npm run bench:paper -- [--quick] [--xen | --qemu] [--out DIRECTORY]
                              [--compare TASK=COMMAND]... [--copy FILE]...

Measures the paper's tasks (TASK: dump, registers, events) on a guest of a real Xen and on one of stock QEMU, beside C
programs that do the same, and beside a command of yours. bench/paper/README.md tells what a command is given.`

const options = {
  quick: { type: 'boolean', default: false },
  xen: { type: 'boolean', default: false },
  qemu: { type: 'boolean', default: false },
  out: { type: 'string', default: fileURLToPath(new URL('./results', import.meta.url)) },
  compare: { type: 'string', multiple: true, default: [] as string[] },
  copy: { type: 'string', multiple: true, default: [] as string[] },
} as const

process.exitCode = await main()

async function main(): Promise<number> {
  const asked = understood()
  if (!asked) return 2
  const { plan, values } = asked
  const both = values.xen === values.qemu
  const all: Measured[] = []
  const report = (measured: Measured) => {
    all.push(measured)
    console.error(`${measured.guest}: ${measured.task}: ${ratios([measured])[0]?.ratio.toFixed(2)} x C`)
  }
  try {
    if (both || values.xen) await measureOnXen(plan, values.copy, report)
    if (both || values.qemu) await measureOnQemu(plan, report)
  } catch (error) {
    if (!(error instanceof LabUnavailable)) throw error
    console.error(`the lab cannot come up: ${error.message}`)
    return 1
  }
  const host = `Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model}, Linux ${release().replace(/-.*/, '')}`
  console.log(`\n${host}\n\n${tableOfValues(all)}\n\n${tableOfRatios(all)}\n`)
  mkdirSync(values.out, { recursive: true })
  const write = (name: string, text: string) => {
    const file = join(values.out, name)
    writeFileSync(file, text)
    console.log(file)
  }
  write('paper.json', `${JSON.stringify({ host, plan, measured: all, ratios: ratios(all) }, undefined, 2)}\n`)
  write('paper.svg', boxPlot("The paper's tasks", `under software emulation; ${host}`, all))
  return 0
}

function understood() {
  try {
    const { values } = parseArgs({ options })
    const plan: Plan = { ...(values.quick ? QUICK : FULL), compare: parseComparisons(values.compare) }
    return { plan, values }
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error
    console.error(`${error.message}\n\n${USAGE}`)
    return undefined
  }
}
