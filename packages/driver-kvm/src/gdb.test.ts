import fc from 'fast-check'
import { expect, test } from 'vitest'
import { includesOf, parseTargetDescription } from './target-description.ts'

const failing = expect.objectContaining({ code: 'PROTOCOL' })

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
