import type { RegisterChanges, Registers } from '@microvmi/core'
import type { RegisterBackend } from '@microvmi/core/driver'
import { backends, changed, type Mutation, part } from './break-driver.testing.ts'

/** A driver that reads registers otherwise. */
function reading(change: (read: Registers, vcpu: number, registers: RegisterBackend) => Registers): Mutation['breaks'] {
  return part('registers', (registers) => ({ read: (vcpu) => change(registers.read(vcpu), vcpu, registers) }))
}

/** A driver that writes registers otherwise. */
function writing(
  change: (changes: RegisterChanges, vcpu: number, write: NonNullable<RegisterBackend['write']>) => void,
): Mutation['breaks'] {
  return part('registers', (registers) => ({
    write: (vcpu, changes) => change(changes, vcpu, (number, some) => registers.write?.(number, some)),
  }))
}

function without(changes: RegisterChanges, name: keyof RegisterChanges): RegisterChanges {
  return Object.fromEntries(Object.entries(changes).filter(([one]) => one !== name))
}

/** Pauses that never end. */
const stuck: Mutation['breaks'] = part('running', () => ({ resume() {} }))

/** For each case about registers and the run state, a driver that it catches. */
export const brokenState: Readonly<Record<string, Mutation>> = {
  'registers: reads: every vCPU has its registers, and no other has': {
    how: 'r15 is not given',
    breaks: reading((read) => ({ ...read, r15: undefined as unknown as bigint })),
    says: /r15 of vcpu 0 is no unsigned 64-bit bigint/,
  },
  'registers: reads: CR3 points into memory': {
    how: 'CR3 is not known, and given as 0',
    breaks: reading((read) => ({ ...read, cr3: 0n })),
    says: /CR3 of vcpu 0 is 0x0 though paging is on/,
  },
  'registers: reads: what is not known is undefined, never 0': {
    how: 'EFER is not known, and given as 0',
    breaks: reading((read) => ({ ...read, efer: 0n })),
    says: /efer of vcpu 0 is 0x0 though it runs in long mode/,
  },
  'registers: reads: what this driver cannot give is undefined': {
    how: 'a register that is not known is given as 0',
    breaks: reading((read) => ({ ...read, tsc: 0n })),
    says: /tsc, which this driver cannot know, is 0x0, not undefined/,
  },
  'registers: reads: what is known from elsewhere': {
    how: 'rbx and rcx are taken for each other',
    breaks: reading((read) => ({ ...read, rbx: read.rcx, rcx: read.rbx })),
    says: /r[bc]x of vcpu \d is '/,
  },
  'registers: reads: the same while the guest stands still': {
    how: 'rip goes on by itself',
    breaks: part('registers', (registers) => {
      let reads = 0n
      return { read: (vcpu) => ({ ...registers.read(vcpu), rip: 0x1000n + reads++ }) }
    }),
    says: /rip of vcpu 0 that is paused/,
  },
  'registers: reads: each vCPU has its own': {
    how: 'the number of the vCPU is ignored',
    breaks: part('registers', (registers) => ({ read: () => registers.read(0) })),
    says: /is the number of the vCPU ignored\?/,
  },
  'registers: reads: wherever it is read, the run state stays': {
    how: 'the VM is stopped to read registers, and stays so',
    breaks: part('registers', (registers, { running }) => ({
      read: (vcpu) => {
        running?.pause()
        return registers.read(vcpu)
      },
    })),
    says: /the run state after readRegisters\(\) is 'paused'/,
  },
  'registers: writes: what is written reads back': {
    how: 'r15 is not written',
    breaks: writing((changes, vcpu, write) => write(vcpu, without(changes, 'r15'))),
    says: /r15 of vcpu 0, which was written,/,
  },
  'registers: writes: the others stay as they are': {
    how: 'cr2 is written, too',
    breaks: writing((changes, vcpu, write) => write(vcpu, { cr2: 0x5a5an, ...changes })),
    says: /cr2 of vcpu 0 when only \w+ was written/,
  },
  'registers: writes: the other vCPUs keep theirs': {
    how: 'every vCPU is written',
    breaks: writing((changes, _, write) => {
      for (const vcpu of [0, 1]) write(vcpu, changes)
    }),
    says: /of vcpu 0 when vcpu 1 was written/,
  },
  'registers: writes: every register that is called writable is': {
    how: 'cr2 is called writable and is not',
    breaks: writing((changes, vcpu, write) => write(vcpu, without(changes, 'cr2'))),
    says: /cr2 of vcpu 0 when cr2 was written/,
  },
  'registers: writes: one that is refused is refused before anything is written': {
    how: 'everything is called writable',
    breaks: part('registers', (registers) => ({
      writable: new (class extends Set<never> {
        override has = () => true
      })(),
      write: (vcpu, changes) => {
        const known = Object.entries(changes).filter(([name]) => !name.includes(' '))
        registers.write?.(vcpu, Object.fromEntries(known))
      },
    })),
    says: /no general register can be written|does not throw UNSUPPORTED/,
  },
  'registers: model-specific: agree with the other registers': {
    how: "an MSR is that of its index's low 16 bits",
    breaks: part('msr', (msr) => ({ read: (vcpu, index) => (index > 0xffff ? 0n : msr.read(vcpu, index)) })),
    says: /which is efer, is 0x0/,
  },
  'registers: model-specific: one that is not given is refused': {
    how: 'an MSR that is not known is 0',
    breaks: part('msr', () => ({ read: () => 0n })),
    says: /readMsr\(0, 0x77777777\) does not throw UNSUPPORTED/,
  },
  'registers: model-specific: what is written reads back': {
    how: 'MSRs are not written',
    breaks: part('msr', () => ({ write() {} })),
    says: /which was written,/,
  },
  'pause: the guest stands still until the lease ends': {
    how: 'a pause is noted, and not made',
    breaks: part('running', () => {
      let state: 'running' | 'paused' = 'running'
      return {
        pause: () => {
          state = 'paused'
        },
        resume: () => {
          state = 'running'
        },
        state: () => state,
      }
    }),
    says: /makes progress while it is paused/,
  },
  'pause: paused twice, it goes on after the second end': {
    how: 'it does not go on',
    breaks: stuck,
    says: /makes no progress after two pauses/,
  },
  'pause: a lease is ended once, and by its owner only': {
    how: 'it can be paused once',
    breaks: part('running', (running) => {
      let pauses = 0
      return {
        pause: () => {
          pauses += 1
          if (pauses === 1) running.pause()
        },
      }
    }),
    says: /makes progress when another's lease was ended twice/,
  },
  'pause: fifty pauses in a row': {
    how: 'from the tenth pause on it does not go on',
    breaks: part('running', (running) => {
      let resumes = 0
      return {
        resume: () => {
          resumes += 1
          if (resumes < 10) running.resume()
        },
      }
    }),
    says: /makes no progress after 50 pauses/,
  },
  'pause: a lease leaves the run state as it found it': {
    how: 'a VM that was paused before goes on after a lease',
    breaks: part('running', (running) => ({
      resume: () => {
        running.resume()
        running.setState('running')
      },
    })),
    says: /the run state after a lease on a VM that was paused before is 'running'/,
  },
  'pause: close ends the leases': {
    how: 'close leaves the VM paused',
    breaks: backends((backend) =>
      changed(backend, {
        release() {
          backend.release()
          backend.running?.setState('paused')
        },
      }),
    ),
    says: /makes no progress after a close with leases held/,
  },
  'run state: stops and starts the guest': {
    how: 'setState does nothing',
    breaks: part('running', () => ({ setState() {} })),
    says: /the run state after setRunState\('paused'\) is 'running'/,
  },
  'run state: is refused while a lease is held': {
    how: 'after a pause, setState does nothing',
    breaks: part('running', (running) => {
      let paused = false
      return {
        pause: () => {
          paused = true
          running.pause()
        },
        setState: (state) => {
          if (!paused) running.setState(state)
        },
      }
    }),
    says: /makes progress after setRunState\('paused'\) behind a lease/,
  },
  'run state: outlasts the session': {
    how: 'close lets the VM go on',
    breaks: backends((backend) =>
      changed(backend, {
        release() {
          backend.release()
          backend.running?.setState('running')
        },
      }),
    ),
    says: /the run state that the session before has set is 'running'/,
  },
  'run state: is the same after every other call': {
    how: 'regions() lets a paused VM go on',
    breaks: part('memory', (memory, { running }) => ({
      layout: () => {
        running?.setState('running')
        return memory.layout?.() ?? { generation: 0, ranges: [] }
      },
    })),
    says: /the run state after regions\(\) on a VM that is paused is 'running'/,
  },
}
