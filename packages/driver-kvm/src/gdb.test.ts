import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodePacket, PACKET_LIMIT, PacketReader } from './gdb-packet.ts'
import { includesOf, parseTargetDescription } from './target-description.ts'

const failing = expect.objectContaining({ code: 'PROTOCOL' })
const bytes = (text: string) => Buffer.from(text, 'latin1')

function read(...parts: string[]): string[] {
  const reader = new PacketReader()
  const packets: string[] = []
  for (const part of parts) {
    reader.push(bytes(part))
    for (let packet = reader.next(); packet !== undefined; packet = reader.next()) packets.push(packet)
  }
  return packets
}

test('packets as in the manual', () => {
  expect(encodePacket('g')).toBe('$g#67')
  expect(encodePacket('')).toBe('$#00')
  expect(read('+$OK#9a+', '-$T05thread:p01.01;', '#06')).toEqual(['OK', 'T05thread:p01.01;'])
})

test('escapes and repetitions', () => {
  const data = '0* '
  expect(read(encodePacket(data))).toEqual(['0000'])
  expect(read(encodePacket('a}\x03b'))).toEqual(['a#b'])
  expect(() => read(encodePacket('* '))).toThrow(failing)
})

test('a wrong checksum, something else than a packet, a packet without end', () => {
  expect(() => read('$OK#9b')).toThrow(failing)
  expect(() => read('OK')).toThrow(failing)
  expect(() => read(`$${'x'.repeat(PACKET_LIMIT + 10)}`)).toThrow(failing)
})

test('however a packet arrives, it is the same; whatever arrives, nothing else is thrown', () => {
  const data = fc.stringMatching(/^[0-9a-zA-Z;:,=.]*$/)
  fc.assert(
    fc.property(data, fc.nat(200), (data, at) => {
      const packet = encodePacket(data)
      expect(read(packet.slice(0, at), packet.slice(at))).toEqual([data])
    }),
  )
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary', maxLength: 30 })), (parts) => {
      try {
        read(...parts)
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
    { numRuns: 1000 },
  )
})

test('registers are numbered without those that are commented out', () => {
  const core = `<feature name="org.gnu.gdb.i386.core">
    <reg name="rax" bitsize="64" type="int64"/>
    <!-- <reg name="cs_base" bitsize="64"/> -->
    <reg name="rip" bitsize="64" type="code_ptr" regnum="16"/>
    <reg name="eflags" bitsize="32" type="i386_eflags"/>
  </feature>`
  const registers = parseTargetDescription([core, '<reg name="cr0" bitsize="64"/>'])
  expect([...registers.values()].map(({ name, number }) => [name, number])).toEqual([
    ['rax', 0],
    ['rip', 16],
    ['eflags', 17],
    ['cr0', 18],
  ])
  expect(includesOf('<target><xi:include href="a.xml"/><!-- <xi:include href="b.xml"/> --></target>')).toEqual([
    'a.xml',
  ])
})

test.each([
  '<reg name="rax" bitsize="0"/>',
  '<reg name="rax" bitsize="many"/>',
  '<reg bitsize="64"/>',
  '<reg name="rax" bitsize="64" regnum="-1"/>',
  '<reg name="rax" bitsize="64" regnum="1000000"/>',
  '<reg name="rax" bitsize="64"/><reg name="rax" bitsize="64"/>',
])('%s is a lie', (xml) => {
  expect(() => parseTargetDescription([xml])).toThrow(failing)
})

test('whatever the description, there are registers or a PROTOCOL error', () => {
  const attribute = fc.tuple(
    fc.constantFrom('name', 'bitsize', 'regnum', 'x'),
    fc.oneof(fc.string(), fc.nat().map(String)),
  )
  const element = fc
    .array(attribute)
    .map((all) => `<reg ${all.map(([name, value]) => `${name}="${value}"`).join(' ')}/>`)
  fc.assert(
    fc.property(fc.array(fc.oneof(element, fc.string())), (documents) => {
      try {
        parseTargetDescription(documents)
      } catch (error) {
        expect(error).toMatchObject({ code: 'PROTOCOL' })
      }
    }),
  )
})
