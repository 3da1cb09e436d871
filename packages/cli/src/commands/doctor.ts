import { CONTRACT, registrations } from '@microvmi/core'
import { Drivers } from '../drivers.ts'
import type { Io } from '../io.ts'
import { printJson } from '../json.ts'

interface Finding {
  readonly driver: string
  readonly package: string
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
  const base = { driver: driver.scheme, package: driver.package }
  if (problem) return { ...base, usable: false, reason: problem.message }
  const probe = await driver.probe()
  return probe.usable ? { ...base, ...probe } : { ...base, usable: false, reason: probe.reason }
}

function described({ driver, package: name, usable, reason, details = {} }: Finding): string {
  const facts = Object.entries(details).map(([key, value]) => `    ${key}: ${value}\n`)
  const state = usable ? 'can be used' : `cannot be used: ${reason}`
  return `\n${driver}  ${name}\n    ${state}\n${facts.join('')}`
}
