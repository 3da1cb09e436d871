import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseCommandLine } from './discovery.ts'

const parse = (...args: string[]) => parseCommandLine(['/usr/bin/qemu-system-x86_64', ...args], 42, '/run/vm')

test.each([
  [['-name', 'debian'], 'debian'],
  [['-name', 'guest=my vm,debug-threads=on'], 'my vm'],
  [['--name', 'a,,b,process=x'], 'a,b'],
  [['-name', 'guest=Ünïcode #1?/../x'], 'Ünïcode #1?/../x'],
  [[], '42'],
])('the name in %j', (args, name) => {
  expect(parse(...args).name).toBe(name)
})

test('QMP sockets in all their forms, relative paths from where QEMU runs', () => {
  expect(
    parse(
      ...[
        '-qmp',
        'unix:/run/a,server=on,wait=off',
        '-qmp-pretty',
        'unix:b.sock,server,nowait',
        '-qmp',
        'tcp:127.0.0.1:4444,server',
      ],
      ...['-chardev', 'socket,id=mon,path=/run/c,,d,server=on,wait=off', '-mon', 'chardev=mon,mode=control'],
      ...[
        '-chardev',
        'socket,id=hmp,path=/run/hmp',
        '-mon',
        'chardev=hmp,mode=readline',
        '-monitor',
        'unix:/run/human',
      ],
    ),
  ).toMatchObject({ qmp: ['/run/a', '/run/vm/b.sock', '/run/c,d'], hasOtherQmp: true })
})

test("libvirt's monitor at an inherited descriptor has no path", () => {
  const args = [
    '-chardev',
    'socket,id=charmonitor,fd=23,server=on,wait=off',
    '-mon',
    'chardev=charmonitor,id=monitor,mode=control',
  ]
  expect(parse(...args)).toMatchObject({ qmp: [], hasOtherQmp: true })
})

test('whatever the command line, it is read', () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom('-qmp', '-name', '-chardev', '-mon', 'unix:', ',', '=', 'socket,id=,path='),
  )
  fc.assert(
    fc.property(fc.array(word), (args) => {
      expect(parseCommandLine(args, 1, '/').name).toBeTypeOf('string')
    }),
  )
})
