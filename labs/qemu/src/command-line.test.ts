import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { commandOf, UsageError } from './command-line.ts'

test('up with all that it takes', () => {
  const words = 'up --name n --vcpus 2 --memory 256 --ram memfd --machine pc --cpu max --gdb --paused'.split(' ')
  expect(commandOf(words)).toEqual({
    name: 'up',
    options: { name: 'n', vcpus: 2, memoryMiB: 256, ram: 'memfd', machine: 'pc', cpu: 'max', gdb: true, paused: true },
  })
  expect(commandOf(['up'])).toEqual({ name: 'up', options: { gdb: false, paused: false } })
  expect(commandOf(['status'])).toEqual({ name: 'status' })
  expect(commandOf(['down'])).toEqual({ name: 'down' })
})

test.each([
  ['', 'what is to be done?'],
  ['sideways', 'there is no command sideways'],
  ['up down', 'there is nothing to do with down'],
  ['down --gdb', 'down takes no --gdb'],
  ['up --nonsense', '--nonsense'],
  ['up --vcpus', '--vcpus'],
  ['up --vcpus 0', '--vcpus takes a number from 1 to 64, not "0"'],
  ['up --vcpus 1e1', 'not "1e1"'],
  ['up --memory 64', '--memory takes a number from 128'],
  ['up --memory 0x200', 'not "0x200"'],
  ['up --ram disk', '--ram takes file, memfd, private, not "disk"'],
  ['up --machine isapc', '--machine takes q35, pc, not "isapc"'],
])('"%s" is refused', (line, message) => {
  const words = line.split(' ').filter(Boolean)
  expect(() => commandOf(words)).toThrow(UsageError)
  expect(() => commandOf(words)).toThrow(message)
})

test('whatever is written, it is a command or a wrong use', () => {
  const word = fc.oneof(
    fc.constantFrom('up', 'down', 'status', '--name', '--vcpus', '--ram=file', '--gdb', '--', '-x', '4'),
    fc.string(),
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (words) => {
      try {
        expect(['up', 'down', 'status']).toContain(commandOf(words).name)
      } catch (error) {
        expect(error).toBeInstanceOf(UsageError)
      }
    }),
  )
})

test('the program ends with 2 and says how it is used', () => {
  const main = fileURLToPath(new URL('./main.ts', import.meta.url))
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', main, 'up', '--vcpus', 'many'], {
    encoding: 'utf8',
  })
  expect(status).toBe(2)
  expect(stderr).toMatch(/^--vcpus takes a number from 1 to 64, not "many"\n\nusage: /)
})
