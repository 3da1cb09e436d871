import { type MemoryRange, MicrovmiError, PAGE_SIZE } from '@microvmi/core/driver'

/** A line of `VBoxManage list vms`. */
export interface RegisteredVm {
  readonly name: string
  readonly uuid: string
}

/**
 * `"name" {uuid}`, the name as it is: it may hold quotes and braces itself, and separators that are no line ends here
 * (U+2028). Other lines are not of VMs.
 */
export function parseVms(text: string): RegisteredVm[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const [, name, uuid] = /^"(.*)" \{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}$/is.exec(line) ?? []
    return name === undefined || uuid === undefined ? [] : [{ name, uuid: uuid.toLowerCase() }]
  })
}

/**
 * `showvminfo --machinereadable`: `key=value` and `"key"="value"`, with a backslash before quotes and backslashes
 * (VBoxManageInfo.cpp, outputMachineReadableString).
 */
export function parseInfo(text: string): Map<string, string> {
  const values = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const [, quoted, plain, value] = /^(?:"(.*?)"|([^"=]+))=(.*)$/s.exec(line) ?? []
    const key = quoted ?? plain
    if (key === undefined || value === undefined) continue
    const [, inQuotes] = /^"(.*)"$/s.exec(value) ?? []
    values.set(key, inQuotes?.replaceAll(/\\(["\\])/g, '$1') ?? value)
  }
  return values
}

/** A number of `showvminfo`, within bounds; throws `PROTOCOL`. */
export function numberIn(info: ReadonlyMap<string, string>, key: string, most: number): number {
  const text = info.get(key)
  const value = text !== undefined && /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (value >= 1 && value <= most) return value
  throw new MicrovmiError('PROTOCOL', `VBoxManage says ${key}=${text}: is this a VirtualBox of another version?`)
}

/**
 * `debugvm … getregisters all`: `cpu0.rax = 0x…`, of every vCPU, whichever was asked for. What is no number of at most
 * 64 bits (vector registers, `base:limit`) is left out.
 */
export function parseRegisters(text: string, vcpu: number): Map<string, bigint> {
  const values = new Map<string, bigint>()
  for (const line of text.split(/\r?\n/)) {
    const [, of, name, digits] = /^cpu(\d+)\.([a-z_0-9]+)\s*=\s*0x([0-9a-f]{1,16})$/i.exec(line.trim()) ?? []
    if (name !== undefined && digits !== undefined && Number(of) === vcpu) values.set(name, BigInt(`0x${digits}`))
  }
  return values
}

/** Names of ranges that the guest's writes go nowhere in. */
const READ_ONLY = /BIOS|ROM|RSDP|DMI/

/**
 * `info phys`: `first-last host-address name`, addresses in hexadecimal. A range that VirtualBox keeps no memory for is
 * a device's registers, and not memory.
 */
export function parsePhysical(text: string): MemoryRange[] {
  const ranges: MemoryRange[] = []
  for (const line of text.split(/\r?\n/)) {
    const [, first = '', last = '', host = '', name = ''] =
      /^([0-9a-f]{16})-([0-9a-f]{16}) ([0-9a-f]{16}) (.*)$/i.exec(line) ?? []
    const [start, end] = [Number(`0x${first}`), Number(`0x${last}`) + 1]
    const isMemory = first !== '' && !/^0+$/.test(host)
    if (!isMemory) continue
    if (start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0 || end <= start || end > 2 ** 52) {
      throw new MicrovmiError('PROTOCOL', `VirtualBox names a range of memory from 0x${first} to 0x${last}`)
    }
    ranges.push({ start, length: end - start, kind: READ_ONLY.test(name) ? 'rom' : 'ram' })
  }
  return merged(ranges.sort((one, other) => one.start - other.start))
}

/** Neighbours of one kind become one; throws `PROTOCOL` for ranges that overlap. */
function merged(ranges: readonly MemoryRange[]): MemoryRange[] {
  const result: MemoryRange[] = []
  for (const range of ranges) {
    const last = result.at(-1)
    const end = last ? last.start + last.length : 0
    if (last && range.start < end) {
      throw new MicrovmiError('PROTOCOL', `two ranges of memory have 0x${range.start.toString(16)}`)
    }
    if (last && range.start === end && last.kind === range.kind) {
      result.splice(-1, 1, { ...last, length: last.length + range.length })
    } else {
      result.push(range)
    }
  }
  return result
}
