import { complete, dataOf } from './complete.ts'
import { onlyKernel } from './exceptions.ts'
import { RAX } from './instructions.ts'
import type { Processor } from './processor.ts'

/** in8 and in32: to al and eax. */
export function input(processor: Processor, port: number, size: 1 | 4): void {
  const { vcpu, platform } = processor
  onlyKernel(vcpu)
  const wanted = (request: { readonly port?: number }) => request.port === undefined || request.port === port
  complete(processor, 'io', 2, { port, size, direction: 'in' }, wanted, (parts) => {
    const value = dataOf(parts)
      ?.slice(0, size)
      .reduceRight((sum, byte) => sum * 256 + byte, 0)
    const read = value ?? platform.portRead(vcpu, port) ?? 2 ** (8 * size) - 1
    if (size === 1) vcpu.set(RAX, ((vcpu.low(RAX) & ~0xff) | (read & 0xff)) >>> 0, vcpu.high(RAX))
    else vcpu.set(RAX, read >>> 0, 0)
  })
}

/** out8 and out32: from al and eax. */
export function output(processor: Processor, port: number, size: 1 | 4): void {
  const { vcpu, platform } = processor
  onlyKernel(vcpu)
  const wanted = (request: { readonly port?: number }) => request.port === undefined || request.port === port
  const value = size === 1 ? vcpu.low(RAX) & 0xff : vcpu.low(RAX)
  complete(processor, 'io', 2, { port, size, direction: 'out' }, wanted, () => platform.portWrite(port, value))
}
