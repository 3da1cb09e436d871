import type { Registers, VmBase } from '@microvmi/core'
import type { DumpProgress } from '@microvmi/dump'

/** A headline. */
export function title(text: string): void {
  console.log(`\n${text}\n${'-'.repeat(text.length)}`)
}

/** What is known of a VM. */
export function describe(vm: VmBase): void {
  const { driver, hypervisor, details, warnings } = vm.info
  console.log(`${vm.name} (${vm.id}) through driver '${driver}' on ${hypervisor}, ${vm.vcpuCount} vCPUs`)
  for (const [name, value] of Object.entries(details)) console.log(`  ${name}: ${value}`)
  for (const warning of warnings) console.log(`  warning: ${warning}`)
}

/** Some registers on a line. */
export function registers(vcpu: number, { rip, rsp, cr3, rflags }: Registers): void {
  const hex = (value: bigint) => value.toString(16).padStart(16, '0')
  console.log(`vcpu ${vcpu}  rip ${hex(rip)}  rsp ${hex(rsp)}  cr3 ${hex(cr3)}  rflags ${rflags.toString(16)}`)
}

/** A progress line that redraws itself on a terminal, and is printed once at the end elsewhere. */
export function progress({ done, total, elapsed }: DumpProgress): void {
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0)
  const rate = elapsed > 0 ? `${mib((done / elapsed) * 1000)} MiB/s` : ''
  const line = `${mib(done)} of ${mib(total)} MiB  ${rate}`
  if (process.stdout.isTTY) process.stdout.write(`\r${line}${done === total ? '\n' : ''}`)
  else if (done === total) console.log(line)
}
