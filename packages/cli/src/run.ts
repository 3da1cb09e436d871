import { readFileSync } from 'node:fs'
import { MicrovmiError } from '@microvmi/core'
import { Command, CommanderError } from 'commander'
import { EXIT, exitCodeOf } from './exit-code.ts'
import type { Io } from './io.ts'
import { parseBytes, parseCount, parseNumber } from './numbers.ts'
import { Interrupted } from './session.ts'

const TARGET = 'a VM: kvm:debian, or its plain name where only one driver lists it'

const EXAMPLES = `
Examples:
  $ microvmi list                                  the VMs of this host
  $ microvmi info kvm:debian                       how it is reached, what it can do
  $ microvmi dump debian memory.raw --sha256       all of its memory, paused meanwhile
  $ microvmi regs debian --vcpu 0
  $ microvmi read debian 0x100000 256              as hexdump -C
  $ microvmi write debian 0x100000 --hex 'de ad'
  $ microvmi watch debian cr3 --count 10           process switches
  $ microvmi doctor                                what is missing, and what to do

A target is scheme:name, with options behind a question mark: kvm:debian?timeout=2000.
In a name, write ? as %3f and % as %25.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such VM or driver, 4 not allowed or not
possible here, 5 not now (busy, timed out, gone), 128 + n ended by signal n.`

/** Runs one command line; resolves to its exit code. Nothing is thrown. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  let exitCode: number = EXIT.ok
  const program = createProgram(io, (code) => {
    exitCode = code
  })
  try {
    await program.parseAsync(argv, { from: 'user' })
    return exitCode
  } catch (error) {
    if (error instanceof Interrupted) return error.exitCode
    // Commander has printed its own message; help and version are no failures.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    if (error instanceof MicrovmiError) {
      io.stderr.write(`microvmi: ${error.message} [${error.code}]\n`)
      return exitCodeOf(error.code)
    }
    io.stderr.write(`microvmi: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
    return EXIT.failure
  }
}

function createProgram(io: Io, setExitCode: (code: number) => void): Command {
  const program = new Command('microvmi')
    .description('Looks into virtual machines from outside: memory, registers, events.')
    .version(version())
    .addHelpText('after', EXAMPLES)
    .showHelpAfterError('(microvmi --help, or microvmi COMMAND --help, tells more)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    })

  /** A command on one VM. Modules are loaded when they are run: start-up is part of every dump. */
  const onVm = (name: string, description: string): Command =>
    program
      .command(name)
      .description(description)
      .argument('<target>', TARGET)
      .option('--timeout <ms>', 'milliseconds that one exchange with the hypervisor may take', parseCount)
      .option('--json', 'print JSON; registers and virtual addresses as strings such as "0xffffffff81000000"')

  program
    .command('list')
    .description('list the VMs that the installed drivers see')
    .option('--timeout <ms>', 'milliseconds for the whole listing', parseCount)
    .option('--json', 'print JSON')
    .action(async (flags) => (await import('./commands/list.ts')).listCommand(io, flags))

  onVm('info', 'tell what a VM is, how it is reached and what it can do').action(async (target, flags) =>
    (await import('./commands/info.ts')).infoCommand(io, target, flags),
  )

  onVm('dump', "write a VM's memory to a file: the byte at offset N is the byte at address N")
    .argument('<file>', 'where to; - is stdout')
    .option('--no-sparse', 'write zeros out too')
    .option('--no-pause', 'let the VM run meanwhile: the image is of no one moment')
    .option('--overwrite', 'replace a file that is there')
    .option('--sha256', 'print the SHA-256 of the image')
    .action(async (target, file, flags) => (await import('./commands/dump.ts')).dumpCommand(io, target, file, flags))

  onVm('regs', "print a VM's registers")
    .option('--vcpu <n>', 'only this vCPU, from 0 on', parseCount)
    .action(async (target, flags) => (await import('./commands/regs.ts')).regsCommand(io, target, flags))

  onVm('read', 'print guest-physical memory')
    .argument('<address>', 'first guest-physical address', parseNumber)
    .argument('<length>', 'how many bytes: 256, 0x100, 64k', parseNumber)
    .option('--raw', 'the bytes themselves, for a file or another program')
    .action(async (target, address, length, flags) =>
      (await import('./commands/read.ts')).readCommand(io, target, address, length, flags),
    )

  onVm('write', 'write guest-physical memory, from --hex, --file or stdin')
    .argument('<address>', 'first guest-physical address', parseNumber)
    .option('--hex <bytes>', "the bytes: 'de ad be ef'", parseBytes)
    .option('--file <file>', 'take the bytes from a file')
    .action(async (target, address, flags) =>
      (await import('./commands/write.ts')).writeCommand(io, target, address, flags),
    )

  onVm('pause', 'stop a VM; it stays stopped until it is resumed').action(async (target, flags) =>
    (await import('./commands/run-state.ts')).runStateCommand(io, target, 'paused', flags),
  )

  onVm('resume', 'let a VM run that is paused').action(async (target, flags) =>
    (await import('./commands/run-state.ts')).runStateCommand(io, target, 'running', flags),
  )

  onVm('watch', 'print events as they happen, until Ctrl-C')
    .argument('<event...>', 'cr0, cr3, cr4, xcr0, msr:INDEX, breakpoint:ADDRESS, int3, cpuid, hypercall, lifecycle')
    .option('--count <n>', 'end after so many events', parseCount)
    .option('--seconds <n>', 'end after so many seconds', parseCount)
    .action(async (target, events, flags) =>
      (await import('./commands/watch.ts')).watchCommand(io, target, events, flags),
    )

  program
    .command('doctor')
    .description('tell which drivers are installed, whether they can work here, and what is missing')
    .option('--json', 'print JSON')
    .action(async (flags) => {
      const isWell = await (await import('./commands/doctor.ts')).doctorCommand(io, flags)
      if (!isWell) setExitCode(EXIT.notAllowed)
    })

  return program
}

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
  return manifest.version
}
