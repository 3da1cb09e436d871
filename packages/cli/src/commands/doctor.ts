import { setTimeout } from 'node:timers/promises'
import { CONTRACT, registrations } from '@microvmi/core'
import { Drivers } from '../drivers.ts'
import type { Io } from '../io.ts'
import { printJson } from '../json.ts'

const PROBE_DEADLINE = 5000

interface Finding {
  readonly driver: string
  readonly package: string
  readonly contract?: string
  readonly usable: boolean
  readonly reason?: string
  readonly details?: Readonly<Record<string, string>>
}

/** `microvmi doctor`: true when every driver can be used here. */
export async function doctorCommand(io: Io, flags: { readonly json?: boolean }): Promise<boolean> {
  const drivers = new Drivers(io.cwd())
  await drivers.importAll()
  const findings = await Promise.all(registrations().map(examine))
  for (const { package: name, error } of drivers.failures) {
    findings.push({ driver: '-', package: name, usable: false, reason: error.message })
  }
  const contract = `${CONTRACT.major}.${CONTRACT.minor}`
  if (flags.json) {
    printJson(io, {
      node: process.version,
      platform: `${process.platform} ${process.arch}`,
      contract,
      drivers: findings,
    })
  } else {
    io.stdout.write(`node ${process.version}, ${process.platform} ${process.arch}, contract ${contract}\n`)
    for (const finding of findings) io.stdout.write(described(finding))
    if (findings.length === 0)
      io.stdout.write('No driver is installed: npm install @microvmi/driver-kvm, for example.\n')
  }
  return findings.length > 0 && findings.every(({ usable }) => usable)
}

async function examine({ driver, problem }: ReturnType<typeof registrations>[number]): Promise<Finding> {
  if (problem) return { driver: driver.scheme, package: driver.package, usable: false, reason: problem.message }
  const { major, minor } = driver.contract
  const base = { driver: driver.scheme, package: driver.package, contract: `${major}.${minor}` }
  try {
    const probe = await Promise.race([driver.probe(), giveUp()])
    return probe.usable ? { ...base, ...probe } : { ...base, usable: false, reason: probe.reason }
  } catch (error) {
    return { ...base, usable: false, reason: error instanceof Error ? error.message : String(error) }
  }
}

async function giveUp(): Promise<{ usable: false; reason: string }> {
  await setTimeout(PROBE_DEADLINE, undefined, { ref: false })
  return { usable: false, reason: `its probe did not answer within ${PROBE_DEADLINE / 1000} s` }
}

function described({ driver, package: name, contract, usable, reason, details = {} }: Finding): string {
  const facts = Object.entries(details).map(([key, value]) => `    ${key}: ${value}\n`)
  const state = usable ? 'can be used' : `cannot be used: ${reason}`
  const written = contract === undefined ? '' : `  contract ${contract}`
  return `\n${driver}  ${name}${written}\n    ${state}\n${facts.join('')}`
}
